"""Weights that an earlier run learned, as the start of another."""

from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats import network as networks
from edge_train.formats import network_file


def learned_blocks(path: str, network: networks.Network) -> list[tuple[str, Array]]:
    """Return the weights of a saved network, for another one of the same blocks.

    Raises:
      InputError: its blocks have other names or shapes.
      ModelError: it is damaged, or no such file.
    """
    saved = network_file.load(readable_file(path)).parameters
    for block in network.blocks:
        for name, shape in networks.parameter_shapes(block).items():
            found = tuple(saved[name].shape) if name in saved else None
            if found != shape:
                has = "has none" if found is None else f"has one of shape {list(found)}"
                raise InputError(
                    f"--from {path}: this network needs weights {name!r} of shape {list(shape)}, "
                    f"that one {has}; give --network and --data of the same sizes."
                )
    return [
        (name, np.array(saved[name], np.float32))
        for block in network.blocks
        for name in networks.parameter_shapes(block)
    ]


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
