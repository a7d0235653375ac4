"""What a model's configuration says of dropout, and what a run says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import InputError


def rates(config: Mapping[str, Any]) -> dict[str, float]:
    """Return every share that a configuration has dropped in training, by its key.

    >>> rates({"hidden_dropout_prob": 0.1, "attention_dropout": 0.0, "layerdrop": None})
    {'hidden_dropout_prob': 0.1}
    """
    found = {key: value for key, value in config.items() if "drop" in key or key.endswith("pdrop")}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }


def notes_of(path: Path, config: Mapping[str, Any], wanted: bool) -> tuple[str, ...]:
    """Return what a user should know: that a model's dropout is off unless it is asked for.

    Raises:
      InputError: it is asked for, and the model has none.
    """
    found = rates(config)
    said = ", ".join(f"{key} {value:g}" for key, value in found.items())
    if wanted and not found:
        raise InputError(
            f"--dropout is set, but {path / 'config.json'} has no dropout above 0; set it there, "
            "or leave it out."
        )
    if not found:
        return ()
    if wanted:
        return (f"dropout is on, as the model has it ({said})",)
    return (f"dropout of this model ({said}) is off; --dropout turns it on",)
