"""What a user brings to be trained: a module, its loss, its batches; checked before step 0."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edge_train.errors import InputError
from edge_train.memory.callers import called

Batches = Sequence[Any] | Callable[[int], Any]
_FIRST = 4  # training batches that are evaluated where nobody names others


@dataclass(frozen=True, eq=False)
class Brought:
    """A module to train.

    Attributes:
      module: a `torch.nn.Module`.
      loss: of the module and a batch: a scalar tensor, the mean over the batch.
      batches: a sequence, taken in order and from its start again, or a function of the step.
      evaluation: batches of the fixed evaluation; None: the first four of training.

    Raises:
      InputError: one is of another kind.
    """

    module: Any
    loss: Callable[[Any, Any], Any]
    batches: Batches
    evaluation: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if not (callable(getattr(self.module, "named_parameters", None))):
            raise InputError(
                f"module is {type(self.module).__name__}, must be a torch.nn.Module, or the text "
                '"package:function" of a function that returns one.'
            )
        if not callable(self.loss):
            raise InputError(
                f"loss is {type(self.loss).__name__}, must be a function of the module and a batch."
            )
        _check_batches(self.batches)
        wrong = not isinstance(self.evaluation, Sequence) or not self.evaluation
        if self.evaluation is not None and (wrong or isinstance(self.evaluation, str)):
            raise InputError(
                f"evaluation is {type(self.evaluation).__name__}, must be a list of batches."
            )

    def batch(self, step: int) -> Any:
        """Return the batch of a step, the same at every call.

        Raises:
          CallersError: the function of the step raised something.
        """
        if callable(self.batches):
            return called(self.batches, step)
        return self.batches[step % len(self.batches)]

    def evaluated(self) -> Sequence[Any]:
        """Return the batches of the fixed evaluation."""
        if self.evaluation is not None:
            return self.evaluation
        count = _FIRST if callable(self.batches) else min(_FIRST, len(self.batches))
        return [self.batch(step) for step in range(count)]


def _check_batches(batches: Any) -> None:
    if callable(batches) and not isinstance(batches, Sequence):
        return
    if isinstance(batches, Iterator) or (
        not isinstance(batches, Sequence) and hasattr(batches, "__iter__")
    ):
        raise InputError(
            f"batches is {type(batches).__name__}, which gives its batches once or in another "
            "order each time, so a run could not be resumed; pass list(batches), or a function of "
            "the step."
        )
    if not isinstance(batches, Sequence) or isinstance(batches, str | bytes):
        raise InputError(
            f"batches is {type(batches).__name__}, must be a list of batches or a function of the "
            "step."
        )
    if not batches:
        raise InputError("batches is empty; there is nothing to train on.")


def bring(name: str) -> Brought:
    """Return what a function returns: `(module, loss, batches)`, or with evaluation batches.

    Args:
      name: "package:function".

    Raises:
      InputError: there is no such function, or it returns something else.
      CallersError: it, or its module, raised something.
    """
    source, _, attribute = name.partition(":")
    if not source or not attribute or source == "__main__":
        raise InputError(
            f"module = {name!r} must be package:function, of a module that another process can "
            "import; __main__ is none."
        )
    try:
        function = getattr(import_module(source), attribute)
    except ModuleNotFoundError as error:
        if not source.startswith(error.name or source):
            raise
        raise InputError(
            f"module = {name!r}: {source} cannot be imported; put its folder on PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise InputError(f"module = {name!r}: {source} has no {attribute}.") from error
    found = called(function)
    if not isinstance(found, tuple) or len(found) not in (3, 4):
        raise InputError(
            f"module = {name!r} returned {type(found).__name__}, must be (module, loss, batches), "
            "or these and evaluation batches."
        )
    return Brought(*found)


_lent: ContextVar[Brought | None] = ContextVar("lent", default=None)


@contextmanager
def lent(brought: Brought) -> Iterator[None]:
    """Have the runs that this thread starts in this block train what was brought."""
    token = _lent.set(brought)
    try:
        yield
    finally:
        _lent.reset(token)


def found(name: str | None) -> Brought:
    """Return what a recipe is about: what was lent, or what its function returns.

    Raises:
      InputError, CallersError: there is nothing, or as `bring`.
    """
    here = _lent.get()
    if name is not None:
        return bring(name)
    if here is None:
        raise InputError(
            "this run trains a module of the program that started it; go on there, with "
            "et.fit(module, loss, batches, resume=FOLDER), or name --module package:function."
        )
    return here
