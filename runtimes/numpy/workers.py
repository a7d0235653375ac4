"""Pieces of one computation on several threads; the results are the same for every number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Threads that each compute a whole piece, and hand the results over in the order of pieces.

    BLAS computes with one thread inside of each: what is divided is the pieces, whose numbers do
    not depend on who computes them. NumPy lets other threads run while it computes.

    Attributes:
      count: of threads; with 1 the caller computes everything by itself.

    Memory: results of `count` pieces that wait; for each thread what BLAS packs its factors into.
    """

    def __init__(self) -> None:
        self.count = 1
        self._pool: ThreadPoolExecutor | None = None

    def use(self, count: int) -> None:
        """Compute with so many threads from now on."""
        self.close()
        self.count = count
        if count > 1:
            self._pool = ThreadPoolExecutor(count, "edge-train-numpy")

    def each(self, work: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        """Yield what `work` makes of every piece; an error is raised in its turn."""
        if self._pool is None:
            yield from map(work, pieces)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for piece in pieces:
                waiting.append(self._pool.submit(work, piece))
                if len(waiting) > self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody writes into arrays that the caller has let go of
            for one in waiting:
                if not one.cancel():
                    one.exception()

    def all(self, work: Callable[[T], None], pieces: Iterable[T]) -> None:
        """Do `work` on every piece; each writes to a place of its own."""
        for _ in self.each(work, pieces):
            pass

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self.count = None, 1
