"""The ways of `attacks.toml`, each a function here; and where formats have joints."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from damage import MARKS, Pairs, Raw, dumped, loaded

_LONG, _DEEP = "x" * 300_000, 100_000
_BOMB_BYTES = 400_000_000


def attack(path: Path, way: str, value: Any, outside: Path) -> None:
    """Do to a file what a line of the list says."""
    ways = {
        "text": _text,
        "link": _link,
        "pipe": lambda path, _: (path.unlink(), os.mkfifo(path)),
        "sparse": os.truncate,
        "bytes": _bytes,
        "set": _set,
        "header": _header,
        "replace": _replace,
        "npy": _npy,
        "member": _member,
        "nan": _nan,
        "chunk": _chunk,
        "bomb": _bomb,
        "nested": lambda path, of: path.write_text(of[0] * of[1]),
    }
    ways[way](path, _filled(value, outside))


def _filled(value: Any, outside: Path) -> Any:
    if isinstance(value, str):
        value = value.replace("{outside}", str(outside)).replace("{long}", _LONG)
        return value.replace("{nested}", "[" * _DEEP)
    if isinstance(value, dict):
        return {name: _filled(one, outside) for name, one in value.items()}
    return value


def joints(content: bytes, most: int) -> list[int]:
    """Return where parts of a file begin and end, spread over all of it where there are many."""
    found = sorted({at for match in MARKS.finditer(content) for at in match.span()})
    found = [at for at in found if at < len(content)]
    step = max(len(found) // most, 1)
    return sorted({0, 1, 4, 8, len(content) - 1, *found[::step][:most]} - {len(content)})


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _bytes(path: Path, of: list[Any]) -> None:
    content, (at, new) = bytearray(path.read_bytes()), of
    new = bytes.fromhex(new)
    content[at : at + len(new)] = new
    path.write_bytes(content)


def _replace(path: Path, of: list[str]) -> None:
    old, new = (word.encode() for word in of)
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def _set(path: Path, values: dict[str, str]) -> None:
    path.write_text(_changed(path.read_bytes(), values))


def _changed(text: bytes, values: dict[str, str]) -> str:
    """Return a JSON text with raw values in the places that names with points lead to."""
    content = loaded(text)
    for place, raw in values.items():
        _put(content, place, raw)
    return dumped(content)


def _put(inside: Pairs, place: str, raw: str) -> None:
    for at, (name, value) in enumerate(inside):
        if name == place:
            inside[at] = name, Raw(raw)
            return
        if place.startswith(f"{name}.") and isinstance(value, Pairs):
            _put(value, place.removeprefix(f"{name}."), raw)
            return
    inside.append((place, Raw(raw)))


def _header(path: Path, values: dict[str, str]) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = _changed(content[8 : 8 + size], values).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def _npy(path: Path, of: list[str]) -> None:
    """Put another header before the numbers of an array, of the right length."""
    name, text = of
    members = _members(path)
    content = members[f"{name}.npy"]
    size = int.from_bytes(content[8:10], "little")
    head = content[:8] + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"
    members[f"{name}.npy"] = head + content[10 + size :]
    _pack(path, members)


def _member(path: Path, of: list[str]) -> None:
    old, new = of
    _pack(path, {new if name == old else name: data for name, data in _members(path).items()})


def _nan(path: Path, name: str) -> None:
    arrays = dict(np.load(path))
    arrays[name].flat[0] = np.nan
    np.savez(path, **arrays)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _pack(path: Path, members: dict[str, bytes]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    path.write_bytes(file.getvalue())


def _chunk(path: Path, of: list[str]) -> None:
    """Write over the beginning of a chunk of a PNG, with a right checksum."""
    name, new = of[0].encode(), bytes.fromhex(of[1])
    content = path.read_bytes()
    at = content.index(name)
    size = int.from_bytes(content[at - 4 : at], "big")
    data = new + content[at + 4 + len(new) : at + 4 + size]
    end = struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content[: at + 4] + data + end + content[at + 8 + size :])


def _bomb(path: Path, name: str) -> None:
    """Put a chunk behind the first one of a PNG that unpacks to four hundred megabytes."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 22)) for _ in range(_BOMB_BYTES >> 22))
    data = name.encode() + b"k\0\0" + packed + packer.flush()
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])
