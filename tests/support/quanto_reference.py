"""optimum-quanto without its extension: a refusal to compile, and its definition in Python."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from optimum.quanto.library.extensions import extension, get_extension

_DEFINITION = torch._C.DispatchKey.CompositeExplicitAutograd  # of quanto's library/unpack.py


def refuse_to_compile(patch: pytest.MonkeyPatch, empty: Path) -> None:
    """Leave no compiler on the path and fail at once where one would be asked for.

    Args:
      empty: a folder with nothing in it.
    """

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is to be compiled")

    patch.setenv("PATH", str(empty))
    patch.setattr("torch.utils.cpp_extension.load", refuse)
    patch.setattr(extension, "load", refuse)
    patch.setattr(get_extension("quanto_cpp"), "_lib", None)
    patch.setattr(get_extension("quanto_cpp"), "build_directory", str(empty))


def read_by_definition(patch: pytest.MonkeyPatch) -> None:
    """Make quanto read packed weights by its definition in Python instead of the extension."""
    operation: Any = torch.ops.quanto.unpack.default
    unpack = partial(operation._op_dk, _DEFINITION)
    patch.setattr(get_extension("quanto_cpp"), "_lib", SimpleNamespace(unpack=unpack))
