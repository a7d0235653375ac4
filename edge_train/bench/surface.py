"""Open surfaces from raw clouds: LevelSetUDF against a plain field of distances, at equal steps.

    edge-train bench surface --data FOLDER [--seeds 3] [--limit STEPS] [--python PYTHON]

FOLDER holds teapot.obj and beetle.obj. Each run is the real command under --mem 500MB; one that is
in --out already is read, not run again.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.nearest import nearest
from edge_train.arrays.types import Array
from edge_train.bench import run, table
from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import read_mesh, surface_points
from edge_train.rng import Key
from edge_train.tasks.surface.mesh import border_loops

_SHAPES = ("teapot", "beetle")
_LOSSES = ("level-set", "distance")
_CAP, _STEPS, _POINTS, _WIDTH = "500MB", 4000, 20_000, 64
_ASKED, _DENSE = 10_000, 100_000  # points whose distance is asked for; points it is asked to
_NEAR = 0.005  # of the longest side of the box


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    python: str = sys.executable,
    limit: int = _STEPS,
) -> str:
    """Return the table.

    Args:
      seeds: runs of each row; a run takes minutes.
      data: the folder with the meshes.
      python: that runs are started by.
      limit: steps of a run.

    Raises:
      InputError: there is no such folder.
    """
    if data is None or not all((data / f"{name}.obj").is_file() for name in _SHAPES):
        raise InputError("bench surface needs --data, a folder with teapot.obj and beetle.obj.")
    lines = []
    for name in _SHAPES:
        truth = data / f"{name}.obj"
        for loss in _LOSSES:
            rows = []
            for seed in range(1, seeds + 1):
                folder = out / "surface" / f"{name}-{loss}-{limit}-{seed}"
                words = ("--task", "surface", "--loss", loss, "--mem", _CAP, "--seed", str(seed))
                sizes = ("--steps", str(limit), "--points", str(_POINTS), "--width", str(_WIDTH))
                report = run(folder, str(truth), *words, *sizes, python=python)
                kept = folder / "compared.json"
                if not kept.is_file():
                    kept.write_text(json.dumps(compared(truth, folder / "mesh.ply")))
                peak = report["measured_peak_bytes"]
                rows.append({**json.loads(kept.read_text()), "peak": peak})
            lines.append(_line(name, loss, rows))
    head = (
        *("shape", "loss", "Chamfer-L1, % of the box", "within 0.5 % of the box, %"),
        *("borders (true)", "border edges", "triangles", "most held, MB"),
    )
    title = (
        f"Seeds: {seeds}. {limit:,} steps of 1,000 queries, {_POINTS:,} points, width {_WIDTH}, "
        f"--mem {_CAP}:"
    )
    return f"{title}\n\n{table(head, lines)}"


def _line(name: str, loss: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the means over seeds."""
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    return (
        name,
        loss,
        f"{100 * mean['chamfer_l1']:.4f}",
        f"{100 * mean['near']:.1f}",
        f"{mean['borders']:.1f} ({mean['true_borders']:g})",
        f"{mean['border_edges']:.0f}",
        f"{mean['triangles']:.0f}",
        f"{max(row['peak'] for row in rows) / 1e6:.0f}",
    )


def compared(truth: Path, mesh: Path) -> dict[str, float]:
    """Return how a mesh differs from the true one; lengths in parts of the box's longest side.

    `chamfer_l1` is the mean distance from one to the other, both ways, halved; `near` the share of
    points of the true surface that have the mesh within 0.5 % of the box.

    Raises:
      InputError: a mesh cannot be read, or has no area.
    """
    corners, triangles = read_mesh(truth)
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = float((high - low).max())
    drawn = read_mesh(mesh)
    _, which = np.unique(corners, axis=0, return_inverse=True)
    known = [_drawn(corners, triangles, low, side, n) for n in (_ASKED, _DENSE)]
    found = [_drawn(*drawn, low, side, n) for n in (_ASKED, _DENSE)]
    _, ahead = nearest(known[0], found[1])
    _, back = nearest(found[0], known[1])
    borders, edges = border_loops(drawn[1])
    true_borders, _ = border_loops(which.reshape(-1)[triangles])
    return {
        "chamfer_l1": float((ahead.mean() + back.mean()) / 2),
        "to_mesh": float(ahead.mean()),
        "from_mesh": float(back.mean()),
        "near": float((ahead <= _NEAR).mean()),
        "borders": borders,
        "border_edges": edges,
        "true_borders": true_borders,
        "triangles": len(drawn[1]),
    }


def _drawn(corners: Any, triangles: Any, low: Any, side: float, count: int) -> Array:
    points = surface_points(corners, triangles, count, Key(1, count))
    if points is None:
        raise InputError("a mesh has no area, so nothing can be compared with it.")
    found: Array = ((points - low) / side).astype(np.float32)
    return found
