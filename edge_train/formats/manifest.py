"""A folder's table of contents, read without believing it: types, keys, places, sizes, hashes."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from edge_train.errors import ModelError
from edge_train.formats.inside import wrong_place
from edge_train.formats.weight_files import blocks_of, check_place, read_json

MANIFEST = "manifest.json"
AGAIN = "The copy is damaged or was edited; export it again."
_LARGEST_BYTES = 10_000_000  # one of SD-XL has about 1 MB
ManifestT = TypeVar("ManifestT")


@dataclass(frozen=True)
class FileEntry:
    """Size and hash of one file."""

    bytes: int
    sha256: str


def describe_file(path: Path) -> FileEntry:
    """Return the size and hash of a file."""
    digest, size = hashlib.sha256(), 0
    for block in blocks_of(path):
        digest.update(block)
        size += len(block)
    return FileEntry(size, digest.hexdigest())


def manifest_bytes(manifest: Any, kind: str, version: int) -> bytes:
    """Return the JSON of `manifest.json`, keys sorted.

    A field at its default is left out: a manifest from before there was such a key keeps its bytes,
    and with them the hash by which runs know their model.

    Args:
      manifest: a dataclass.
      kind: what the format is called.
    """
    fields = dataclasses.asdict(manifest)
    for field in dataclasses.fields(manifest):
        if fields[field.name] == field.default:
            del fields[field.name]
    content = {"format": kind, "version": version, **fields}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def says_format(folder: Path, kind: str) -> bool:
    """Return whether a folder says of itself that it is of a format."""
    path = folder / MANIFEST
    try:
        small = path.stat().st_size <= _LARGEST_BYTES
        return small and read_json(path).get("format") == kind
    except (OSError, ModelError):
        return False


def read_manifest(
    folder: Path, manifest: type[ManifestT], kind: str, version: int, instead: str
) -> ManifestT:
    """Return a folder's manifest, every key of the type that its field has.

    Args:
      manifest: the dataclass; unknown keys are left out.
      kind: what the format has to be called.
      version: the newest that is known.
      instead: what to do with a folder of another format.

    Raises:
      ModelError: it is damaged, incomplete, newer than this program or of another format.
    """
    path = folder / MANIFEST
    check_place(path, folder)
    try:
        if (size := path.stat().st_size) > _LARGEST_BYTES:
            raise ValueError(f"{size} bytes, at most {_LARGEST_BYTES} are expected")
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse, object_pairs_hook=_unique_keys
        )
        found, number = content.pop("format", None), content.pop("version", None)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); export it again.") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not a JSON object ({error}). {AGAIN}") from error
    if found != kind:
        raise ModelError(f"{path}: format is {found!r}, expected {kind!r}; {instead}.")
    if type(number) is not int or not 1 <= number <= version:
        raise ModelError(
            f"{path}: format version {number!r} is not known, this program reads 1 to {version}; "
            "install a newer edge-train, or export it again with this one."
        )
    try:
        read: ManifestT = _typed("", manifest, content)
    except KeyError as error:
        raise ModelError(f"{path}: key {error.args[0]} is missing. {AGAIN}") from error
    except TypeError as error:
        raise ModelError(f"{path}: {error}. {AGAIN}") from error
    return read


def impossible_file(files: Mapping[str, FileEntry], needed: Sequence[str]) -> str:
    """Return what cannot be of a list of files, as part of a message; empty if there is nothing."""
    for name, entry in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            return f"file {name!r} lies outside the folder"
        if str(path) != name or name == MANIFEST or entry.bytes < 0:
            return f"file {name!r} ({entry.bytes} bytes) cannot be"
    for name in needed:
        if name not in files:
            return f"file {name!r} is not listed"
    return ""


def missing_key(manifest: Any, keys: Mapping[str, Sequence[str]]) -> str:
    """Return which key of a mapping is not there, as part of a message; empty if all are."""
    for name, wanted in keys.items():
        for key in wanted:
            if key not in getattr(manifest, name):
                return f"key {name}.{key} is missing"
    return ""


def same_content(folder: Path, name: str, entry: FileEntry) -> FileEntry | None:
    """Return None for a file that is as the manifest says, else what its content is.

    Raises:
      ModelError: it is missing, of another size, or lies elsewhere.
    """
    path = folder / name
    if "link" in (reason := wrong_place(path, folder)):
        raise ModelError(
            f"{folder / MANIFEST}: file {name!r} lies outside the folder ({reason}). {AGAIN}"
        )
    try:
        size = path.stat().st_size if path.is_file() else None
        found = describe_file(path) if size == entry.bytes else None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). {AGAIN}") from error
    if size is None:
        raise ModelError(f"artifact {folder}: {name} is missing or no file. {AGAIN}")
    if found is None:
        raise ModelError(
            f"artifact {folder}: {name} has {size} bytes, manifest says {entry.bytes}. {AGAIN}"
        )
    return None if found.sha256 == entry.sha256 else found


def refuse_content(folder: Path, what: str, found: FileEntry, entry: FileEntry) -> NoReturn:
    """Raise ModelError for a file whose hash is another one."""
    raise ModelError(
        f"artifact {folder}: {what} has sha256 {found.sha256[:12]}..., manifest says "
        f"{entry.sha256[:12]}.... {AGAIN}"
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {max(names, key=names.count)!r} stands there twice")
    return content


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Return a JSON value as the type that a field of the manifest has.

    Args:
      name: of the value, for messages.

    Raises:
      KeyError, TypeError: a key is missing, or a value has another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        fields = {}
        defaults = {
            f.name for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING
        }
        for key, hint in get_type_hints(kind).items():
            place = f"{name}.{key}".lstrip(".")
            if key not in value and key in defaults:
                continue
            if key not in value:
                raise KeyError(place)
            fields[key] = _typed(place, hint, value[key])
        return kind(**fields)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(f"{name}[{i}]", inner[0], item) for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _typed(f"{name}.{key}", inner[1], item) for key, item in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    plain = str if origin is Literal else kind
    if plain in (int, str) and type(value) is plain:
        return value
    raise TypeError(f"{name} is {str(value)[:40]!r}, which is of a wrong type")
