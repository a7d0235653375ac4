"""Pieces of a page: templates that escape every text, pictures with their bytes inside."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from edge_train.units import format_bytes

Record = Mapping[str, Any]
_HERE = Path(__file__).parent
_THUMBNAIL = 320  # pixels; photos are shown small and would make the page heavy
_PIXELATED = 128  # pictures up to this side are enlarged without smoothing
_MOST_CHARACTERS = 600  # of a text from outside; one of a book would bury the page


@dataclass(frozen=True)
class Picture:
    """A picture with everything it needs inside the page; `source` is empty where it is broken."""

    words: str
    source: str
    tiny: bool = False


def render(template: str, **values: object) -> Markup:
    """Return a template of `templates/` with its values filled in and escaped."""
    return Markup(_environment().get_template(template).render(values))


def style() -> Markup:
    """Return the style sheet of the page."""
    return Markup((_HERE / "style.css").read_text("utf-8"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    return environment


def short(value: object, most: int = _MOST_CHARACTERS) -> str:
    """Return a text, cut where it is longer than so many characters.

    >>> short("a long caption", 6)
    'a long...'
    """
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def picture(path: Path, words: str, small: bool = False) -> Picture:
    """Return a picture for the template `parts.html`.

    Args:
      words: what it shows: its caption, and what those hear who cannot see it.
      small: at most 320 pixels of it are needed.
    """
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
        return Picture(words, "")
    return Picture(words, f"data:image/{kind};base64,{base64.b64encode(content).decode()}", tiny)


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


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table, empty where it has no rows."""
    return render("table.html", names=names, rows=list(rows))


def section(title: str, body: object, shown: bool) -> Markup:
    """Return a section of the page with its heading; empty unless it is shown.

    Args:
      body: HTML; a plain text counts as such too, as a section of another package returns one.
    """
    inner = Markup(str(body))
    return render("section.html", title=title, body=inner) if shown else Markup()
