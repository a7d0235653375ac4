"""Every task that reads pictures sees the same pixels in the same file."""

import numpy as np
import pytest
from picture_files import ADOBE, colors, lying, profile, saved
from PIL import Image

from edge_train.errors import InputError
from edge_train.formats.pictures import read_picture
from edge_train.tasks.network.datasets import load
from edge_train.tasks.network.pictures import load_pictures
from edge_train.tasks.personalize.photos import load_photos

SIDE = 16
PIXELS = colors(SIDE, SIDE)


def transparent(pixels):
    image = Image.fromarray(pixels)
    image.putalpha(Image.fromarray(pixels[..., 0]))
    return image


KINDS = {
    **{f"turned {n}": ("jpg", lying(PIXELS, n, "jpg")) for n in range(1, 9)},
    "profile": ("png", saved(Image.fromarray(PIXELS), "png", icc_profile=profile(ADOBE, 2.2))),
    "sixteen bits": ("png", saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "png")),
    "palette": ("gif", saved(Image.fromarray(PIXELS).quantize(16), "gif", transparency=3)),
    "transparent": ("webp", saved(transparent(PIXELS), "webp")),
    "inks": ("jpg", saved(Image.fromarray(PIXELS).convert("CMYK"), "jpg")),
    "scan": ("tif", saved(Image.fromarray(PIXELS), "tif")),
    "two colors": ("bmp", saved(Image.fromarray(PIXELS).convert("1"), "bmp")),
    "avif": ("avif", saved(Image.fromarray(PIXELS), "avif")),
}


def by_photos(folder, path):
    (photo,) = load_photos(path.parent, SIDE).photos
    return photo.pixels


def by_classes(folder, path):
    Image.fromarray(PIXELS).save(path.parent / "z.png")  # in color, so that all are
    return load_pictures(folder, None).train[0][0]


READERS = {"photos": by_photos, "folders of classes": by_classes}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("suffix", "content"), KINDS.values(), ids=KINDS)
def test_the_same_file_gives_the_same_pixels_in_every_task(tmp_path, reader, suffix, content):
    path = tmp_path / "set" / f"a.{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    assert np.array_equal(reader(tmp_path, path), read_picture(content).pixels)


def test_jpegs_packed_in_an_array_are_read_alike(tmp_path):
    files = [lying(PIXELS, n, "jpg") for n in range(1, 9)]
    content = np.frombuffer(b"".join(files), np.uint8)
    offsets = np.cumsum([0, *map(len, files)])
    labels = np.arange(8) % 2
    arrays = {"train_jpeg": content, "train_offsets": offsets, "train_labels": labels}
    np.savez(tmp_path / "x.npz", **arrays, **{f"test{k[5:]}": v for k, v in arrays.items()})
    found = load(tmp_path / "x.npz").train.inputs
    assert np.array_equal(found, np.stack([read_picture(file).pixels for file in files]))
    arrays["train_offsets"] = offsets - 1
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match="picture 0: cannot be read"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", [b"", b"<html>", KINDS["scan"][1][:300]])
def test_a_file_that_is_no_picture_is_one_sentence_in_every_task(tmp_path, reader, content):
    path = tmp_path / "set" / "a.png"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(") as caught:
        reader(tmp_path, path)
    assert "\n" not in str(caught.value)
