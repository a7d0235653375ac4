"""A token embedding that holds just the rows a run reads, plus the vectors being trained."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class TokenRows(nn.Module):
    """Stands in for the token embedding of a CLIP text encoder.

    Ids keep their meaning in the vocabulary, so the encoder finds the end of a text as ever;
    id -1-j reads trained vector j, which may differ from row to row of a batch.

    Args:
      ids: the vocabulary ids that can be read.
      rows: (len(ids), width), in the order of sorted `ids`.

    Attributes:
      vectors: (batch, vectors, width), set before each call.
    """

    vectors: Tensor
    _ids: Tensor
    _rows: Tensor

    def __init__(self, ids: Collection[int], rows: Tensor) -> None:
        super().__init__()
        self._known = frozenset(ids)
        table = torch.tensor(sorted(self._known), dtype=torch.int64).to(rows.device)
        self.register_buffer("_ids", table, persistent=False)
        self.register_buffer("_rows", rows, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return (batch, length, width) for ids (batch, length)."""
        places = torch.searchsorted(self._ids, ids).clamp_(max=len(self._ids) - 1)
        embedded = self._rows[places]  # rows of negative ids are overwritten below
        row, column = (ids < 0).nonzero(as_tuple=True)
        trained = self.vectors[row, -1 - ids[row, column]]
        return embedded.index_put((row, column), trained.to(embedded.dtype))

    def check(self, ids: NDArray[np.int64]) -> None:
        """Refuse ids that were not asked for when the model was opened.

        Raises:
          ValueError: names the ids.
        """
        unknown = {index for index in set(ids.ravel().tolist()) - self._known if index >= 0}
        if unknown:
            raise ValueError(f"token ids {sorted(unknown)} were not in token_ids at open")
