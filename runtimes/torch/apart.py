"""Documents that share a sequence: none may read another, and positions restart in each."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Hidden = Callable[..., Tensor]  # of ids (sequences, length) and, maybe, position_ids
_SAME = 1e-3  # of the largest number: a leak changes hidden states by as much as they are


class Documents:
    """Hidden states of sequences that hold several documents each.

    Most kinds of transformers see where positions restart and keep attention inside of a document;
    one with a state that runs along the sequence, or that sets positions itself, does not. Which
    one this is, is measured once, on four tokens; such a network reads one document at a time.
    """

    def __init__(self, hidden: Hidden) -> None:
        self._hidden = hidden
        self._by_positions: bool | None = None

    def hidden(self, ids: Tensor, document: NDArray[Any] | None, counted: NDArray[Any]) -> Tensor:
        """Return hidden states (sequences, length, width).

        Args:
          document: (sequences, length), None: one each.
          counted: whether a position's loss is asked for; those of documents without one are not
            computed where documents are read one at a time.
        """
        if document is None or (document == document[:, :1]).all():
            return self._hidden(ids)
        if self._by_positions is None:
            self._by_positions = self._reads_positions()
        if self._by_positions:
            return self._hidden(ids, position_ids=torch.from_numpy(positions_of(document)))
        found: Tensor | None = None
        for row, start, end in _spans(document):
            if not counted[row, start:end].any():
                continue
            part = self._hidden(ids[row : row + 1, start:end])
            if found is None:
                found = part.new_zeros(*ids.shape, part.shape[-1])
            found = torch.index_put(
                found, (torch.tensor(row), torch.arange(start, end)), part.squeeze(0)
            )
        return self._hidden(ids) if found is None else found  # nothing counts: any numbers do

    @torch.no_grad()
    def _reads_positions(self) -> bool:
        ids, positions = torch.tensor([[1, 2, 1, 3]]), torch.tensor([[0, 1, 0, 1]])
        try:
            together = self._hidden(ids, position_ids=positions)
        except TypeError:  # a kind without positions
            return False
        alone = self._hidden(ids[:, 2:])
        most = _SAME * float(alone.abs().max())
        return bool((together[:, 2:] - alone).abs().max() <= most)


def positions_of(document: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of every token in its document.

    >>> positions_of(np.array([[0, 0, 0, 4, 4, 5]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    places = np.arange(document.shape[1])
    begins = np.ones(document.shape, bool)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    starts = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return (places - starts).astype(np.int64)


def _spans(document: NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Yield the sequence, first and last place of every document."""
    for row, numbers in enumerate(document):
        cuts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
        for start, end in pairwise(cuts):
            yield row, start, end
