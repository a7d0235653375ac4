"""What an emulated processor cannot show: memory, which is the emulator's, too."""

import os

import pytest

natively = pytest.mark.skipif(
    "QEMU_CPU" in os.environ,
    reason="an emulator's own memory is in what is measured, and it keeps no limit of memory",
)
