"""What a journal may say, record by record: anything else ends what is read of it.

A checksum tells a torn line, not one that is doubled, missing, moved or written by something else.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

FORMAT_VERSION = 1
_MOST = 2**63  # nothing that a run counts gets there, and a float cannot hold every larger one

Record = Mapping[str, Any]


class Order:
    """Checks the records of a journal in their order; `next_step` is the step that must follow."""

    def __init__(self) -> None:
        self.next_step: int | None = None  # no record came yet

    def check(self, record: Record) -> None:
        """Accept the next record; of a kind that is not known only that it has one.

        Raises:
          ValueError: it cannot follow those before it, or lacks what readers ask of its kind.
        """
        kind = record.get("kind")
        _check_sizes(record, lists=kind == "memory")
        if self.next_step is None:
            _need(kind == "start", "the first record is not the start of a run")
            self.next_step = 0
            _check_start(record)
            return
        _need(isinstance(kind, str) and kind != "start", "a record that no journal goes on with")
        step = record.get("step", 0)
        _need(type(step) is int and -1 <= step <= self.next_step, "a record of a later step")
        if kind == "step":
            _need(_whole(record.get("step"), self.next_step), "a step that does not follow")
            _check_step(record)
            self.next_step += 1
        elif kind == "resume":
            _need(_whole(record.get("step"), self.next_step), "a resume of another step")
            _need(isinstance(record.get("changes", {}), dict), "changes")
            _need(_number(record.get("seconds", 0.0)), "seconds")
            given = record.get("time_seconds")
            _need(given is None or _number(given), "time")
        elif kind == "extend":
            _need(_whole(record.get("step"), self.next_step), "an extension of another step")
            _need(_whole(record.get("steps")) and record["steps"] > self.next_step, "steps")
        elif kind == "fit":
            _need(_whole(record.get("step"), self.next_step), "a fit of another step")
            _need(_whole(record.get("steps")) and record["steps"] >= self.next_step, "steps")
            for name in ("used_seconds", "reserve_seconds"):
                _need(_number(record.get(name, 0.0)), name)
        elif kind == "end":
            ended = record.get(
                "step", self.next_step
            )  # a last step that is missing is trained again
            _need(_whole(ended, self.next_step), "an end of another step")
            _check_end(record)
        elif kind == "event":
            _need(isinstance(record.get("text"), str), "text")
            _need(_number(record.get("seconds", 0.0)), "seconds")
            _need(_number(record.get("predicted_seconds", 0.0)), "predicted seconds")
            _need(isinstance(record.get("changes", {}), dict), "changes")


def _check_sizes(record: Record, lists: bool) -> None:
    """Refuse sizes that count nothing, whatever the kind of the record.

    Args:
      lists: they are those of stretches of time, as many each, with when they began.
    """
    for name, value in record.items():
        if name.endswith("_bytes"):
            _need(_stretches(value, _whole) if lists else _size(value), name)
    if lists:
        every = [record.get(name, ()) for name in ("seconds", "held_bytes", "anon_bytes")]
        every += [record["gpu_bytes"]] if "gpu_bytes" in record else []
        _need(_stretches(every[0], _number), "seconds")
        _need(len({len(values) for values in every}) == 1, "stretches")


def _check_start(record: Record) -> None:
    version = record.get("version", 0)
    _need(_whole(version), "version")
    if version > FORMAT_VERSION:
        return  # the reader refuses it by that number
    _need(_whole(record.get("rules", 1)), "rules")
    facts = record.get("facts", {})
    _need(isinstance(facts, dict), "facts")
    _check_sizes(facts, lists=False)
    _need(_size(facts.get("threads")), "threads")
    threads = record.get("threads") or {}
    _need(isinstance(threads, dict) and _size(threads.get("most")), "threads")
    _need(_number(facts.get("predicted_seconds", 0.0)), "predicted seconds")
    _need(isinstance(facts.get("smaller", {}), dict), "smaller")
    _need(isinstance(facts.get("versions", {}), dict), "versions")
    _need(record.get("eval") is None or _number(record["eval"]), "eval")
    _need(_number(record.get("seconds", 0.0)), "seconds")
    _need(_whole(record.get("forwards", 0)), "forwards")
    _need(_number(facts.get("time_seconds", 0.0)), "time")
    recipe = record.get("recipe", {"sha256": "", "values": {}})
    _need(isinstance(recipe, dict) and isinstance(recipe.get("sha256"), str), "recipe")
    for name in ("values", "others"):
        _need(isinstance(recipe.get(name, {}), dict), "recipe")
    check = record.get("slope_check")
    _need(check is None or (isinstance(check, dict) and _number(check.get("epsilon"))), "epsilon")


def _check_step(record: Record) -> None:
    _need(record.keys() >= {"loss", "eval"}, "a step without its numbers")
    for name in ("loss", "eval", "gradient_norm"):
        value = record.get(name)
        _need(value is None or _number(value), name)
    scalars = record.get("scalars", [])
    _need(isinstance(scalars, list) and all(map(_number, scalars)), "scalars")
    losses = record.get("block_losses", [])
    _need(isinstance(losses, list), "block_losses")
    _need(all(loss is None or _number(loss) for loss in losses), "block_losses")
    for name in ("forwards", "backwards", "peak_bytes", "resident_bytes"):  # all are there
        _need(_whole(record.get(name)), name)
    _need(_number(record.get("seconds")), "seconds")
    skipped = record.get("skipped")
    _need(skipped is None or isinstance(skipped, str), "skipped")


def _check_end(record: Record) -> None:
    _need(isinstance(record.get("status"), str), "status")
    _need(_number(record.get("seconds_total")), "seconds_total")
    _need(_number(record.get("joules", 0.0)), "joules")
    _need(isinstance(record.get("joules_from", ""), str), "joules")
    _need(isinstance(record.get("metrics", {}), dict), "metrics")
    for name in ("weights_passes", "weights_evaluations"):
        _need(_number(record.get(name, 0)), name)
    _need(isinstance(record.get("weights_order", ""), str), "weights_order")
    outputs = record.get("outputs", {})
    _need(isinstance(outputs, dict) and all(isinstance(v, str) for v in outputs.values()), "files")
    _need(isinstance(record.get("history", ""), str), "history")
    hashes = record.get("sha256", {})
    _need(isinstance(hashes, dict) and all(map(_inside, hashes)), "files")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _inside(name: str) -> bool:
    """Return whether the name of a file cannot lead out of the run folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _whole(value: Any, wanted: int | None = None) -> bool:
    """Return whether a value is a whole number that counts something."""
    return type(value) is int and 0 <= value < _MOST and wanted in (None, value)


def _number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < _MOST
    return type(value) is float and math.isfinite(value)


def _stretches(values: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(map(holds, values))


def _size(value: Any) -> bool:
    return value is None or _whole(value)
