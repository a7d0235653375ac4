"""Code of ours in a fresh Python that is waited for, and ended if this process is interrupted."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from edge_train.memory.fresh import fresh
from edge_train.process.interrupts import held_back, undone


def run_apart(
    code: str, *words: str, text: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run some code to its end; return its status and what it wrote.

    Args:
      code: as `fresh` takes it.
      words: its arguments.
      text: its standard input.
      environment: changes to this process's own.
    """
    started: list[subprocess.Popen[str]] = []

    def end() -> None:
        for process in started:
            if process.returncode is None:
                process.kill()
                with suppress(OSError):  # not `wait`, whose lock may be held where we are called
                    os.waitpid(process.pid, 0)

    with undone(end):
        with held_back():
            started.append(
                subprocess.Popen(
                    [sys.executable, *fresh(code), *words],
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            out, err = started[0].communicate(text)
        finally:
            end()
    return subprocess.CompletedProcess(started[0].args, started[0].returncode, out, err)
