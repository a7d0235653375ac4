"""An exported Stable Diffusion on ONNX Runtime: losses at many points, from forward passes only."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.artifact import Artifact, open_artifact
from edge_train.memory.measure import give_back_memory, measure
from edge_train.quant import POINTS_OF_A_SAMPLE, quants
from edge_train.runtimes.onnx.engine import Value, call, check_values, open_session, pick_provider
from edge_train.runtimes.onnx.mapped_weights import MappedWeights
from edge_train.runtimes.onnx.products import exact_opening

_SUFFIXES = ("", "_2")  # of each text encoder's inputs
_CELLS_PER_CALL = 4_096  # latent cells in one call: one 512-pixel sample
_SAMPLES_PER_CALL = 64  # above this a call gets no faster, only larger
_SAMPLE = ("latents", "target", "timesteps")  # what all points of a sample have in common
_Call = tuple[slice, dict[str, NDArray[Any]]]


class OnnxDiffusion:
    """A frozen Stable Diffusion in an artifact, whose only variable is the vectors of one token.

    Batches and losses are those of `TorchDiffusion`. Equal calls give bitwise equal results, also
    in another process, as long as engine version, provider, thread count and `batch_limit` are the
    same.

    Attributes:
      parameters: block `token` (vectors, width), for SDXL also `token_2`.
      device, dtype: what runs it, and the type of most activations, for the record.
      reason: why this device was taken.
      passes: over the weights so far, in `forward`: every call of the graph is one, from the first
        byte of the file to the last.
      evaluations: losses that these passes gave; a pass serves all points and samples of its call.
      batch_limit: most losses in one call. None: as many as have 4096 latent cells between them,
        at most 64. Where the graph rounds activations with one scale for the whole call, a call
        holds the points of one sample: they are compared with each other, share the scale, and
        no loss depends on another sample. Artifacts from before `calls` keep their numbers: one
        loss a call.
    """

    parameters: Parameters
    device: str
    dtype: str
    reason: str
    batch_limit: int | None

    def __init__(
        self,
        artifact: Artifact,
        parameters: Parameters,
        *,
        device: str = "auto",
        token_ids: Sequence[Collection[int]],
        threads: int,
        lean: bool = False,
        cap_bytes: int | None = None,
    ) -> None:
        """Open the step graph.

        Args:
          token_ids: per text encoder, every vocabulary id a prompt will ever hold; other rows of
            its token table are never read.
          lean: leave weights in the file and memory to the system; slower.
          cap_bytes: what a CUDA device's memory arena may hold.

        Raises:
          InputError: a device that is not there, or a processor that adds its integer products
            wrongly.
          ModelError: the engine cannot read the graph.
        """
        quant, path = artifact.manifest.quant, artifact.path / "step.onnx"
        provider = pick_provider(device, quant, cap_bytes)
        self.parameters, self.batch_limit = parameters, None
        self.passes = self.evaluations = 0
        self.device, self.reason = provider.device, provider.reason
        self.dtype = "int8" if quants.get(quant).rounds_activations else "float32"
        self._one_sample_a_call = artifact.manifest.calls == POINTS_OF_A_SAMPLE
        self._rows = [
            _TokenRows(artifact, component, ids)
            for component, ids in zip(artifact.text_encoders, token_ids, strict=True)
        ]
        self.pages: MappedWeights | None = None
        if lean:
            self.pages = MappedWeights(artifact.path / "step.weights", artifact.manifest.tensors)
        self._open = partial(
            open_session,
            path,
            provider,
            options={**artifact.manifest.engine, **exact_opening(artifact).options},
            lean=lean,
            pages=self.pages,
        )
        self._threads = threads
        self.session: Any = self._open(threads=threads)
        check_values(path, self.session, _inputs(artifact), ("loss", "prediction"))
        # The graph says by its names which of its inputs all points of a sample may share.
        first = {value.name: value.shape[0] for value in self.session.get_inputs()}
        self._given_once = tuple(name for name in _SAMPLE if first[name] != first["token"])

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on.

        A session's threads are those it was opened with, so it is opened again; the old one is let
        go first, so that no more is held than before.
        """
        if count == self._threads:
            return
        self.session = None
        give_back_memory()
        self._threads, self.session = count, self._open(threads=count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sample at every point, (points, samples)."""
        losses = np.empty((len(points), len(batch["latents"])), np.float32)
        for at, feeds in self._training_feeds(batch, points):
            losses.ravel()[at] = call(self.session, ["loss"], feeds)[0]
            self.passes += 1
        self.evaluations += losses.size
        return losses

    def predictions(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the output of every sample at every point, (points, B, C, h, w) float32.

        The same calls as of `forward`: the graph of every artifact gives it beside the loss.
        """
        samples, *shape = batch["latents"].shape
        found: Array = np.empty((len(points) * samples, *shape), np.float32)
        for at, feeds in self._training_feeds(batch, points):
            found[at] = call(self.session, ["prediction"], feeds)[0]
            self.passes += 1
        self.evaluations += len(found)
        return found.reshape(len(points), samples, *shape)

    def predict(self, batch: Batch, point: Point) -> Array:
        """Return the denoiser's output (B, C, h, w) float32; `target` is not needed."""
        outputs: Array = np.empty(batch["latents"].shape, np.float32)
        whole = {**batch, "target": np.zeros_like(outputs)}
        for at, feeds in self.feeds(whole, [point]):
            outputs[at] = call(self.session, ["prediction"], feeds)[0]
        return outputs

    def feeds(
        self, batch: Batch, points: Sequence[Point], limit: int | None = None
    ) -> Iterator[_Call]:
        """Yield (place in the flattened (points, samples), the graph's inputs) of every call."""
        samples = len(batch["latents"])
        cells = int(np.prod(batch["latents"].shape[2:]))
        fitting = max(1, min(_SAMPLES_PER_CALL, _CELLS_PER_CALL // cells))
        limit = self.batch_limit or limit or fitting
        for start in range(0, len(points) * samples, limit):
            at = slice(start, min(start + limit, len(points) * samples))
            which = np.arange(at.start, at.stop)
            used, owners = which % samples, (which // samples).tolist()
            once = self._given_once if (used == used[0]).all() else ()
            feeds = {
                name: np.ascontiguousarray(values[used[:1] if name in once else used])
                for name, values in batch.items()
            }
            for suffix, rows in zip(_SUFFIXES, self._rows, strict=False):
                feeds[f"rows{suffix}"] = rows.read(feeds[f"ids{suffix}"])
                feeds[f"token{suffix}"] = np.stack([points[p][f"token{suffix}"] for p in owners])
            yield at, feeds

    def _training_feeds(self, batch: Batch, points: Sequence[Point]) -> Iterator[_Call]:
        """Yield the calls of `forward`: where samples must not meet, one after another."""
        if not self._one_sample_a_call:
            yield from self.feeds(batch, points, 1 if self.dtype == "int8" else None)
            return
        samples = len(batch["latents"])
        for sample in range(samples):
            one = {name: values[sample : sample + 1] for name, values in batch.items()}
            for at, feeds in self.feeds(one, points):
                yield slice(at.start * samples + sample, at.stop * samples, samples), feeds

    def device_bytes(self) -> int:
        """Return 0: what an accelerator holds is not known to this engine."""
        return 0

    def close(self) -> None:
        """Let go of every weight; the runtime cannot be used afterwards. Twice is as good as once.

        `pages` still says how large the mapped weights are.
        """
        self.session = None
        if self.pages is not None:
            self.pages.release()
        self._rows.clear()
        give_back_memory()


def _inputs(artifact: Artifact) -> list[Value]:
    """Return what `step.onnx` takes, by the artifact's specification."""
    manifest, ids = artifact.manifest, "tensor(int64)"
    side = manifest.resolution // manifest.latent_scale
    latents = (None, manifest.latent_channels, side, side)
    inputs = [Value("latents", latents), Value("target", latents), Value("timesteps", (None,), ids)]
    for suffix, width in zip(_SUFFIXES, manifest.text_widths, strict=False):
        prompt = (None, manifest.prompt_tokens)
        inputs.append(Value(f"ids{suffix}", prompt, ids))
        inputs.append(Value(f"rows{suffix}", (*prompt, width)))
        inputs.append(Value(f"token{suffix}", (None, None, width)))
    if manifest.family == "sdxl":
        inputs.append(Value("time_ids", (None, 6)))
    return inputs


class _TokenRows:
    """The rows of one token table that a run reads."""

    def __init__(self, artifact: Artifact, component: str, ids: Collection[int]) -> None:
        self._ids = np.array(sorted(set(ids)), np.int64)
        self._rows = artifact.embedding_rows(component, self._ids.tolist())

    def read(self, ids: NDArray[np.int64]) -> Array:
        """Return (batch, length, width) for ids (batch, length); anything where an id is negative.

        Raises:
          ValueError: an id that was not in `token_ids` at open.
        """
        places = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        unknown = ids[(ids >= 0) & (self._ids[places] != ids)]
        if unknown.size:
            raise ValueError(f"token ids {sorted(set(unknown.tolist()))} were not in token_ids")
        rows: Array = self._rows[places]
        return rows


def forward_peak(folder: Path) -> int:
    """Return the peak resident bytes of this process after one training step's passes.

    Call it in a fresh process; the batch is zeros, since no size depends on the numbers.
    """
    artifact = open_artifact(folder)
    side = artifact.resolution // artifact.latent_scale
    latents = np.zeros((1, artifact.latent_channels, side, side), np.float32)
    batch: dict[str, NDArray[Any]] = {
        "latents": latents,
        "target": latents,
        "timesteps": np.zeros(1, np.int64),
    }
    blocks = {}
    for suffix, width in zip(_SUFFIXES, artifact.manifest.text_widths, strict=False):
        batch[f"ids{suffix}"] = np.zeros((1, artifact.prompt_tokens), np.int64)
        blocks[f"token{suffix}"] = np.zeros((1, width), np.float32)
    if artifact.family == "sdxl":
        batch["time_ids"] = np.zeros((1, 6), np.float32)
    token_ids = [[0]] * len(blocks)
    runtime = OnnxDiffusion(
        artifact, Parameters(blocks), device="cpu", token_ids=token_ids, threads=1
    )
    runtime.forward(batch, [blocks, blocks])
    return measure().peak_bytes
