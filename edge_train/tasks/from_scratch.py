"""What a network that a task makes itself starts from: a seed, or an earlier run of the task."""

import hashlib
from collections.abc import Mapping
from typing import Any

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.recipe import Recipe


def check_no_model(recipe: Recipe) -> None:
    """Refuse a model: the network is the task's own.

    Raises:
      InputError: as described.
    """
    if recipe.model:
        raise InputError(f"model is not for task {recipe.task}: the network is it; leave it out.")


def start_hash(shape: Any, seed: int, learned: Mapping[str, Array] | None) -> str:
    """Return the hash of what the weights start from.

    Args:
      shape: of the network, a frozen dataclass.
      learned: weights of an earlier run; None: random ones.
    """
    digest = hashlib.sha256(repr((shape, seed)).encode())
    for name, value in sorted((learned or {}).items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def check_shape(start: str, found: Any, wanted: Any) -> None:
    """Refuse to go on from a network of other sizes.

    Raises:
      InputError: as described.
    """
    if found != wanted:
        raise InputError(
            f"--from {start}: that run has {found}, this one {wanted}; give the same sizes."
        )
