"""Everything a run needs to go on from a step: parameters, transform state, best so far."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import StoredTensors, load_metadata, save_tensors

FORMAT = "edge-train checkpoint 3"
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
    """The run after `step` steps."""

    step: int
    parameters: Mapping[str, Array]
    state: Mapping[str, Mapping[str, NDArray[Any]]]
    best: Best


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot atomically and remove all but the newest two; return its path.

    Parameters that are the best ones are in the file of those already.

    Memory: nothing to speak of; arrays are written from where they are.
    """
    tensors: dict[str, Array] = {}
    if snapshot.step != snapshot.best.step:
        tensors |= {f"parameters/{name}": block for name, block in snapshot.parameters.items()}
    for name, state in snapshot.state.items():
        tensors |= {f"state/{name}/{part}": value for part, value in state.items()}
    metadata = {
        "format": FORMAT,
        "step": str(snapshot.step),
        "best_step": str(snapshot.best.step),
        "best_loss": snapshot.best.loss.hex(),
    }
    path = folder / f"step-{snapshot.step:08d}.safetensors"
    save_tensors(path, tensors, metadata)
    kept = sorted(folder.glob("step-*.safetensors"))
    while len(kept) > _KEEP:
        kept.pop(0).unlink()
    needed = {snapshot.best.path} | {_best_path(folder, step) for step in _best_steps(kept)}
    for old in set(folder.glob("best-*.safetensors")) - needed:
        old.unlink()
    return path


def save_best(folder: Path, step: int, loss: float, parameters: Mapping[str, Array]) -> Best:
    """Write parameters that are the best so far, in a file of their own, atomically."""
    path = _best_path(folder, step)
    save_tensors(path, parameters, {"step": str(step)})
    return Best(step, loss, path)


def _best_path(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"


def _best_steps(checkpoints: Sequence[Path]) -> Iterator[int]:
    """Yield the best steps that intact checkpoints refer to."""
    for path in checkpoints:
        with suppress(RunFolderError, KeyError):
            yield int(load_metadata(path)["best_step"])


def load(path: Path) -> Snapshot:
    """Return the snapshot in a file; its arrays are read when they are asked for.

    Raises:
      RunFolderError: the file is damaged or of another format, or that of its best is.
    """
    tensors = StoredTensors(path)
    metadata = tensors.metadata
    if metadata.get("format") != FORMAT:
        raise RunFolderError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}.")
    step, best_step = int(metadata["step"]), int(metadata["best_step"])
    best = _best_path(path.parent, best_step)
    stored = StoredTensors(best)  # now, while there may be another checkpoint
    blocks = {name.rpartition("/")[0] for name in tensors if name.startswith("state/")}
    return Snapshot(
        step=step,
        parameters=stored if step == best_step else _Part(tensors, "parameters/"),
        state={block.removeprefix("state/"): _Part(tensors, f"{block}/") for block in blocks},
        best=Best(best_step, float.fromhex(metadata["best_loss"]), best),
    )


def load_newest(folder: Path, at_most: int) -> tuple[Snapshot | None, list[str]]:
    """Return the newest intact snapshot of at most `at_most` steps, and what is wrong with others.

    A snapshot further on than the journal's intact records cannot be used: the journal is what
    says which steps were taken.
    """
    complaints = []
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            snapshot = load(path)
        except RunFolderError as error:
            complaints.append(str(error))
            continue
        if snapshot.step <= at_most:
            return snapshot, complaints
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
