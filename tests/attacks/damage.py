"""Damage to an input, drawn from a seed: by bytes, lines, what a format means, or its place."""

import io
import json
import os
import random
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
import mutations
from samples import Sample, resealed

OUTSIDE = ("secret.txt", "secret.json", "secret.png", "secret.safetensors", "secret.csv")
DEPTH = 100_000
LONG = 300_000  # characters
_MOST_REPEATED = 2_000  # of a list that is repeated 300 times; a longer one is honest, and slow
_NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**60, 2**63, 10**30)
MARKS = re.compile(
    rb"PK[\x01-\x08]{2}|IHDR|IDAT|PLTE|tRNS|iCCP|eXIf|acTL|fcTL|IEND|\xff[\xc0-\xfe]"
    rb"|RIFF|WEBP|VP8[ LX]"
    rb"|NUMPY|ftyp|meta|iloc|iprp|ispe|iinf|mdat|ipco|av1C|hvcC"
    rb"|PAR1|GIF8|NETSCAPE|BM|II\*|[{}\[\],:\n\t;\"=]"
)


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of a sample into a new folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def damage(sample: Sample, folder: Path, draws: random.Random) -> str:
    """Damage a sample that was written into a folder; return in words what was done."""
    name = draws.choice(sample.attacked)
    path = folder / name
    done = []
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        if not path.is_file() or path.is_symlink():
            break
        way = draws.choice(_ways(sample, path))
        try:
            detail = way(path, path, draws)
        except Exception as error:  # noqa: BLE001 - it was damaged too much before
            detail = f"not done: {type(error).__name__}"
        done.append(f"{way.__name__.strip('_')} {detail}".strip())
    sealed = sample.name.startswith("artifact") and name != "manifest.json"
    if sealed and draws.random() < 0.8 and not path.is_symlink():
        resealed(folder)
        done.append("resealed")
    if sample.name.startswith("kept") and path.suffix == ".safetensors" and draws.random() < 0.9:
        done.append(_sums_anew(path))
    return f"{name}: {', '.join(done)}"


def _sums_anew(path: Path) -> str:
    """Write the checksums of a file that is whole as a safetensors file again."""
    from edge_train.errors import RunFolderError
    from edge_train.formats.tensor_store import read_tensors, save_tensors

    try:
        tensors, about = read_tensors(path)
        about = {name: value for name, value in about.items() if "crc32" not in name}
        save_tensors(path, tensors, about)
    except (RunFolderError, KeyError) as error:
        return f"not sealed again: {type(error).__name__}"
    return "sealed again"


def _ways(sample: Sample, path: Path) -> list[Callable[..., str]]:
    ways = [
        mutations._flip,
        mutations._truncate,
        mutations._zero,
        mutations._append,
        _lie,
        _lie,
        _cut_at_mark,
        _splice,
        _flip_many,
    ]
    if sample.named != path.name:
        ways += [mutations._delete, _place]
    ways += [mutations._folder] if not sample.named else []
    suffixes = path.suffixes
    if {".json", ".jsonl"} & set(suffixes):
        ways += [_json_value] * 10
    if {".jsonl", ".csv", ".tsv", ".txt", ".toml", ".json", ".caption", ".jinja"} & set(suffixes):
        ways += [
            mutations._double_line,
            mutations._delete_line,
            mutations._swap_lines,
            mutations._number,
            mutations._number,
            _word,
            _word,
            _word,
        ]
    if path.suffix == ".toml":
        ways += [_toml] * 6
    if path.suffix == ".safetensors":
        ways += [mutations._header] * 4 + [_header_json] * 8
    if sample.name.startswith("kept") and path.suffix == ".safetensors":
        ways += [_told] * 8 + [_values] * 8
    if path.suffix == ".npz":
        ways += [_member] * 12
    if path.suffix == ".png":
        ways += [_chunk] * 8
    if path.suffix == ".onnx":
        ways += [_spelling] * 6
    return ways


# ----------------------------------------------------------------------------- bytes


def _flip_many(path: Path, other: Path, draws: random.Random) -> str:
    count = draws.choice((2, 4, 16, 64))
    for _ in range(count):
        mutations._flip(path, other, draws)
    return f"{count} bits"


def _lie(path: Path, other: Path, draws: random.Random) -> str:
    """Write an extreme number over a length or count; often right behind a mark of the format."""
    content = bytearray(path.read_bytes())
    at = _near_mark(content, draws)
    width, order = draws.choice((1, 2, 4, 8)), draws.choice(("little", "big"))
    value = draws.choice(_NUMBERS) % 2 ** (8 * width)
    content[at : at + width] = value.to_bytes(width, order)
    path.write_bytes(content)
    return f"{value} in {width} bytes at {at}"


def _near_mark(content: bytes, draws: random.Random) -> int:
    if not content:
        return 0
    if draws.random() < 0.5:
        return draws.randrange(min(len(content), 64))
    found = [match.end() for match in MARKS.finditer(content)]
    if found and draws.random() < 0.7:
        return min(draws.choice(found) + draws.randrange(-8, 12), len(content) - 1) % len(content)
    return draws.randrange(len(content))


def _cut_at_mark(path: Path, other: Path, draws: random.Random) -> str:
    content = path.read_bytes()
    found = [at for match in MARKS.finditer(content) for at in match.span()] or [0]
    at = draws.choice(found)
    path.write_bytes(content[:at])
    return f"to {at}"


def _splice(path: Path, other: Path, draws: random.Random) -> str:
    """Take a part out, or put one in twice or elsewhere."""
    content = path.read_bytes()
    start = draws.randrange(len(content) or 1)
    end = min(start + draws.choice((1, 4, 16, 200)), len(content))
    at = draws.randrange(len(content) or 1)
    part = content[start:end] * draws.choice((0, 1, 1, 2, 50))
    path.write_bytes(content[:at] + part + content[at + draws.choice((0, len(part))) :])
    return f"{len(part)} bytes of {start} at {at}"


# ----------------------------------------------------------------------------- places


def _place(path: Path, other: Path, draws: random.Random) -> str:
    """Put something else in the place of a file: a link, a pipe, a device."""
    path.unlink()
    depth = len(path.relative_to(_named(path)).parts) - 1
    up = "../" * (depth + 1)
    what = draws.choice(("link out", "absolute link", "loop", "dangling", "pipe", "device", "zero"))
    if what == "pipe":
        os.mkfifo(path)
        return what
    target = {
        "link out": f"{up}outside/{_like(path, draws)}",
        "absolute link": str(_named(path).parent / "outside" / _like(path, draws)),
        "loop": path.name,
        "dangling": "nothing",
        "device": "/dev/tty",
        "zero": "/dev/zero",
    }[what]
    path.symlink_to(target)
    return f"{what} {target}"


def _named(path: Path) -> Path:
    return next(above for above in path.parents if above.name == "named")


def _like(path: Path, draws: random.Random) -> str:
    same = [name for name in OUTSIDE if Path(name).suffix == path.suffix]
    return same[0] if same else draws.choice(OUTSIDE)


# ----------------------------------------------------------------------------- words and lines


def _word(path: Path, other: Path, draws: random.Random) -> str:
    """Put something in the place of a word, or between two."""
    content = path.read_bytes()
    found = list(re.finditer(rb"[^\s,;\t\"]+", content)) or [re.match(rb"", content)]
    match = draws.choice(found)
    new = draws.choice(_WORDS)
    end = match.end() if draws.random() < 0.6 else match.start()
    path.write_bytes(content[: match.start()] + new + content[end:])
    return f"{new[:20]!r} at {match.start()}"


_WORDS = (
    *(b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"-0", b"1_000", b"1,5", b"0x10", b"true"),
    *(
        b"null",
        b"9" * 5000,
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b'"',
        b'""',
        b"'",
    ),
    *(b"../outside/secret.png", b"../outside/secret.txt", b"/dev/zero", b"/etc/passwd", b"~/x"),
    *(b"\r", b"\r\n\r\n", b"\n" * 50, b"\t" * 3000, b"," * 3000, b";", b"|", b"x" * LONG, b" "),
    *(
        "\u2028".encode(),
        "\u0301".encode() * 50,
        "\u202e".encode(),
        b"=cmd()",
        b"%s%n",
        b"{}",
        b"[[",
    ),
    *(b"file_name", b"text", b"label", b"sep=;\n", b"\x1a", b"\x1b[31m", b"{" * 5000, b"--", b"-1"),
)


def _toml(path: Path, other: Path, draws: random.Random) -> str:
    lines = path.read_bytes().splitlines()
    at = draws.randrange(len(lines))
    key = lines[at].partition(b"=")[0]
    new = draws.choice(
        (
            *(b"nan", b"-inf", b"1e999", b"9" * 5000, b"-1", b"1.5", b"true", b'""', b"[]", b"{}"),
            *(b"1979-05-27", b"[" * 5000, b"[" * DEPTH, b'"\\u0000"', b'"\\uD800"', b"0x7fffffff"),
            *(b'"../outside/secret.txt"', b'"/dev/zero"', b"[[1], [2]]", b"[1, 2, 3]", b'["a", 1]'),
            *(b'"' + b"x" * LONG + b'"', b"1e-400", b'"\\u001b[31m"', b"07:32:00", b"[nan, inf]"),
            *(
                b"99999999999999999999",
                b"{a = 1}",
                b'"~nobody/x"',
                b'"all"',
                b'"' + b"x" * 300 + b'"',
            ),
        )
    )
    lines[at] = key + b"= " + new
    if draws.random() < 0.1:
        lines.insert(
            at, draws.choice((b"[table]", b"[[many]]", b'"" = 1', b"a.b.c = 1", key + b"=1"))
        )
    path.write_bytes(b"\n".join(lines) + b"\n")
    return f"{key.decode('utf-8', 'replace').strip()} = {new[:24]!r}"


# ----------------------------------------------------------------------------- JSON


class Pairs(list):
    """An object of JSON as its pairs, of which several may have one name."""


class Raw(str):
    """JSON as it stands."""

    __slots__ = ()


def loaded(text: bytes | str) -> Any:
    """Return JSON with its objects as pairs."""
    return json.loads(text, object_pairs_hook=Pairs)


def dumped(value: Any) -> str:
    """Return JSON of what `loaded` gives."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {dumped(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumped, value)) + "]"
    return json.dumps(value)


_VALUES = (
    *("null", "true", '""', '"x"', "-1", "0", "1", "2", "3.5", "1e999", "NaN", "Infinity"),
    *("[]", "{}", "[[]]", "[null]", '{"a": 1}', '[1, "a"]', "1e308", "1000000000000", "2147483648"),
    *("9" * 30, "9" * 5000, '"' + "x" * LONG + '"', "[" * DEPTH + "]" * DEPTH, "-1e999"),
    *('"../outside/secret.json"', '"../outside/secret.safetensors"', '"/dev/zero"'),
    *('"\\ud800"', '"a\\u0000b"', '"."', '".."', '"a/../../outside/secret.txt"', '"\\u001b[31m"'),
    *("[" + ",".join(["1"] * 20000) + "]", "[0]", "[-1, -1]", '"1"', '" "', "false", "100000"),
)


def _json_value(path: Path, other: Path, draws: random.Random) -> str:
    """Change one value of a JSON, or of one line of it."""
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = content.splitlines(keepends=True)
        at = draws.randrange(len(lines))
        changed, detail = changed_json(loaded(lines[at]), draws)
        lines[at] = changed.encode("utf-8", "replace") + b"\n"
        path.write_bytes(b"".join(lines))
        return f"line {at + 1}: {detail}"
    changed, detail = changed_json(loaded(content), draws)
    path.write_bytes(changed.encode("utf-8", "replace"))
    return detail


def changed_json(value: Any, draws: random.Random) -> tuple[str, str]:
    """Return JSON with one value, name or pair changed, and what was done."""
    places: list[tuple[Any, int, str]] = []

    def collect(inside: Any, name: str) -> None:
        for at, item in enumerate(inside):
            inner = item[1] if isinstance(inside, Pairs) else item
            called = f"{name}.{item[0]}" if isinstance(inside, Pairs) else f"{name}[{at}]"
            places.append((inside, at, called))
            if isinstance(inner, list):
                collect(inner, called)

    if isinstance(value, list):
        collect(value, "")
    new = Raw(draws.choice(_VALUES))
    if not places or draws.random() < 0.01:
        return str(new), f"all of it {new[:24]}"
    # a vocabulary has thousands of places; what stands above should not be lost among them
    shallow = [place for place in places if place[2].count(".") + place[2].count("[") <= 2]
    inside, at, name = draws.choice(shallow if shallow and draws.random() < 0.6 else places)
    chance = draws.random()
    if chance < 0.1:
        del inside[at]
        return dumped(value), f"{name} taken out"
    if chance < 0.2 and isinstance(inside, Pairs):
        key, _ = inside[at]
        inside.insert(at + draws.choice((0, 1)), (key, new))
        return dumped(value), f"{name} twice, {new[:24]}"
    if chance < 0.28 and isinstance(inside, Pairs):
        key = draws.choice(
            ("", "../outside/secret.txt", "/dev/zero", "x" * 2000, "\ud800", "a\0", "-1")
        )
        inside[at] = (key, inside[at][1])
        return dumped(value), f"{name} called {key[:24]!a}"
    if chance < 0.33 and len(inside) < _MOST_REPEATED:
        inside[:] = Pairs(list(inside) * 2) if isinstance(inside, Pairs) else list(inside) * 300
        return dumped(value), f"all around {name} again"
    old = inside[at][1] if isinstance(inside, Pairs) else inside[at]
    if chance < 0.5 and isinstance(old, int | float) and not isinstance(old, bool):
        new = Raw(str(draws.choice((old + 1, old - 1, -old, old * 1000, 0, old + 0.5, 2 * old))))
    inside[at] = (inside[at][0], new) if isinstance(inside, Pairs) else new
    return dumped(value), f"{name} = {new[:24]}"


def _header_json(path: Path, other: Path, draws: random.Random) -> str:
    """Change a value in the header of a safetensors file, with the right length of it."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text, detail = changed_json(loaded(content[8 : 8 + size]), draws)
    header = text.encode("utf-8", "replace")
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    return detail


def _told(path: Path, other: Path, draws: random.Random) -> str:
    """Change what the metadata of a safetensors file says, JSON inside of it too."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = draws.choice(sorted(header["__metadata__"]))
    value = header["__metadata__"][name]
    try:
        value, detail = changed_json(loaded(value), draws)
    except ValueError:
        value = draws.choice(("", "x", "nan", "-1", "1e999", "9" * 400, value * 2))
        detail = repr(value[:20])
    header["__metadata__"][name] = value
    text = json.dumps(header).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return f"{name} {detail}"


def _values(path: Path, other: Path, draws: random.Random) -> str:
    """Change numbers, type or shape of one array of a safetensors file, or leave it out."""
    import numpy as np

    from edge_train.formats.tensor_store import read_tensors, to_safetensors

    tensors, about = read_tensors(path)
    name = draws.choice(sorted(tensors))
    values = tensors[name].copy()
    way = draws.choice(("number", "number", "number", "type", "shape", "fewer", "more", "none"))
    if way == "number" and values.size:
        least, most = (0, 1) if values.dtype == np.bool_ else _range_of(values.dtype)
        number = draws.choice(
            (least, most, 0, 1, 2, *(("nan",) if values.dtype.kind == "f" else ()))
        )
        values.reshape(-1)[draws.randrange(values.size)] = number
    elif way == "type":
        values = values.astype(
            draws.choice(("<f8", "<f4", "<f2", "<i8", "<i4", "|i1", "|u1", "|b1"))
        )
    elif way == "shape":
        values = values.reshape(draws.choice(((-1,), (1, *values.shape), (*values.shape, 1))))
    elif way == "fewer":
        values = values[: len(values) // 2] if values.ndim else values
    elif way == "more":
        values = np.concatenate([values, values]) if values.ndim else values
    elif way == "none":
        del tensors[name]
    if name in tensors:
        tensors[name] = values
    path.write_bytes(to_safetensors(tensors, about))
    return f"{name} {way}"


def _range_of(dtype: Any) -> tuple[Any, Any]:
    import numpy as np

    found = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return found.min, found.max


# ----------------------------------------------------------------------------- archives


def _member(path: Path, other: Path, draws: random.Random) -> str:
    """Change one array of an npz, with a right length and checksum of the archive."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draws.choice(sorted(members))
    content = members[name]
    kind = draws.choice(
        (
            "shape",
            "descr",
            "header",
            "values",
            "name",
            "twice",
            "short",
            "bomb",
            "method",
            "length",
            "flags",
            "offset",
        )
    )
    twice, bomb = [], False
    if kind in ("shape", "descr", "header"):
        size = int.from_bytes(content[8:10], "little")
        text = content[10 : 10 + size].decode("latin1")
        if kind == "shape":
            shape = draws.choice(
                (
                    "(1000000000000,)",
                    "(-1,)",
                    "()",
                    "(0,)",
                    "(3, 8)",
                    "(1e3,)",
                    "(24,)",
                    "('a',)",
                    "(99999999999999999999999,)",
                    "(2, 3, 4)",
                    "(24, 0)",
                    "(9223372036854775807, 2)",
                    "[24]",
                    "24",
                    "None",
                )
            )
            text = re.sub(r"'shape': \(.*?\)", f"'shape': {shape}", text)
        elif kind == "descr":
            new = draws.choice(
                (
                    "|O",
                    "<c16",
                    "<U4",
                    "|b1",
                    "<f2",
                    "<i8",
                    ">u4",
                    "|V8",
                    "<M8[s]",
                    "|S1",
                    "<f16",
                    "<U999999999",
                    "",
                    "x",
                    "<f8, <f8",
                )
            )
            text = re.sub(r"'descr': '.*?'", f"'descr': '{new}'", text)
        else:
            text = draws.choice(
                (
                    "(" * 3000,
                    "{" * 90,
                    "[" * 9000,
                    "__import__('os').system('x')",
                    "{'descr': '<f8', 'fortran_order': True, 'shape': (24, 4), }",
                    "{'descr': '<f8'}",
                    "\x00" * 20,
                    "1L",
                    "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (24,)}",
                )
            )
        text = text.rstrip("\n ") + "\n"
        members[name] = (
            content[:8] + struct.pack("<H", len(text)) + text.encode() + content[10 + size :]
        )
    elif kind == "values":
        data = bytearray(content)
        at = 128 + 8 * draws.randrange(max((len(data) - 128) // 8, 1))
        data[at : at + 8] = struct.pack(
            "<d", draws.choice((float("nan"), float("inf"), 1e308, -1e300))
        )
        members[name] = bytes(data)
    elif kind == "name":
        new = draws.choice(("../outside/secret.npy", "/etc/x.npy", "train_labels", "", "a\\b.npy"))
        members = {(new if one == name else one): data for one, data in members.items()}
    elif kind == "twice":
        twice = [(name, draws.choice(sorted(members.values())))]
    elif kind == "short":
        members[name] = content[: draws.randrange(len(content))]
    elif kind == "bomb":
        bomb = True
        size = int.from_bytes(content[8:10], "little")
        text = re.sub(
            r"'shape': \(.*?\)", "'shape': (3000000, 8)", content[10 : 10 + size].decode()
        )
        members[name] = (
            content[:8] + struct.pack("<H", len(text)) + text.encode() + bytes(192_000_000)
        )
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED
    ) as archive:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one, data in [*members.items(), *twice]:
                archive.writestr(one, data)
    data = bytearray(file.getvalue())
    if kind in ("method", "length", "flags", "offset"):
        place = {"flags": (6, 8), "method": (8, 10), "length": (22, 24), "offset": (26, 42)}[kind]
        width = 4 if kind in ("length",) else 2
        value = draws.choice((1, 8, 9, 12, 14, 95, 99, 0xFFFF, 0x0801))
        starts = (
            [m.start() for m in re.finditer(rb"PK\x03\x04", data)],
            [m.start() for m in re.finditer(rb"PK\x01\x02", data)],
        )
        at = draws.randrange(len(starts[1]))
        for start, inner in zip(
            (starts[0][min(at, len(starts[0]) - 1)], starts[1][at]), place, strict=True
        ):
            if draws.random() < 0.8:
                wide = value if width == 2 else value * 257**2 % 2**31
                data[start + inner : start + inner + width] = wide.to_bytes(width, "little")
    path.write_bytes(data)
    return f"{kind} of {name}"


def _chunk(path: Path, other: Path, draws: random.Random) -> str:
    """Change, double or take out a chunk of a PNG; checksums are right."""
    content = path.read_bytes()
    chunks, at = [], 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    at = draws.randrange(len(chunks))
    kind, data = chunks[at]
    way = draws.choice(("size", "flip", "double", "out", "swap", "rename", "long", "bomb"))
    if way == "size":
        at, (kind, data) = 0, chunks[0]
        sizes = (0, 1, 36, 8000, 20_000, 2**31 - 1, 2**32 - 1)
        data = struct.pack(">II", draws.choice(sizes), draws.choice(sizes)) + data[8:]
        chunks[0] = kind, data
    elif way == "flip" and data:
        changed = bytearray(data)
        changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
        chunks[at] = kind, bytes(changed)
    elif way == "double":
        chunks.insert(at, chunks[at])
    elif way == "out":
        del chunks[at]
    elif way == "swap":
        other_at = draws.randrange(len(chunks))
        chunks[at], chunks[other_at] = chunks[other_at], chunks[at]
    elif way == "rename":
        names = (
            b"iCCP",
            b"tRNS",
            b"PLTE",
            b"acTL",
            b"fdAT",
            b"zTXt",
            b"iTXt",
            b"gAMA",
            b"cHRM",
            b"IDAT",
        )
        chunks[at] = draws.choice(names), data
    elif way == "long":
        chunks.insert(1, (b"tEXt", b"k\0" + b"x" * 2_000_000))
    else:
        name = draws.choice((b"zTXt", b"iCCP"))
        chunks.insert(1, (name, b"k\0\0" + zlib.compress(bytes(200_000_000), 1)))
    packed = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    ]
    path.write_bytes(content[:8] + b"".join(packed))
    return f"{way} {kind!r}"


def _spelling(path: Path, other: Path, draws: random.Random) -> str:
    """Change a text of a protocol buffer, a place or a name, to one of the same length."""
    content = path.read_bytes()
    found = list(
        re.finditer(rb"step\.weights|vae_\w+\.weights|\b\d{2,9}\b|[A-Z][A-Za-z]{3,}", content)
    )
    match = draws.choice(found)
    size = len(match[0])
    new = draws.choice(
        (
            b"../outside/secret",
            b"/dev/zero",
            b"9" * size,
            b"-" + b"1" * size,
            b"\xff" * size,
            b"./" + match[0],
            b"a/../" + match[0],
        )
    )
    new = new[:size].ljust(size, b"x")
    path.write_bytes(content[: match.start()] + new + content[match.end() :])
    return f"{match[0]!r} -> {new!r}"
