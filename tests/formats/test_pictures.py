"""Every kind of picture becomes upright 8-bit sRGB on white, or a sentence that names the file."""

import builtins
import io
import os
import struct
import subprocess
import sys
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from picture_files import ADOBE, FORWARD, SRGB, colors, in_srgb, lying, profile, saved
from PIL import Image, ImageCms

from edge_train.errors import InputError
from edge_train.formats.pictures import MAX_MEGAPIXELS, Fit, look_at, read_picture
from edge_train.memory.measure import has_counters

PIXELS = colors()
HEIF = find_spec("pillow_heif") is not None
# What a kind of file loses at its best quality, in levels of 255.
LOSS = {"png": 0, "webp": 0, "tif": 0, "jpg": 8, "avif": 6}


def read(content, fit=None, **options):
    return read_picture(content, fit, name="x.jpg", **options)


def far(found, expected):
    return np.abs(found.astype(float) - expected).max()


def heic(pixels, **options):
    from pillow_heif import from_pillow

    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    from_pillow(image).save(buffer, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", LOSS)
def test_a_picture_is_upright_however_it_is_stored(suffix, orientation, tmp_path):
    content = lying(PIXELS, orientation, suffix)
    picture = read(content)
    assert picture.pixels.shape == PIXELS.shape
    assert far(picture.pixels, PIXELS) <= LOSS[suffix]
    assert picture.size == (40, 32)
    (tmp_path / "x").write_bytes(content)
    assert look_at(tmp_path / "x").size == (40, 32)


@pytest.mark.skipif(not HEIF, reason="needs pillow-heif")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_of_a_telephone_is_upright(orientation):
    stored = PIXELS
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation in FORWARD:
        turn = Image.Transpose(FORWARD[orientation])
        stored = np.asarray(Image.fromarray(PIXELS).transpose(turn))
    picture = read(heic(stored, exif=exif.tobytes()))
    assert far(picture.pixels, PIXELS) <= 1  # lossless but for its own colors
    assert picture.size == (40, 32)


def test_a_photo_of_a_telephone_without_its_reader_names_what_to_install(monkeypatch):
    start = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    usual = builtins.__import__

    def missing(name, *rest):
        if name.startswith("pillow_heif"):
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"x\.jpg: .*HEIF.*pip install 'edge-train\[heif\]'"):
        read(start)


@pytest.mark.parametrize("gamma", [1.8, 2.2])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_colors_of_a_wide_profile_are_turned_into_srgb(suffix, gamma):
    picture = read(saved(Image.fromarray(PIXELS), suffix, icc_profile=profile(ADOBE, gamma)))
    expected = in_srgb(PIXELS, ADOBE, gamma)
    assert far(PIXELS, expected) > 50  # what it is to be without
    assert far(picture.pixels, expected) <= 2  # 8-bit curves of the color engine
    assert "colors turned into sRGB" in picture.notes


def test_a_profile_of_grey_is_followed():
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    picture = read(saved(Image.fromarray(ramp), "png", icc_profile=profile(None, 1.8)))
    expected = in_srgb(np.stack([ramp] * 3, axis=-1), SRGB, 1.8)
    assert far(picture.pixels, expected) <= 3  # the darkest are steep
    assert far(ramp, expected[..., 0]) > 10


def test_a_transparent_picture_keeps_its_edge_through_a_profile():
    image = Image.fromarray(PIXELS)
    image.putalpha(
        Image.fromarray(np.where(np.arange(40) < 20, 255, 0).astype(np.uint8)[None].repeat(32, 0))
    )
    picture = read(saved(image, "png", icc_profile=profile(ADOBE, 2.2)))
    assert far(picture.pixels[:, :20], in_srgb(PIXELS, ADOBE, 2.2)[:, :20]) <= 2
    assert (picture.pixels[:, 20:] == 255).all()


def test_a_profile_that_says_srgb_changes_no_bit():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for own in (srgb, profile(None, 2.2)):  # the second is of grey, on a colored picture
        picture = read(saved(Image.fromarray(PIXELS), "png", icc_profile=own))
        assert np.array_equal(picture.pixels, PIXELS) and not picture.notes


@pytest.mark.parametrize("length", [1, 100, 127, 132, 200, 300])
def test_a_damaged_profile_costs_its_colors_only(length):
    own = profile(ADOBE, 2.2)[:length]
    picture = read(saved(Image.fromarray(PIXELS), "png", icc_profile=own))
    assert np.array_equal(picture.pixels, PIXELS)
    assert picture.notes == ("color profile damaged, taken as sRGB",)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_upper_eight_are_kept(suffix):
    values = (np.arange(40 * 32).reshape(32, 40) * 51).astype(np.uint16)
    for fit in (None, Fit((40, 32)), Fit((40, 32), crop=True, smooth=True)):
        picture = read(saved(Image.fromarray(values), suffix), fit)
        assert np.array_equal(picture.pixels, np.stack([values >> 8] * 3, axis=-1))


def test_sixteen_bits_of_color_are_read():
    """Pillow does not write them: a PNG by hand."""
    values = np.random.default_rng(0).integers(0, 1 << 16, (8, 8, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    picture = read(png((8, 8), rows, depth=16))
    assert far(picture.pixels, values >> 8) <= 1  # some readers round, others cut


def png(size, rows, depth=8):
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", *size, depth, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_values_without_a_white_are_refused():
    for values in (np.full((4, 4), 70_000, np.int32), np.zeros((4, 4), np.float32)):
        with pytest.raises(InputError, match=r"save it .*8 or 16 bits"):
            read(saved(Image.fromarray(values), "tif"))


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_inks_are_read_the_right_way_round(suffix):
    """A JPEG with Adobe's mark stores them inverted, a TIFF does not."""
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[:16, :, 0], inks[16:, :, 3] = 200, 100
    picture = read(saved(Image.fromarray(inks, "CMYK"), suffix))
    cyan, magenta, yellow, black = np.moveaxis(inks / 255, -1, 0)
    light = 255 * np.stack([(1 - ink) * (1 - black) for ink in (cyan, magenta, yellow)], axis=-1)
    rows = [*range(12), *range(20, 32)]  # JPEG blurs the edge between them
    assert far(picture.pixels[rows], light[rows]) <= 3


def test_transparency_of_every_kind_lies_on_white():
    clear = {
        "color with alpha": saved(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "png"),
        "grey with alpha": saved(Image.new("LA", (8, 8), (9, 0)), "png"),
        "palette": saved(Image.new("P", (8, 8), 0), "png", transparency=0),
        "palette with shares": saved(Image.new("P", (8, 8), 0), "png", transparency=b"\0\xff"),
        "a color": saved(Image.new("RGB", (8, 8), (1, 2, 3)), "png", transparency=(1, 2, 3)),
        "gif": saved(Image.new("P", (8, 8), 0), "gif", transparency=0),
        "webp": saved(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "webp"),
        "sixteen bits": saved(
            Image.fromarray(np.full((8, 8), 500, np.uint16)), "png", transparency=500
        ),
    }
    for kind, content in clear.items():
        for fit in (None, Fit((4, 4)), Fit((4, 4), crop=True, smooth=True)):
            picture = read(content, fit)
            assert (picture.pixels == 255).all(), kind
            assert "transparency on white" in picture.notes


def test_half_transparent_colors_are_mixed_with_white():
    picture = read(saved(Image.new("RGBA", (8, 8), (255, 0, 0, 102)), "png"))
    assert far(picture.pixels, (255, 153, 153)) <= 1


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_of_several_pictures_the_first_is_taken_and_that_is_said(suffix):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    picture = read(saved(frames[0], suffix, save_all=True, append_images=frames[1:]))
    assert far(picture.pixels, (255, 0, 0)) <= 3
    assert "first picture of several" in picture.notes


def test_what_a_file_is_decides_not_its_name(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(PIXELS), "webp"))
    assert np.array_equal(read_picture(path).pixels, PIXELS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged, cut short"),
        (b"<!DOCTYPE html>", "a web page, as a failed download leaves it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<svg xmlns='x'/>", "an SVG drawing; save it as PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture; save it as JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0" + bytes(9), "damaged, cut short, or not a JPEG"),
    ],
)
def test_what_is_no_picture_is_named(content, words):
    with pytest.raises(InputError, match=words):
        read(content)


def size_only(suffix, width, height):
    """Return a file whose header claims a size, with next to nothing behind it."""
    small = bytearray(saved(Image.new("P" if suffix == "gif" else "RGB", (8, 8)), suffix))
    if suffix == "png":
        small[16:24] = struct.pack(">II", width, height)
        small[29:33] = struct.pack(">I", zlib.crc32(small[12:29]))
    elif suffix == "bmp":
        small[18:26] = struct.pack("<ii", width, height)
    elif suffix == "gif":
        small[6:10] = struct.pack("<HH", width, height)
    elif suffix == "jpg":
        at = small.index(b"\xff\xc0") + 5
        small[at : at + 4] = struct.pack(">HH", height, width)
    else:
        for tag, value in ((256, width), (257, height)):
            at = small.index(struct.pack("<HHI", tag, 4, 1)) + 8
            small[at : at + 4] = struct.pack("<I", value)
    return bytes(small)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "jpg", "tif"])
@pytest.mark.parametrize("width", [8001, 60_000])
def test_too_many_pixels_are_refused_by_the_header(suffix, width, tmp_path, monkeypatch):
    def decode(image):
        raise AssertionError("it was decoded")

    content = size_only(suffix, width, width)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(InputError, match=rf"x\.jpg: .*limit (is|of) {MAX_MEGAPIXELS}"):
        read(content)
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.jpg: .*limit (is|of) {MAX_MEGAPIXELS}"):
        look_at(tmp_path / "x.jpg")


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    content = saved(Image.new("L", (1000, 1000)), "jpg", progressive=True)
    assert read(content, Fit((8, 8))).pixels.shape == (8, 8, 3)
    start = content.rindex(b"\xff\xda")
    many = content[:start] + content[start:-2] * 2100 + content[-2:]
    with pytest.raises(InputError, match=r"a JPEG of \d+ scans of 1\.0 megapixels"):
        read(many, Fit((8, 8)))


def every_kind():
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(noise)
    found = {suffix: lying(noise, 6, suffix) for suffix in LOSS}
    found |= {"gif": saved(image, "gif"), "bmp": saved(image, "bmp")}
    found["progressive"] = saved(image, "jpg", progressive=True)
    found["profile"] = saved(image, "png", icc_profile=profile(ADOBE, 2.2))
    if HEIF:
        found["heic"] = heic(noise)
    return found


@pytest.mark.parametrize(("kind", "content"), every_kind().items(), ids=every_kind())
def test_a_damaged_picture_gives_pixels_or_one_sentence(kind, content):
    random = np.random.default_rng(len(kind))
    for _ in range(60):
        damaged = bytearray(content)
        how = random.integers(3)
        if how == 0:
            damaged = damaged[: random.integers(len(damaged))]
        elif how == 1:
            for place in random.integers(0, len(damaged), 4):
                damaged[place] = random.integers(256)
        else:
            place = random.integers(min(len(damaged) - 4, 400))
            damaged[place : place + 4] = b"\xff\xff\xff\xff"
        try:
            picture = read(bytes(damaged), Fit((16, 16)))
        except InputError as error:
            assert str(error).startswith("x.jpg: cannot be read (") and "\n" not in str(error)
        else:
            assert picture.pixels.shape == (16, 16, 3)


def test_a_picture_that_is_not_there_is_not_called_a_broken_link(tmp_path):
    for ask in (read_picture, look_at):
        with pytest.raises(InputError, match=r"x\.jpg: cannot be read \(there is no such file\)"):
            ask(tmp_path / "x.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    for ask in (read_picture, look_at):
        with pytest.raises(InputError, match="no ordinary file"):
            ask(tmp_path / "x.jpg")


@pytest.mark.parametrize("grey", [False, True])
def test_stretched_and_cropped_sizes_are_those_asked_for(grey):
    channels = 1 if grey else 3
    for orientation in (1, 6):
        content = lying(PIXELS, orientation, "png")
        for size in ((20, 16), (7, 31)):
            assert read(content, Fit(size), grey=grey).pixels.shape == (*size[::-1], channels)
        cropped = read(content, Fit((16, 16), crop=True))
        assert cropped.pixels.shape == (16, 16, 3)
        assert cropped.kept == pytest.approx(32 / 40)


@pytest.mark.process
@pytest.mark.skipif(not has_counters(), reason="memory cannot be measured here")
def test_a_large_photo_is_decoded_in_a_fraction_of_its_size(tmp_path):
    """18 megapixels are 53 MB of color; a baseline JPEG is decoded at an eighth of its side."""
    Image.new("RGB", (4200, 4200), "teal").save(tmp_path / "a.jpg")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_train.formats.pictures import Fit, read_picture\n"
        "from edge_train.memory.measure import measure\n"
        "read_picture(Path(sys.argv[1]), Fit((64, 64)))\n"
        "before = measure().peak_bytes\n"
        "read_picture(Path(sys.argv[2]), Fit((64, 64)))\n"
        "print(measure().peak_bytes - before)\n"
    )
    Image.new("RGB", (60, 60), "teal").save(tmp_path / "small.jpg")
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "small.jpg", tmp_path / "a.jpg"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 20_000_000
