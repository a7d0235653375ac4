"""Scans against a trained autoencoder: a score each, reconstructions and codes in a folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import read_clouds
from edge_train.formats.clouds.ply import write_ply
from edge_train.formats.tensor_store import save_tensors
from edge_train.rng import Key
from edge_train.tasks.points.data import files_of, placed_of
from edge_train.tasks.points.model_file import AUTOENCODER, load_model

CODES = "codes.safetensors"
_READ_AS_MANY = 8


def score(
    run: Path, scans: Sequence[Path], *, out: Path | None = None, as_json: bool = False
) -> Iterator[str]:
    """Yield a line for each scan.

    Args:
      run: a run of this task, or its file.
      scans: files, or folders of them.
      out: gets a .ply for each scan, in the units of its file, and `codes.safetensors`.

    Raises:
      InputError, RunFolderError: a scan or the run cannot be used.
    """
    file = run / AUTOENCODER if run.is_dir() else run
    if not file.is_file():
        raise InputError(f"{run}: has no {AUTOENCODER}; name a run of task points.")
    model = load_model(file)
    points = model.shape.points
    codes: list[Array] = []
    frames: list[list[float]] = []
    names: list[str] = []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for path in scans:
        for one in files_of(path):
            for number, cloud in enumerate(read_clouds(one, _READ_AS_MANY * points, Key(0, 0))):
                placed, frame = placed_of(cloud, points, str(one), number)
                (value,), (back,) = model.score(placed[None])
                found: dict[str, Any] = {
                    "scan": str(one) if not number else f"{one}#{number}",
                    "score": float(value),
                    "usual": float(model.mean),
                    "threshold": model.threshold,
                    "unusual": bool(value > model.threshold),
                    "code_bytes": model.code_bytes,
                }
                if out is not None:
                    name = f"{len(names):04d}-{one.stem}.ply"
                    write_ply(out / name, frame.outward(back))
                    codes.append(model.network.encode(placed[None])[0])
                    frames.append([*frame.center, frame.radius])
                    names.append(found["scan"])
                    found["reconstruction"] = str(out / name)
                yield json.dumps(found) if as_json else _words(found)
    if out is not None:
        tensors: dict[str, NDArray[Any]] = {
            "codes": np.stack(codes),
            "frames": np.array(frames, np.float64),
        }
        save_tensors(out / CODES, tensors, {"names": json.dumps(names)})


def _words(found: dict[str, Any]) -> str:
    kind = "unusual" if found["unusual"] else "usual"
    return (
        f"{found['scan']}: {kind} (score {found['score']:.4g}; known clouds have "
        f"{found['usual']:.4g}, unusual from {found['threshold']:.4g}); "
        f"{found['code_bytes']} bytes as a code"
    )
