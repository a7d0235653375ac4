"""From a file of a result to plain values that can be compared: no clock, no bytes, no paths.

Only the standard library: a record must not depend on the code that it is about.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# What a clock, a memory gauge or an installation decides, by key and in sentences.
_LEFT_OUT_KEYS = re.compile(r"(^|_)(seconds|bytes)(_|$)|^(crc|versions|edge_train)$")
_MEASURED = re.compile(
    r"\b\d+(h\d\dm|m\d\ds)\b|"
    r"(about )?\d[\d,.]*(/[\d.]+)? ?(bytes|kB|MB|GB|B|ms|s|min|h)\b( ?\d+ ?(s|min)\b)?"
    r"|\b\d+:\d\d(:\d\d)?\b"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_THE_CLOCK = ("memory",)  # kinds of journal records whose number depends on time
_CLOCK_CHARTS = ("Memory over time",)
_CHECKPOINT = re.compile(r"checkpoints/(step|best)-\d+\.safetensors$")


def results(
    folder: Path, places: Mapping[str, str], left_out: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the values of every file below `folder`, by its path; of checkpoints the newest.

    Args:
      places: a path of this machine -> what stands for it.
      left_out: more keys that hold what is measured.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    newest = {
        match[1]: name  # sorted: the last one stays
        for name in found
        if (match := _CHECKPOINT.search(name))
    }
    kept = [n for n in found if not _CHECKPOINT.search(n) or n in newest.values()]
    values = {name: _clean(_content(found[name]), places) for name in kept}
    return {name: _without(value, left_out) for name, value in values.items()}


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in keys}
        return {k: v if k == "pictures" else _without(v, keys) for k, v in kept.items()}
    if isinstance(value, list) and keys:  # words of the report, which shows the hash as well
        return ["#" if _SHA256.fullmatch(str(item)) else item for item in value]
    return value


def sentences(text: str, places: Mapping[str, str]) -> list[Any]:
    """Return what a command printed: of JSON events all but the steps, which the journal has."""
    found: list[Any] = []
    for line in text.splitlines():
        event = json.loads(line) if line.startswith("{") else line
        if not isinstance(event, dict) or event.get("event") != "step":
            found.append(_clean(event, places))
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if path.suffix == ".jsonl":
        return _journal(path)
    if path.suffix == ".toml":
        lines = path.read_text("utf-8").splitlines()
        return dict(line.split(" = ", 1) for line in lines)
    if path.suffix == ".html":
        return _page(path.read_text("utf-8"))
    if path.suffix == ".safetensors":
        return _tensors(path)
    return _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _journal(path: Path) -> dict[str, Any]:
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kept = [record for record in records if record["kind"] not in _OF_THE_CLOCK]
    return {
        f"record {number} ({record['kind']} {record.get('step', 0)})": record
        for number, record in enumerate(kept)
    }


def _tensors(path: Path) -> dict[str, str]:
    """Return dtype, shape and hash of every tensor, and every word of the metadata."""
    content = path.read_bytes()
    [size] = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = {f"metadata {k}": v for k, v in header.pop("__metadata__", {}).items()}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = f"{entry['dtype']} {entry['shape']} {_digest(data[begin:end])}"
    return {**metadata, **tensors}


def _page(page: str) -> dict[str, Any]:
    """Return a report's sentences, pictures and charts; not those that a clock draws."""
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    charts: dict[str, str] = {}

    def chart(match: re.Match[str]) -> str:
        title = re.search(r"<title>(.*?)</title>", match[0])
        name = title[1] if title else f"chart {len(charts)}"
        if name not in _CLOCK_CHARTS:
            charts[name] = _digest(match[0].encode())
        return f"<p>chart {name}</p>"

    page = re.sub(r"<svg.*?</svg>", chart, page, flags=re.DOTALL)
    pictures = [_digest(found.encode()) for found in re.findall(r'src="(data:[^"]*)"', page)]
    words = (text.strip() for text in re.split(r"<[^>]*>", page))
    return {"words": [text for text in words if text], "charts": charts, "pictures": pictures}


def _clean(value: Any, places: Mapping[str, str]) -> Any:
    """Return a value without what is measured and where it lies."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not _LEFT_OUT_KEYS.search(k)}
        return {key: _clean(item, places) for key, item in kept.items()}
    if isinstance(value, list):
        return [_clean(item, places) for item in value]
    if isinstance(value, str):
        for place, word in places.items():
            value = value.replace(place, word)
        return _MEASURED.sub("#", value) if " " in value or len(value) < 16 else value
    return value


def fields(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number and word inside a value, with the way to it.

    >>> list(fields({"a": [1, {"b": "x"}], "c": {}}))
    [('a.0', 1), ('a.1.b', 'x'), ('c', 'empty')]
    """
    inside = value.items() if isinstance(value, dict) else enumerate(value) if _many(value) else ()
    if not inside:
        yield name, "empty" if value in ({}, []) else value
    for key, item in inside:
        yield from fields(item, f"{name}.{key}" if name else str(key))


def _many(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
