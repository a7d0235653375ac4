"""What a resumed run may change: nothing that was computed, and nothing in silence.

The steps of a journal are redone from its numbers, without the model, so they are exact on every
engine. Steps after them come from forward passes, whose last bits belong to an engine's version,
device, thread count and memory mode: a change of these is said and put on record. Another model or
another runtime would go on with a different loss, so it is refused.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_train.errors import RunFolderError
from edge_train.recipe import RULES, Recipe, as_mapping
from edge_train.records.longer import Spans
from edge_train.units import shown

Facts = Mapping[str, Any]  # of a journal's first record

_SETTINGS = ("device", "dtype", "threads", "lean")
# Keys of a recipe that compute nothing: `--resume` takes the caps, a folder may have been moved,
# and the model behind another name, or what a run started from, is known by its hash.
_CAPS = ("cap_bytes", "host_cap_bytes", "time_seconds", "when")
_OTHERS = (*_CAPS, "model", "start")
_MAY_CHANGE = (*_OTHERS, "out")


def recorded(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe for the first record of a journal: what may not change, and its hash.

    With the other values, for the day when the recipe's file cannot be read.
    """
    values = {"task": recipe.task, **as_mapping(recipe), **recipe.options}
    del values["options"]
    kept = {name: value for name, value in values.items() if name not in _MAY_CHANGE}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "values": json.loads(text),
        "others": {name: values[name] for name in _OTHERS},
    }


def recipe_in(records: Sequence[Facts]) -> dict[str, Any] | None:
    """Return the keys and values of the recipe that a journal began with, by its latest caps.

    None where nothing began, and in runs of earlier versions, which did not record all of it.
    """
    recorded = records[0].get("recipe", {}) if records else {}
    if "others" not in recorded:
        return None
    found = {**recorded["values"], **recorded["others"]}
    for record in records:
        if record["kind"] == "resume":
            found |= {name: record[name] for name in _CAPS if name in record}
        elif record["kind"] == "extend":
            found["steps"] = record["steps"]
    return {name: value for name, value in found.items() if value is not None}


def check_same_recipe(
    folder: Path, start: Mapping[str, Any], recipe: Recipe, spans: Spans = ()
) -> None:
    """Refuse to go on by another recipe than a run began with; older runs did not record theirs.

    A key that is younger than the run counts as unchanged while it has its default.

    Args:
      start: the first record of the journal.
      spans: of a run that was made longer, whose recipe has the last number of steps.

    Raises:
      RunFolderError: a key has another value now; the first one is named with both.
    """
    before = start.get("recipe")
    if before is None:
        return
    old, now, known = before["values"], recorded(recipe)["values"], recipe.declared()
    if spans:
        old = {**old, "steps": spans[-1][1]}
    for name in now:
        default = known[name].default if name in known else None
        began = old.get(name, json.loads(json.dumps(default)))
        if began != now[name]:
            raise RunFolderError(
                f"{folder}: recipe.toml says {name} = {_said(now[name])}, this run began with "
                f"{_said(began)}; put that back, or start a new run with `edge-train run`."
            )
    for name in old.keys() - now.keys():
        if old[name] is not None:
            raise RunFolderError(
                f"{folder}: recipe.toml has no {name}, this run began with {name} = "
                f"{_said(old[name])}; put that back, or start a new run with `edge-train run`."
            )


def rules_of(folder: Path, start: Mapping[str, Any]) -> int:
    """Return the version of update rules that a run began with; earlier code wrote none: 1.

    Raises:
      RunFolderError: it is a later one than this code has.
    """
    found = int(start.get("rules", 1))
    if found > RULES:
        raise RunFolderError(
            f"{folder}: this run began with update rules of version {found}, this edge-train has "
            f"{RULES}; go on with the edge-train that began it, or a newer one."
        )
    return found


def _said(value: Any) -> str:
    return "its default" if value is None else shown(value)


class RecordedThreads(NamedTuple):
    """How many threads a run computes with whose recipe names no number.

    Attributes:
      before: until it was measured how many pay; data was prepared with these.
      chosen: from then on. None for both where the engine takes no number.
    """

    before: int | None
    chosen: int | None


def threads_of(start: Mapping[str, Any]) -> RecordedThreads:
    """Return the threads of a run, from the first record of its journal.

    >>> threads_of({"facts": {"threads": 1}, "threads": {"count": 1, "most": 4}})
    RecordedThreads(before=4, chosen=1)
    """
    chosen = start["facts"].get("threads")
    return RecordedThreads((start.get("threads") or {}).get("most", chosen), chosen)


def check_same_model(
    folder: Path,
    facts: Facts,
    runtime: str,
    model: str,
    sha256: str,
    is_same: Callable[[str], bool] | None = None,
) -> None:
    """Refuse to go on with another model or runtime than a run began with.

    Args:
      facts: what the run began with.
      model: how the user names the model that is there now, whose hash is `sha256`.
      is_same: whether another hash is of that model, too.

    Raises:
      RunFolderError: it is another one.
    """
    if runtime != (began := facts.get("runtime", runtime)):
        raise RunFolderError(
            f"{folder}: this run began on runtime {began!r}, {model} runs on {runtime!r}, whose "
            f"losses differ by more than rounding; put {facts.get('model')} back, or start a new "
            "run."
        )
    began = str(facts.get("model_sha256"))
    if sha256 != began and not (is_same is not None and is_same(began)):
        raise RunFolderError(
            f"{folder}: this run began with model sha256 {began[:12]}..., {model} "
            f"now has {sha256[:12]}...; put that model back, or start a new run."
        )


def changed_engine(before: Facts, now: Facts, engine: Sequence[str]) -> str | None:
    """Return a sentence about what will change the last bits of later steps; None for nothing.

    Args:
      engine: packages one of which is the engine.

    >>> old = {"runtime": "onnx", "device": "cpu", "versions": {"onnxruntime": "1.30.0"}}
    >>> now = {**old, "versions": {"onnxruntime": "1.32.0", "numpy": "2.4.6"}}
    >>> changed_engine(old, now, ["onnxruntime"])
    'resumed with onnxruntime 1.32.0 (was onnxruntime 1.30.0): the steps so far are exact, later \
ones may differ in their last bits from those of an undisturbed run'
    """
    pairs = [(f"{name} {now[name]}", f"{name} {before[name]}") for name in _both(before, now)]
    pairs.insert(0, (_engine(now, engine), _engine(before, engine)))
    changes = [f"{new} (was {old})" for new, old in pairs if new != old]
    if not changes:
        return None
    return (
        f"resumed with {', '.join(changes)}: the steps so far are exact, later ones may differ in "
        "their last bits from those of an undisturbed run"
    )


def _both(before: Facts, now: Facts) -> list[str]:
    return [name for name in _SETTINGS if name in before and name in now]


def _engine(facts: Facts, engine: Sequence[str]) -> str:
    """Return distribution and version of the engine that computed a run."""
    found = {n: v for n, v in facts.get("versions", {}).items() if n in engine}
    return " and ".join(f"{name} {version}" for name, version in sorted(found.items())) or "unknown"
