"""Silence for the time of an export: torch's exporter tells much of its own inner workings."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_SILENCED = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the exporter's warnings and all it logs below errors."""
    levels = {name: logging.getLogger(name).level for name in _SILENCED}
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
