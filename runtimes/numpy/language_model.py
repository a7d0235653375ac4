"""A language model of the Llama family with adapters, computed and differentiated by NumPy."""

import gc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import ModelError
from edge_train.formats.adapter import Adapter
from edge_train.formats.language_folder import LanguageFolder
from edge_train.memory.measure import give_back_memory, keep_freed_blocks, map_large_blocks
from edge_train.protocols import Apply, LastLayer
from edge_train.runtimes.beside import beside, calls
from edge_train.runtimes.numpy.adapted_layers import AdaptedLayers
from edge_train.runtimes.numpy.attention import Sight
from edge_train.runtimes.numpy.decoder import Decoder, decoder_of
from edge_train.runtimes.numpy.decoder_layer import DecoderLayer, Places, Tables
from edge_train.runtimes.numpy.stored_matrices import StoredMatrices
from edge_train.runtimes.numpy.token_loss import Head, losses_among, token_losses
from edge_train.runtimes.numpy.vector_steps import normalize, normalize_backward

_TOKENS_PER_CALL = 512  # of an evaluation: products of more are not faster
MEMORY_STEP = 128  # positions that keys and values of a continuation grow by
_WORDS, _LAST_NORM, _OUTPUT = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


class NumpyLanguageModel:
    """A decoder whose weights stay in their files; the blocks of its adapter are trained.

    A backward pass computes each layer once more from its inputs, and hands gradients over as soon
    as they are known, the last layer's first. Weights become float32 a megabyte at a time, and the
    logits exist for some words at a time.

    Args:
      decoder: what the network is.
      blocks: values of `adapter.shapes()`; they are trained in place.

    Memory: the adapter; the inputs of every layer; what one layer computes, and its errors.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(
        self, decoder: Decoder, matrices: StoredMatrices, adapter: Adapter, blocks: Point
    ) -> None:
        self.parameters = Parameters.sharing(blocks)
        self.batch_limit: int | None = None  # of an evaluation; a gradient takes the whole batch
        self._decoder, self._matrices = decoder, matrices
        paths = frozenset(target.path for target in adapter.targets)
        linear = AdaptedLayers(matrices, adapter, paths)
        self._layers = [DecoderLayer(decoder, linear, index) for index in range(decoder.layers)]
        self._lowest = min(
            (n for n in range(decoder.layers) if any(f".layers.{n}." in path for path in paths)),
            default=decoder.layers,
        )
        head = _WORDS if decoder.tied else _OUTPUT
        self._head = Head(matrices, head, decoder.logit_cap)
        self._written = _Written()

    @classmethod
    def open(
        cls,
        folder: LanguageFolder,
        adapter: Adapter,
        *,
        seed: int,
        blocks: Point | None = None,
        lean: bool = False,
    ) -> "NumpyLanguageModel":
        """Check a model and take it as it lies on disk; no weight is read but vectors.

        Args:
          seed: of matrices A.
          blocks: of the adapter, where it is not new.
          lean: give every large block back as it is freed, which takes page faults.

        Raises:
          ModelError: it is of another family, a tensor is missing or has another shape, or the
            adapter is beside other layers.
        """
        if lean:
            map_large_blocks()
        else:
            keep_freed_blocks()
        decoder = decoder_of(folder.config, folder.path)
        matrices = StoredMatrices(folder.files, folder.path)
        _check(decoder, matrices, folder)
        known = set(decoder.linear_layers())
        for target in adapter.targets:
            if target.path not in known:
                raise ModelError(
                    f"{folder.path}: has no linear layer {target.path!r} that engine 'numpy' could "
                    "put an adapter beside; name others with --targets."
                )
            matrices.check(f"{target.path}.weight", (target.outputs, target.inputs))
        if blocks is None:
            linear = AdaptedLayers(matrices, adapter, frozenset())
            lengths = {}
            if adapter.kind == "dora":
                lengths = {t.path: linear.row_lengths(t.path) for t in adapter.targets}
            blocks = adapter.drawn(seed, lengths)
        return cls(decoder, matrices, adapter, blocks)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the numbers stay the same."""
        self._matrices.workers.use(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sequence, (points, sequences).

        Where a call has room for more sequences than there are, it takes several points.
        """
        count, length = batch["ids"].shape
        limit = self.batch_limit or sequences_per_call(length - 1)
        losses = np.empty((len(points), count), np.float32)
        for some, at in calls(len(points), count, limit):
            part = beside(batch, at, len(points[some]))
            hidden, places = self._words(part), _places(self._decoder, part)
            for layer in self._layers:
                hidden = layer.forward(points[some], hidden, places)
            found, _ = self._losses(part, hidden, sloped=False)
            losses[some, at] = found.reshape(len(points[some]), -1)
        return losses

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of every block of the adapter; return losses (sequences,).

        A loss that is not finite is returned without any gradient.
        """
        point, places = self.parameters, _places(self._decoder, batch)
        inputs = [self._words(batch)]
        for layer in self._layers:
            inputs.append(layer.forward([point], inputs[-1], places))
        losses, error = self._losses(batch, inputs.pop(), sloped=True)
        if error is None or not np.isfinite(losses).all():
            return losses
        for layer in reversed(self._layers[self._lowest :]):
            needed = layer.index > self._lowest
            passed = layer.backward(point, inputs.pop(), places, error, apply, needed=needed)
            if passed is not None:
                error = passed
        return losses

    @property
    def last_layer_shape(self) -> tuple[int, int]:
        """Of a square layer before the head, at identity; see `TellsLastLayer`."""
        return self._decoder.width, self._decoder.width

    def last_layer(self, batch: Batch) -> LastLayer:
        """Return hidden vectors and the errors at them, a row for each token that counts.

        Memory: one call without a tape; two vectors of each token.
        """
        count, length = batch["ids"].shape
        limit = self.batch_limit or sequences_per_call(length - 1)
        losses = np.zeros(count, np.float64)
        inputs, errors, samples = list[Array](), list[Array](), list[NDArray[np.int64]]()
        for start in range(0, count, limit):
            part = {name: values[start : start + limit] for name, values in batch.items()}
            hidden, places = self._words(part), _places(self._decoder, part)
            for layer in self._layers:
                hidden = layer.forward([self.parameters], hidden, places)
            one = self._tokens(part, hidden, sloped=True)
            assert one.slopes is not None
            rows = start + one.counted // (length - 1)
            np.add.at(losses, rows, one.losses * one.weight.astype(np.float64))
            inputs.append(one.normed)
            errors.append(one.slopes * one.weight[:, None])
            samples.append(rows)
        joined = (np.concatenate(inputs), np.concatenate(errors), np.concatenate(samples))
        return LastLayer(losses.astype(np.float32), *joined)

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,).

        Keys and values of the tokens before are kept: ids that begin as those of the last call cost
        their new tokens only, as long as the adapter has the same values.

        Memory: keys and values, 8 bytes times the numbers of a token's heads, for every layer.
        """
        decoder, written = self._decoder, self._written
        kept = written.begin(ids, _checksum(self.parameters), decoder)
        new = np.array(ids[kept:], np.int64)
        positions = np.arange(kept, len(ids))
        places = _Positioned(decoder, positions, [slice(0, len(new))], None, kept).places()
        hidden = self._words({"ids": np.append(new, 0)[None]})
        for layer in self._layers:
            memory = written.memory[layer.index]
            hidden = layer.cached(self.parameters, hidden, places, memory)
        written.ids = list(ids)
        logits: Array = self._head.logits(self._last_norm(hidden[-1:]))[0]
        return logits

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self._written = _Written()

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Let go of the adapter, of what was written and of threads."""
        self._matrices.workers.close()
        self.parameters = Parameters({})
        self._written = _Written()
        gc.collect()
        give_back_memory()

    def _words(self, batch: Batch) -> Array:
        """Return the vectors of the tokens that something is predicted from, (tokens, width)."""
        found = self._matrices.rows(_WORDS, batch["ids"][:, :-1].reshape(-1))
        if self._decoder.embedding_scale != 1:
            found *= np.float32(self._decoder.embedding_scale)
        return found

    def _last_norm(self, hidden: Array) -> Array:
        return normalize(
            hidden, self._last_weight, self._decoder.norm_offset, self._decoder.epsilon
        )

    @property
    def _last_weight(self) -> Array:
        found = self._matrices.vector(_LAST_NORM)
        assert found is not None, "checked when the network was opened"
        return found

    def _losses(self, batch: Batch, hidden: Array, *, sloped: bool) -> tuple[Array, Array | None]:
        """Return the loss of every sequence, and where asked the slope of their mean at `hidden`.

        Tokens of weight 0 cost nothing here.
        """
        count, length = len(batch["ids"]), batch["ids"].shape[1] - 1
        one = self._tokens(batch, hidden, sloped=sloped)
        each = np.zeros(count * length, np.float64)
        each[one.counted] = one.losses * one.weight.astype(np.float64)
        losses = each.reshape(count, length).sum(axis=1).astype(np.float32)
        if (slope := one.slopes) is None:
            return losses, None
        slope *= (one.weight / np.float32(count))[:, None]
        decoder = self._decoder
        error = np.zeros_like(hidden)
        error[one.counted] = normalize_backward(
            hidden[one.counted], self._last_weight, decoder.norm_offset, decoder.epsilon, slope
        )
        return losses, error

    def _tokens(self, batch: Batch, hidden: Array, *, sloped: bool) -> "_Tokens":
        """Return losses of the tokens that count, and where asked their slopes."""
        ids = batch["ids"]
        count, length = len(ids), ids.shape[1] - 1
        weight = batch.get("weight")
        if weight is None:
            weight = np.full((count, length), 1 / length, np.float32)
        flat = weight.reshape(-1)
        counted = np.flatnonzero(flat)
        smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
        targets, normed = ids[:, 1:].reshape(-1)[counted], self._last_norm(hidden[counted])
        if "choices" in batch:
            choices = batch["choices"][counted // length]
            found, slopes = losses_among(self._head, normed, targets, choices, sloped=sloped)
        else:
            found, slopes = token_losses(self._head, normed, targets, smoothing, sloped=sloped)
        return _Tokens(counted, flat[counted], normed, found, slopes)


def sequences_per_call(length: int) -> int:
    """Return how many sequences of a length are judged in a call, where nobody sets a limit."""
    return max(1, _TOKENS_PER_CALL // length)


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a batch that count.

    Attributes:
      counted: their places among all, (tokens,).
      weight: of each, as the batch has it.
      normed: what the head gets, (tokens, width).
      losses: cross-entropies, (tokens,).
      slopes: of these at `normed`; None: not asked for.
    """

    counted: NDArray[np.int64]
    weight: Array
    normed: Array
    losses: Array
    slopes: Array | None


class _Written:
    """Keys and values of what `next_logits` was asked for last."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.memory: list[Array] = []
        self._of = 0

    def begin(self, ids: Sequence[int], of: int, decoder: Decoder) -> int:
        """Return how many of the first ids are known, and make room for the others.

        Args:
          of: what tells the adapter's values from others.
        """
        most = min(len(self.ids), len(ids) - 1) if of == self._of else 0
        kept = next((n for n in range(most) if self.ids[n] != ids[n]), most)
        for rotation in decoder.rotations:
            longer = len(self.ids) > rotation.before, len(ids) > rotation.before
            if rotation.long is not None and longer[0] != longer[1]:
                kept = 0  # all positions turn otherwise from here on
        self.ids, self._of = list(ids[:kept]), of
        room = -(-len(ids) // MEMORY_STEP) * MEMORY_STEP
        if not kept or room > len(self.memory[0]):
            shape = (room, 2 * decoder.groups, decoder.head)
            before, self.memory = self.memory, []
            for _ in range(decoder.layers):
                larger = np.empty(shape, np.float32)
                if kept:
                    larger[:kept] = before.pop(0)[:kept]
                self.memory.append(larger)
        return kept


class _Positioned:
    """Tokens with their positions; tables and sights of every layer are made of them.

    Args:
      documents: of every sequence, (sequences, length); None: one each.
      before: tokens in front of the first one, from earlier calls.
    """

    def __init__(
        self,
        decoder: Decoder,
        positions: NDArray[Any],
        sequences: list[slice],
        documents: NDArray[Any] | None,
        before: int = 0,
    ) -> None:
        self._decoder, self._documents, self._before = decoder, documents, before
        self._sequences = sequences
        self._tables = {
            id(rotation): rotation.tables(positions) for rotation in set(decoder.rotations)
        }

    def places(self) -> Places:
        """Return them as layers ask for them."""
        return Places(self._sequences, self._of_layer, self._sight)

    def _of_layer(self, index: int) -> Tables:
        return self._tables[id(self._decoder.rotations[index])]

    def _sight(self, index: int, sequence: int) -> Sight:
        documents = None if self._documents is None else self._documents[sequence]
        return Sight(documents, self._decoder.windows[index], self._before)


def _places(decoder: Decoder, batch: Batch) -> Places:
    """Return where the tokens of a batch stand: positions begin again with each document."""
    count, length = len(batch["ids"]), batch["ids"].shape[1] - 1
    documents = batch.get("document")
    along = np.broadcast_to(np.arange(length), (count, length))
    positions = along
    if documents is not None:
        begins = np.ones((count, length), bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        positions = along - np.maximum.accumulate(np.where(begins, along, 0), axis=1)
    sequences = [slice(n * length, (n + 1) * length) for n in range(count)]
    return _Positioned(decoder, positions.reshape(-1), sequences, documents).places()


def _check(decoder: Decoder, matrices: StoredMatrices, folder: LanguageFolder) -> None:
    """Refuse a model that lacks a tensor, has one of other sides, or more layers than it says.

    Raises:
      ModelError: the first of them.
    """
    if f"model.layers.{decoder.layers}.{decoder.projections[0]}.weight" in matrices:
        raise ModelError(
            f"{folder.path}: has tensors of layer {decoder.layers}, and by its configuration the "
            f"last one is layer {decoder.layers - 1}; copy or download the model again."
        )
    width, head = decoder.width, decoder.head
    matrices.check(_WORDS, (folder.vocabulary, width))
    matrices.check(_LAST_NORM, (width,))
    if not decoder.tied:
        matrices.check(_OUTPUT, (folder.vocabulary, width))
    names = decoder.norms
    norms = (
        names.before_attention,
        names.after_attention,
        names.before_products,
        names.after_products,
    )
    wide = (decoder.heads + 2 * decoder.groups) * head
    for index in range(decoder.layers):
        inside: Callable[[str], str] = f"model.layers.{index}.{{}}.weight".format
        for name in norms:
            if name is not None:
                matrices.check(inside(name), (width,))
        sides = [matrices.shape(inside(name)) for name in decoder.projections]
        if {side[1:] for side in sides} != {(width,)} or sum(side[0] for side in sides) != wide:
            raise ModelError(
                f"{folder.path}: the projections of layer {index} are {sides}, expected {wide} "
                f"rows of {width}; copy or download the model again."
            )
        matrices.check(inside("self_attn.o_proj"), (width, decoder.heads * head))
        inner = decoder.inner or matrices.shape(inside("mlp.down_proj"))[-1]
        matrices.check(inside("mlp.down_proj"), (width, inner))
        for name in decoder.gates:
            matrices.check(inside(name), (2 * inner // len(decoder.gates), width))
        normed = [f"self_attn.{one}_norm" for one in ("q", "k")]
        if any(inside(name) in matrices for name in normed):
            for name in normed:
                matrices.check(inside(name), (head,))
        for name in (*decoder.linear_layers(),):
            if name.startswith(f"model.layers.{index}.") and f"{name}.bias" in matrices:
                matrices.check(f"{name}.bias", matrices.shape(f"{name}.weight")[:1])


def _checksum(point: Point) -> int:
    """Return what tells values of blocks from others."""
    found = 0
    for name in point:
        found = zlib.crc32(np.ascontiguousarray(point[name]).data.cast("B"), found)
    return found
