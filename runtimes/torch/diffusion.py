"""Stable Diffusion 1.x, 2.x and XL in torch: losses at many points, and the exact gradient."""

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.memory.measure import give_back_memory, map_large_blocks
from edge_train.protocols import Apply
from edge_train.runtimes.torch.card import CardMemory, limit_memory, pick_device
from edge_train.runtimes.torch.diffusion_modules import load_text_encoder, load_unet, pick_dtype
from edge_train.runtimes.torch.spilled_weights import SpilledWeights
from edge_train.runtimes.torch.token_rows import TokenRows

BLOCKS = ("token", "token_2")  # trainable block of each text encoder
_IDS = ("ids", "ids_2")  # batch key of each text encoder's prompts
# Latent cells in one U-Net call. On a CPU a second 512-pixel sample saves a tenth of the time and
# costs 0.3 GB; a GPU gains more from four.
_CELLS_PER_CALL = {"cpu": 4_096, "cuda": 16_384}
_MOST_BYTES = 8  # that a weight takes in a file, with what aligns it
_SAMPLES_PER_CALL = 64  # above this a call gets no faster, only larger


@dataclass(frozen=True)
class _Texts:
    """The texts that a batch needs, each once.

    Row r is the prompt of sample `samples[r]` at point `points[r]`; `rows` (points, samples) says
    which row an evaluation uses.
    """

    samples: NDArray[np.intp]
    points: NDArray[np.intp]
    rows: NDArray[np.intp]


class TorchDiffusion:
    """A frozen Stable Diffusion whose only variable is the vectors of one token.

    A batch holds `latents` (B, C, h, w) float32, already noised; `timesteps` (B,) int64;
    `target` (B, C, h, w) float32; `ids` (B, length) int64, where id -1-j stands for trained
    vector j; for SDXL also `ids_2` (B, length) and `time_ids` (B, 6) float32. The loss of a
    sample is the mean squared error of the UNet's output, taken in float32; where the batch holds
    `weights` (B, 1, h, w) float32, every square is multiplied by its own before. Where it holds
    `blank` (B,) bool, the UNet is told zeros in the place of these prompts, in forward passes.

    Equal calls give bitwise equal results on a CPU, also in another process, as long as the
    thread count and `batch_limit` are the same.

    Attributes:
      parameters: block `token` (vectors, width), for SDXL also `token_2`.
      device, dtype: what `auto` came to mean, for the record.
      pages: the weights, where they lie in a file; None where they are in memory.
      passes: over the weights so far, in `forward`: every U-Net call is one, block by block.
      evaluations: losses that these passes gave; a pass serves all points and samples of its call.
      batch_limit: most samples in one U-Net call of `forward` and `predict`; None: one of 512
        pixels on a CPU, four on CUDA, more of smaller ones up to 64.
      gradient_batch_limit: the same for `backward`; None: a quarter of `batch_limit`.
    """

    parameters: Parameters
    device: str
    dtype: str
    batch_limit: int | None
    gradient_batch_limit: int | None

    def __init__(
        self,
        parameters: Parameters,
        unet: nn.Module,
        text_encoders: Sequence[nn.Module],
        token_rows: Sequence[TokenRows],
        pages: SpilledWeights | None = None,
    ) -> None:
        self.parameters, self.pages = parameters, pages
        self.passes = self.evaluations = 0
        self.batch_limit = self.gradient_batch_limit = None
        self._unet: nn.Module | None = unet
        self._text_encoders = list(text_encoders)
        self._token_rows = list(token_rows)
        weight = next(unet.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self.device, self.dtype = self._device.type, str(self._dtype).removeprefix("torch.")
        self.card = CardMemory(self._device)

    @classmethod
    def open(
        cls,
        model: ModelFolder,
        parameters: Parameters,
        *,
        quant: str = "none",
        dtype: str = "auto",
        device: str = "auto",
        token_ids: Sequence[Collection[int]],
        threads: int,
        lean: bool = False,
        cap_bytes: int | None = None,
    ) -> "TorchDiffusion":
        """Load text encoders and UNet, one layer at a time.

        Args:
          parameters: block `token` (vectors, width), for SDXL also `token_2`; read at `backward`.
          quant: `none`, or `int8` / `int4` weights of Linear and Conv2d (optimum-quanto).
          dtype: of activations and unquantized weights. `auto` is float32 on a CPU, or bfloat16
            if the model is large and the CPU computes in it; on CUDA float16, or bfloat16 with
            `int4`.
          device: `auto` is CUDA where there is one.
          token_ids: per text encoder, every vocabulary id a prompt will ever hold; other rows of
            its token table are never read.
          threads: for the whole process; torch knows no smaller scope.
          lean: keep the weights in a temporary file on disk, from which they are read in place.
          cap_bytes: on CUDA, what this process's allocator may take; more fails as out of memory.

        Raises:
          InputError: an option has an unknown value, CUDA was named and there is none, or the disk
            has no room for the weights of a lean run.
          ModelError: a weight file is damaged or does not fit its configuration.

        Memory:
          The weights as loaded plus a few copies of the largest layer; lean, those alone.
        """
        where = pick_device(device)
        number = pick_dtype(dtype, where, quant, model)
        torch.set_num_threads(threads)
        limit_memory(where, cap_bytes)
        pages = None
        if lean and where.type != "cpu":
            raise InputError(
                f"--lean leaves the weights in a file, which only the cpu can compute from; device "
                f"is {where.type}. Leave it out, or use --device cpu."
            )
        if lean:
            map_large_blocks()  # else the heap that loading frees counts against a limit of data
            names = ("unet", *model.text_encoders)
            pages = SpilledWeights(_MOST_BYTES * sum(map(model.parameter_count, names)))
        encoders, token_rows = [], []
        for component, ids in zip(model.text_encoders, token_ids, strict=True):
            encoder, rows = load_text_encoder(model, component, ids, number, where, quant, pages)
            encoders.append(encoder)
            token_rows.append(rows)
        unet = load_unet(model, number, where, quant, pages)
        return cls(parameters, unet, encoders, token_rows, pages)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sample at every point, (points, samples).

        All evaluations share U-Net calls of up to `batch_limit` samples; a text that holds no
        trained vector is encoded once for all points. `parameters` is neither read nor changed.
        """
        samples = len(batch["latents"])
        losses = np.empty(len(points) * samples, np.float32)
        with torch.no_grad():
            for at, used, output in self._evaluate(batch, points):
                losses[at] = self._squares(batch, used, output).mean(1).cpu().numpy()
                self.passes += 1
        self.evaluations += losses.size
        return losses.reshape(len(points), samples)

    def predict(self, batch: Batch, point: Point) -> Array:
        """Return the UNet's output (B, C, h, w) float32; `target` is not needed."""
        return self._predictions(batch, [point])

    def predictions(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the UNet's output of every sample at every point, (points, B, C, h, w) float32.

        The same calls as of `forward`, which keeps no more of an output than its mean square.
        """
        found = self._predictions(batch, points)
        self.evaluations += len(found)
        self.passes += -(-len(found) // self._limit(batch))
        return found.reshape(len(points), *batch["latents"].shape)

    def _predictions(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return outputs (points * B, C, h, w)."""
        samples, *shape = batch["latents"].shape
        outputs = np.empty((len(points) * samples, *shape), np.float32)
        with torch.no_grad():
            for at, _, output in self._evaluate(batch, points):
                outputs[at] = output.float().cpu().numpy()
        return outputs

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the mean loss at `parameters`; return losses (samples,).

        Memory is bounded twice: the UNet runs on `gradient_batch_limit` samples at a time and
        recomputes its activations layer by layer, and the text encoders run again, one text at a
        time, after the UNet's activations are gone.
        """
        points = [self.parameters]
        texts = distinct_texts(batch, points, self._ids_keys)
        samples = len(texts.rows[0])
        losses = np.empty(samples, np.float32)
        with torch.no_grad():
            features = self._encode(batch, points, texts)
        # The sum over elements is differentiated and divided at the end: the mean's gradients
        # would be too small for float16.
        gradients = [torch.zeros_like(part, dtype=torch.float32) for part in features]
        limit = self.gradient_batch_limit or max(1, self._limit(batch) // 4)
        for start in range(0, samples, limit):
            used = np.arange(start, min(start + limit, samples))
            rows = torch.from_numpy(texts.rows[0, used]).to(self._device)
            inputs = [part[rows].requires_grad_() for part in features]
            losses[used], parts = self._differentiated(batch, used, inputs, inputs)
            for total, part in zip(gradients, parts, strict=True):
                total.index_add_(0, rows, part.float())
            del parts, inputs
        for name, gradient in self._through_text(batch, texts, gradients).items():
            apply(name, (gradient / batch["target"].size).cpu().numpy())
        return losses

    def _differentiated(
        self,
        batch: Batch,
        used: NDArray[np.intp],
        features: Sequence[Tensor],
        asked: Sequence[Tensor],
    ) -> tuple[Array, tuple[Tensor, ...]]:
        """Return losses of some samples, and gradients of the sum of their squared errors.

        Args:
          features: of the texts of these samples.
          asked: what the gradients are of.
        """
        with torch.enable_grad():
            output = self._unet_output(batch, used, features)
            squares = self._squares(batch, used, output)
            parts = torch.autograd.grad(squares.sum(), asked)
        return squares.detach().mean(1).cpu().numpy(), parts

    def _squares(self, batch: Batch, used: NDArray[np.intp], output: Tensor) -> Tensor:
        """Return the squared errors of some samples, (samples, values), times their weights."""
        squares = (output.float() - self._tensor(batch["target"][used], torch.float32)).square()
        if "weights" in batch:
            squares = squares * self._tensor(batch["weights"][used], torch.float32)
        return squares.flatten(1)

    def backward_each(
        self, batch: Batch, vectors: Mapping[str, Array], pulled: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Return losses (B,) and the gradient of each by vectors of its own, (B, vectors, width).

        Every sample has its own token: as many of them learn side by side as a batch has samples.
        All samples are in one call, and `parameters` is not read.

        Args:
          vectors: by block, (B, vectors, width).
          pulled: (B, C, h, w); if given, the products of these with the output's Jacobian come in
            the place of gradients.
        """
        used = np.arange(len(batch["latents"]))
        names = BLOCKS[: len(self._text_encoders)]
        for key, rows in zip(self._ids_keys, self._token_rows, strict=True):
            rows.check(batch[key])
        with torch.enable_grad():
            blocks = [self._tensor(vectors[n], torch.float32).requires_grad_() for n in names]
            features = self._text_features(batch, used, blocks)
            output = self._unet_output(batch, used, features)
            squares = self._squares(batch, used, output)
            if pulled is None:  # sums, as in `backward`: gradients of means are small for float16
                found = torch.autograd.grad(squares.sum(), blocks)
                found = tuple(part / squares.shape[1] for part in found)
            else:
                given = self._tensor(pulled, output.dtype)
                found = torch.autograd.grad([output], blocks, [given])
        parts = zip(names, found, strict=True)
        losses = squares.detach().mean(1).cpu().numpy()
        return losses, {name: part.cpu().numpy() for name, part in parts}

    def device_bytes(self) -> int:
        """Return the most that was held on the CUDA device, 0 on a CPU; see `CardMemory`."""
        return self.card.peak_bytes()

    def close(self) -> None:
        """Let go of every weight; the runtime cannot be used afterwards. Twice is as good as once.

        `pages` still says how large the weights in the file are.
        """
        self._unet = None
        if self.pages is not None:
            self.pages.release()
        self._text_encoders.clear()
        self._token_rows.clear()
        gc.collect()
        give_back_memory()
        self.card.give_back()

    @property
    def _ids_keys(self) -> tuple[str, ...]:
        return _IDS[: len(self._text_encoders)]

    def _limit(self, batch: Batch) -> int:
        height, width = batch["latents"].shape[2:]
        fitting = min(_SAMPLES_PER_CALL, _CELLS_PER_CALL[self.device] // (height * width))
        return self.batch_limit or max(1, fitting)

    def _tensor(self, array: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, dtype)

    def _evaluate(
        self, batch: Batch, points: Sequence[Point]
    ) -> Iterator[tuple[slice, NDArray[np.intp], Tensor]]:
        """Yield (place in the flattened (points, samples), samples used, UNet output)."""
        texts = distinct_texts(batch, points, self._ids_keys)
        features = self._encode(batch, points, texts)
        count, limit = texts.rows.size, self._limit(batch)
        for start in range(0, count, limit):
            at = slice(start, min(start + limit, count))
            used = np.arange(at.start, at.stop) % texts.rows.shape[1]
            rows = torch.from_numpy(texts.rows.ravel()[at]).to(self._device)
            told = [part[rows] for part in features]
            if "blank" in batch:
                blank = self._tensor(batch["blank"][used], torch.bool)
                for part in told:
                    part[blank] = 0
            yield at, used, self._unet_output(batch, used, told)

    def _unet_output(
        self, batch: Batch, used: NDArray[np.intp], features: Sequence[Tensor]
    ) -> Tensor:
        """Run the UNet on some samples, each with its text features."""
        condition: dict[str, Any] = {}
        if len(features) > 1:
            time_ids = self._tensor(batch["time_ids"][used], torch.float32)
            condition["added_cond_kwargs"] = {"text_embeds": features[1], "time_ids": time_ids}
        latents = self._tensor(batch["latents"][used], self._dtype)
        timesteps = self._tensor(batch["timesteps"][used], torch.int64)
        assert self._unet is not None
        output: Tensor = self._unet(
            latents, timesteps, features[0], return_dict=False, **condition
        )[0]
        return output

    def _encode(self, batch: Batch, points: Sequence[Point], texts: _Texts) -> list[Tensor]:
        """Return the text features of every distinct text, at most `batch_limit` at a time."""
        for key, rows in zip(self._ids_keys, self._token_rows, strict=True):
            rows.check(batch[key])
        parts = []
        limit = self._limit(batch)
        for start in range(0, len(texts.samples), limit):
            at = slice(start, start + limit)
            vectors = [
                self._tensor(np.stack([points[p][name] for p in texts.points[at]]), torch.float32)
                for name in BLOCKS[: len(self._text_encoders)]
            ]
            parts.append(self._text_features(batch, texts.samples[at], vectors))
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def _text_features(
        self, batch: Batch, used: NDArray[np.intp], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return hidden states (n, length, width), and for SDXL the pooled text (n, width).

        SDXL conditions on the last but one layer of both encoders, side by side, and pools the
        second; the others use the last layer after its norm.
        """
        hidden: list[Tensor] = []
        pooled: list[Tensor] = []
        for key, encoder, rows, block in zip(
            self._ids_keys, self._text_encoders, self._token_rows, vectors, strict=True
        ):
            rows.vectors = block
            ids = self._tensor(batch[key][used], torch.int64)
            if len(self._text_encoders) == 1:
                return [encoder(ids).last_hidden_state]
            output = encoder(ids, output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = [output.text_embeds] if hasattr(output, "text_embeds") else []
        return [torch.cat(hidden, -1), *pooled]

    def _through_text(
        self, batch: Batch, texts: _Texts, gradients: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return each block's gradient, given that of the features of every distinct text."""
        names = BLOCKS[: len(self._text_encoders)]
        blocks = [
            self._tensor(self.parameters[name], torch.float32).requires_grad_() for name in names
        ]
        totals = [torch.zeros_like(block) for block in blocks]
        for row, sample in enumerate(texts.samples):
            if not any((batch[key][sample] < 0).any() for key in self._ids_keys):
                continue
            with torch.enable_grad():
                features = self._text_features(
                    batch, np.array([sample]), [block[None] for block in blocks]
                )
            given = [part[row : row + 1].to(self._dtype) for part in gradients]
            parts = torch.autograd.grad(features, blocks, given, allow_unused=True)
            for total, part in zip(totals, parts, strict=True):
                if part is not None:  # None: this encoder's prompt does not hold the token
                    total += part
        return dict(zip(names, totals, strict=True))


def distinct_texts(batch: Batch, points: Sequence[Point], keys: Sequence[str]) -> _Texts:
    """Return the (point, prompt) pairs that differ; a prompt without the token counts once."""
    seen: dict[tuple[int, bytes], int] = {}
    samples: list[int] = []
    at_points: list[int] = []
    prompts: NDArray[np.int64] = np.concatenate([batch[key] for key in keys], axis=1)
    trained = [bool((prompt < 0).any()) for prompt in prompts]
    rows = np.empty((len(points), len(prompts)), np.intp)
    for point in range(len(points)):
        for sample, prompt in enumerate(prompts):
            key = (point if trained[sample] else 0, prompt.tobytes())
            row = seen.setdefault(key, len(samples))
            if row == len(samples):
                samples.append(sample)
                at_points.append(point)
            rows[point, sample] = row
    return _Texts(np.array(samples, np.intp), np.array(at_points, np.intp), rows)
