"""The benchmarks behind every published number; each runs the real command and reads its report."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_train.errors import TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.memory.link import ENVIRONMENT
from edge_train.records import journal
from edge_train.records.folder import RunFolder


def run(out: Path, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """Run `edge-train run` in a fresh process; return its report and what training took.

    `training_peak_bytes` is the peak up to the last step, before pictures are made for people.

    `training_seconds` is everything from the start of the run to its last step (loading, photo
    encoding, slope check, evaluations), without the pictures made for people. A folder that holds
    a finished run of the same name is read, not run again; one that was stopped goes on.
    """
    if not _finished(out):
        begun = RunFolder(out).journal.is_file()
        words = ["--resume", str(out)] if begun else [*arguments, "--out", str(out)]
        command("run", *words, python=python)
    report: dict[str, Any] = json.loads(RunFolder(out).report.read_text())
    records, _ = journal.read(RunFolder(out).journal)
    steps = [record for record in records if record["kind"] == "step"]
    report["training_seconds"] = records[0]["seconds"] + sum(r["seconds"] for r in steps)
    report["training_peak_bytes"] = max(record["peak_bytes"] for record in steps)
    return report


def command(*words: str, python: str = sys.executable) -> str:
    """Return what an `edge-train` command prints in a fresh process.

    Raises:
      TrainingStopped: it did not end well.
    """
    whole = command_of(list(words), python)
    one = {**os.environ, **ENVIRONMENT}  # as a worker has it under a cap
    done = subprocess.run(whole, capture_output=True, text=True, check=False, env=one)
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(whole)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _finished(out: Path) -> bool:
    report = RunFolder(out).report
    return report.is_file() and json.loads(report.read_text())["status"] == "done"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(shares: Sequence[float]) -> str:
    """Return the mean of shares in percent, and their range when there are several."""
    mean = f"{100 * statistics.mean(shares):.0f} %"
    if len(shares) == 1:
        return mean
    return f"{mean} ({100 * min(shares):.0f}-{100 * max(shares):.0f})"
