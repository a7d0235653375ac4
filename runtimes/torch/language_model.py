"""A causal language model of any transformers kind on torch, trained as it is differentiated."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import ModelError
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.stored_blocks import StoredNetwork, checked_values
from edge_train.memory.measure import give_back_memory, map_large_blocks
from edge_train.protocols import Apply, LastLayer
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load
from edge_train.runtimes.torch.cached_logits import CachedLogits
from edge_train.runtimes.torch.calls import LEAN_LOGITS, LOGITS_AT_ONCE, SEQUENCES_PER_CALL
from edge_train.runtimes.torch.card import (
    CardMemory,
    limit_memory,
    move_buffers,
    pick_device,
    repeatable,
)
from edge_train.runtimes.torch.documents import sequence_losses
from edge_train.runtimes.torch.dropping import Draws
from edge_train.runtimes.torch.halves import halves_of, hidden_states
from edge_train.runtimes.torch.held_layers import (
    HeldHead,
    HeldLinear,
    Weights,
    held_embedding,
)
from edge_train.runtimes.torch.language_network import (
    build_network,
    decoder_layers,
    drawn,
    is_held,
    recomputed,
    stored_network,
    stored_values,
)
from edge_train.runtimes.torch.last_layer import head_factors, told_apart
from edge_train.runtimes.torch.layer_inputs import Found, inputs_of
from edge_train.runtimes.torch.leaving import leaving
from edge_train.runtimes.torch.products import products_in
from edge_train.runtimes.torch.stored_network import load_buffers
from edge_train.runtimes.torch.trained_head import trained_losses


class TorchLanguageModel:
    """A decoder of which all weights are trained; a `GradientRuntime`.

    Products with weights are in float32 or of bfloat16 (`products`); all else is in float32.

    Weights of linear layers and embeddings are blocks of `parameters`, in float32, INT8 or INT4,
    and become what products are in a few rows at a time. A backward pass computes each decoder
    layer once more, and changes a weight as soon as the factors of its gradient are known: no
    gradient is kept.
    Dropout is off unless a batch holds the numbers that its masks are drawn from; a layer that is
    computed once more draws the same ones.

    On a card, too, blocks and updates are on the host: rows of a matrix are sent for every product,
    vectors at the start of every pass, and factors of gradients come back.

    Memory:
      Weights; the inputs of every decoder layer; the activations of one layer; some logits.
    """

    pages = None

    def __init__(
        self,
        network: nn.Module,
        weights: Weights,
        draws: Draws | None = None,
        dtype: str = "float32",
        logits_at_once: int = LOGITS_AT_ONCE,
    ) -> None:
        self.dtype, self.device = dtype, weights.device.type
        self._device, self.card = weights.device, CardMemory(weights.device)
        self._draws = draws or Draws()
        self.parameters = weights.parameters
        self.batch_limit: int | None = None  # of an evaluation; a gradient takes the whole batch
        self._network: Any = network
        self._weights, self._logits_at_once = weights, logits_at_once
        self._halves = halves_of(network, HeldHead, weights.device)
        self._written = CachedLogits(network, weights.device)

    @classmethod
    def open(
        cls,
        folder: LanguageFolder,
        *,
        quant: str,
        threads: int,
        seed: int,
        lean: bool = False,
        attention: str | None = None,
        dtype: str = "float32",
        rounded: bool = False,
        device: str = "cpu",
        cap_bytes: int | None = None,
    ) -> "TorchLanguageModel":
        """Load a folder tensor by tensor; quantized, none is ever whole in float32.

        Args:
          quant: `none`, `int8` or `int4`.
          threads: for the whole process; torch knows no smaller scope.
          seed: of random weights, for a folder without any.
          lean: give every large block back as it is freed, which takes a page fault for each of
            its pages: 1.4 times as long for a step of a small model.
          attention: `eager` for dropout, which is one product inside of `sdpa`; None: what
            transformers takes.
          dtype: of products with weights, `float32` or `bfloat16`.
          rounded: rows of their gradients are products of bfloat16, too.
          device: where it computes, `cpu` or `cuda`.
          cap_bytes: what torch may take of a card; more fails as out of memory.

        Raises:
          InputError: there is no such device.
          ModelError: transformers does not know this kind, a tensor is missing or of another shape,
            or quantized, and a matrix is of a layer that is neither linear nor an embedding.
        """
        where = pick_device(device)
        limit_memory(where, cap_bytes)
        torch.set_num_threads(threads)
        if lean:
            map_large_blocks()
        network = build_network(folder, attention)
        stored = stored_network(folder, network)
        values = stored_values(stored) if folder.files else drawn(network, stored, seed)
        kind: type[Parameters] = load(required(quants.get(quant).trained))
        if kind is not Parameters:
            _check_matrices(folder, network, stored)
            parameters = kind(values)
        else:
            whole = {
                n: checked_values(np.asarray(v, np.float32), n, folder.path) for n, v in values
            }
            parameters = Parameters.sharing(whole)
        load_buffers(network, stored)
        weights = Weights(parameters, products_in(dtype), where, rounded=rounded)
        _install(network, weights, stored)
        move_buffers(network, where)
        draws = Draws()
        for layer in decoder_layers(network):
            layer.forward = recomputed(layer.forward, draws)
        most = LEAN_LOGITS if lean else LOGITS_AT_ONCE
        return cls(network.eval(), weights, draws, dtype, most)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sequence, (points, sequences).

        Memory:
          At another point than `parameters`: one of its blocks beside what an evaluation holds.
        """
        losses = np.empty((len(points), len(batch["ids"])), np.float32)
        for number, point in enumerate(points):
            losses[number] = self._at(point, batch)
        return losses

    def _at(self, point: Point, batch: Batch) -> Array:
        count = len(batch["ids"])
        losses = np.empty(count, np.float32)
        limit = self.batch_limit or SEQUENCES_PER_CALL
        with repeatable(self._device), self._standing(point), torch.no_grad():
            for start in range(0, count, limit):
                at = slice(start, start + limit)
                part = {name: values[at] for name, values in batch.items()}
                losses[at] = self._losses(part).numpy()
        return losses

    @contextmanager
    def _standing(self, point: Point) -> Iterator[None]:
        """Compute at a point in here: layers read it, and vectors of the network are its own."""
        if point is self.parameters:
            self._send_vectors()
            yield
            return
        own = {name: parameter.data for name, parameter in self._network.named_parameters()}
        self._weights.point = point
        try:
            for name, parameter in self._network.named_parameters():
                parameter.data = torch.from_numpy(point[name]).to(self._device)
            yield
        finally:
            self._weights.point = None
            for name, parameter in self._network.named_parameters():
                parameter.data = own[name]

    def inputs(self, batch: Batch) -> Iterator[Found]:
        """Yield what enters every linear layer; see `TellsInputs`."""
        held = (m for m in self._network.modules() if isinstance(m, HeldLinear))
        layers = ((layer.block, layer, layer.transposed) for layer in held)
        return inputs_of(layers, lambda: self.forward(batch, [self.parameters]))

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
            self._send_vectors()
            return head_factors(batch, self._before, halves, together, most)

    def _before(self, ids: Tensor, document: NDArray[Any] | None) -> Tensor:
        return self._hidden(ids.to(self._device), document)

    def _send_vectors(self) -> None:
        """Have a card's vectors be those of `parameters`, with which those of the host are one."""
        if self._device.type == "cpu":
            return
        for name, parameter in self._network.named_parameters():
            parameter.data.copy_(torch.from_numpy(self.parameters[name]))

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,); what was read is kept.

        Only while no weight changes: keys and values of earlier ones would be taken for theirs.
        """
        self._send_vectors()
        return self._written.next_logits(ids)

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self._written.forget()

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient, matrices as factors; return losses (sequences,).

        A loss that is not finite is returned without any gradient.
        """
        self._weights.begin(apply)
        self._send_vectors()
        vectors: list[tuple[str, Any]] = list(self._network.named_parameters())
        hooks = [
            parameter.register_post_accumulate_grad_hook(leaving(name, apply))
            for name, parameter in vectors
        ]
        try:
            with repeatable(self._device), self._draws.of(self._network, batch):
                losses = self._losses(batch)
                if bool(torch.isfinite(losses).all()):
                    torch.autograd.backward(losses.mean())
        finally:
            for hook in hooks:
                hook.remove()
            self._network.zero_grad(set_to_none=True)  # left over where `apply` raised
        return losses.detach().numpy()

    def device_bytes(self) -> int:
        """Return the most that was held on a card, 0 on the host; see `CardMemory`."""
        return self.card.peak_bytes()

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        with suppress(AttributeError):
            del self._network, self._halves, self._weights, self._written, self.parameters
        gc.collect()
        give_back_memory()
        self.card.give_back()

    def _losses(self, batch: Batch) -> Tensor:
        """Return the loss of each sequence's next tokens."""
        return sequence_losses(batch, self._hidden, self._token_losses, self._device)

    def _hidden(self, ids: Tensor, document: NDArray[Any] | None) -> Tensor:
        return hidden_states(self._network, self._halves, ids, document)

    def _token_losses(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        if self._halves is None:  # then these are logits
            return nn.functional.cross_entropy(
                hidden, targets, reduction="none", label_smoothing=smoothing
            )
        return trained_losses(
            hidden,
            targets,
            self._halves.head,
            self._halves.after,
            smoothing=smoothing,
            most=self._logits_at_once,
        )


def _install(network: Any, weights: Weights, stored: StoredNetwork) -> None:
    """Have every layer read its parameters from `weights`."""
    for name, places in stored.places.items():
        held = [is_held(network, place) for place in places]
        if not any(held):
            value = nn.Parameter(torch.from_numpy(weights.parameters[name]).to(weights.device))
            for place in places:
                owner, _, last = place.rpartition(".")
                setattr(network.get_submodule(owner), last, value)
            continue
        weights.uses[name] = len(places)
        for place in places:
            owner = place.rpartition(".")[0]
            module: Any = network.get_submodule(owner)
            if isinstance(module, nn.Embedding):
                network.set_submodule(owner, held_embedding(module, weights, name))
            else:
                transposed = type(module).__name__ == "Conv1D"
                is_head = module is network.get_output_embeddings() and not transposed
                kind = HeldHead if is_head else HeldLinear
                held_one = kind(weights, name, module.bias, transposed=transposed)
                network.set_submodule(owner, held_one)


def _check_matrices(folder: LanguageFolder, network: nn.Module, stored: StoredNetwork) -> None:
    for name, places in stored.places.items():
        for place in places:
            if network.get_parameter(place).ndim == 2 and not is_held(network, place):
                module = network.get_submodule(place.rpartition(".")[0])
                raise ModelError(
                    f"{folder.path}: {name} is a matrix of a {type(module).__name__}, which cannot "
                    "be trained in few bits; use --quant none."
                )
