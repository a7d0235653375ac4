"""`edge-train bench time`: whether runs with a `--time` end in it, and with what.

Small models of four tasks, each asked for more steps than fit. The whole command is timed from
outside, from its start to its end with the report written; nothing else is compared. A run that
is refused, since a busy machine reaches its first step too late, is a row of its own.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from edge_train import bench
from edge_train.bench.minutes import short_runs
from edge_train.errors import NOT_STARTED, TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.memory.link import ENVIRONMENT
from edge_train.records.folder import RunFolder

LATE = 1.05  # of the time that was asked for: a run that takes longer is late
_STEPS = "200000"
_TIMES = {  # of a run, and seconds
    "network, tpsgd": 15,
    "classify, torch": 60,
    "language-model, torch": 60,
    "personalize, onnx": 90,
}
_HEAD = ("run", "seed", "asked", "took", "took / asked", "steps", "fitted", "loss before, after")


def main(out: Path, seeds: int, limit: int | None = None) -> str:
    """Run four recipes, each `seeds` times; return a Markdown table of asked and taken seconds.

    Args:
      limit: runs of this many recipes only, the first ones.
    """
    recipes = short_runs(out)
    rows, late, refused = [], 0, 0
    for name, seconds in list(_TIMES.items())[:limit]:
        for seed in range(seeds):
            run = out / f"time-{name.replace(', ', '-')}-{seed}"
            took, is_refused = _took(run, _with_time(recipes[name], seconds, seed))
            late += took > LATE * seconds
            numbers = (f"{seconds} s", f"{took:.1f} s", f"{took / seconds:.3f}")
            if is_refused:
                refused += 1
                rows.append([name, str(seed), *numbers, "refused", "-", "-"])
                continue
            report = json.loads(RunFolder(run).report.read_text())
            fits = RunFolder(run).journal.read_text().count('"kind":"fit"')
            if not report["ended_by_time"]:
                raise TrainingStopped(f"{run}: all steps fitted into its time; ask for more.")
            losses = f"{report['eval']['first']:.3g}, {report['eval']['best']:.3g}"
            rows.append(
                [name, str(seed), *numbers, f"{report['steps']:,}", f"{fits} times", losses]
            )
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    return "\n\n".join(
        [
            bench.table(_HEAD, rows),
            f"Later than asked by more than 5 %: {late} of {len(rows)}; refused before the first "
            f"step: {refused}. Load of this machine: {load}.",
        ]
    )


def _with_time(words: tuple[str, ...], seconds: int, seed: int) -> tuple[str, ...]:
    """Return the words of a run with other steps, a time and a seed."""
    at = words.index("--steps")
    others = (*words[:at], *words[at + 2 :])
    return (*others, "--steps", _STEPS, "--time", f"{seconds}s", "--seed", str(seed))


def _took(run: Path, words: tuple[str, ...]) -> tuple[float, bool]:
    """Return the seconds of a whole command, and whether it was refused since not one step fits.

    Of a run that ended before, those noted then.

    Raises:
      TrainingStopped: it did not end.
    """
    kept = run / "time.json"
    if not kept.is_file():
        command = command_of(["run", *words, "--out", str(run)])
        began = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **ENVIRONMENT}
        )
        took = time.perf_counter() - began
        if done.returncode == NOT_STARTED and "no step fits into" in done.stderr:
            return took, True
        if done.returncode != 0:
            raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        kept.write_text(json.dumps(took))
    return float(json.loads(kept.read_text())), False
