"""Layers whose weights stay in `Parameters`, in few bits or not; gradients leave as factors."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.factored import Factors, Lookups, Make, Remade, added
from edge_train.arrays.parameters import Parameters, QuantizedParameters
from edge_train.arrays.types import Point
from edge_train.errors import ModelError
from edge_train.protocols import Apply
from edge_train.runtimes.torch.card import HOST, on_host
from edge_train.runtimes.torch.rounded_factors import RoundedFactors
from edge_train.runtimes.torch.stored_matrices import (
    Buffer,
    CodedMatrix,
    FloatMatrix,
    StoredMatrix,
    times,
    times_transposed,
)


class Weights:
    """Where layers find their weights, and where the factors of their gradients go.

    A weight that several layers share (a tied embedding) is handed over when the last of them has
    been differentiated: its factors are then one gradient, token below token.

    Attributes:
      apply: consumes gradients during a backward pass.
      point: where to evaluate instead; its blocks are read whole, each as its layer is reached.
      uses: how many layers read a block.
      rounded: rows of gradients are products of bfloat16, as those of the passes are.
    """

    def __init__(
        self,
        parameters: Parameters,
        kind: torch.dtype = torch.float32,
        device: torch.device = HOST,
        *,
        rounded: bool = False,
    ) -> None:
        self.parameters, self.device, self.rounded = parameters, device, rounded
        self.apply: Apply | None = None
        self.point: Point | None = None
        self.uses: dict[str, int] = {}
        self._waiting: dict[str, list[Factors]] = {}
        self._buffer = Buffer(kind, device)
        # makes the first layer differentiable
        self.anchor = torch.zeros((), requires_grad=True, device=device)

    def begin(self, apply: Apply) -> None:
        """Send gradients to `apply` from now on; forget what an interrupted pass left."""
        self.apply = apply
        self._waiting.clear()

    def hand_over(self, name: str, left: Tensor, right: Tensor) -> None:
        """Take the gradient left^T right of one use of a block; (tokens, rows), (.., columns)."""
        kind = RoundedFactors if self.rounded else Factors
        self._hand_over(name, kind(on_host(left), on_host(right)))

    def hand_over_rows(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Take the gradient of one lookup in a block: ids, ascending and each once, and rows."""
        rows = len(self.parameters.for_transform(name))
        self._hand_over(name, Lookups.of(ids.cpu().numpy(), on_host(values), rows))

    def hand_over_remade(self, name: str, make: Make, right: Tensor) -> None:
        """Take the gradient of one use of a block whose left factor is made some rows at a time."""
        rows = len(self.parameters.for_transform(name))
        self._hand_over(name, Remade((make,), on_host(right), rows))

    def _hand_over(self, name: str, gradient: Factors) -> None:
        waiting = self._waiting.setdefault(name, [])
        waiting.append(gradient)
        if len(waiting) == self.uses[name]:
            del self._waiting[name]
            assert self.apply is not None
            self.apply(name, added(waiting))

    def times(self, values: Tensor, name: str) -> Tensor:
        """Return values @ W, (tokens, columns)."""
        return times(values, self._matrix(name))

    def times_transposed(self, values: Tensor, name: str) -> Tensor:
        """Return values @ W^T, (tokens, rows)."""
        return times_transposed(values, self._matrix(name))

    def times_some(self, values: Tensor, name: str, rows: slice | NDArray[Any]) -> Tensor:
        """Return values @ W^T for some rows of W, (tokens, some)."""
        some = torch.from_numpy(self.parameters.rows(name, rows))
        return times_transposed(values, FloatMatrix(some, self._buffer))

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Return some rows of a block."""
        if self.point is not None:
            return self._whole(name)[ids.cpu()].to(self.device)
        return torch.from_numpy(self.parameters.rows(name, on_host(ids))).to(self.device)

    def _whole(self, name: str) -> Tensor:
        point = self.parameters if self.point is None else self.point
        return torch.from_numpy(point[name])

    def _matrix(self, name: str) -> StoredMatrix:
        held = self.parameters
        if self.point is None and isinstance(held, QuantizedParameters) and held.is_quantized(name):
            return CodedMatrix(held, name, self._buffer)
        return FloatMatrix(self._whole(name), self._buffer)


class _Elsewhere:
    """Stands for the weight of a held layer: it has a type and a shape, but no numbers.

    Code that reads the weights of a layer instead of calling it would compute with something else
    than what is trained, so that it is stopped by name.
    """

    dtype, requires_grad = torch.float32, False

    def __init__(self, name: str, shape: tuple[int, ...], device: torch.device) -> None:
        self._name, self.device = name, device
        self.shape, self.ndim = torch.Size(shape), len(shape)

    def size(self, side: int | None = None) -> Any:
        """Return its sides, or one of them."""
        return self.shape if side is None else self.shape[side]

    def __getattr__(self, wanted: str) -> Any:
        raise self._refusal()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        given = (*arguments, *(named or {}).values())
        raise next(one for one in given if isinstance(one, cls))._refusal()

    def _refusal(self) -> ModelError:
        return ModelError(
            f"this network reads {self._name} instead of calling its layer, which is not possible "
            "where weights are held apart from the network; use a model of another kind, and "
            "report this one."
        )


class HeldLinear(nn.Module):
    """A linear layer on a block of `Weights`.

    Args:
      name: of the block.
      transposed: it is (inputs, outputs), as GPT-2 stores it, not (outputs, inputs).
    """

    def __init__(
        self, weights: Weights, name: str, bias: nn.Parameter | None, *, transposed: bool
    ) -> None:
        super().__init__()
        self._weights, self.block, self.transposed = weights, name, transposed
        self.bias = bias
        self.answer: Tensor | None = None  # returned instead, where only its shape matters
        shape = weights.parameters.for_transform(name).shape
        self.weight = _Elsewhere(name, shape, weights.device)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for inputs (..., inputs)."""
        if self.answer is not None:
            return self.answer
        flat = inputs.reshape(-1, inputs.shape[-1])
        apply: Any = _Linear.apply
        outputs: Tensor = apply(flat, self._weights, self.block, self.transposed)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)


class HeldHead(HeldLinear):
    """The linear layer that makes a number for every word; its weights are (words, inputs).

    What is asked of it beside a forward pass: products alone, and its gradient by way of a left
    factor that is never whole.
    """

    @property
    def inputs(self) -> int:
        """Numbers that it takes of a token."""
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        """Numbers that it makes of a token."""
        return self.weight.shape[0]

    @property
    def words(self) -> None:
        """No rows to go through: sums of exponentials come before its gradient."""
        return

    def forward_product(self, values: Tensor) -> Tensor:
        """Return the outputs without the bias, (tokens, outputs)."""
        return self._weights.times_transposed(values, self.block)

    def backward_product(self, errors: Tensor) -> Tensor:
        """Return the errors at the inputs for those at the outputs."""
        return self._weights.times(errors, self.block)

    def some_outputs(self, values: Tensor, words: slice | NDArray[Any]) -> Tensor:
        """Return the outputs of some words without the bias, (tokens, some)."""
        return self._weights.times_some(values, self.block, words)

    def hand_over(self, make: Make, right: Tensor) -> None:
        """Take the gradient of a use: its inputs, and what makes the errors at some outputs."""
        self._weights.hand_over_remade(self.block, make, right)


class HeldEmbedding(nn.Embedding):
    """A table of vectors on a block of `Weights`; rows become float32 when they are looked up."""

    _weights: Weights
    _name: str

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors (..., width) of ids (...)."""
        weights = self._weights
        flat = ids.reshape(-1)
        apply: Any = _Lookup.apply
        rows: Tensor = apply(weights.anchor, flat, weights, self._name, self.padding_idx)
        return rows.view(*ids.shape, -1)


def held_embedding(module: nn.Embedding, weights: Weights, name: str) -> nn.Embedding:
    """Return a table that looks its rows up in `weights` and does all else that `module` does.

    A kind with a forward pass of its own (Gemma scales what it looked up, OPT moves the ids) keeps
    it: between it and torch's own lookup stands ours. One that reads its weights itself is stopped.
    """
    kind = type(module)
    bases = (HeldEmbedding,) if kind is nn.Embedding else (kind, HeldEmbedding)
    held: Any = type(f"Held{kind.__name__}", bases, {})
    table: Any = held.__new__(held)
    table.__dict__.update(module.__dict__)
    table._parameters = {}
    shape = weights.parameters.for_transform(name).shape
    table.weight = _Elsewhere(name, shape, weights.device)
    table._weights, table._name = weights, name
    return table  # type: ignore[no-any-return]


def is_plain_linear(module: nn.Module) -> bool:
    """Return whether a layer computes what `HeldLinear` does: not a kind with a pass of its own."""
    return type(module) is nn.Linear or type(module).__name__ in ("Conv1D", "FalconLinear")


class _Linear(torch.autograd.Function):
    """The product with a block; its backward pass hands over factors and keeps no gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Weights, name: str, transposed: bool) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.weights, ctx.name, ctx.transposed = weights, name, transposed
        product = weights.times if transposed else weights.times_transposed
        return product(inputs, name)

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, None, None, None]:
        (inputs,) = ctx.saved_tensors
        product = ctx.weights.times_transposed if ctx.transposed else ctx.weights.times
        before = product(errors, ctx.name)  # with the weights as they were in the forward pass
        pair = (inputs, errors) if ctx.transposed else (errors, inputs)
        ctx.weights.hand_over(ctx.name, *pair)
        return before, None, None, None


class _Lookup(torch.autograd.Function):
    """Rows of a block; so is its gradient."""

    @staticmethod
    def forward(
        ctx: Any, _: Tensor, ids: Tensor, weights: Weights, name: str, padding: int | None
    ) -> Tensor:
        ctx.ids, ctx.weights, ctx.name, ctx.padding = ids, weights, name, padding
        return weights.rows(name, ids)

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[None, None, None, None, None]:
        # on the host, where all of it goes: a card adds up in any order
        found, places = torch.unique(ctx.ids.cpu(), return_inverse=True)
        sums = torch.zeros(len(found), errors.shape[1]).index_add_(0, places, errors.cpu())
        if ctx.padding is not None:
            sums[found == ctx.padding] = 0
        ctx.weights.hand_over_rows(ctx.name, found, sums)
        return None, None, None, None, None
