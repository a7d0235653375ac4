"""The real command, watched from outside: what its process tree holds, read at short intervals."""

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_train.memory.fresh import command as command_of
from edge_train.recipe import Recipe, to_toml
from edge_train.records.folder import RunFolder


@dataclass(frozen=True)
class Watched:
    """A command that ended: its status, what it said, the most that its process tree held."""

    status: int
    said: str
    peak_bytes: int
    report: dict[str, Any]


def watched(out: Path, recipe: Recipe) -> Watched:
    """Run a recipe in a fresh folder and watch it from outside."""
    shutil.rmtree(out, ignore_errors=True)
    file = out.with_name(f"{out.name}.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_toml(replace(recipe, out=str(out))))
    seen = watched_command(out, "run", "--recipe", str(file))
    kept = seen.report.get("measured_peak_bytes") or 0  # the kernel's counters
    return replace(seen, peak_bytes=max(seen.peak_bytes, kept))


def watched_command(out: Path, *words: str) -> Watched:
    """Run a command on a run folder and watch it from outside; `report` is that of the folder."""
    command = command_of(words)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peaks = [0]
    thread = threading.Thread(target=_sample, args=(process, peaks), daemon=True)
    thread.start()
    said, _ = process.communicate()
    thread.join()
    report = RunFolder(out).report
    content = json.loads(report.read_text()) if report.is_file() else {}
    return Watched(process.returncode, said, peaks[0], content)


def _sample(process: "subprocess.Popen[str]", peaks: list[int]) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        held = 0
        try:
            for number in (str(process.pid), *children.read_text().split()):
                held += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * page
        except OSError:  # one of them ended while we looked
            pass
        peaks[0] = max(peaks[0], held)
        time.sleep(0.001)
