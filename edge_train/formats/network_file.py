"""A trained small network on disk: one safetensors file that describes itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Int8Parameters, Parameters
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats import network as networks
from edge_train.formats.network import Network
from edge_train.formats.tensor_store import load_tensors, save_tensors

FORMAT = "edge-train network 1"

Statistics = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class SavedNetwork:
    """A network with its weights and everything that turns stored numbers into its inputs.

    Args:
      statistics: mean and variance of every batch normalization, by `<block>.<layer>`.
      mean, deviation: what inputs are standardized with.
    """

    network: Network
    parameters: Parameters
    statistics: Statistics
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    class_names: tuple[str, ...]


def save(path: Path, saved: SavedNetwork) -> None:
    """Write a network; INT8 weights stay INT8."""
    tensors: dict[str, NDArray[Any]] = {
        f"parameters/{name}": block
        for name, block in saved.parameters.stored().items()
        if not name.endswith(".local")  # heads that only served training
    }
    for place, (mean, variance) in saved.statistics.items():
        tensors[f"statistics/{place}/mean"] = mean
        tensors[f"statistics/{place}/variance"] = variance
    tensors |= {"inputs/mean": saved.mean, "inputs/deviation": saved.deviation}
    metadata = {
        "format": FORMAT,
        "network": saved.network.text,
        "input_shape": json.dumps(saved.network.input_shape),
        "class_names": json.dumps(saved.class_names),
        "weights": "int8" if isinstance(saved.parameters, Int8Parameters) else "float32",
    }
    save_tensors(path, tensors, metadata)


def load(path: Path) -> SavedNetwork:
    """Return the network in a file.

    Raises:
      ModelError: it is damaged or no such file.
    """
    try:
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ModelError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}.")
        names = tuple(json.loads(metadata["class_names"]))
        shape = tuple(json.loads(metadata["input_shape"]))
        network = networks.parse(metadata["network"], shape, len(names))
        kind = Int8Parameters if metadata["weights"] == "int8" else Parameters
        parameters = kind(
            (name, np.zeros(shape, np.float32))
            for block in network.blocks
            for name, shape in networks.parameter_shapes(block).items()
        )
        parameters.load(_under(tensors, "parameters/"))
        places = {name.rsplit("/", 1)[0] for name in _under(tensors, "statistics/")}
        statistics = {
            place: (
                tensors[f"statistics/{place}/mean"],
                tensors[f"statistics/{place}/variance"],
            )
            for place in places
        }
        mean, deviation = tensors["inputs/mean"], tensors["inputs/deviation"]
    except (
        *(RunFolderError, InputError),
        *(LookupError, ValueError, TypeError, RecursionError),
    ) as error:
        raise ModelError(f"{path}: not a network that edge-train saved ({error}).") from error
    return SavedNetwork(network, parameters, statistics, mean, deviation, names)


def _under(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
