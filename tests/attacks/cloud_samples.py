"""Samples of clouds: a file of every kind, read as tasks `points` and `surface` read them."""

import io
from pathlib import Path

import numpy as np

from edge_train.formats.clouds.cloud import read_clouds, read_mesh
from edge_train.rng import Key

_MOST = 50  # points


def cloud_samples() -> list:
    """Return a sample of each kind of file."""
    from samples import Sample

    points = np.random.default_rng(8).standard_normal((40, 3)).astype("<f4")
    lines = "\n".join(" ".join(f"{value:.4f}" for value in row) for row in points)
    scan = points.tobytes()
    head = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 40\nHEIGHT 1\nPOINTS 40\n"
    columns = np.ascontiguousarray(points.T).tobytes()
    packed = b"".join(b"\x1f" + columns[at : at + 32] for at in range(0, len(columns), 32))
    sizes = np.array([len(packed), len(columns)], "<u4").tobytes()
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    vertex = f"element vertex 40\n{axes}"
    face = "element face 2\nproperty list uchar int vertex_indices\n"
    faces = b"\x03" + np.arange(3, dtype="<i4").tobytes()
    archive = io.BytesIO()
    np.savez(archive, clouds=np.stack([points, points]))
    files = {
        "a.xyz": lines.encode(),
        "b.ply": f"ply\nformat ascii 1.0\n{vertex}end_header\n{lines}\n".encode(),
        "c.ply": f"ply\nformat binary_little_endian 1.0\n{vertex}{face}end_header\n".encode()
        + scan
        + 2 * faces,
        "d.pcd": f"{head}DATA ascii\n{lines}\n".encode(),
        "e.pcd": f"{head}DATA binary\n".encode() + scan,
        "f.pcd": f"{head}DATA binary_compressed\n".encode() + sizes + packed,
        "g.obj": ("v " + lines.replace("\n", "\nv ") + "\nf 1 2 3 4\nf -1/2 -2//3 -3\n").encode(),
        "h.npz": archive.getvalue(),
    }
    return [
        Sample(f"cloud {name[2:]} {name[0]}", {name: content}, (name,), _read, name)
        for name, content in files.items()
    ]


def _read(folder: Path, work: Path) -> None:
    for file in sorted(folder.iterdir()):
        for cloud in read_clouds(file, _MOST, Key(0, 0)):
            assert np.isfinite(cloud.points).all()
        if file.suffix in (".ply", ".obj"):
            read_mesh(file)
