"""Damage to a run folder, drawn from a seed: what disks, people and other programs do to files."""

import json
import math
import os
import random
import re
import shutil
import zlib
from pathlib import Path


def mutate(folder: Path, other: Path, draws: random.Random) -> str:
    """Damage one file of a run folder; return what was done in words.

    Args:
      other: the folder of another run of the same task, whose files may be swapped in.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draws.choice(files)
    ways = [_flip, _truncate, _delete, _folder, _special, _zero, _append, _swap]
    if path.suffix in (".jsonl", ".toml", ".json"):
        ways += [_double_line, _delete_line, _swap_lines, _number] * 2
    if path.suffix == ".safetensors":
        ways += [_header] * 3
    if path.name == "journal.jsonl":
        ways += [_record] * 3
    way = draws.choice(ways)
    detail = way(path, other / path.relative_to(folder), draws)
    return f"{way.__name__.strip('_')} {path.relative_to(folder)} {detail}".strip()


def _flip(path, other, draws):
    content = bytearray(path.read_bytes())
    if not content:
        return ""
    position, bit = draws.randrange(len(content)), draws.randrange(8)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {position}"


def _truncate(path, other, draws):
    size = draws.randrange(max(path.stat().st_size, 1))
    with path.open("r+b") as file:
        file.truncate(size)
    return f"to {size}"


def _delete(path, other, draws):
    path.unlink()
    return ""


def _folder(path, other, draws):
    path.unlink()
    path.mkdir()
    return ""


def _special(path, other, draws):
    """Put something in a file's place that is no file, or leads to none."""
    path.unlink()
    kind = draws.choice(("pipe", "/dev/zero", "/dev/full", "nothing", path.name))
    if kind == "pipe":
        os.mkfifo(path)
        return "is a pipe"
    path.symlink_to(kind)
    return f"leads to {kind}"


def _zero(path, other, draws):
    content = bytearray(path.read_bytes())
    start = draws.randrange(0, max(len(content), 1), 512)
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)
    return f"from {start}"


def _append(path, other, draws):
    with path.open("ab") as file:
        file.write(draws.randbytes(draws.randrange(1, 600)))
    return ""


def _swap(path, other, draws):
    candidates = [other] if other.is_file() else sorted(other.parent.glob(f"*{path.suffix}"))
    if not candidates:
        return "with nothing"
    shutil.copyfile(draws.choice(candidates), path)
    return "with another run's"


def _lines(path):
    return path.read_bytes().splitlines(keepends=True)


def _double_line(path, other, draws):
    lines = _lines(path)
    at = draws.randrange(len(lines))
    path.write_bytes(b"".join([*lines[: at + 1], *lines[at:]]))
    return f"{at + 1}"


def _delete_line(path, other, draws):
    lines = _lines(path)
    at = draws.randrange(len(lines))
    path.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    return f"{at + 1}"


def _swap_lines(path, other, draws):
    lines = _lines(path)
    one, two = draws.randrange(len(lines)), draws.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    path.write_bytes(b"".join(lines))
    return f"{one + 1} and {two + 1}"


def _number(path, other, draws):
    content = path.read_bytes()
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return ""
    match = draws.choice(found)
    new = b"%d" % draws.choice((0, 1, 7, 10**6, 10**30, 10**400))
    path.write_bytes(content[: match.start()] + new + content[match.end() :])
    return f"{match[0].decode()} -> {new.decode()[:40]} at {match.start()}"


def _header(path, other, draws):
    """Edit the header as one would who also writes a right length and checksum into it."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    about = header.get("__metadata__", {})
    names = [name for name in header if name != "__metadata__"]
    choice = draws.randrange(4)
    if choice == 0 and about:
        name = draws.choice(sorted(about))
        about[name] = draws.choice(("0", "1", "7", "-3", "x", "0x1p-3", "1" * 40))
        detail = f"metadata {name} = {about[name]}"
    elif choice == 1 and names:
        name = draws.choice(names)
        header[name]["dtype"] = draws.choice(("I32", "F32", "U32", "F64", "I8", "BOOL"))
        detail = f"{name} is {header[name]['dtype']}"
    elif choice == 2 and names:
        name = draws.choice(names)
        header[name]["shape"] = draws.choice(([1], [], [-1], [10**12], ["a"], [2, 3]))
        detail = f"{name} has shape {header[name]['shape']}"
    elif names:
        name = draws.choice(names)
        header[f"{name}x"] = header.pop(name)
        detail = f"{name} renamed"
    else:
        detail = ""
    if "header_crc32" in about and draws.random() < 0.5:
        _forge(header, about)
        detail += ", checksum forged"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return detail


def _forge(header, about):
    kinds = sorted((n, (v["dtype"], v["shape"])) for n, v in header.items() if n != "__metadata__")
    rest = sorted((n, v) for n, v in about.items() if n not in ("crc32", "header_crc32"))
    about["header_crc32"] = f"{zlib.crc32(json.dumps([kinds, rest]).encode()):08x}"


def _record(path, other, draws):
    """Change the kind, type or depth of a record and give it a right checksum."""
    lines = _lines(path)
    at = draws.randrange(len(lines))
    record = json.loads(lines[at])
    del record["crc"]
    name = draws.choice(["kind", "step", *record])
    if draws.random() < 0.2:
        record.pop(name, None)
        detail = f"line {at + 1} without {name}"
    else:
        record[name] = draws.choice((None, "x", -1, 3.5, math.nan, [], {}, True, 10**30, 10**400))
        detail = f"line {at + 1}: {name} = {str(record[name])[:40]}"
    body = json.dumps(record, separators=(",", ":"))
    if draws.random() < 0.1:
        body = '{"kind":' + "[" * 100_000 + "]" * 100_000 + "}"
        detail = f"line {at + 1} nested too deep"
    lines[at] = f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()
    path.write_bytes(b"".join(lines))
    return detail
