"""What an emulated processor cannot show: how many bytes a process holds, since it adds its own."""

import os

import pytest

natively = pytest.mark.skipif(
    "QEMU_CPU" in os.environ, reason="an emulator's own memory is in what is measured"
)
