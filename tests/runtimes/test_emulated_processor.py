"""On an x86 processor without VNNI, emulated, what an export writes is exact in both engines."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT, SUPPORT

EMULATOR = "qemu-x86_64-static"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("environment", [".venv", ".venv-device"])
def test_integer_sums_are_exact_on_an_emulated_haswell(environment) -> None:
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"{EMULATOR} is not here: apt-get install qemu-user-static")
    python = ROOT / environment / "bin" / "python"
    sites = list((ROOT / environment).glob("lib/python3*/site-packages"))
    if not python.exists() or not sites:
        pytest.skip(f"{environment} is not here: make {environment}/.ready")
    words = [EMULATOR, str(python.resolve()), str(SUPPORT / "emulated_products.py")]
    places = os.pathsep.join(map(str, (ROOT, SUPPORT, *sites)))
    done = subprocess.run(
        words,
        env={"PATH": os.environ["PATH"], "QEMU_CPU": "Haswell", "PYTHONPATH": places},
        cwd=Path(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # It is such a processor: otherwise nothing was shown.
    assert "cuts off sums of 8-bit weights" in done.stdout
    assert done.stdout.count("error 0\n") == 5
