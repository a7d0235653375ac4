"""What training changed, as low-rank adapters in the files that peft reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.factored import tiles
from edge_train.arrays.parameters import Parameters, StoredRows
from edge_train.arrays.types import Array, Rows
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.atomic import write_bytes, write_parts
from edge_train.formats.tensor_file import StoredTensor
from edge_train.formats.tensor_store import safetensors_header
from edge_train.optim.bases import is_tall, top_vectors
from edge_train.protocols import Layer
from edge_train.rng import Key

DIFFERENCE_FOLDER = "difference"  # of a run folder
_SKETCH = Key(0, -6)
_BEFORE = "base_model.model."  # what peft puts before the name of every module


def write_difference(
    folder: Path,
    layers: Sequence[Layer],
    trained: Mapping[str, Rows],
    stored: Mapping[str, StoredTensor],
    *,
    rank: int,
    task_type: str,
    base: str,
) -> float:
    """Write `adapter_model.safetensors` and `adapter_config.json`; return the share that they keep.

    A matrix becomes the product of two thin ones that is nearest to trained - stored, vectors and
    layers that the base does not have are kept whole. What is stored is the file's own numbers,
    also where training began from their INT8 or INT4 rounding: the rounding is no part of the few
    strongest directions, so the adapter mostly leaves it out.

    Args:
      trained: every block; rows of them are read.
      stored: where the base holds a block; a layer with a block that is missing is kept whole.
      rank: of each product; a smaller side of a matrix makes it exact.
      task_type: as peft spells it: CAUSAL_LM or SEQ_CLS.
      base: the name or folder of the base, for the record.

    Returns:
      The share of the difference's energy that is in the products, over all matrices.

    Raises:
      RunFolderError: the folder cannot be written.

    Memory: about four matrices of rank + 8 rows for the largest one; no matrix is ever whole.
    """
    adapted = [layer for layer in layers if _is_adapted(layer, stored)]
    kept = [layer for layer in layers if layer not in adapted]
    ranks = {layer.path: min(rank, *trained[layer.blocks["weight"]].shape) for layer in adapted}
    written = _Written(adapted, kept, trained, stored, ranks)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    write_parts(folder / "adapter_model.safetensors", written.parts())
    smaller = {path: own for path, own in ranks.items() if own != rank}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "target_modules": [layer.path for layer in adapted],
        "modules_to_save": [layer.path for layer in kept] or None,
        "fan_in_fan_out": any(layer.kind == "conv1d" for layer in adapted),
        "bias": "all" if any("bias" in layer.blocks for layer in adapted) else "none",
    }
    write_bytes(folder / "adapter_config.json", (json.dumps(config, indent=2) + "\n").encode())
    return written.kept_energy / written.energy if written.energy else 1.0


def rows_of(parameters: Parameters) -> dict[str, Rows]:
    """Return every block as it is trained now, to be read some rows at a time."""
    return {name: StoredRows(parameters, name) for name in parameters}


def check_rank(rank: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a difference that would be no smaller than the matrices.

    Raises:
      InputError: no matrix is larger than the rank.
    """
    most = max((min(shape) - 1 for shape in shapes.values() if len(shape) == 2), default=0)
    if rank > most:
        raise InputError(
            f"difference_rank is {rank}, but the model has no matrix with more than {most + 1} "
            f"rows and columns; use a --difference-rank of at most {most}."
        )


def workspace_bytes(rank: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return what writing a difference of this rank holds at once; 0 for rank 0, which is none."""
    sides = max((sum(shape) for shape in shapes.values() if len(shape) == 2), default=0)
    return 4 * 4 * (rank + 8) * sides if rank else 0


class _Written:
    """The tensors of the file, made as they are written; counts energies on the way."""

    def __init__(
        self,
        adapted: Sequence[Layer],
        kept: Sequence[Layer],
        trained: Mapping[str, Rows],
        stored: Mapping[str, StoredTensor],
        ranks: Mapping[str, int],
    ) -> None:
        self.energy = self.kept_energy = 0.0
        self._trained, self._stored, self._ranks = trained, stored, ranks
        self._whole: dict[str, str] = {}  # tensor -> block
        self._first: dict[str, Layer] = {}  # tensor of a product's first matrix -> its layer
        self._second: dict[str, Layer] = {}
        for layer in kept:
            for name, block in layer.blocks.items():
                self._whole[f"{_BEFORE}{layer.path}.{name}"] = block
        for layer in adapted:
            path = f"{_BEFORE}{layer.path}"
            if "bias" in layer.blocks:
                self._whole[f"{path}.base_layer.bias"] = layer.blocks["bias"]
            first, second = (f"{path}.{name}" for name in _tensor_names(layer))
            self._first[first] = self._second[second] = layer

    def parts(self) -> Iterator[bytes]:
        """Yield the file."""
        shapes = {name: self._trained[block].shape for name, block in self._whole.items()}
        for tensors, side in ((self._first, 1), (self._second, 0)):
            for name, layer in tensors.items():
                rank, sides = self._ranks[layer.path], self._outputs_inputs(layer)
                shapes[name] = (rank, sides[1]) if side else (sides[0], rank)
        kinds = {name: ("F32", shape) for name, shape in shapes.items()}
        yield safetensors_header(kinds, {"format": "pt"})
        second: Array | None = None
        for name in sorted(shapes):
            if name in self._whole:
                rows = self._trained[self._whole[name]]
                yield from (_bytes(rows[some]) for some in _slices(rows.shape))
            elif name in self._first:
                first, second = self._product(self._first[name])
                yield _bytes(first)
            else:  # comes right after its first one in the order of names
                assert second is not None
                yield _bytes(second)

    def _outputs_inputs(self, layer: Layer) -> tuple[int, int]:
        rows, columns = self._trained[layer.blocks["weight"]].shape
        return (rows, columns) if layer.kind == "linear" else (columns, rows)

    def _product(self, layer: Layer) -> tuple[Array, Array]:
        """Return A (rank, inputs) and B (outputs, rank): B A is nearest to the difference."""
        block = layer.blocks["weight"]
        difference = _Difference(self._trained[block], self._stored[block])
        standing: Any = difference if is_tall(difference.shape) else difference.T
        draw = _SKETCH.generator("difference", layer.path)
        vectors = top_vectors(standing, self._ranks[layer.path], draw)
        low: Array = standing @ vectors.T
        self.energy += difference.energy()
        self.kept_energy += float(np.square(low, dtype=np.float64).sum())
        first, second = vectors, low
        if is_tall(difference.shape) != (layer.kind == "linear"):
            first, second = low.T, vectors.T
        return first, second


class _Difference:
    """trained - stored, (rows, columns), of which some rows exist at a time."""

    def __init__(self, trained: Rows, stored: Rows, *, transposed: bool = False) -> None:
        self._trained, self._stored, self._transposed = trained, stored, transposed

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._trained.shape
        return (columns, rows) if self._transposed else (rows, columns)

    @property
    def T(self) -> "_Difference":  # noqa: N802 - as NumPy spells it
        return _Difference(self._trained, self._stored, transposed=not self._transposed)

    def __matmul__(self, thin: Array) -> Array:
        result = np.zeros((self.shape[0], thin.shape[1]), np.float32)
        for rows, part in self._parts():
            if self._transposed:
                result += part.T @ thin[rows]
            else:
                np.matmul(part, thin, out=result[rows])
        return result

    def energy(self) -> float:
        """Return the sum of squares."""
        return sum(float(np.vdot(part, part)) for _, part in self._parts())

    def _parts(self) -> Iterator[tuple[slice, Array]]:
        for rows in _slices(self._trained.shape):
            yield rows, self._trained[rows] - self._stored[rows]


def _is_adapted(layer: Layer, stored: Mapping[str, StoredTensor]) -> bool:
    return layer.kind != "other" and all(block in stored for block in layer.blocks.values())


def _tensor_names(layer: Layer) -> tuple[str, str]:
    if layer.kind == "embedding":
        return "lora_embedding_A", "lora_embedding_B"
    return "lora_A.weight", "lora_B.weight"


def _slices(shape: tuple[int, ...]) -> Iterator[slice]:
    if len(shape) == 2:
        return tiles((shape[0], shape[1]))
    return iter([slice(0, shape[0])])


def _bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()
