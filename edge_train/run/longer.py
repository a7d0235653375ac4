"""Go on with a run for more steps than it began with: what is refused, said and put on record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.methods import methods
from edge_train.recipe import Recipe, to_toml
from edge_train.records.folder import RunFolder
from edge_train.records.journal import Journal
from edge_train.records.longer import length_of
from edge_train.records.resume import check_same_recipe

Record = Mapping[str, Any]


def lengthened(
    folder: Path, records: Sequence[Record], stored: Recipe, changes: Mapping[str, Any]
) -> tuple[Recipe, int | None]:
    """Return the recipe that a run goes on by, and after how many steps it is made longer.

    The second is None for a run that keeps its length.

    Raises:
      RunFolderError: `stored` is not the recipe that the run began with.
      InputError: as many steps were taken already, or the method cannot go on.
    """
    length, wanted = length_of(records), changes.get("steps")
    if length.spans and stored.steps == length.spans[-2][1]:
        # a power cut came between the journal and the recipe's file
        stored = replace(stored, steps=length.spans[-1][1])
    check_same_recipe(folder, records[0], stored, length.spans)
    own = {**changes, "steps": stored.steps}
    recipe = replace(stored, **own, spans=length.spans, fits=length.fits)
    if wanted is None:
        return recipe, None
    if wanted <= length.done:
        raise InputError(
            f"{folder}: {length.done} steps are done, so --steps {wanted} adds none; --steps is "
            f"the number in all, name more than {length.done}."
        )
    over = records[-1]["kind"] == "end" and records[-1]["status"] == "done"
    if wanted == recipe.steps and not over:
        return recipe, None
    if reason := methods.get(str(records[0]["facts"].get("method"))).keeps_length(recipe):
        raise InputError(
            f"{folder}: {reason}; start a new run from what it learned with `edge-train run --from "
            f"{folder} --steps N`."
        )
    planned = int(stored.steps or 0)
    updates = sum(r["kind"] == "step" and r.get("skipped") is None for r in records)
    spans = (*(length.spans or ((0, planned),)), (updates, int(wanted)))
    return replace(recipe, steps=wanted, spans=spans), length.done


def lengthen(
    folder: Path,
    journal: Path,
    intact: int,
    kept: Recipe,
    done: int,
    say: Callable[[str], None],
) -> int:
    """Put on record that a run is made longer, and say it; return the intact bytes of its journal.

    Args:
      intact: bytes of the journal, what follows them is cut off.
      kept: the recipe with its new number of steps.
      done: steps that were taken.

    The journal comes first: it is what counts if a power cut comes between the two files.
    """
    book = Journal(journal, intact)
    try:
        book.append({"kind": "extend", "step": done, "steps": kept.steps}, durable=True)
    finally:
        book.close()
    write_bytes(RunFolder(folder).recipe, to_toml(kept).encode())
    say(
        f"{done} steps are done, going on to {kept.steps} in all: from here on the rate is that of "
        f"a {kept.schedule or 'constant'} schedule over {kept.steps} steps"
    )
    return journal.stat().st_size
