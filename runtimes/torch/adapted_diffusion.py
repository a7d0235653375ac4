"""A Stable Diffusion with low-rank adapters: losses at points of them, and their exact gradient."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.adapter import Adapter
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.protocols import Apply
from edge_train.runtimes.torch.diffusion import BLOCKS, TorchDiffusion, distinct_texts
from edge_train.runtimes.torch.low_rank_layers import LowRankLayers


class AdaptedDiffusion(TorchDiffusion):
    """A frozen Stable Diffusion; what is trained are adapters beside its linear layers.

    The U-Net recomputes its activations block by block in the backward pass, so that its peak is
    that of the largest block, whatever the number of adapters. Gradients of A and B are small: they
    are added up in float32 over the calls of a step and handed over at its end.

    `parameters` has two blocks for each layer, named by `formats/adapter.py`. Prompts hold ordinary
    words only. All else is as in `TorchDiffusion`.
    """

    _layers: LowRankLayers
    _trained_texts: list[str]  # blocks of text encoders
    _no_vectors: Point  # what stands for the vectors of a learned word

    @classmethod
    def open_adapted(
        cls,
        model: ModelFolder,
        parameters: Parameters,
        adapter: Adapter,
        *,
        token_ids: Sequence[Collection[int]],
        threads: int,
        **options: Any,
    ) -> "AdaptedDiffusion":
        """Load the model as `TorchDiffusion.open` does, and put adapters beside its layers.

        Args:
          parameters: the blocks of `adapter.shapes()`; read at every call.
          options: of `TorchDiffusion.open`.
        """
        opened: Any = cls.open(model, parameters, token_ids=token_ids, threads=threads, **options)
        assert opened._unet is not None
        networks = {"unet": opened._unet}
        for component, encoder in zip(model.text_encoders, opened._text_encoders, strict=True):
            networks[component] = getattr(encoder, "text_model", encoder)  # one has it, one is it
        opened._layers = LowRankLayers(networks, adapter.targets, adapter.scale)
        opened._trained_texts = [
            name for component in model.text_encoders for name in opened._layers.names(component)
        ]
        opened._no_vectors = {
            block: np.zeros((1, width), np.float32)
            for block, width in zip(BLOCKS, model.text_widths, strict=False)
        }
        return cast("AdaptedDiffusion", opened)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sample at every point, (points, samples), point by point."""
        losses = []
        for point in points:
            self._layers.take(point, self._device, trained=False)
            losses.append(super().forward(batch, [self._no_vectors])[0])
        return np.stack(losses)

    def predictions(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the UNet's output of every sample at every point, (points, B, C, h, w) float32."""
        found = []
        for point in points:
            self._layers.take(point, self._device, trained=False)
            found.append(super().predictions(batch, [self._no_vectors])[0])
        return np.stack(found)

    def predict(self, batch: Batch, point: Point) -> Array:
        """Return the UNet's output (B, C, h, w) float32; `target` is not needed."""
        self._layers.take(point, self._device, trained=False)
        return super().predict(batch, self._no_vectors)

    def input_spans(self, batch: Batch, rank: int) -> dict[str, Array]:
        """Return what `LowRankLayers.input_spans` does for the samples of a batch."""
        return self._layers.input_spans(lambda: self.forward(batch, [self.parameters]), rank)

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the mean loss at `parameters`; return losses (samples,).

        Text encoders that have adapters run again, one text at a time, after the UNet's activations
        are gone.
        """
        leaves = self._layers.take(self.parameters, self._device, trained=True)
        totals = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        in_texts = [name for name in leaves if name in set(self._trained_texts)]
        in_unet = [name for name in leaves if name not in set(in_texts)]
        texts = distinct_texts(batch, [self._no_vectors], self._ids_keys)
        with torch.no_grad():
            features = self._encode(batch, [self._no_vectors], texts)
        of_features = [torch.zeros_like(part, dtype=torch.float32) for part in features]
        samples = len(texts.rows[0])
        losses = np.empty(samples, np.float32)
        limit = self.gradient_batch_limit or max(1, self._limit(batch) // 4)
        for start in range(0, samples, limit):
            used = np.arange(start, min(start + limit, samples))
            rows = torch.from_numpy(texts.rows[0, used]).to(self._device)
            inputs = [part[rows].requires_grad_(bool(in_texts)) for part in features]
            before = inputs if in_texts else []
            asked = [*before, *(leaves[name] for name in in_unet)]
            losses[used], parts = self._differentiated(batch, used, inputs, asked)
            for total, part in zip(of_features, parts[: len(before)], strict=False):
                total.index_add_(0, rows, part.float())
            for name, part in zip(in_unet, parts[len(before) :], strict=True):
                totals[name] += part
            del parts, inputs, before, asked
        if in_texts:
            self._add_through_texts(batch, texts.samples, of_features, leaves, totals)
        size = batch["target"].size
        for name in self.parameters:
            apply(name, (totals.pop(name) / size).cpu().numpy())
        return losses

    def _add_through_texts(
        self,
        batch: Batch,
        samples: Any,
        of_features: Sequence[Tensor],
        leaves: dict[str, Tensor],
        totals: dict[str, Tensor],
    ) -> None:
        """Add the gradients of the text encoders' adapters, given those of every text's features.

        Args:
          samples: of the batch, one for each text.
        """
        names = self._trained_texts
        vectors = [
            torch.from_numpy(vectors)[None].to(self._device)
            for vectors in self._no_vectors.values()
        ]
        for row, sample in enumerate(samples):
            with torch.enable_grad():
                features = self._text_features(batch, np.array([sample]), vectors)
            given = [part[row : row + 1].to(self._dtype) for part in of_features]
            asked = [leaves[name] for name in names]
            parts = torch.autograd.grad(features, asked, given, allow_unused=True)
            for name, part in zip(names, parts, strict=True):
                if part is not None:  # None: the last layer of an encoder that is read before it
                    totals[name] += part
