"""What the processor of this machine is called, and what it says that it can do."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # x86, and Arm


@cache
def _facts() -> Mapping[str, str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def name() -> str:
    """Return the processor's name, or its kind where the system tells no more."""
    return _facts().get("model name", platform.machine())


def flags() -> frozenset[str]:
    """Return what the processor can do, in the system's words; empty where it does not tell."""
    facts = _facts()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def multiplies_bfloat16() -> bool | None:
    """Return whether it has products of bfloat16; None where the system does not tell."""
    return bool(_BFLOAT16 & flags()) if flags() else None
