"""Weights that an earlier run learned, as the start of another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats import network as networks
from edge_train.formats import network_file


def learned_blocks(
    path: str, network: networks.Network, class_names: Sequence[str]
) -> list[tuple[str, Array]]:
    """Return the weights of a saved network, for another one of the same blocks.

    Args:
      class_names: of the other one; where these are those of the saved network in another order,
        its last layer's rows are in that order, too.

    Raises:
      InputError: its blocks have other names or shapes.
      ModelError: it is damaged, or no such file.
    """
    before = network_file.load(readable_file(path))
    saved, last = before.parameters, network.blocks[-1].name
    for block in network.blocks:
        for name, shape in networks.parameter_shapes(block).items():
            found = tuple(saved[name].shape) if name in saved else None
            if found != shape:
                has = "has none" if found is None else f"has one of shape {list(found)}"
                raise InputError(
                    f"--from {path}: this network needs weights {name!r} of shape {list(shape)}, "
                    f"that one {has}; give --network and --data of the same sizes."
                )
    blocks = {
        name: np.array(saved[name], np.float32)
        for block in network.blocks
        for name in networks.parameter_shapes(block)
    }
    order = order_of(before.class_names, class_names)
    blocks |= {name: blocks[name][order] for name in (f"{last}.weight", f"{last}.bias")}
    return list(blocks.items())


def order_of(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return where each wanted class stands among others; as they stand where some are others.

    >>> order_of(("b", "a"), ("a", "b")), order_of(("b", "a"), ("0", "1"))
    ([1, 0], [0, 1])
    """
    if sorted(names) != sorted(wanted) or len(set(names)) < len(names):
        return list(range(len(names)))
    return [names.index(name) for name in wanted]


def readable_file(path: str) -> Path:
    """Return the path of a file that is there.

    Raises:
      InputError: there is no such file, or it is a folder.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise InputError(f"{path} is a folder; name a file, such as network.safetensors of a run.")
    if not file.is_file():
        raise InputError(f"{path}: there is no such file.")
    return file
