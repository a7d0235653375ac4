"""A card made of the host: tensors that say they are elsewhere, and refuse to meet others.

A tensor of it calls `meta:1` its device and holds its numbers on the host, so that code
for a card computes real numbers here. What a card would refuse is refused: a tensor of the host in
the same call, and reading its memory from NumPy. A tensor that is made without a device is one of
the host, and is found where it meets the first of the card.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("meta", 1)  # `meta` itself keeps what it is for: networks without memory
_SENT = {"_to_copy.default", "copy_.default"}  # what takes tensors of both


class MixedDevices(Exception):
    """A call was given tensors of the card and of the host."""


class _OnCard(Tensor):
    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "_OnCard":
        made: Any = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=CARD,
            requires_grad=False,
        )
        made.values = values
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _call(func, args, kwargs or {})


class StandInCard(TorchDispatchMode):
    """While it is entered, tensors made on `CARD` have numbers.

    Attributes:
      calls: how many there were on the card.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.calls += any(isinstance(one, _OnCard) for one in tree_leaves((args, kwargs)))
        return _call(func, args, kwargs)


@contextmanager
def on_card(monkeypatch: Any, *modules: Any, calls: int = 20) -> Iterator[StandInCard]:
    """Have `pick_device` of some modules mean the stand-in; at least so many calls are on it."""
    with monkeypatch.context() as patched, StandInCard() as stand_in:
        for module in modules:
            patched.setattr(module, "pick_device", lambda name: CARD)
        yield stand_in
    assert stand_in.calls > calls  # it was computed there


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = any(isinstance(one, _OnCard) for one in given)
    wanted = kwargs.get("device")
    made_there = wanted is not None and torch.device(wanted) == CARD
    if not there and not made_there:
        return func(*args, **kwargs)
    name = getattr(func, "__name__", str(func))
    if there and name not in _SENT:
        strangers = [one for one in given if not isinstance(one, _OnCard) and one.ndim]
        if strangers:
            shapes = [tuple(one.shape) for one in strangers]
            raise MixedDevices(f"{name} takes tensors of the host {shapes} and of the card")
    if made_there:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*_inside(args), **_inside(kwargs))
    stays = there and (wanted is None or made_there)
    if name == "copy_.default":
        stays = isinstance(args[0], _OnCard)
    if func._schema.is_mutable and args and isinstance(args[0], Tensor):  # type: ignore[attr-defined]
        if isinstance(result, Tensor) and "out" not in kwargs:
            return args[0]
        return kwargs.get("out", args[0])
    return tree_map(_OnCard_or_same, result) if stays or made_there else result


def _inside(tree: Any) -> Any:
    return tree_map(lambda one: one.values if isinstance(one, _OnCard) else one, tree)


def _OnCard_or_same(one: Any) -> Any:
    return _OnCard(one) if isinstance(one, Tensor) else one
