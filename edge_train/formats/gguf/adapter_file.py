"""Whether a GGUF file is an adapter, known from its first bytes: a model's header is large."""

from pathlib import Path

_KEY, _VALUE = b"general.type", b"adapter"
_TEXT = 8  # how the format says that a value is a text
_MARK = _KEY + _TEXT.to_bytes(4, "little") + len(_VALUE).to_bytes(8, "little") + _VALUE
_HEAD_BYTES = 65_536  # writers put what a file is before all else


def is_adapter_file(path: Path) -> bool:
    """Return whether a file is an adapter as llama.cpp loads it beside a model."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return head.startswith(b"GGUF") and _MARK in head
