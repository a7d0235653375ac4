"""Sizes of the strips in which pictures pass a VAE, and the newest few of them."""

from collections.abc import Callable
from typing import Generic, TypeVar

STRIP_BYTES = 2**23  # of one strip; larger saves little time, smaller little memory
KEPT_BYTES = 2**27  # of maps side by side; what would be more is computed again when it is read
_RECENT = 2  # strips on each side of the one just read: a window's neighbors
T = TypeVar("T")


class Recent(Generic[T]):
    """Values that are computed when they are read, and again unless they were just read."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make, self._held = make, dict[int, T]()

    def __call__(self, index: int) -> T:
        if index not in self._held:
            made = self._make(index)
            for other in [one for one in self._held if abs(one - index) > _RECENT]:
                del self._held[other]
            self._held[index] = made
        return self._held[index]
