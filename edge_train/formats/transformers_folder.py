"""What configurations of different kinds of transformers' networks call the same numbers."""

from edge_train.formats.weight_files import Config

UNLIMITED = 1 << 20  # positions of a network that names no limit
_VOCABULARY = ("vocab_size", "n_words")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

_OF_HEADS, MOST_OF_HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim"), 1 << 16
_MOST_LAYERS = 10_000  # ten times those of the deepest models


def whole_number(value: object, most: int = 1 << 31, least: int = 0) -> int:
    """Return a count of a configuration.

    Raises:
      ValueError: it is no whole number, or none from `least` to `most`.
    """
    if type(value) is not int or not least <= value <= most:
        known = f"from {least} to {most}" if least else f"up to {most}"
        raise ValueError(f"{str(value)[:40]!r}, expected a whole number {known}")
    return value


def layers_of(config: Config) -> int:
    """Return how many layers follow one another.

    Raises:
      KeyError, ValueError: the configuration names none, or no count.
    """
    name = next((name for name in _LAYERS if name in config), _LAYERS[0])
    return whole_number(config[name], _MOST_LAYERS, 1)


def check_heads(config: Config) -> None:
    """Refuse counts of heads, or of the numbers of one, that no model has.

    Raises:
      ValueError: as described.
    """
    for name in _OF_HEADS:
        if config.get(name) is not None:
            whole_number(config[name], MOST_OF_HEADS)


def vocabulary_of(config: Config) -> int:
    """Return the rows of the token table.

    Raises:
      KeyError, ValueError: the configuration names none, or no count; of a model of pictures and
        texts it stands deeper.
    """
    name = next((name for name in _VOCABULARY if name in config), _VOCABULARY[0])
    return whole_number(config[name])


def positions_of(config: Config) -> int:
    """Return how many tokens a text may have; `UNLIMITED` where positions are no table."""
    found = (config.get(name) for name in _POSITIONS)
    return next((n for n in found if type(n) is int and 0 < n <= UNLIMITED), UNLIMITED)


def first_id(ids: object) -> object:
    """Return a token's id, or the first where a configuration lists several.

    >>> first_id(2), first_id([128001, 128009])
    (2, 128001)
    """
    return ids[0] if isinstance(ids, list) and ids else ids
