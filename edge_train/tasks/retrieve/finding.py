"""An opened index: centroids say which passages may answer, codes which of them do."""

import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import Folded
from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.inside import wrong_place
from edge_train.formats.json_text import read_text
from edge_train.formats.tensor_store import load_tensors
from edge_train.tasks.retrieve.index import CODES, FORMAT, HEAD, PRODUCTS, VERSION, Quantizer
from edge_train.tasks.retrieve.index_check import check_index

# Of 100,000 passages 8 and 512 found 90 % of the ten best in 16 ms, these 99 % in 51 ms.
PROBED = 32  # lists that are read for each token of a query
CANDIDATES = 2048  # passages that are scored from their codes
_AGAIN = "make it again with `edge-train run`"


@dataclass(frozen=True)
class Hit:
    """A passage, its document and its score: over the query's tokens, the best product."""

    passage: int
    document: int
    score: float


@dataclass(frozen=True)
class Text:
    """What a passage says, and where it is from."""

    name: str
    title: str
    text: str


class Index:
    """The index in a folder; its tokens and texts are mapped, and read where they are needed.

    Attributes:
      encoder: the hash of the model that it was made with.
      head: the projection that its tokens went through, for those of a query.
      hidden: numbers of a token that the head reads.
      owners: (passages,), the document of each.
      passages: how many it holds.

    Raises:
      RunFolderError: a file is missing, damaged, of another version, or does not fit the others.
    """

    def __init__(self, folder: Path, texts: str) -> None:
        if reason := wrong_place(folder / HEAD, folder):
            raise RunFolderError(f"{folder / HEAD}: it is {reason}; {_AGAIN}.")
        tensors, about = load_tensors(folder / HEAD)
        if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
            raise RunFolderError(f"{folder / HEAD}: no {FORMAT} of version {VERSION}; {_AGAIN}.")
        try:
            self._quantizer = Quantizer(tensors["centroids"], tensors["scale"])
            self._list_starts, self._lists = tensors["list_starts"], tensors["list_passages"]
            self._starts, self._sums = tensors["starts"], tensors["sums"]
            self.owners, self._lines = tensors["owners"], tensors["lines"]
            products = {name: tensors.get(f"head/{name}") for name in PRODUCTS}
            self.head = Folded(about["activation"], **products)
            self.encoder = about["encoder"]
            self.hidden = check_index(tensors, self.head.activation)
        except (KeyError, ValueError) as error:
            raise RunFolderError(
                f"{folder / HEAD}: it is no whole index ({error}); {_AGAIN}."
            ) from error
        self.passages = len(self.owners)
        self.width = self._quantizer.centroids.shape[1]
        self._folder, self._texts_path = folder, folder / texts
        self._codes = _mapped(folder / CODES, int(self._starts[-1]) * (2 + self.width))
        self._texts = _mapped(folder / texts, int(self._lines[-1]))

    def search(self, query: Array, count: int) -> list[Hit]:
        """Return the best passage of each of the best documents, the best first.

        Args:
          query: (tokens, width), each of length 1.

        Raises:
          RunFolderError: the record of a passage that was read is damaged.
        """
        some = self.candidates(query)
        scores = self.scores(query, some)
        found: dict[int, Hit] = {}
        for place in np.lexsort((some, -scores)):
            document = int(self.owners[some[place]])
            if document not in found:
                found[document] = Hit(int(some[place]), document, float(scores[place]))
            if len(found) == count:
                break
        return list(found.values())

    def candidates(
        self, query: Array, probed: int = PROBED, most: int = CANDIDATES
    ) -> NDArray[np.int64]:
        """Return the passages that are worth scoring, pruned by their centroids alone.

        For each token of the query the lists of its nearest centroids say which passages have a
        token there; one that is in none of them counts as if it were in the next.

        Source: WARP (arXiv:2501.17788), which imputes what was not probed in the same way.

        Memory: a number for every passage, twice.
        """
        if self.passages <= most:
            return np.arange(self.passages)
        products = query @ self._quantizer.centroids.T
        near = min(probed + 1, products.shape[1])
        order = np.argpartition(-products, near - 1, axis=1)[:, :near]
        total = np.zeros(self.passages, np.float32)
        own = np.empty(self.passages, np.float32)
        for token, lists in enumerate(order):
            worst_first = lists[np.argsort(products[token, lists], kind="stable")]
            own.fill(products[token, worst_first[0]])
            for one in worst_first[1:]:
                at = slice(self._list_starts[one], self._list_starts[one + 1])
                own[self._lists[at]] = products[token, one]
            total += own
        best = np.argpartition(-total, most - 1)[:most]
        return np.sort(best).astype(np.int64)

    def scores(self, query: Array, passages: NDArray[np.int64]) -> Array:
        """Return the scores of some passages from their codes, (passages,).

        Raises:
          RunFolderError: a record is damaged.
        """
        tokens, starts = self.tokens(passages)
        best = np.maximum.reduceat(query @ tokens.T, starts[:-1], axis=1)
        found: Array = best.sum(axis=0)
        return found

    def tokens(
        self, passages: Sequence[int] | NDArray[np.int64]
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return the tokens of some passages, and where each begins, and the end.

        Raises:
          RunFolderError: a record is damaged.
        """
        counts = np.diff(self._starts)[np.asarray(passages)]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        nearest = np.empty(int(starts[-1]), np.uint16)
        codes = np.empty((int(starts[-1]), self.width), np.int8)
        each = 2 + self.width
        for place, passage in enumerate(passages):
            a, b = (int(self._starts[passage + more]) * each for more in (0, 1))
            record = self._codes[a:b]
            at = slice(starts[place], starts[place + 1])
            tokens = at.stop - at.start
            nearest[at] = np.frombuffer(record, "<u2", tokens)
            beyond = nearest[at].max() >= len(self._quantizer.centroids)
            if beyond or zlib.crc32(record) != self._sums[passage]:
                raise RunFolderError(
                    f"{self._folder / CODES}: the record of passage {passage} is damaged; {_AGAIN}."
                )
            codes[at] = np.frombuffer(record, np.int8, offset=2 * tokens).reshape(tokens, -1)
        return self._quantizer.decode(nearest, codes), starts

    def as_kept(self, tokens: Array) -> Array:
        """Return tokens (tokens, width) as this index would give them back; nothing is added."""
        return self._quantizer.decode(*self._quantizer.encode(tokens))

    def text(self, passage: int) -> Text:
        """Return what a passage says.

        Raises:
          RunFolderError: its line is damaged.
        """
        line = self._texts[int(self._lines[passage]) : int(self._lines[passage + 1])]
        try:
            row: Any = read_text(line)
            return Text(str(row["name"]), str(row["title"]), str(row["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{self._texts_path}: line {passage + 1} is damaged ({error}); {_AGAIN}."
            ) from error


def _mapped(path: Path, size: int) -> mmap.mmap:
    """Return a mapped file of a known size.

    Raises:
      RunFolderError: it is missing, or of another size.
    """
    if reason := wrong_place(path, path.parent):
        raise RunFolderError(f"{path}: it is {reason}; {_AGAIN}.")
    try:
        with path.open("rb") as file:
            if (found := path.stat().st_size) != size or not size:
                raise RunFolderError(
                    f"{path}: {found} bytes, expected {size}; it is damaged, {_AGAIN}."
                )
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}.") from error
