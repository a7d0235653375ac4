"""How much a tokenizer has in it, and the bytes that this takes while it is opened and afterwards.

The library keeps each token in two hash tables, from word to id and back, and each merge in a
third. A table has a power of two of slots and at most seven eighths of them are taken. While a file
is read, its strings exist once more, as do those of its merges.

The constants were measured with tokenizers 0.23 in fresh processes, of 13 files with 30,522 to
256,000 tokens and up to 507,256 merges. Each process held 3 to 10 MB more afterwards than is said
here, since the library's code and expressions are counted with the other libraries; of Unigram with
256,000 tokens 9 MB less. The peak was within 5 MB or a ninth.
"""

from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """What a tokenizer was read from, and with it the bytes of a token and of a merge meanwhile.

    Attributes:
      token_bytes, merge_bytes: held while it is opened, beside what is held afterwards.
      token_rest, merge_rest: of them, in holes between what is held.
    """

    WORDS = (85, 190, 50, 0)  # JSON with merges as "left right", or files of lines
    JOINED = (200, 190, 50, 30)  # the same, written anew for the library
    PAIRS = (85, 620, 50, 35)  # JSON with merges as lists of two, as the library reads them
    GGUF = (150, 190, 0, 0)

    def __init__(self, token: int, merge: int, token_rest: int, merge_rest: int) -> None:
        self.token_bytes, self.merge_bytes = token, merge
        self.token_rest, self.merge_rest = token_rest, merge_rest


_WORD_SLOT = 24 + 8 + 1  # a string, an id, a byte that says whether it is taken
_MERGE_SLOT = 8 + 8 + 1  # two ids; a rank and an id
_STRING_BYTES = 32  # the least that the allocator gives
_TREE_BYTES = 260  # of a token's letters in Unigram's tree of all pieces, beside both tables


@dataclass(frozen=True)
class TokenizerSize:
    """What there is in a tokenizer; none of it where nobody counted.

    Attributes:
      in_tree: whether its pieces are kept in a tree, too: the kind Unigram.
    """

    tokens: int = 0
    merges: int = 0
    source: Source = Source.WORDS
    in_tree: bool = False

    @property
    def held_bytes(self) -> int:
        """What it takes as long as it is there."""
        words = 2 * (_WORD_SLOT * _slots(self.tokens) + _STRING_BYTES * self.tokens)
        tree = _TREE_BYTES * self.tokens if self.in_tree else 0
        rest = self.source.token_rest * self.tokens + self.source.merge_rest * self.merges
        return words + _MERGE_SLOT * _slots(self.merges) + tree + rest

    @property
    def opening_bytes(self) -> int:
        """What it takes at most while it is opened."""
        more = (self.source.token_bytes - self.source.token_rest) * self.tokens
        more += (self.source.merge_bytes - self.source.merge_rest) * self.merges
        return self.held_bytes + more


NOT_COUNTED = TokenizerSize()


def _slots(count: int) -> int:
    """Return the slots of a hash table.

    >>> _slots(0), _slots(28), _slots(29), _slots(128_000)
    (0, 32, 64, 262144)
    """
    return 1 << (-(-count * 8 // 7) - 1).bit_length() if count else 0
