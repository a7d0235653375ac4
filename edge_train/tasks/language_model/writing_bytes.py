"""What a model holds while it writes the text before or after training: keys and values, above all.

Counted from a configuration, for an engine that adds the keys of a token to those before it.
"""

from collections.abc import Mapping
from typing import Any

from edge_train.tasks.language_model.continuing import WRITTEN

_GROWN = 2  # times: keys of one more token are a new array, in the hole of no earlier one
_FLOAT_BYTES, _PAIR = 4, 2


def writing_bytes(
    config: Mapping[str, Any], layers: int, width: int, inside: int, length: int, step: int = 1
) -> int:
    """Return the bytes of keys and values, and of reading the beginning all at once.

    A kind that keeps none reads all of the text again, which holds less.

    Args:
      width: numbers of a token between layers; keys and values have as many each, where the
        configuration does not say how many they have.
      inside: numbers of a token inside of a layer.
      length: tokens of a sequence, half of which is a beginning at most.
      step: tokens that an engine makes room for at once.
    """
    tokens = min(length, length // 2 + WRITTEN)
    room = -(-tokens // step) * step
    kept = _PAIR * layers * room * _key_width(config, width)
    return _FLOAT_BYTES * (_GROWN * kept + tokens * (width + inside))


def _key_width(config: Mapping[str, Any], width: int) -> int:
    """Return the numbers of a token's keys in a layer.

    >>> _key_width({"num_key_value_heads": 3, "num_attention_heads": 9, "hidden_size": 576}, 576)
    192
    >>> _key_width({"num_key_value_heads": 1, "head_dim": 256}, 640), _key_width({}, 64)
    (256, 64)
    """
    groups, heads = config.get("num_key_value_heads"), config.get("num_attention_heads")
    size = config.get("head_dim")
    if size is None and heads:
        size = width // heads
    return groups * size if groups and size else width
