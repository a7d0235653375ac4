"""Print the errors of integer sums on this processor: of an emulated one, or of a real one.

`PYTHONPATH=SITE:.:tests/support QEMU_CPU=Haswell qemu-x86_64-static PYTHON THIS`, or without an
emulator. Ends with status 1 if what exports write is not exact, or if old 8-bit weights would be
opened with wrong sums.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from extreme_products import (
    EIGHT_BITS,
    GOLDEN,
    OLD,
    PROFILES,
    SEVEN_BITS,
    expected,
    feeds_for,
)

from edge_train.formats.onnx_products import CONVOLUTION, FOUR_BITS, LINEAR
from edge_train.runtimes.onnx import products
from edge_train.runtimes.onnx.engine import call, load_engine, open_session, pick_provider
from edge_train.runtimes.onnx.product_probe import PRECISE, wrong_by

ALL = frozenset((LINEAR, CONVOLUTION, FOUR_BITS))
ENGINE = {"session.qdq_matmulnbits_accuracy_level": "1"}


def error(path: Path, profile: str, largest: int, *, lean: bool, options: dict[str, str]) -> int:
    """Return the largest error of a sum of a golden graph."""
    session: Any = open_session(
        path,
        pick_provider("cpu", profile),
        threads=1,
        options={**ENGINE, **options},
        lean=lean,
    )
    worst = 0
    for feeds in feeds_for(profile):
        sums = expected(profile, feeds, largest)
        for output, wanted in zip(call(session, list(sums), feeds), sums.values(), strict=True):
            worst = max(worst, int(np.abs(output - wanted).max()))
    return worst


def main() -> int:
    """Print the findings, a line each; return the exit status."""
    engine = load_engine()
    print(f"ONNX Runtime {engine.__version__}: {products.examine()}")
    found = []
    for profile in PROFILES:
        for lean in (False, True):
            path = GOLDEN / f"{profile}.onnx"
            found.append(error(path, profile, SEVEN_BITS, lean=lean, options={}))
            print(f"exported {profile}{', lean' * lean}: error {found[-1]}")
    found.append(wrong_by(engine, ALL, SEVEN_BITS, precise=False))
    print(f"probe of 7-bit weights: error {found[-1]}")
    if cut := wrong_by(engine, ALL, EIGHT_BITS, precise=False):
        print(f"probe of 8-bit weights: error {cut}")
    options = {PRECISE: "1"} if cut else {}
    if cut and not products.may_ask(engine):
        print("old 8-bit artifacts: refused")
    else:
        for lean in (False, True):
            path = OLD / "int8-fast.onnx"
            found.append(error(path, "int8-fast", EIGHT_BITS, lean=lean, options=options))
            print(f"old 8-bit weights{', lean' * lean}, {options or 'as they are'}: {found[-1]}")
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
