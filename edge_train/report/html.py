"""Pieces of a page: tables, tiles, pictures; every text is escaped."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from edge_train.units import format_bytes

Record = Mapping[str, Any]
_THUMBNAIL = 320  # pixels; photos are shown small and would make the page heavy
_PIXELATED = 128  # pictures up to this side are enlarged without smoothing


def tile(name: str, value: str, under: str, bar: str = "") -> str:
    """Return one number of the page's head, with a line under it."""
    small = f"<small>{escape(under)}</small>" if under else ""
    return f'<div class="tile"><h3>{escape(name)}</h3><b>{escape(value)}</b>{bar}{small}</div>'


def figure(path: Path, words: str, small: bool = False) -> str:
    """Return a picture with everything it needs inside the page; unreadable ones leave a gap."""
    try:
        with Image.open(path) as image:
            image.load()
            tiny = max(image.size) <= _PIXELATED
            content, kind = path.read_bytes(), (image.format or "png").lower()
            if small and max(image.size) > _THUMBNAIL:
                smaller = image.convert("RGB")
                smaller.thumbnail((_THUMBNAIL, _THUMBNAIL))
                buffer = BytesIO()
                smaller.save(buffer, "JPEG", quality=85)
                content, kind = buffer.getvalue(), "jpeg"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        shown = '<div class="gap">not readable</div>'
        return f"<figure>{shown}<figcaption>{escape(words)}</figcaption></figure>"
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    style = ' class="tiny"' if tiny else ""
    return (
        f'<figure><img{style} src="{source}" alt="{escape(words)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def inside(run: Path, name: str | None) -> Path | None:
    """Return the path of a file of the run; the journal cannot point anywhere else."""
    if not name:
        return None
    path = (run / name).resolve()
    return path if path.is_relative_to(run.resolve()) else None


def words_of(name: str) -> str:
    """Return a key as the start of a line: `measured_peak_bytes` is `Measured peak`."""
    words = name.removesuffix("_bytes").replace("_", " ")
    return words[:1].upper() + words[1:]


def value_of(name: str, value: Any) -> str:
    """Return a value of the journal as people read it; empty where there is none."""
    if value is None or value == [] or value == "":
        return ""
    if name.endswith("_bytes"):
        return f"{format_bytes(value)} ({value:,} bytes)"
    if isinstance(value, list):
        return " to ".join(map(str, value)) if name == "window" else ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, empty where it has no rows."""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def section(title: str, body: str, shown: bool) -> str:
    """Return a section of the page with its heading; empty unless it is shown."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if shown else ""
