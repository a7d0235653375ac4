"""Pictures as cameras, phones, scanners and programs write them, made by Pillow and by hand."""

import io
import struct

import numpy as np
from PIL import Image

FORWARD = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation: the way a camera stored it


def colors(width=40, height=32):
    """Return a smooth picture (height, width, 3): red grows to the right, green downward."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 0 * x + 80]
    return np.stack(channels, axis=2).astype(np.uint8)


def lying(pixels, orientation, suffix, **options):
    """Return the file of a picture that lies as an EXIF orientation says."""
    image = Image.fromarray(pixels)
    if orientation in FORWARD:
        image = image.transpose(Image.Transpose(FORWARD[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, suffix, exif=exif, **options)


def saved(image, suffix, **options):
    """Return the file of a picture; lossless where its kind can be."""
    buffer = io.BytesIO()
    kinds = {"jpg": "JPEG", "tif": "TIFF"}
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 100}, "jpg": {"quality": 95}}
    image.save(buffer, kinds.get(suffix, suffix), **lossless.get(suffix, {}), **options)
    return buffer.getvalue()


# What ICC calls the way from numbers to the profile connection space: XYZ of D50.
SRGB = ((0.4360, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7141))
ADOBE = ((0.6097, 0.2053, 0.1492), (0.3111, 0.6257, 0.0632), (0.0195, 0.0609, 0.7446))


def profile(matrix, gamma):
    """Return an ICC profile of RGB with a matrix and one gamma for all channels.

    Without a matrix it is of grey.
    """
    grey = matrix is None
    white = (0.9642, 1.0, 0.8249)
    tags = {
        b"desc": _text(b"desc", b"test"),
        b"wtpt": _xyz(white),
        b"cprt": _text(b"text", b"none"),
    }
    curve = struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))
    if grey:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip(b"rgb", np.transpose(matrix), strict=True):
            tags[bytes([name]) + b"XYZ"] = _xyz(column)
            tags[bytes([name]) + b"TRC"] = curve
    body, table, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    kind = b"GRAY" if grey else b"RGB "
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02100000, b"mntr", kind, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(white)[8:]
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def in_srgb(pixels, matrix, gamma):
    """Return what colors of such a profile are in sRGB: the definition, in float64."""
    linear = (pixels / 255) ** gamma @ np.transpose(matrix) @ np.linalg.inv(np.transpose(SRGB))
    linear = np.clip(linear, 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curve


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * v) for v in values))


def _text(kind, words):
    if kind == b"text":
        return kind + bytes(4) + words + b"\0"
    return kind + struct.pack(">4xI", len(words) + 1) + words + bytes(1 + 4 + 4 + 2 + 1 + 67)
