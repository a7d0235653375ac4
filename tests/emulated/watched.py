"""Run a capped command and watch it from outside: `watched.py CAP SECONDS COMMAND ...`.

Adds up what the kernel counts as resident of the command and all its descendants, fifty times in a
second, whatever they report themselves: in an emulator, its own memory too. Ends with status 1 if
that was ever more than CAP, if the command failed, or if it went on for more than SECONDS.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edge_train.units import format_bytes, parse_bytes


def held_bytes(pid):
    """Return the resident bytes of a process and its descendants; 0 of what has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(held_bytes, children))


def main(cap, seconds, *command):
    """Print what was held, and return the exit status."""
    most, ends = 0, time.monotonic() + float(seconds)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while process.poll() is None and time.monotonic() < ends:
        most = max(most, held_bytes(process.pid))
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
        print(f"not ended after {seconds} s")
        return 1
    kept = most <= parse_bytes(cap)
    verdict = "under" if kept else "OVER"
    print(f"status {process.returncode}, held {format_bytes(most)}, {verdict} {cap}", flush=True)
    return int(process.returncode != 0 or not kept)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
