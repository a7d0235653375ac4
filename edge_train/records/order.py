"""What a journal may say, record by record: anything else ends what is read of it.

A checksum tells a torn line, not one that is doubled, missing, moved or written by something else.
"""

import math
from collections.abc import Mapping
from typing import Any

FORMAT_VERSION = 1

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
        if self.next_step is None:
            _need(kind == "start", "the first record is not the start of a run")
            self.next_step = 0
            _check_start(record)
            return
        _need(isinstance(kind, str) and kind != "start", "a record that no journal goes on with")
        if kind == "step":
            _need(_whole(record.get("step"), self.next_step), "a step that does not follow")
            _check_step(record)
            self.next_step += 1
        elif kind == "resume":
            _need(_whole(record.get("step"), self.next_step), "a resume of another step")
            _need(_size(record.get("cap_bytes")), "cap_bytes")
            _need(isinstance(record.get("changes", {}), dict), "changes")
            _need(_number(record.get("seconds", 0.0)), "seconds")
        elif kind == "extend":
            _need(_whole(record.get("step"), self.next_step), "an extension of another step")
            _need(_whole(record.get("steps")) and record["steps"] > self.next_step, "steps")
        elif kind == "end":
            _check_end(record)
        elif kind == "event":
            _need(isinstance(record.get("text"), str), "text")
            _need(isinstance(record.get("changes", {}), dict), "changes")


def _check_start(record: Record) -> None:
    version = record.get("version", 0)
    _need(_whole(version), "version")
    if version > FORMAT_VERSION:
        return  # the reader refuses it by that number
    facts = record.get("facts", {})
    _need(isinstance(facts, dict), "facts")
    _need(_size(facts.get("cap_bytes")), "cap_bytes")
    _need(isinstance(facts.get("smaller", {}), dict), "smaller")
    _need(isinstance(facts.get("versions", {}), dict), "versions")
    _need(record.get("eval") is None or _number(record["eval"]), "eval")
    _need(_number(record.get("seconds", 0.0)), "seconds")
    _need(_whole(record.get("forwards", 0)), "forwards")
    recipe = record.get("recipe", {"sha256": "", "values": {}})
    _need(isinstance(recipe, dict) and isinstance(recipe.get("sha256"), str), "recipe")
    _need(isinstance(recipe.get("values"), dict), "recipe")
    check = record.get("slope_check")
    _need(check is None or (isinstance(check, dict) and _number(check.get("epsilon"))), "epsilon")


def _check_step(record: Record) -> None:
    for name in ("loss", "eval", "gradient_norm"):
        value = record.get(name)
        _need(value is None or _number(value), name)
    scalars = record.get("scalars", [])
    _need(isinstance(scalars, list) and all(map(_number, scalars)), "scalars")
    losses = record.get("block_losses", [])
    _need(isinstance(losses, list), "block_losses")
    _need(all(loss is None or _number(loss) for loss in losses), "block_losses")
    for name in ("forwards", "backwards", "peak_bytes", "resident_bytes"):
        _need(_whole(record.get(name)), name)
    _need(_number(record.get("seconds")), "seconds")
    skipped = record.get("skipped")
    _need(skipped is None or isinstance(skipped, str), "skipped")


def _check_end(record: Record) -> None:
    _need(isinstance(record.get("status"), str), "status")
    _need(_number(record.get("seconds_total")), "seconds_total")
    _need(isinstance(record.get("metrics", {}), dict), "metrics")
    outputs = record.get("outputs", {})
    _need(isinstance(outputs, dict) and all(isinstance(v, str) for v in outputs.values()), "files")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _whole(value: Any, wanted: int | None = None) -> bool:
    """Return whether a value is a whole number that counts something."""
    return type(value) is int and value >= 0 and wanted in (None, value)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _size(value: Any) -> bool:
    return value is None or _whole(value)
