"""Somebody's own torch module and loss: losses at points, and gradients of all blocks."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.memory.callers import called
from edge_train.protocols import Apply
from edge_train.rng import Key
from edge_train.runtimes.torch.card import HOST, CardMemory, limit_memory, on_host, pick_device
from edge_train.runtimes.torch.own_module_copy import ModuleCopy

_BUFFER = "buffer:"  # before the name of one among the blocks of a checkpoint
_SEEDS = 1 << 63


class WithBuffers(Parameters):
    """The trainable blocks of a module; its buffers are saved and loaded with them.

    Running statistics move as the module computes, so a run that is resumed needs them, too.
    """

    _module: nn.Module

    @classmethod
    def of(cls, module: nn.Module, blocks: Mapping[str, Array]) -> "WithBuffers":
        """Return parameters that share their memory with the module."""
        parameters = cls({})
        parameters._blocks.update(blocks)
        parameters._module = module
        return parameters

    def stored(self) -> dict[str, NDArray[Any]]:
        return super().stored() | {f"{_BUFFER}{n}": a for n, a in buffers_of(self._module).items()}

    def load(self, blocks: Mapping[str, NDArray[Any]]) -> None:
        super().load(blocks)
        for name, buffer in buffers_of(self._module).items():
            np.copyto(buffer, blocks[f"{_BUFFER}{name}"])


def blocks_of(module: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the trainable parameters of a module, sharing its memory, and the frozen ones.

    Raises:
      InputError: it is no module, has nothing to train, or a parameter is not float32 on the CPU.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module is {type(module).__name__}, must be a torch.nn.Module.")
    trained: dict[str, Array] = {}
    frozen: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(f"parameter {name} has no shape yet; call the module once.")
        if not parameter.requires_grad:
            frozen[name] = parameter
            continue
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise InputError(
                f"parameter {name} is {parameter.dtype} on {parameter.device}, must be "
                "torch.float32 on cpu; pass module.float().cpu()."
            )
        parameter.data = parameter.data.contiguous()  # the same storage where it is already
        trained[name] = parameter.detach().numpy()
    if not trained:
        raise InputError(
            f"{type(module).__name__} has no parameters to train; requires_grad is off, or there "
            "are none."
        )
    return trained, frozen


def buffers_of(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the buffers of a module that NumPy can hold, by name, sharing its memory."""
    kinds = (torch.bfloat16, torch.complex32)
    return {
        name: buffer.numpy()
        for name, buffer in module.named_buffers()
        if buffer.device.type == "cpu" and buffer.dtype not in kinds and buffer.numel()
    }


class OwnModule:
    """A user's module; a `GradientRuntime` whose sample is a whole batch of the user's.

    What the module draws from torch's generators (dropout) is a function of the seed and the step;
    they are left as they were. Evaluation computes in `eval` mode, training in the mode that the
    module is in. Buffers move in a step with gradients only: losses at perturbed points leave them
    as they were.

    On a card a copy of the module computes, and the loss is called with it and with batches whose
    tensors are there; what is trained stays on the host.

    Args:
      loss: of the module and a batch, a scalar tensor.
      batch: of a step.
      evaluation: the fixed batches.
      seed: of the run.
      device: `cpu` or `cuda`.
      cap_bytes: of a card, what this process may take of it; more fails as out of memory.

    Raises:
      InputError: as `blocks_of`; `cuda` and there is none, the cap is less than it takes empty, or
        the module cannot be copied.
    """

    dtype = "float32"
    pages = None

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any, Any], Any],
        batch: Callable[[int], Any],
        evaluation: Sequence[Any],
        seed: int,
        device: str = "cpu",
        cap_bytes: int | None = None,
    ) -> None:
        blocks, _ = blocks_of(module)
        self._where = pick_device(device)
        limit_memory(self._where, cap_bytes)
        self.device, self.card = self._where.type, CardMemory(self._where)
        self.parameters = WithBuffers.of(module, blocks)
        self.batch_limit: int | None = None  # a batch is the user's: it is never divided
        self._module, self._loss, self._batch = module, loss, batch
        self._evaluation, self._seed = evaluation, seed
        self._copy = None if self._where == HOST else ModuleCopy(module, blocks, self._where)
        self._computes = module if self._copy is None else self._copy.module
        self._trained = {n: p for n, p in self._computes.named_parameters() if n in blocks}

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, batches)."""
        steps = batch.get("step")
        numbers = batch["evaluation"] if steps is None else steps
        losses = np.empty((len(points), len(numbers)), np.float32)
        kept = {name: buffer.copy() for name, buffer in buffers_of(self._module).items()}
        for row, point in enumerate(points):
            with self._at(point), torch.no_grad():
                for column, number in enumerate(numbers.tolist()):
                    if steps is None:
                        with _evaluating(self._computes), self._drawing(-1):
                            one = self._scalar(self._evaluation[number])
                    else:
                        with self._drawing(number):
                            one = self._scalar(self._batch(number))
                    losses[row, column] = one.item()
            for name, buffer in buffers_of(self._module).items():
                np.copyto(buffer, kept[name])
        return losses

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient once all are there; return the loss, (1,).

        Not block by block: a module that nobody knows may read a block after its gradient is
        complete, and `apply` changes it. A block that the loss does not reach gets zeros.

        Memory:
          The gradients of all blocks.
        """
        (step,) = batch["step"].tolist()
        one = self._batch(step)
        for parameter in self._trained.values():
            parameter.grad = None
        if self._copy is not None:
            self._copy.take(self.parameters)
        with self._drawing(step), torch.enable_grad():
            loss = self._scalar(one)
            if self._copy is not None:
                self._copy.give_buffers()
            if not loss.requires_grad:
                raise InputError(
                    "the loss depends on no parameter that is trained; do not detach it, and "
                    "compute it with the module."
                )
            losses = np.array([loss.item()], np.float32)
            if not np.isfinite(losses).all():
                return losses
            called(torch.autograd.backward, loss, whose=self._loss)
        del loss
        for name, parameter in self._trained.items():
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                apply(name, np.zeros(parameter.shape, np.float32))
            else:
                apply(name, on_host(gradient.to_dense().contiguous()))
        return losses

    def learned(self) -> dict[str, NDArray[Any]]:
        """Return the trained parameters and the buffers, by the names of the module."""
        return dict(self.parameters) | buffers_of(self._module)

    def device_bytes(self) -> int:
        """Return the most that was held on a card, 0 on the host; see `CardMemory`."""
        return self.card.peak_bytes()

    def close(self) -> None:
        """Let go of the gradients; the module is its owner's."""
        for parameter in self._trained.values():
            parameter.grad = None
        gc.collect()
        self.card.give_back()

    @contextmanager
    def _at(self, point: Point) -> Iterator[None]:
        """Let the module compute at a point.

        Memory:
          A copy of the blocks, unless it is where they are.
        """
        if self._copy is not None:
            self._copy.take(point)
            yield
            return
        if point is self.parameters:
            yield
            return
        before = {name: parameter.data for name, parameter in self._trained.items()}
        try:
            for name, parameter in self._trained.items():
                parameter.data = torch.from_numpy(np.ascontiguousarray(point[name]))
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data = before[name]

    @contextmanager
    def _drawing(self, step: int) -> Iterator[None]:
        """Let what is drawn in here be a function of the seed and the step."""
        seed = Key(self._seed, step).bits("module") % _SEEDS
        cards = [self._where] if self.device == "cuda" else []
        with torch.random.fork_rng(cards):
            torch.default_generator.manual_seed(seed)
            for card in cards:
                with torch.cuda.device(card):
                    torch.cuda.manual_seed(seed)
            yield

    def _scalar(self, batch: Any) -> Tensor:
        """Return the loss of a batch.

        Raises:
          InputError: it is no scalar.
          CallersError: the loss raised something.
        """
        if self._copy is not None:
            batch = called(self._copy.moved, batch)
        loss = called(self._loss, self._computes, batch)
        if not isinstance(loss, Tensor):
            raise InputError(
                f"the loss returned {type(loss).__name__}, must be a tensor with one number."
            )
        if loss.numel() != 1 or not loss.is_floating_point():
            raise InputError(
                f"the loss returned a tensor {tuple(loss.shape)} of {loss.dtype}, must be one "
                "number; take its .mean()."
            )
        return loss.reshape(())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Let a module, and every module in it, be in `eval` mode in here, and as before after it."""
    before = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, training in before:
            one.training = training
