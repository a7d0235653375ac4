"""Layers on frozen matrices, plain and with an adapter beside them; gradients are of adapters.

A backward pass computes every decoder layer once more. Then a product's inputs x are known again,
and all else follows from them: h = A x is computed where the gradients of A and B need it and is
not kept. The product with W is the last that a layer does, after its inputs were noted: torch stops
to compute a block again once all that it notes is there, so the block's last product is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.formats.adapter import Adapter, names_of
from edge_train.runtimes.torch.card import HOST, on_host
from edge_train.runtimes.torch.stored_matrices import (
    StoredMatrix,
    squared_lengths,
    times,
    times_transposed,
)

Values = Callable[[str], Tensor]  # of blocks, by their names


class OtherRows(Exception):
    """A layer is given other rows than the sequences of the call, in their order."""


class Adapting:
    """Where adapted layers find their blocks, and where gradients of those go.

    A layer may be computed more than once in a pass, by a network that uses it twice. Its gradients
    are handed over when the last of its uses was differentiated.

    Attributes:
      values: the blocks by name, as tensors that share memory with the parameters; or a point's.
      beside: of several points, whose sequences stand one behind the other, as many of each; empty:
        there is one, `values`.
      rows: sequences and tokens of such a call, which every layer must be given.
      anchor: makes the first layer differentiable, whose inputs nothing trains.
    """

    def __init__(self, adapter: Adapter, device: torch.device = HOST) -> None:
        self.adapter = adapter
        self.values: Values
        self.beside: Sequence[Values] = ()
        self.rows = (0, 0)
        self.anchor = torch.zeros((), requires_grad=True, device=device)
        self._apply: Callable[[str, Any], None] | None = None
        self._counting = False
        self._uses: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Count the uses of layers from now on, until `end`; forget an interrupted pass."""
        self._counting = True
        self._uses, self._sums = {}, {}

    def end(self, apply: Callable[[str, Any], None]) -> None:
        """Send gradients to `apply` from now on: what is computed again is no further use."""
        self._counting, self._apply = False, apply

    def count(self, path: str) -> None:
        """Note a use of a layer that will be differentiated."""
        if self._counting and torch.is_grad_enabled():
            self._uses[path] = self._uses.get(path, 0) + 1

    def give(self, path: str, gradients: Mapping[str, Tensor]) -> None:
        """Take the gradients of the blocks of one use of a layer."""
        self._uses[path] -= 1
        for name, gradient in gradients.items():
            if name in self._sums:
                gradient += self._sums.pop(name)
            if self._uses[path]:
                self._sums[name] = gradient
            else:
                assert self._apply is not None
                self._apply(name, on_host(gradient))


class FrozenLinear(nn.Module):
    """A linear layer that nothing trains.

    Args:
      transposed: the matrix is (inputs, outputs), as GPT-2 stores it, not (outputs, inputs).

    Attributes:
      by_words: as a head, let `token_losses` go through its rows instead of making all logits.
    """

    def __init__(
        self, matrix: StoredMatrix, bias: nn.Parameter | None, *, transposed: bool
    ) -> None:
        super().__init__()
        self.matrix, self.transposed = matrix, transposed
        self.bias = bias
        self.by_words = False
        self.answer: Tensor | None = None  # returned instead, where only its shape matters
        self.weight = _Elsewhere(matrix.shape, matrix.device)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for inputs (..., inputs)."""
        if self.answer is not None:
            return self.answer
        apply: Any = _Plain.apply
        outputs: Tensor = apply(inputs.reshape(-1, inputs.shape[-1]), self)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)

    @property
    def inputs(self) -> int:
        """Numbers that it takes of a token."""
        return self.matrix.shape[not self.transposed]

    @property
    def outputs(self) -> int:
        """Numbers that it makes of a token."""
        return self.matrix.shape[self.transposed]

    @property
    def words(self) -> StoredMatrix | None:
        """A row for each output, where these may be gone through one after the other."""
        return self.matrix if self.by_words and not self.transposed else None

    def forward_product(self, values: Tensor) -> Tensor:
        """Return the outputs without the bias, (tokens, outputs)."""
        product = times if self.transposed else times_transposed
        return product(values, self.matrix)

    def backward_product(self, errors: Tensor) -> Tensor:
        """Return the errors at the inputs for those at the outputs."""
        product = times_transposed if self.transposed else times
        return product(errors, self.matrix)


class AdaptedLinear(FrozenLinear):
    """A frozen linear layer with an adapter beside it."""

    def __init__(
        self,
        adapting: Adapting,
        path: str,
        matrix: StoredMatrix,
        bias: nn.Parameter | None,
        *,
        transposed: bool,
    ) -> None:
        super().__init__(matrix, bias, transposed=transposed)
        self._adapting, self.path = adapting, path
        self.names = names_of(path)
        self._squares: Tensor | None = None

    @property
    def squares(self) -> Tensor:
        """The squared length of every row of W, in float64: of outputs, whatever is stored."""
        if self._squares is None:
            self._squares = squared_lengths(self.matrix, transposed=self.transposed)
        return self._squares

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for inputs (..., inputs).

        Raises:
          OtherRows: of several points, not all sequences are there, or not by sequence.
        """
        if self._adapting.beside:
            return self._beside(inputs)
        self._adapting.count(self.path)
        call = _Call(self, self._adapting)
        keep: Any = _Keep.apply
        product: Any = _Adapted.apply
        noted = keep(inputs.reshape(-1, inputs.shape[-1]), self._adapting.anchor, call)
        outputs: Tensor = product(noted, call)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)

    def _beside(self, inputs: Tensor) -> Tensor:
        """Return the outputs of several points, without what a gradient needs."""
        if tuple(inputs.shape[:-1]) != self._adapting.rows:
            raise OtherRows
        flat = inputs.reshape(-1, inputs.shape[-1])
        calls = [_Call(self, self._adapting, values) for values in self._adapting.beside]
        adapter = self._adapting.adapter
        dora = adapter.kind == "dora"
        taken = torch.cat((flat, *(call.first for call in calls))) if dora else flat
        both = self.forward_product(taken)
        outputs, mixed = both[: len(flat)], both[len(flat) :]
        size = len(flat) // len(calls)
        for number, call in enumerate(calls):
            some = slice(number * size, (number + 1) * size)
            call.add(outputs[some], flat[some])
            if dora:
                own = mixed[number * adapter.rank : (number + 1) * adapter.rank]
                wanted = self._adapting.beside[number](self.names[2])
                outputs[some] *= wanted / call.lengths_of(own)
        if self.bias is not None:
            outputs += self.bias
        return outputs.view(*inputs.shape[:-1], -1)


class _Call:
    """One use of an adapted layer: what its two halves tell each other.

    The outer half keeps the inputs, the inner one computes. Backward, the inner one comes first and
    leaves the errors here, the outer one makes gradients of them and of the inputs.
    """

    def __init__(
        self, layer: AdaptedLinear, adapting: Adapting, values: Values | None = None
    ) -> None:
        self.layer, self.adapting = layer, adapting
        self.first, self.second = map(values or adapting.values, layer.names[:2])
        self.scale = adapting.adapter.scale
        self.errors: Tensor | None = None  # at the outputs, but for a bias and DoRA's factors
        self.low: Tensor | None = None  # scale * errors B, (tokens, rank)
        self.factors: Tensor | None = None  # of DoRA, one for each output
        self.lengths: Tensor | None = None  # the gradient of the wanted ones

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return W x + scale * B (A x), (tokens, outputs)."""
        return self.add(self.layer.forward_product(inputs), inputs)

    def add(self, result: Tensor, inputs: Tensor) -> Tensor:
        """Return W x with scale * B (A x) added in place."""
        return result.addmm_(inputs @ self.first.T, self.second.T, alpha=self.scale)

    def outputs_and_lengths(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs, and the length of every row of W + scale * B A.

        A w, which lengths need of every row w, is a product of W with rank more rows of inputs.
        """
        both = self.layer.forward_product(torch.cat((inputs, self.first)))
        lengths = self.lengths_of(both[len(inputs) :])
        return self.add(both[: len(inputs)], inputs), lengths

    def lengths_of(self, mixed: Tensor) -> Tensor:
        """Return the length of every row of W + scale * B A.

        Its square is |w|^2 + 2 scale b (A w) + scale^2 b (A A^T) b.

        Args:
          mixed: A w of every row, (rank, outputs).
        """
        a, b, scale = self.first.double(), self.second.double(), self.scale
        squares = self.layer.squares + 2 * scale * (b * mixed.double().T).sum(1)
        squares += scale**2 * ((b @ (a @ a.T)) * b).sum(1)
        return squares.clamp_(min=0).sqrt_().float()

    def before(self, errors: Tensor) -> Tensor:
        """Return the errors at the inputs; note those that the gradients are made of."""
        self.errors = errors
        self.low = (errors @ self.second).mul_(self.scale)
        return self.layer.backward_product(errors).addmm_(self.low, self.first)

    def give_gradients(self, inputs: Tensor) -> None:
        """Hand over the gradients of A and B, and of DoRA's lengths."""
        assert self.errors is not None and self.low is not None
        first = self.low.T @ inputs
        second = (self.errors.T @ (inputs @ self.first.T)).mul_(self.scale)
        found = dict(zip(self.layer.names, (first, second, self.lengths), strict=True))
        self.errors = self.low = self.lengths = None
        given = {name: value for name, value in found.items() if value is not None}
        self.adapting.give(self.layer.path, given)


class _Keep(torch.autograd.Function):
    """The outer half: inputs as they are, and gradients of A and B."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, _: Tensor, call: _Call) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.call = call
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        ctx.call.give_gradients(inputs)
        return errors, None, None


class _Adapted(torch.autograd.Function):
    """The inner half: the products."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        if call.adapting.adapter.kind == "lora":
            return call.outputs(inputs)
        outputs, lengths = call.outputs_and_lengths(inputs)
        wanted = call.adapting.values(call.layer.names[2])
        ctx.save_for_backward(outputs)  # the gradient of the wanted lengths needs them
        ctx.lengths, call.factors = lengths, wanted / lengths
        return outputs * call.factors

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, None]:
        call = ctx.call
        if call.factors is None:
            return call.before(errors), None
        (outputs,) = ctx.saved_tensors
        call.lengths = (errors * outputs).sum(0).div_(ctx.lengths)
        return call.before(errors * call.factors), None


class _Plain(torch.autograd.Function):
    """The product of a layer that nothing trains; it keeps nothing."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.forward_product(inputs)

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.backward_product(errors), None


class _FrozenEmbedding(nn.Embedding):
    """A table of vectors on a frozen matrix."""

    matrix: StoredMatrix

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors (..., width) of ids (...)."""
        return self.matrix.rows(ids.reshape(-1)).view(*ids.shape, -1)


def frozen_embedding(module: nn.Embedding, matrix: StoredMatrix) -> nn.Embedding:
    """Return a table that looks its rows up in `matrix` and does all else that `module` does.

    A kind with a forward pass of its own (Gemma scales what it looked up) keeps it.
    """
    kind = type(module)
    bases = (_FrozenEmbedding,) if kind is nn.Embedding else (kind, _FrozenEmbedding)
    made: Any = type(f"Frozen{kind.__name__}", bases, {})
    table: Any = made.__new__(made)
    table.__dict__.update(module.__dict__)
    table._parameters = {}
    table.weight, table.matrix = _Elsewhere(matrix.shape, matrix.device), matrix
    return table  # type: ignore[no-any-return]


class _Elsewhere:
    """Stands for the weight of a layer: it has a type and a shape, but no numbers.

    Code that reads the weights of a layer instead of calling it would compute without its adapter,
    so that it is stopped.
    """

    dtype, requires_grad = torch.float32, False

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.device = device
        self.shape, self.ndim = torch.Size(shape), len(shape)

    def size(self, side: int | None = None) -> Any:
        """Return its sides, or one of them."""
        return self.shape if side is None else self.shape[side]

    def __getattr__(self, wanted: str) -> Any:
        raise _read()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        raise _read()


def _read() -> ModelError:
    return ModelError(
        "this network reads the weights of a layer instead of calling it, which is not possible "
        "where an adapter stands beside it; use --trainable all, and report this model."
    )
