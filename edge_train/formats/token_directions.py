"""The file of directions that may lie beside a model: what its tokens respond to, where they went.

`directions.safetensors`, in a model folder or an artifact. Its tensors are float32 (k, width), by
what is drawn from and by block: `metric/token`, `prior/token`, for SDXL also `metric/token_2` and
`prior/token_2`. A step of zo draws its directions from the span of the rows of one of them.

Metadata: `format` "edge-train token directions", `version` "1", `model_sha256` of the weights that
it was made with, and `facts`, JSON for people. What its numbers are is said where they are made,
`export/token_metric.py` and `export/token_prior.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError, RunFolderError
from edge_train.formats.tensor_store import load_tensors, save_tensors

DIRECTIONS = "directions.safetensors"
FORMAT, VERSION = "edge-train token directions", 1
_MOST_BYTES = 1 << 26  # two matrices of 64 rows for each encoder of the widest model
_AGAIN = "export the model again"


def write_directions(
    path: Path,
    matrices: Mapping[str, Mapping[str, Array]],
    model_sha256: str,
    facts: str,
) -> None:
    """Write matrices (k, width), by kind and block.

    Args:
      facts: JSON about how they were made, for people.
    """
    tensors = {f"{kind}/{name}": m for kind, own in matrices.items() for name, m in own.items()}
    about = {"format": FORMAT, "version": str(VERSION), "model_sha256": model_sha256}
    save_tensors(path, tensors, {**about, "facts": facts})


def read_directions(path: Path, kind: str, model_sha256: str) -> dict[str, Array]:
    """Return the matrices of one kind, by block.

    Raises:
      ModelError: the file is missing, damaged, of a later version, of another model or without
        this kind, or has numbers that no directions can be drawn from.
    """
    by_kind = directions_by_kind(path, model_sha256)
    if kind not in by_kind:
        raise ModelError(
            f"{path}: has no directions {kind!r}, only {', '.join(sorted(by_kind)) or 'none'}; use "
            f"--directions {min(by_kind, default='isotropic')}."
        )
    return by_kind[kind]


def kinds_of(path: Path) -> set[str]:
    """Return what is in a file to be drawn from.

    Raises:
      ModelError: the file is missing or damaged.
    """
    return {name.partition("/")[0] for name in _load(path)[0]}


def directions_by_kind(path: Path, model_sha256: str) -> dict[str, dict[str, Array]]:
    """Return all matrices of a file, by kind and block.

    Raises:
      ModelError: the file is missing, damaged, of a later version or of another model, or has
        numbers that no directions can be drawn from.
    """
    tensors, metadata = _load(path)
    found, version = metadata.get("format"), metadata.get("version")
    if found != FORMAT or version != str(VERSION):
        raise ModelError(
            f"{path}: format {found!r}, version {version!r}; this program reads {FORMAT!r}, "
            f"version {VERSION}: {_AGAIN}, or use --directions isotropic."
        )
    if metadata.get("model_sha256") != model_sha256:
        raise ModelError(
            f"{path}: made with weights {metadata.get('model_sha256', '')[:12]}..., the model has "
            f"{model_sha256[:12]}...; {_AGAIN}, or use --directions isotropic."
        )
    by_kind: dict[str, dict[str, Array]] = {}
    for name, matrix in tensors.items():
        fits = matrix.ndim == 2 and matrix.dtype == np.float32 and len(matrix) > 0
        if not (fits and len(matrix) <= matrix.shape[1] and np.isfinite(matrix).all()):
            raise ModelError(
                f"{path}: {name} is {matrix.dtype} {list(matrix.shape)} or not finite, "
                f"expected at most as many float32 rows as numbers; {_AGAIN}."
            )
        if not matrix.any():
            raise ModelError(f"{path}: {name} is all zeros; {_AGAIN}.")
        kind, _, block = name.partition("/")
        by_kind.setdefault(kind, {})[block] = matrix
    return by_kind


def _load(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    try:
        if path.is_file() and (size := path.stat().st_size) > _MOST_BYTES:
            raise RunFolderError(f"{path}: has {size} bytes, {_MOST_BYTES} are expected at most.")
        return load_tensors(path)
    except RunFolderError as error:
        raise ModelError(
            f"directions cannot be drawn: {error} Use --directions isotropic, or {_AGAIN}."
        ) from error
