"""Classifiers on onnxruntime-training: its graph gives the gradients, our chain the update."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.formats.classifier_folder import initial_head
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.training_artifact import (
    BUFFER,
    EVALUATION,
    RESET,
    TRAINING,
    WEIGHTS,
    TrainingArtifact,
)
from edge_train.memory.measure import give_back_memory
from edge_train.protocols import Apply
from edge_train.runtimes.onnx.engine import call, load_engine, load_graph, session_settings

_TEXTS_PER_CALL = 16  # of an evaluation; more takes memory and time


class OrtClassifier:
    """The graphs of a training artifact on the CPU; a `GradientRuntime`.

    The training graph is run as an ordinary session: parameters are inputs that it reads where they
    are, gradients go into buffers that we own and hand to `apply`. The optimizer graph is not used:
    with our own chain the loop, the journal, checkpoints and every method stay the same on all
    engines, the state is the loop's, and onnxruntime.training.api, which imports torch (230 MB),
    is not needed. The price is one pass over the parameters in NumPy per step.

    Memory: parameters once, gradients of all trainable blocks (the graph writes them in one call),
    activations of the batch, two sessions without weights. Each session keeps what it allocated for
    the next call; with `lean` it is given back, which takes a quarter more time.
    """

    device = "cpu"
    dtype = "float32"
    pages = None
    architecture: str | None = None  # as the configuration has it

    def __init__(
        self,
        artifact: TrainingArtifact,
        *,
        threads: int,
        lean: bool = False,
        gradients: bool = True,
        seed: int = 0,
    ) -> None:
        """Open the sessions; read the parameters.

        Args:
          gradients: without them any ONNX Runtime will do: the evaluation graph is an ordinary one.
          seed: of a head that the exported model lacked; the artifact holds that of seed 0.

        Raises:
          InputError: no ONNX Runtime here, or not its training flavor.
          ModelError: it cannot read the graphs.
        """
        if gradients:
            check_flavor()
        else:
            load_engine()
        self._lean = lean
        self.batch_limit: int | None = None  # texts in one call; None: a few, or a step's at once
        manifest = artifact.manifest
        self._names = ("ids", "mask", "labels", *(("types",) if manifest.takes_types else ()))
        stored = TensorFile(artifact.path / WEIGHTS)
        self._stored = stored
        self.parameters = Parameters.sharing({n: stored.read(n) for n in manifest.trainable})
        for name in manifest.new_heads:
            block = self.parameters[name]
            np.copyto(block, initial_head(name, block.shape, seed))
        self._frozen = {name: stored.read(name) for name in manifest.frozen}
        self._path, self._gradients, self._threads = artifact.path, gradients, threads
        self._open_sessions()
        trained = self.parameters.items() if gradients else ()
        self._buffers = {name: np.zeros_like(block) for name, block in trained}

    def _open_sessions(self) -> None:
        training, evaluation = self._path / TRAINING, self._path / EVALUATION
        some = (self._threads, self._lean)
        self._training: Any = _open(training, *some) if self._gradients else None
        self._evaluation: Any = _open(evaluation, *some)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the sessions are let go and opened again."""
        if count == self._threads:
            return
        self._training = self._evaluation = None
        give_back_memory()
        self._threads = count
        self._open_sessions()

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        rows = [self._evaluate("losses", batch, point) for point in points]
        return np.stack([np.concatenate(list(parts)) for parts in rows])

    def logits(self, batch: Batch, point: Point) -> Array:
        """Return the outputs (texts, classes) before the softmax."""
        return np.concatenate(list(self._evaluate("logits", batch, point)))

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient; return losses (samples,).

        With a `batch_limit`, the engine sums the gradients of parts of equal size: the largest
        that divides the batch. A loss that is not finite is returned without any gradient.
        """
        buffers = {f"{name}{BUFFER}": value for name, value in self._buffers.items()}
        feeds = {**self._values(self.parameters), **buffers}
        names = [output.name for output in self._training.get_outputs()]
        count = len(batch["labels"])
        size = next(
            n for n in range(min(self.batch_limit or count, count), 0, -1) if count % n == 0
        )
        parts = []
        for start in range(0, count, size):
            some = self._inputs(batch, slice(start, start + size))
            found = call(self._training, names, {**some, **feeds, RESET: np.array([start == 0])})
            parts.append(found[names.index("losses")])
            del found
            if self._lean:  # 32 calls of one text left 0.1 GB of holes in the heap
                give_back_memory()
        losses: Array = np.concatenate(parts)
        if np.isfinite(losses).all():
            for name, gradient in self._buffers.items():
                gradient /= np.float32(len(parts))  # each part's is that of its own mean
                apply(name, gradient)
        return losses

    def weights(self, point: Point) -> dict[str, Array]:
        """Return every parameter of the network by name; trainable ones are those of `point`."""
        others = [name for name in self._stored.entries if name not in point]
        return {name: self._stored.read(name) for name in others} | dict(point)

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Let go of the sessions; the runtime cannot be used afterwards."""
        self._training = self._evaluation = None
        self._frozen.clear()
        self._buffers.clear()

    def _inputs(self, batch: Batch, at: slice) -> Mapping[str, Any]:
        """Return some texts as the graphs take them; single texts are all of type 0."""
        some = {
            name: np.ascontiguousarray(batch[name][at]) for name in self._names if name in batch
        }
        if "types" in self._names and "types" not in some:
            some["types"] = np.zeros_like(some["ids"])
        return some

    def _values(self, point: Point) -> dict[str, Array]:
        """Return every parameter that the graphs take."""
        return {name: np.ascontiguousarray(v) for name, v in {**self._frozen, **point}.items()}

    def _evaluate(self, output: str, batch: Batch, point: Point) -> Iterator[Array]:
        values = self._values(point)
        taken = {given.name for given in self._evaluation.get_inputs()}
        limit = self.batch_limit or _TEXTS_PER_CALL
        for start in range(0, len(batch["ids"]), limit):
            at = slice(start, start + limit)
            some = self._inputs(batch, at)
            feeds = {name: value for name, value in {**some, **values}.items() if name in taken}
            yield call(self._evaluation, [output], feeds)[0]


def check_flavor() -> None:
    """Refuse an ONNX Runtime that cannot train.

    Raises:
      InputError: naming what is installed and what to install.
    """
    load_engine()
    (owner,) = set(packages_distributions()["onnxruntime"])
    if "training" not in owner:
        raise InputError(
            f"runtime 'ort-training' needs the training flavor of ONNX Runtime; {owner} is "
            f"installed. `pip uninstall -y {owner}`, then `pip install onnxruntime-training-cpu` "
            "(Python 3.12 at most), or train the model folder with --runtime torch, or without "
            "gradients with --method zo."
        )


def _open(path: Path, threads: int, lean: bool) -> Any:
    settings = session_settings(threads)
    settings.enable_cpu_mem_arena = not lean
    return load_graph(path, settings, ["CPUExecutionProvider"])
