"""Everything a run needs to go on from a step: parameters, transform state, best so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.protocols import Array, State
from edge_train.tensors import load_tensors, save_tensors

FORMAT = "edge-train checkpoint 1"
_KEEP = 2  # the newest, and the one before it should the newest be damaged


@dataclass(frozen=True)
class Best:
    """The parameters with the lowest loss on the fixed evaluation batch so far.

    `step` counts the steps taken: 0 is the state before training.
    """

    step: int
    loss: float
    parameters: Mapping[str, Array]


@dataclass(frozen=True)
class Snapshot:
    """A copy of the run after `step` steps."""

    step: int
    parameters: Mapping[str, Array]
    state: Mapping[str, State]
    best: Best


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot atomically and remove all but the newest two; return its path."""
    tensors = {f"parameters/{name}": block for name, block in snapshot.parameters.items()}
    tensors |= {f"best/{name}": block for name, block in snapshot.best.parameters.items()}
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
    for old in sorted(folder.glob("step-*.safetensors"))[:-_KEEP]:
        old.unlink()
    return path


def load(path: Path) -> Snapshot:
    """Return the snapshot in a file.

    Raises:
      RunFolderError: the file is damaged or of another format.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise RunFolderError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}.")
    state: dict[str, State] = {}
    for name, tensor in tensors.items():
        if name.startswith("state/"):
            block, part = name.removeprefix("state/").rsplit("/", 1)
            state.setdefault(block, {})[part] = tensor
    return Snapshot(
        step=int(metadata["step"]),
        parameters=_with_prefix(tensors, "parameters/"),
        state=state,
        best=Best(
            int(metadata["best_step"]),
            float.fromhex(metadata["best_loss"]),
            _with_prefix(tensors, "best/"),
        ),
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
