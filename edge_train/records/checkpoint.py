"""Everything a run needs to go on from a step: parameters, transform state, best so far."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import (
    Kind,
    StoredTensors,
    kinds_of,
    load_metadata,
    save_tensors,
)
from edge_train.records.past import Moment, Past

FORMAT = "edge-train checkpoint 4"
_WITHOUT_HISTORY = "edge-train checkpoint 3"  # what its header says is checked by the journal alone
_KEEP = 2  # the newest, and the one before it should the newest be damaged


@dataclass(frozen=True)
class Best:
    """The parameters with the lowest loss on the fixed evaluation batch so far, in a file.

    `step` counts the steps taken: 0 is the state before training.
    """

    step: int
    loss: float
    path: Path

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters, each read from the file when it is asked for.

        Raises:
          RunFolderError: it is missing or damaged.
        """
        return StoredTensors(self.path)


@dataclass(frozen=True)
class Snapshot:
    """The run after `step` steps, whose numbers are folded into `history` (see `past`)."""

    step: int
    parameters: Mapping[str, Array]
    state: Mapping[str, Mapping[str, NDArray[Any]]]
    best: Best
    history: str = ""


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot atomically, remove all but it and the one before it; return its path.

    Those of later steps go too: the run came back from them, and they would outlive newer ones.
    Parameters that are the best ones are in the file of those already.

    Memory: nothing to speak of; arrays are written from where they are.
    """
    own = snapshot.parameters if snapshot.step != snapshot.best.step else {}
    tensors = _tensors(own, snapshot.state)
    metadata = {
        "format": FORMAT,
        "step": str(snapshot.step),
        "best_step": str(snapshot.best.step),
        "best_loss": snapshot.best.loss.hex(),
        "history": snapshot.history,
    }
    path = _path(folder, snapshot.step)
    _clear(path)
    save_tensors(path, tensors, metadata)
    before = sorted(p for p in folder.glob("step-*.safetensors") if p.name < path.name)
    kept = {path, *before[1 - _KEEP :]}
    needed = {snapshot.best.path} | {_best_path(folder, step) for step in _best_steps(kept)}
    for old in {*folder.glob("step-*.safetensors"), *folder.glob("best-*.safetensors")}:
        if old not in kept | needed:
            _remove(old)
    return path


def save_best(
    folder: Path, step: int, loss: float, parameters: Mapping[str, Array], history: str = ""
) -> Best:
    """Write parameters that are the best so far, in a file of their own, atomically."""
    path = _best_path(folder, step)
    _clear(path)
    save_tensors(path, parameters, {"step": str(step), "history": history})
    return Best(step, loss, path)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def _best_path(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"


def _clear(path: Path) -> None:
    """Make the folder of a file, and remove a folder that stands where the file belongs."""
    with suppress(OSError):  # whoever writes the file says what is wrong
        path.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)


def _remove(path: Path) -> None:
    """Remove what is no longer needed; what stays is only in the way."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _tensors(
    parameters: Mapping[str, Array], state: Mapping[str, Mapping[str, NDArray[Any]]]
) -> dict[str, Array]:
    """Return the arrays of a file by the names that they have in it."""
    found: dict[str, Array] = {f"parameters/{name}": block for name, block in parameters.items()}
    for name, parts in state.items():
        found |= {f"state/{name}/{part}": value for part, value in parts.items()}
    return found


def _best_steps(checkpoints: Iterable[Path]) -> Iterator[int]:
    """Yield the best steps that intact checkpoints refer to."""
    for path in checkpoints:
        with suppress(RunFolderError, KeyError, ValueError):
            yield int(load_metadata(path)["best_step"])


@dataclass(frozen=True)
class Expected:
    """What a checkpoint must agree with: the journal, and the names, types and shapes of the run.

    A header can be whole and still be wrong: edited by hand, or of another run.
    """

    past: Past
    parameters: Mapping[str, Kind]
    state: Callable[
        [int], Mapping[str, Kind]
    ]  # after so many steps: blocks that rest may have none


def kinds_of_state(state: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, Kind]:
    """Return types and shapes of state by the names that it has in a file."""
    return dict(kinds_of(_tensors({}, state)))


def load(path: Path, expected: Expected | None = None) -> Snapshot:
    """Return the snapshot in a file; its arrays are read when they are asked for.

    Raises:
      RunFolderError: the file is damaged, of another format or not what is expected, or that of its
        best is.
    """
    tensors = StoredTensors(path)
    metadata = tensors.metadata
    if metadata.get("format") not in (FORMAT, _WITHOUT_HISTORY):
        raise RunFolderError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}.")
    try:
        step, best_step = int(metadata["step"]), int(metadata["best_step"])
        best_loss = float.fromhex(metadata["best_loss"])
        history = metadata["history"] if metadata["format"] == FORMAT else ""
        if path != _path(path.parent, step):
            raise ValueError(f"it says step {step}")
    except (KeyError, ValueError, OverflowError) as error:
        raise RunFolderError(f"{path}: its header cannot be right ({error}).") from error
    best = _best_path(path.parent, best_step)
    stored = StoredTensors(best)  # now, while there may be another checkpoint
    if expected is not None:
        moment = expected.past.at(step)
        if (best_step, best_loss) != (moment.best_step, moment.best_loss):
            raise RunFolderError(
                f"{path}: it says that evaluation was best, {best_loss}, after step {best_step}; "
                f"the journal says {moment.best_loss} after step {moment.best_step}."
            )
        _check_history(path, metadata, moment)
        _check_history(best, stored.metadata, expected.past.at(best_step))
        _check_kinds(best, stored.kinds, expected.parameters)
        own = {} if step == best_step else expected.parameters
        wanted = {f"parameters/{name}": kind for name, kind in own.items()}
        _check_kinds(path, tensors.kinds, {**wanted, **expected.state(step)})
        history = moment.history
    blocks = {name.rpartition("/")[0] for name in tensors if name.startswith("state/")}
    return Snapshot(
        step=step,
        parameters=stored if step == best_step else _Part(tensors, "parameters/"),
        state={block.removeprefix("state/"): _Part(tensors, f"{block}/") for block in blocks},
        best=Best(best_step, best_loss, best),
        history=history,
    )


def _check_history(path: Path, metadata: Mapping[str, str], moment: Moment) -> None:
    """Refuse a file of another run.

    Raises:
      RunFolderError: it was written after other steps; files of older versions do not say.
    """
    if metadata.get("history", moment.history) != moment.history:
        raise RunFolderError(f"{path}: it was written after other steps than the journal has.")


def _check_kinds(path: Path, found: Mapping[str, Kind], wanted: Mapping[str, Kind]) -> None:
    """Refuse arrays of other names, types or shapes than the run has.

    Raises:
      RunFolderError: as described; the first one is named.
    """
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise RunFolderError(
                f"{path}: array {name!r} is {found.get(name, 'missing')}, this run has "
                f"{wanted.get(name, 'none of that name')}."
            )


def load_newest(
    folder: Path, at_most: int, expected: Expected | None = None
) -> tuple[Snapshot | None, list[str]]:
    """Return the newest intact snapshot of at most `at_most` steps, and what is wrong with others.

    A snapshot further on than the journal's intact records cannot be used: the journal is what
    says which steps were taken.
    """
    complaints: list[str] = []
    last = _path(folder, at_most).name
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        if path.name > last:
            continue
        try:
            return load(path, expected), complaints
        except RunFolderError as error:
            complaints.append(str(error))
    return None, complaints


class _Part(Mapping[str, NDArray[Any]]):
    """The arrays of a file whose names begin with a prefix, without it."""

    def __init__(self, tensors: StoredTensors, prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix
        self._names = [n.removeprefix(prefix) for n in tensors if n.startswith(prefix)]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
