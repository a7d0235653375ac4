"""Texts through a frozen encoder, once: their compared tokens become records on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.encoder_folder import EncoderFolder
from edge_train.runtimes.token_vectors import packed
from edge_train.tasks.retrieve.passages import Reader, Tokens, padded

TOGETHER = 128  # texts that are sorted by length, so that little is padding
PER_CALL = 16  # texts in a call of the encoder at most
TOKENS_PER_CALL = 1024  # with padding; one text may have more


class Encoder(Protocol):
    """What turns padded ids into hidden values; never trained."""

    def hidden(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
        """Return (texts, tokens, width), float32."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_engine(folder: EncoderFolder, engine: str, threads: int, device: str = "cpu") -> Encoder:
    """Return the encoder of a folder on an engine, of torch on a device.

    Raises:
      InputError: the device is not there.
      ModelError: it cannot be used.
    """
    if engine == "onnx":
        from edge_train.runtimes.onnx.encoder import OnnxEncoder

        assert folder.graph is not None
        return OnnxEncoder(folder.graph, threads=threads)
    from edge_train.runtimes.torch.encoder import TorchEncoder

    return TorchEncoder(open_classifier(folder.path), threads=threads, device=device)


@dataclass
class Encoding:
    """Encodes texts in order; `counts` grows as its records are taken.

    Args:
      per_call: texts in a call at most.
      judged: only so many calls are made, in a rehearsal; later records hold a constant.

    Attributes:
      counts: compared tokens of each text.
    """

    encoder: Encoder
    reader: Reader
    pad: int
    width: int
    per_call: int = PER_CALL
    judged: int | None = None
    counts: list[int] = field(default_factory=list)

    def records(self, texts: Iterator[str]) -> Iterator[NDArray[Any]]:
        """Yield the records of texts, many texts at a time.

        Memory: the records of `TOGETHER` texts, and a call of the encoder.
        """
        while some := list(islice(texts, TOGETHER)):
            rows = self.reader.read(some)
            for one in self._encoded(rows):
                self.counts.append(len(one))
                yield packed(one)

    def _encoded(self, rows: Sequence[Tokens]) -> list[Array]:
        found: dict[int, Array] = {}
        # the longest first: a rehearsal makes the first calls only, and is to hold what all will
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number].ids))
        while order:
            room = TOKENS_PER_CALL // max(len(rows[order[0]].ids), 1)
            count = max(1, min(self.per_call, room))
            few, order = order[:count], order[count:]
            hidden = self._hidden([rows[number] for number in few])
            for place, number in enumerate(few):
                # of a text without any letter that is known, what stands for the whole
                found[number] = hidden[place, rows[number].kept or [0]]
        return [found[number] for number in range(len(rows))]

    def _hidden(self, rows: Sequence[Tokens]) -> Array:
        ids, mask = padded(rows, self.pad)
        if self.judged is not None:
            if self.judged <= 0:
                return np.ones((*ids.shape, self.width), np.float32)
            self.judged -= 1
        return self.encoder.hidden(ids, mask)
