"""When this process began, by the monotonic clock: code that was read since then took time, too."""

from __future__ import annotations

import os
import time

_LONGEST_SECONDS = 600.0  # that a command reads its own code; more is a clock that we do not know


def process_began() -> float:
    """Return when this process was started, as `time.monotonic` tells; now where nobody knows."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - age if 0 <= age < _LONGEST_SECONDS else now
