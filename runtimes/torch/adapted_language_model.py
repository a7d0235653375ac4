"""A causal language model of any transformers kind on torch; adapters alone are trained."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.adapter import Adapter
from edge_train.formats.language_folder import LanguageFolder
from edge_train.memory.measure import give_back_memory, map_large_blocks
from edge_train.protocols import Apply, LastLayer
from edge_train.runtimes.beside import beside, calls
from edge_train.runtimes.torch.adapted_layers import (
    Adapting,
    FrozenLinear,
    OtherRows,
    Values,
)
from edge_train.runtimes.torch.adapted_network import Base, install
from edge_train.runtimes.torch.cached_logits import CachedLogits
from edge_train.runtimes.torch.calls import LEAN_LOGITS, LOGITS_AT_ONCE, SEQUENCES_PER_CALL
from edge_train.runtimes.torch.card import (
    HOST,
    CardMemory,
    limit_memory,
    move_buffers,
    on_host,
    pick_device,
    repeatable,
)
from edge_train.runtimes.torch.documents import sequence_losses
from edge_train.runtimes.torch.dropping import Draws
from edge_train.runtimes.torch.halves import halves_of, hidden_states
from edge_train.runtimes.torch.language_network import (
    build_network,
    decoder_layers,
    recomputed,
    stored_network,
)
from edge_train.runtimes.torch.last_layer import head_factors, told_apart
from edge_train.runtimes.torch.logit_pieces import token_losses
from edge_train.runtimes.torch.products import products_in
from edge_train.runtimes.torch.stored_matrices import (
    Buffer,
)
from edge_train.runtimes.torch.stored_network import load_buffers

_LAYERS_TO_GIVE_BACK = 4  # more often saves little, and what is in use is mapped anew each time


class AdaptedLanguageModel:
    """A decoder with adapters beside its linear layers.

    `parameters` are the adapters' blocks, and nothing else is trained. Products with the base's
    matrices are in float32 or of bfloat16 (`products`), all else is in float32. The matrices are
    held in the type of products, in INT8 or INT4, or stay in their file, and become it a few rows
    at a time. A
    backward pass computes each decoder layer once more. Logits exist for some positions at a time,
    and for none that do not count.

    On a card the base is held there as it is stored, and its blocks are decoded there; `lean`
    leaves it in its file, and it is read and sent for every product. Blocks of the adapter are on
    the host: they are sent when a layer is reached, and their gradients come back.

    A batch holds `ids` (sequences, length + 1) and may hold `weight` (sequences, length), of each
    prediction (1 / length where it is missing), and `document` (sequences, length): none reads
    another.

    Memory:
      Adapters; the base as it is held; the inputs of every decoder layer; the activations of one
      layer; some logits.
    """

    pages = None

    def __init__(
        self,
        network: nn.Module,
        adapting: Adapting,
        parameters: Parameters,
        draws: Draws,
        logits_at_once: int = LOGITS_AT_ONCE,
        dtype: str = "float32",
        device: torch.device = HOST,
        *,
        by_words: bool = True,
    ) -> None:
        self.dtype, self.device = dtype, device.type
        self._device, self.card = device, CardMemory(device)
        self.parameters = parameters
        self.batch_limit: int | None = None  # of an evaluation; a gradient takes the whole batch
        self._network: Any = network
        self._adapting, self._draws = adapting, draws
        self._takes_points = True  # until a layer is given other rows
        self._halves = halves_of(network, FrozenLinear, device)
        if self._halves is not None:
            self._halves.head.by_words = by_words
        self._written = CachedLogits(network, device)
        self._logits_at_once = logits_at_once
        self._at(parameters)

    @classmethod
    def open(
        cls,
        folder: LanguageFolder,
        adapter: Adapter,
        *,
        quant: str,
        threads: int,
        seed: int,
        blocks: Mapping[str, Array] | None = None,
        lean: bool = False,
        attention: str | None = None,
        dtype: str = "float32",
        by_words: bool = True,
        device: str = "cpu",
        cap_bytes: int | None = None,
    ) -> "AdaptedLanguageModel":
        """Load a folder tensor by tensor, and put adapters into it.

        Args:
          adapter: whose targets are layers of the folder's network.
          quant: of the base: `none`, `int8` or `int4`. With `none`, matrices of a GGUF file stay
            in it as they are.
          threads: for the whole process; torch knows no smaller scope.
          seed: of matrices A, and of random weights, for a folder without any.
          blocks: of the adapter, where it is not new.
          lean: leave matrices in their file, hold fewer logits, and give every large block back as
            it is freed.
          attention: `eager` for dropout; None: what transformers takes.
          dtype: of products with the base's matrices, `float32` or `bfloat16`.
          by_words: read the output layer once for all tokens, not once for some of them at a time.
          device: where it computes, `cpu` or `cuda`.
          cap_bytes: what torch may take of a card; more fails as out of memory.

        Raises:
          InputError: there is no such device.
          ModelError: transformers does not know this kind, a tensor is missing or of another shape,
            or a target is no linear layer of this network.
        """
        where = pick_device(device)
        limit_memory(where, cap_bytes)
        torch.set_num_threads(threads)
        if lean:
            map_large_blocks()
        network = build_network(folder, attention)
        stored = stored_network(folder, network)
        load_buffers(network, stored)
        adapting = Adapting(adapter, where)
        stays = quant == "none" and (folder.made is not None or lean)
        moved = where.type != "cpu" and not lean
        base = Base(quant, stays, moved, seed, Buffer(products_in(dtype), where))
        adapted = install(network, folder, stored, adapting, base)
        if blocks is None:
            lengths = {}
            if adapter.kind == "dora":
                lengths = {p: on_host(m.squares.sqrt().float()) for p, m in adapted.items()}
            blocks = adapter.drawn(seed, lengths)
        parameters = Parameters.sharing(
            {name: np.ascontiguousarray(value, np.float32) for name, value in blocks.items()}
        )
        draws = Draws()
        for number, layer in enumerate(decoder_layers(network)):
            layer.forward = _given_back(number, recomputed(layer.forward, draws))
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        most = LEAN_LOGITS if lean else LOGITS_AT_ONCE
        move_buffers(network, where)
        parts = (network.eval(), adapting, parameters, draws, most, dtype, where)
        return cls(*parts, by_words=by_words)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sequence, (points, sequences).

        Where a call has room for more sequences than there are, it takes several points.

        Memory:
          At another point than `parameters`: the blocks of a layer once more, for each in a call.
        """
        count = len(batch["ids"])
        losses = np.empty((len(points), count), np.float32)
        limit = self.batch_limit or SEQUENCES_PER_CALL
        with torch.no_grad(), repeatable(self._device):
            for some, at in calls(len(points), count, limit):
                losses[some, at] = self._losses_at(points[some], batch, at)
        return losses

    def _losses_at(self, points: Sequence[Point], batch: Batch, at: slice) -> Array:
        """Return losses (points, sequences of `at`) of one call, or of one for each point."""
        if len(points) > 1 and self._takes_points:
            part = beside(batch, at, len(points))
            try:
                with self._beside(points, part):
                    return self._losses(part).view(len(points), -1).numpy()
            except OtherRows:
                self._takes_points = False
        part = beside(batch, at, 1)
        found = np.empty((len(points), len(part["ids"])), np.float32)
        for number, point in enumerate(points):
            with self._standing(point):
                found[number] = self._losses(part).numpy()
        return found

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,); what was read is kept.

        Only while no adapter changes: keys and values of earlier ones would be taken for theirs.
        """
        return self._written.next_logits(ids)

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self._written.forget()

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient; return losses (sequences,).

        A loss that is not finite is returned without any gradient.
        """
        self._adapting.begin()
        with repeatable(self._device), self._draws.of(self._network, batch):
            losses = self._losses(batch)
            self._adapting.end(apply)
            if bool(torch.isfinite(losses).all()):
                torch.autograd.backward(losses.mean())
        return losses.detach().numpy()

    @property
    def last_layer_shape(self) -> tuple[int, int]:
        """Of a square layer before the head; see `TellsLastLayer` and `token_factors`.

        Raises:
          InputError: this kind of network has no head that can be told apart.
        """
        width = told_apart(self._network, self._halves).head.inputs
        return width, width

    def last_layer(self, batch: Batch) -> LastLayer:
        """Return what the gradient of that layer is made of, token by token."""
        halves = told_apart(self._network, self._halves)
        together, most = self.batch_limit or SEQUENCES_PER_CALL, self._logits_at_once
        with repeatable(self._device):
            return head_factors(batch, self._before, halves, together, most)

    def _before(self, ids: Tensor, document: NDArray[Any] | None) -> Tensor:
        return self._hidden(ids.to(self._device), document)

    @property
    def where(self) -> torch.device:
        """The device that it computes on."""
        return self._device

    def words(self) -> nn.Embedding:
        """Return the table of words, whose outputs a soft prompt changes."""
        found: nn.Embedding = self._network.get_input_embeddings()
        return found

    def losses(self, batch: Batch) -> Tensor:
        """Return the loss of every sequence, (sequences,), to be differentiated; on the host."""
        return self._losses(batch)

    def device_bytes(self) -> int:
        """Return the most that was held on a card, 0 on the host; see `CardMemory`."""
        return self.card.peak_bytes()

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        with suppress(AttributeError):
            del (
                self._written,
                self._network,
                self._adapting,
                self._halves,
                self.parameters,
            )
        gc.collect()
        give_back_memory()
        self.card.give_back()

    def _at(self, point: Point) -> None:
        self._adapting.values = _values_of(point, self._device)

    @contextmanager
    def _standing(self, point: Point) -> Iterator[None]:
        """Compute at a point in here."""
        self._at(point)
        try:
            yield
        finally:
            self._at(self.parameters)

    @contextmanager
    def _beside(self, points: Sequence[Point], batch: Batch) -> Iterator[None]:
        """Compute in here at several points, as many sequences of a batch at each."""
        count, length = batch["ids"].shape
        self._adapting.beside = [_values_of(point, self._device) for point in points]
        self._adapting.rows = (count, length - 1)
        try:
            yield
        finally:
            self._adapting.beside = ()

    def _losses(self, batch: Batch) -> Tensor:
        """Return the weighted sum of each sequence's cross-entropies."""
        return sequence_losses(batch, self._hidden, self._token_losses, self._device)

    def _token_losses(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        if self._halves is None:  # then these are logits
            return nn.functional.cross_entropy(
                hidden, targets, reduction="none", label_smoothing=smoothing
            )
        return token_losses(
            hidden,
            targets,
            self._halves.head,
            self._halves.after,
            smoothing=smoothing,
            most=self._logits_at_once,
        )

    def _hidden(self, ids: Tensor, document: NDArray[Any] | None) -> Tensor:
        return hidden_states(self._network, self._halves, ids, document)


def _values_of(point: Point, device: torch.device) -> Values:
    return lambda name: torch.from_numpy(point[name]).to(device)


def _given_back(number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's forward pass after which, every few layers, freed memory is given back.

    What autograd keeps of a layer is small, and glibc puts it into the large blocks that were freed
    last: each then is a hole that no later block of its size fits, 14 MB a layer at 512 tokens of
    SmolLM2-135M. Nobody touches these again before the pass is over.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        if number % _LAYERS_TO_GIVE_BACK == 0:
            give_back_memory()
        return outputs

    return run
