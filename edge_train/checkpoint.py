"""Everything a run needs to go on from a step: parameters, transform state, best so far."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.protocols import Array, State
from edge_train.tensors import load_metadata, load_tensors, save_tensors

FORMAT = "edge-train checkpoint 2"
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
        """The parameters, read from the file.

        Raises:
          RunFolderError: it is missing or damaged.
        """
        return load_tensors(self.path)[0]


@dataclass(frozen=True)
class Snapshot:
    """The run after `step` steps."""

    step: int
    parameters: Mapping[str, Array]
    state: Mapping[str, State]
    best: Best


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot atomically and remove all but the newest two; return its path.

    Memory: nothing to speak of; arrays are written from where they are.
    """
    tensors = {f"parameters/{name}": block for name, block in snapshot.parameters.items()}
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
    """Return the snapshot in a file.

    Raises:
      RunFolderError: the file is damaged or of another format, or that of its best is.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise RunFolderError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}.")
    best = _best_path(path.parent, int(metadata["best_step"]))
    load_tensors(best)  # now, while there may be another checkpoint, and not when it is needed
    state: dict[str, State] = {}
    for name, tensor in tensors.items():
        if name.startswith("state/"):
            block, part = name.removeprefix("state/").rsplit("/", 1)
            state.setdefault(block, {})[part] = tensor
    return Snapshot(
        step=int(metadata["step"]),
        parameters=_with_prefix(tensors, "parameters/"),
        state=state,
        best=Best(int(metadata["best_step"]), float.fromhex(metadata["best_loss"]), best),
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


def _with_prefix(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
