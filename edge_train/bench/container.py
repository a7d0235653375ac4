"""Runs with a cap inside a container: a memory group that this makes, so it has to be root.

`edge-train bench container --seeds 20 --python DEVICE/bin/python` makes a group with a limit, as
`docker run -m` does, and starts the real command in it, one run after another: in this environment
on torch, `--mem 800MB` under 900 MB; in the device environment, which has no torch, on an exported
artifact, `--mem 400MB` under 450 MB. Every run should end with status 0, and the container kill
nobody.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_train import bench
from edge_train.errors import InputError, TrainingStopped
from edge_train.formats.embedded import EMBEDDED, PHOTOS
from edge_train.memory.fresh import command as command_of
from edge_train.memory.groups import numbers
from edge_train.memory.kills import AT_OUR_LIMIT
from edge_train.memory.wall import Group, make_group
from edge_train.units import parse_bytes

_STEPS = 30
_PREFIX = "container-of-bench-"


@dataclass(frozen=True)
class _Box:
    """An environment in a container: its interpreter, the model, the cap and the limit."""

    name: str
    python: str
    model: str
    cap: str
    limit: str


def main(out: Path, seeds: int, python: str | None = None) -> str:
    """Start a run for every seed in each environment; return a Markdown table.

    Args:
      seeds: runs a row; 20 for the published table.
      python: interpreter of the device environment; None leaves that row out.

    Raises:
      InputError: no group can be made here.
    """
    boxes = [_Box("desk", sys.executable, EMBEDDED, "800MB", "900MB")]
    if python is not None:
        boxes.append(_Box("device", python, str(_artifact(out)), "400MB", "450MB"))
    rows = [_row(box, out, seeds) for box in boxes]
    head = ["environment", "cap under limit", "runs", "status 0", "killed by the container"]
    return bench.table([*head, "killed at the cap"], rows)


def _artifact(out: Path) -> Path:
    """Return the embedded model as an artifact, exported if it is not there yet."""
    path = out / "artifact"
    if not path.is_dir():
        command = command_of(["export", EMBEDDED, str(path)])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TrainingStopped(f"export {EMBEDDED} {path}: {done.stderr.strip()[-500:]}")
    return path


def _row(box: _Box, out: Path, runs: int) -> list[str]:
    group = make_group(parse_bytes(box.limit), prefix=_PREFIX)
    if group is None or group.folder is None:
        raise InputError(
            "bench container makes a memory group, which this user may not (or there is no memory "
            "controller here); run it as root."
        )
    ended = outside = ours = 0
    try:
        for number in range(runs):
            before = _killed(group)
            done = _run(box, out / box.name / str(number), number, group)
            ended += done.returncode == 0
            outside += _killed(group) > before or "limit of this container" in done.stderr
            ours += AT_OUR_LIMIT in done.stderr
            print(f"{box.name} {number}: status {done.returncode}", file=sys.stderr, flush=True)
            if done.returncode:
                print(done.stderr[-800:], file=sys.stderr, flush=True)
    finally:
        group.remove()
    words = f"{box.cap} under {box.limit} ({group.kind})"
    return [box.name, words, str(runs), str(ended), str(outside), str(ours)]


def _run(box: _Box, folder: Path, seed: int, group: Group) -> "subprocess.CompletedProcess[str]":
    """Run the real command inside the group."""
    words = ["run", str(PHOTOS), "--class", "bag", "--model", box.model, "--mem", box.cap]
    words += ["--steps", str(_STEPS), "--no-previews", "--seed", str(seed), "--out", str(folder)]
    return subprocess.run(
        command_of(words, box.python),
        preexec_fn=group.join,
        capture_output=True,
        text=True,
        check=False,
    )


def _killed(group: Group) -> int:
    """Return the kills that were counted in the group itself; runs count those in theirs."""
    assert group.folder is not None
    found = (numbers(group.folder / name) for name in ("memory.events.local", "memory.oom_control"))
    return sum(counts.get("oom_kill", 0) for counts in found)
