"""Readers of clouds: every kind of file gives the same points, and nothing in one is believed."""

import struct
import warnings
import zipfile

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import (
    clouds_in,
    frame_of,
    read_cloud,
    read_clouds,
    read_mesh,
    surface_points,
)
from edge_train.formats.clouds.ply import write_ply
from edge_train.rng import Key

POINTS = np.array([[0, 0, 0], [1, 0, 0.5], [0, 2, 0], [-3, 4, 5]], np.float64)
KEY = Key(0, 0)
LINES = "\n".join(" ".join(map(repr, row)) for row in POINTS.tolist())
CORNERS = [[0, 1, 2], [1, 2, 3]]


def ply(kind, order, faces=False, more=""):
    lines = ["ply", f"format {kind} 1.0", "comment a scan", f"element vertex {len(POINTS)}"]
    lines += ["property uchar red", *(f"property float {axis}" for axis in "xyz")]
    if faces:
        lines += ["element face 2", f"property list uchar int vertex_indices{more}"]
    content = ("\n".join(lines) + "\nend_header\n").encode()
    if kind == "ascii":
        content += "".join(f"7 {x} {y} {z}\n" for x, y, z in POINTS).encode()
        return content + (b"3 0 1 2\n3 1 2 3\n" if faces else b"")
    content += b"".join(struct.pack(f"{order}Bfff", 7, *row) for row in POINTS)
    rows = [struct.pack(f"{order}Biii", 3, *row) for row in CORNERS] if faces else []
    return content + b"".join(rows)


def lzf(content):
    """Pack as an honest writer does that finds nothing to shorten."""
    parts = [content[start : start + 32] for start in range(0, len(content), 32)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def pcd(data):
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 8 1\nTYPE F F F U\n"
        f"COUNT 1 1 1 1\nWIDTH 4\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 4\nDATA {data}\n"
    ).encode()
    if data == "ascii":
        return head + "".join(f"{x} {y} {z} 9\n" for x, y, z in POINTS).encode()
    if data == "binary":
        return head + b"".join(struct.pack("<ffdB", *row, 9) for row in POINTS)
    columns = b"".join(POINTS[:, n].astype(k).tobytes() for n, k in enumerate(("f4", "f4", "f8")))
    packed = lzf(columns + bytes([9] * 4))
    return head + struct.pack("<II", len(packed), len(columns) + 4) + packed


WHOLE = {
    "a.xyz": f"# a scan\n4\n{LINES}\n".encode(),
    "b.xyz": LINES.replace(" ", ",").encode() + b",255\n",
    "c.ply": ply("ascii", "<"),
    "d.ply": ply("binary_little_endian", "<"),
    "e.ply": ply("binary_big_endian", ">"),
    "f.pcd": pcd("ascii"),
    "g.pcd": pcd("binary"),
    "h.pcd": pcd("binary_compressed"),
    "i.obj": b"# no faces\n" + "\n".join(f"v {x} {y} {z}" for x, y, z in POINTS).encode(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_kind_of_file_gives_the_points_that_it_holds(name, tmp_path):
    (tmp_path / name).write_bytes(WHOLE[name])
    cloud = read_cloud(tmp_path / name, 100, KEY)
    np.testing.assert_allclose(cloud.points, POINTS)
    assert (cloud.found, cloud.not_finite, cloud.sampled, cloud.thinned) == (4, 0, False, False)


@pytest.mark.parametrize(("name", "line"), [("a.xyz", b"%d 2 3\n"), ("a.obj", b"v %d 2 3\n")])
def test_a_mark_of_utf_8_in_front_is_no_part_of_the_numbers(name, line, tmp_path):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + b"".join(line % n for n in range(5)))
    [cloud] = read_clouds(tmp_path / name, 100, KEY)
    assert sorted(cloud.points[:, 0].tolist()) == [0, 1, 2, 3, 4]


def test_archives_hold_one_cloud_or_many(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, points=POINTS.astype(np.float32), labels=np.arange(4))
    np.testing.assert_allclose(read_cloud_of(path), [POINTS])
    np.savez_compressed(path, clouds=np.stack([POINTS, POINTS + 1]))
    assert clouds_in(path) == 2
    np.testing.assert_allclose(read_cloud_of(path), [POINTS, POINTS + 1])


def read_cloud_of(path):
    return [cloud.points for cloud in read_clouds(path, 100, KEY)]


def test_an_archive_with_a_header_of_python_2_is_read_without_a_warning(tmp_path):
    np.save(tmp_path / "points.npy", POINTS)
    old = (tmp_path / "points.npy").read_bytes().replace(b"(4, 3), }  ", b"(4L, 3L), }")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clouds_in(tmp_path / "a.npz") == 1
        np.testing.assert_allclose(read_cloud_of(tmp_path / "a.npz"), [POINTS])


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_faces_of_a_ply_are_read_and_their_surface_is_sampled(kind, tmp_path):
    order = ">" if "big" in kind else "<"
    (tmp_path / "m.ply").write_bytes(ply(kind, order, faces=True))
    corners, triangles = read_mesh(tmp_path / "m.ply")
    np.testing.assert_allclose(corners, POINTS)
    assert triangles.tolist() == CORNERS
    cloud = read_cloud(tmp_path / "m.ply", 50, KEY)
    assert cloud.sampled and len(cloud.points) == 50


def test_polygons_become_fans_and_negative_corners_count_from_the_last(tmp_path):
    path = tmp_path / "m.obj"
    square = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    for face in (b"f 1/1/1 2//2 3 4\n", b"f -4 -3 -2 -1\n"):
        path.write_bytes(square + face)
        assert read_mesh(path)[1].tolist() == [[0, 1, 2], [0, 2, 3]]
    points = read_cloud(path, 4000, KEY).points
    assert np.abs(points[:, 2]).max() == 0
    np.testing.assert_allclose(points[:, :2].mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(points[:, :2].var(0), 1 / 12, atol=0.01)


def test_polygons_of_several_sizes_in_binary_are_read_row_by_row(tmp_path):
    content = ply("binary_little_endian", "<", faces=True)
    content = content[: -len(CORNERS) * 13] + struct.pack("<Biiii", 4, 0, 1, 2, 3)
    content += struct.pack("<Biii", 3, 1, 2, 3)
    (tmp_path / "m.ply").write_bytes(content)
    assert read_mesh(tmp_path / "m.ply")[1].tolist() == [[0, 1, 2], [0, 2, 3], [1, 2, 3]]


def test_what_is_written_is_read_again_with_all_digits(tmp_path):
    far = POINTS + 5_000_000.123456
    normals = {name: np.ones(4) for name in ("nx", "ny", "nz")}
    write_ply(tmp_path / "a.ply", far, np.array(CORNERS), normals)
    corners, triangles = read_mesh(tmp_path / "a.ply")
    np.testing.assert_array_equal(corners, far)
    assert triangles.tolist() == CORNERS


def test_points_that_are_not_finite_are_left_out_and_counted(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(f"nan nan nan\n{LINES}\n1 inf 2\n")
    cloud = read_cloud(path, 100, KEY)
    np.testing.assert_allclose(cloud.points, POINTS)
    assert (cloud.found, cloud.not_finite) == (6, 2)


def test_a_large_cloud_is_thinned_evenly_and_never_held_whole(tmp_path):
    import tracemalloc

    count = 300_000
    line = np.zeros((count, 3), np.float32)
    line[:, 0] = np.linspace(0, 1, count)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    (tmp_path / "a.ply").write_bytes(head.encode() + line.tobytes())
    del line
    tracemalloc.start()
    cloud = read_cloud(tmp_path / "a.ply", 1000, KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000  # the file has 3.6 MB, as numbers 7.2
    assert cloud.thinned and cloud.found == count and len(cloud.points) == 1000
    assert cloud.points[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    quarters = np.histogram(cloud.points[:, 0], 4, (0, 1))[0]
    assert quarters.min() > 180


def test_a_frame_of_kilometers_loses_nothing(tmp_path):
    points = 1e6 + POINTS
    frame = frame_of(points)
    inward = frame.inward(points)
    assert np.sqrt(np.square(inward).sum(1)).max() == pytest.approx(1)
    np.testing.assert_allclose(frame.outward(inward), points, rtol=0, atol=1e-5)


def test_triangles_without_an_area_are_no_surface():
    flat = np.zeros((3, 3))
    assert surface_points(flat, np.array([[0, 1, 2]]), 5, KEY) is None


HOSTILE = {
    "empty.xyz": (b"", "has no points"),
    "comment.xyz": (b"# nothing\n", "has no points"),
    "words.xyz": (b"C 1.0 2.0 3.0\n", "no number"),
    "short.xyz": (b"1 2 3\n1 2\n", "expected x, y and z"),
    "nan.xyz": (b"nan nan nan\n", "is finite"),
    "huge.xyz": (b"1e30 0 0\n0 0 0\n", "at most 1e"),
    "bytes.xyz": (bytes(range(256)) * 3, ""),
    "endless.xyz": (b"1" * 400_000, "more than"),
    "none.ply": (b"", "no .ply file"),
    "count.ply": (ply("binary_little_endian", "<").replace(b"vertex 4", b"vertex 9"), "cut"),
    "more.ply": (ply("ascii", "<").replace(b"vertex 4", b"vertex 6"), "fewer rows"),
    "vast.ply": (
        ply("binary_little_endian", "<").replace(b"vertex 4", b"vertex 99999999999999"),
        "bytes follow",
    ),
    "bomb.ply": (ply("ascii", "<").replace(b"vertex 4", b"vertex " + b"9" * 50), "too large"),
    "minus.ply": (ply("ascii", "<").replace(b"vertex 4", b"vertex -4"), "has -4"),
    "type.ply": (ply("ascii", "<").replace(b"uchar", b"quad"), "nobody knows"),
    "format.ply": (ply("ascii", "<").replace(b"ascii", b"latin"), "nobody knows"),
    "axis.ply": (ply("ascii", "<").replace(b"float z", b"float q"), "no x, y and z"),
    "corner.ply": (ply("ascii", "<", faces=True).replace(b"1 2 3", b"1 2 4"), "names a corner"),
    "polygon.ply": (ply("ascii", "<", faces=True).replace(b"3 1 2 3", b"900 1 2 3"), "polygon"),
    "face.ply": (ply("binary_little_endian", "<", faces=True)[:-3], "cut off"),
    "none.pcd": (b"hello\n", "no .pcd file"),
    "count.pcd": (pcd("binary").replace(b"POINTS 4", b"POINTS 9"), "cut off"),
    "vast.pcd": (pcd("binary").replace(b"POINTS 4", b"POINTS 4000000000"), "bytes follow"),
    "lines.pcd": (pcd("ascii").replace(b"POINTS 4", b"POINTS 7"), "fewer points"),
    "size.pcd": (pcd("binary").replace(b"SIZE 4", b"SIZE 3"), "do not fit"),
    "fields.pcd": (pcd("binary").replace(b"x y z", b"x y q"), "no x, y and z"),
    "twice.pcd": (pcd("binary").replace(b"z intensity", b"z x"), "twice"),
    "packed.pcd": (pcd("binary_compressed")[:-9], "cut off"),
    "swollen.pcd": (
        pcd("binary_compressed").replace(b"POINTS 4", b"POINTS 40000000"),
        "do not fit the size",
    ),
    "data.pcd": (pcd("ascii").replace(b"DATA ascii", b"DATA zip"), "DATA"),
    "corner.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "names a corner"),
    "zero.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "names a corner"),
    "word.obj": (b"v 0 0 0\nf a b c\n", "no whole number"),
    "nothing.obj": (b"mtllib a.mtl\n", "has no points"),
    "none.npz": (b"PK", "damaged or not an npz"),
    "a.stl": (b"solid\n", "must be a cloud"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence_with_its_name(name, tmp_path):
    content, words = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_clouds(tmp_path / name, 100, KEY))
    assert name in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_that_lie_or_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    wrong = {
        "pickled": {"points": np.array([{}], object)},
        "expected an array": {"a": POINTS, "b": POINTS},
        "of shape": {"points": np.arange(9.0)},
        "expected numbers": {"points": np.array([["a", "b", "c"]])},
    }
    for words, arrays in wrong.items():
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=r"a\.npz") as caught:
            clouds_in(path)
        if words != "pickled":
            assert words in str(caught.value)
    np.savez(path, points=POINTS)
    content = path.read_bytes().replace(b"(4, 3)", b"(4e9,3)"[:6])
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_cloud_of(path)


def test_any_cut_and_any_flipped_byte_is_a_cloud_or_a_sentence(tmp_path):
    draw = np.random.default_rng(0)
    whole = {**WHOLE, "m.ply": ply("binary_little_endian", "<", faces=True)}
    for name, content in whole.items():
        for _ in range(80):
            damaged = bytearray(content[: draw.integers(1, len(content) + 1)])
            for _ in range(draw.integers(0, 4)):
                damaged[draw.integers(len(damaged))] = draw.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                cloud = read_cloud(tmp_path / name, 100, KEY)
            except InputError:
                continue
            assert np.isfinite(cloud.points).all() and len(cloud.points) <= 100
