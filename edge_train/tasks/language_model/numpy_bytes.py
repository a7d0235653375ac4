"""What the NumPy engine holds while it computes, counted from the shape of a decoder."""

from collections.abc import Sequence

from edge_train.formats.language_folder import LanguageFolder
from edge_train.runtimes.numpy.attention import ROWS
from edge_train.runtimes.numpy.decoder import Decoder, decoder_of
from edge_train.runtimes.numpy.stored_matrices import PIECE_BYTES
from edge_train.tasks.language_model.footprint import Shapes

_READING = 6_000_000  # a piece as it is stored, and its steps to float32
_FORWARD, _BACKWARD = 2, 3  # copies of scores, and of what a layer makes of a token
_BLAS_BYTES = 4_000_000  # what it packs a product's factors into, for each thread


def differentiating(
    model: LanguageFolder, shapes: Shapes, length: int, tokens: int, threads: int
) -> int:
    """Return the bytes of a gradient of so many tokens in sequences of a length."""
    decoder = decoder_of(model.config, model.path)
    wide, inner = _sides(decoder, shapes)
    inputs = (decoder.layers + 1) * tokens * decoder.width
    layer = tokens * (5 * inner + 2 * wide + 6 * decoder.width)
    return 4 * (inputs + layer) + threads * _working(decoder, length, tokens, _BACKWARD)


def judging(model: LanguageFolder, shapes: Shapes, length: int, tokens: int, threads: int) -> int:
    """Return the bytes of losses of so many tokens."""
    decoder = decoder_of(model.config, model.path)
    wide, inner = _sides(decoder, shapes)
    layer = tokens * (3 * inner + wide + 4 * decoder.width)
    return 4 * layer + threads * _working(decoder, length, tokens, _FORWARD)


def _sides(decoder: Decoder, shapes: Shapes) -> tuple[int, int]:
    """Return what queries, keys and values of a token have together, and the widest gate."""
    wide = (decoder.heads + 2 * decoder.groups) * decoder.head
    downs: Sequence[int] = [s[1] for n, s in shapes.items() if n.endswith("down_proj.weight")]
    return wide, max(downs)


def _working(decoder: Decoder, length: int, tokens: int, copies: int) -> int:
    """Return what a thread holds: a piece of a matrix with its products, or a strip of scores."""
    rows = max(1, PIECE_BYTES // (4 * decoder.width))
    products = 4 * tokens * max(copies * rows, decoder.width)
    scores = 4 * copies * ROWS * length * decoder.heads // decoder.groups
    return PIECE_BYTES + _READING + _BLAS_BYTES + max(products, scores)
