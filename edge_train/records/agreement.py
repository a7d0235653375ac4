"""Whether a journal tells of the steps that its checkpoints were written after.

A right checksum does not make a number right: somebody may have edited both. Every checkpoint
keeps the history of its step (see `past`), and the end of a run that of its last one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import whole_metadata
from edge_train.records.folder import RunFolder
from edge_train.records.journal import step_record
from edge_train.records.past import Past, origin

Record = Mapping[str, Any]


def agreed_steps(folder: RunFolder, records: Sequence[Record]) -> int | None:
    """Return how many steps of a journal can be believed; None where nothing speaks against any.

    -1: not even its start, from which the steps follow.

    A checkpoint of another run speaks against nothing that a later one agrees with. Those of
    earlier versions do not say what they were written after.
    """
    said = [*_kept(folder), *_ended(records)]
    if not said:
        return None
    sha256 = records[0].get("recipe", {}).get("sha256", "")
    first_eval = records[0]["eval"]
    steps = (step_record(record) for record in records if record["kind"] == "step")
    past = Past(origin(first_eval, sha256), first_eval, steps)
    wanted = {step for step, _ in said}
    histories = {step: one for step, one in enumerate(past.histories()) if step in wanted}
    known = [(step, one == histories[step]) for step, one in said if step in histories]
    agreed = max((step for step, same in known if same), default=-1)
    return agreed if any(step > agreed for step, _ in known) else None


def _kept(folder: RunFolder) -> Iterator[tuple[int, str]]:
    """Yield step and history of every checkpoint whose header is whole."""
    for path in folder.checkpoints.glob("*.safetensors"):
        with suppress(RunFolderError, KeyError, ValueError):
            metadata = whole_metadata(path)
            if metadata["history"]:
                yield int(metadata["step"]), metadata["history"]


def _ended(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    end = records[-1]
    if end["kind"] == "end" and "history" in end:
        yield end["step"], end["history"]
