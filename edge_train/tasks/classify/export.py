"""From a classifier folder to a training artifact whose first step is compared with torch's."""

import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from edge_train import __version__
from edge_train.arrays.types import Array, Batch
from edge_train.errors import InputError, ModelError
from edge_train.export.training_graphs import IR_VERSION, OPSET, trace, write_training_graphs
from edge_train.formats.atomic import check_free, whole_folder, write_bytes
from edge_train.formats.classifier_folder import ClassifierFolder, open_classifier
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.hub import name_for_others
from edge_train.formats.manifest import MANIFEST, describe_file
from edge_train.formats.tensor_store import save_tensors
from edge_train.formats.tokenizer_files import tokenizer_files
from edge_train.formats.training_artifact import (
    CHECKPOINT,
    EVALUATION,
    OPTIMIZER,
    TRAINING,
    WEIGHTS,
    TrainingArtifact,
    TrainingManifest,
    open_training_artifact,
)
from edge_train.rng import Key
from edge_train.runtimes.onnx.classifier import OrtClassifier, check_flavor
from edge_train.runtimes.torch.classifier import TorchClassifier
from edge_train.runtimes.torch.classifier_network import head_names, load_classifier, new_heads
from edge_train.tasks.classify.tokenizer import TextTokenizer
from edge_train.units import format_bytes

_CHECKED_TEXTS, _CHECKED_LENGTH = 4, 16
_MOST_DIFFERENCE = 1e-3  # of the loss, as a share; rounding alone is far below 1e-5


def export_training(
    name: str, out: Path, *, head_only: bool, threads: int | None, say: Callable[[str], None]
) -> None:
    """Write the training artifact of a classifier into `out`, or nothing.

    Args:
      name: a transformers sequence classifier's folder.
      head_only: whether only what stands on top of the encoder gets gradients.
      say: told what happens, a line at a time.

    Raises:
      InputError, ModelError: one sentence about what the user must change.
    """
    check_free(out)
    path = Path(name).expanduser()
    if name == EMBEDDED or (path / "model_index.json").is_file():
        raise InputError(
            f"{name} is a Stable Diffusion model, and onnxruntime-training has no gradient for the "
            "GroupNorm and Resize in it; train it forward-only on an artifact (`edge-train export "
            f"{name} OUT`), or exactly with --runtime torch --method backprop."
        )
    check_flavor()
    folder = open_classifier(path)
    TextTokenizer.from_folder(folder.path, folder.pad, folder.vocabulary)
    with whole_folder(out) as partial:
        say("exporting the graphs")
        artifact = _write(folder, name, partial, head_only)
        say(_compare(folder, artifact, head_only, threads or 1))
    say(f"{out}: {format_bytes(sum(file.stat().st_size for file in out.iterdir()))}")


def _write(folder: ClassifierFolder, name: str, out: Path, head_only: bool) -> TrainingArtifact:
    network, blocks = load_classifier(folder, attention="eager")
    graph, names = trace(network, folder.positions, takes_types=folder.takes_types)
    heads = head_names(network) if head_only else set(names)
    trainable = tuple(name for name in names if name in heads)
    frozen = tuple(name for name in names if name not in heads)
    write_training_graphs(out, graph, blocks, trainable, frozen)
    save_tensors(out / WEIGHTS, blocks, {"format": "pt"})
    names = ("config.json", *tokenizer_files(folder.path))
    copied = [file for file in names if (folder.path / file).is_file()]
    for file in copied:
        shutil.copyfile(folder.path / file, out / file)
    files = (TRAINING, EVALUATION, OPTIMIZER, CHECKPOINT, WEIGHTS, *copied)
    origin = {"model": name_for_others(name), "sha256": folder.sha256(), "edge_train": __version__}
    if heads_made := new_heads(folder, network):
        origin["new_heads"] = " ".join(heads_made)
    if folder.takes_types:
        origin["text_types"] = "yes"
    manifest = TrainingManifest(
        requires={"ir": IR_VERSION, "opset": OPSET},
        origin=origin,
        task="classify",
        trainable=trainable,
        frozen=frozen,
        labels=folder.labels,
        vocabulary=folder.vocabulary,
        positions=folder.positions,
        pad=folder.pad,
        files={file: describe_file(out / file) for file in files},
    )
    write_bytes(out / MANIFEST, manifest.to_bytes())
    return open_training_artifact(out)


def _compare(
    folder: ClassifierFolder, artifact: TrainingArtifact, head_only: bool, threads: int
) -> str:
    """Return how far the first losses and gradients are from torch's.

    Raises:
      ModelError: farther than rounding explains.
    """
    draw = Key(0, 0).generator("texts")
    length = min(_CHECKED_LENGTH, folder.positions)
    shape = (_CHECKED_TEXTS, length)
    mask = (np.arange(length) < draw.integers(2, length + 1, _CHECKED_TEXTS)[:, None]).astype(int)
    ids = np.where(mask, draw.integers(0, folder.vocabulary, shape), folder.pad)
    labels = draw.integers(0, len(folder.labels), _CHECKED_TEXTS)
    batch = {"ids": ids, "mask": mask, "labels": labels}
    if folder.takes_types:
        batch["types"] = draw.integers(0, 2, shape) * mask
    trainable = "head" if head_only else "all"
    exact = TorchClassifier.open(folder, trainable=trainable, threads=threads)
    exact_losses, exact_gradient = _first_step(exact, batch)
    losses, gradient = _first_step(OrtClassifier(artifact, threads=threads), batch)
    apart = float(np.abs(losses / exact_losses - 1).max())
    error = _length(gradient[name] - exact_gradient[name] for name in gradient)
    error /= _length(exact_gradient[name] for name in gradient)
    if not apart < _MOST_DIFFERENCE or not error < _MOST_DIFFERENCE:
        raise ModelError(
            f"{folder.path}: the exported graph's loss differs from torch's by {apart:.1e} and its "
            f"gradient by {error:.1e}, more than rounding explains; train it with --runtime torch."
        )
    return (
        f"compared with torch: loss differs by {apart:.1e}, gradient by {error:.1e} of its length"
    )


def _first_step(
    runtime: TorchClassifier | OrtClassifier, batch: Batch
) -> tuple[Array, dict[str, Array]]:
    """Return losses and gradients of a batch; the runtime is closed."""
    gradients: dict[str, Array] = {}
    losses = runtime.backward(batch, lambda name, value: gradients.update({name: value.copy()}))
    runtime.close()
    return losses, gradients


def _length(blocks: Iterable[Array]) -> float:
    return math.sqrt(sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks))
