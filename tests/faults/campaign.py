"""Try faults on runs: `python tests/faults/campaign.py [--tasks ...] [--kinds ...] [--count N]`.

Every case starts from a run of a task: an undisturbed one tells the bits, a stopped one is what
files are damaged in. After its fault a run is resumed, and must end with the same bits or say in
one sentence why it cannot. A case is drawn from the seed and its number: `--case 17` repeats it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import planted
from capped import Capped, make_capped, try_capped
from mutations import mutate
from runs import STEPS, TASKS, Ended, Task, bits_of, judged, run, words_for, write_data

# kind -> how many cases of a whole campaign; mutations are shared among the tasks
KINDS = {
    "mutation": 1000,
    "kill": 200,
    "full": 200,
    "stop": 20,
    "terminate": 40,
    "interrupt": 40,
    "vanish": 40,
    "clock": 20,
    "streams": 16,
    "capped-kill": 80,
    "capped-signal": 80,
}
FINISHED = 0.25  # share of mutations in a run that is over, whose results may be what is damaged


@dataclass(frozen=True)
class Base:
    """What all cases of a task start from: a finished run, a stopped one, another, the bits.

    `capped`: the same of a run with a cap, where a kind asks for one.
    """

    task: Task
    data: Path
    whole: Path
    stopped: Path
    other: Path
    bits: str
    writes: int
    capped: Capped | None


def make_base(task: Task, data: Path, root: Path, kinds: list[str]) -> Base:
    """Make the runs that the cases of a task start from.

    Raises:
      RuntimeError: one of them failed without any fault.
    """
    folder, said = root / task.name, root / f"{task.name}.txt"
    folder.mkdir()
    whole, stopped, other = (folder / name for name in ("whole", "stopped", "other"))
    count = folder / "count"
    ended = run(words_for(task, data, whole), said, planted.counting(count))
    if ended.status != 0:
        raise RuntimeError(f"{task.name}: {ended.said}")
    writes = int(count.read_text())
    for out, extra, after in ((stopped, (), (2, 3)), (other, ("--seed", "7"), (2,))):
        for share in after:  # stopped politely, then killed
            number = signal.SIGTERM if share == 2 else signal.SIGKILL
            plant = after_steps(STEPS // 3 * (share - 1), number)
            words = words_for(task, data, out)
            run([*words, *(extra if "--resume" not in words else ())], said, plant)
    some = any(kind.startswith("capped") for kind in kinds)
    capped = make_capped(task, data, folder / "capped") if some else None
    return Base(task, data, whole, stopped, other, bits_of(task, whole), writes, capped)


def after_steps(steps: int, number: int):
    """Return a plant that sends a signal once the process has written so many steps."""

    def plant() -> None:
        from edge_train.loop import Loop
        from edge_train.records.journal import Journal

        append, fit, written = Journal.append, Loop.fit, []

        def counting(book, record, durable=False):
            append(book, record, durable)
            written.extend([None] * (record["kind"] == "step"))
            if len(written) == steps:
                written.append(None)
                os.killpg(0, number)

        def saving(loop, *arguments):
            loop.checkpoint_seconds = 0.0
            return fit(loop, *arguments)

        Journal.append, Loop.fit = counting, saving

    return plant


def try_case(base: Base, kind: str, number: int, seed: int, folder: Path) -> tuple[str, str]:
    """Return what was done and what became of it."""
    draws = random.Random(f"{seed} {base.task.name} {kind} {number}")
    out, said = folder / "run", folder / "said.txt"
    folder.mkdir(parents=True)
    if kind == "mutation":
        finished = draws.random() < FINISHED
        shutil.copytree(base.whole if finished else base.stopped, out)
        done = f"{'finished' if finished else 'stopped'}: {mutate(out, base.other, draws)}"
        return done, _resumed(base, out, said)
    if kind.startswith("capped"):
        assert base.capped is not None
        return try_capped(base.task, base.data, base.capped, kind, draws, folder)
    at = draws.randrange(1, base.writes + 1)
    plant = {
        "kill": lambda: planted.at_write(at, planted.kill),
        "full": lambda: planted.full_from(at, draws.choice((1, 10**9))),
        "stop": lambda: planted.at_write(at, planted.sent(signal.SIGSTOP)),
        "terminate": lambda: planted.at_write(at, planted.sent(signal.SIGTERM)),
        "interrupt": lambda: planted.at_write(at, planted.sent(signal.SIGINT)),
        "vanish": lambda: planted.at_write(at, planted.vanish(out)),
        "clock": lambda: planted.jumping(number),
        "streams": lambda: planted.without(((1,), (2,), (1, 2))[at % 3], number % 2 == 0),
    }[kind]()
    done = f"{kind} at change {at} of {base.writes}"
    ended = run(words_for(base.task, base.data, out), said, plant)
    if kind in ("clock", "streams"):
        silent = kind == "streams"
        return done, _verdict(base, ended, out, silent)
    first = _fault(kind, ended)
    return done, first or _resumed(base, out, said)


def _fault(kind: str, ended: Ended) -> str:
    """Return what is wrong with how a command ended at its fault; nothing where all is well."""
    if ended.status is None:
        return "HANG"
    if "Traceback (most recent call last)" in ended.said:
        return "TRACEBACK"
    expected = {
        "kill": {-signal.SIGKILL},
        "terminate": {-signal.SIGTERM, 130},
        "interrupt": {130},
        "full": {2, 3},
        "vanish": {2, 3},
    }
    return "" if ended.status in {0, *expected.get(kind, ())} else f"STATUS {ended.status}"


def _resumed(base: Base, out: Path, said: Path) -> str:
    return _verdict(base, run(words_for(base.task, base.data, out), said), out, False)


def _verdict(base: Base, ended: Ended, out: Path, silent: bool) -> str:
    verdict = judged(base.task, ended, out, base.bits)
    return "one sentence" if silent and verdict == "NO SENTENCE" else verdict


def main() -> int:
    """Run the campaign; return 1 if any case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--count", type=int, help="cases of each kind, shared among the tasks")
    parser.add_argument("--case", type=int, help="this number alone, of one task and kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for what failed; a new one by default")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cases must not spin for each other's core
    tasks = [TASKS[name] for name in options.tasks if find_spec(TASKS[name].needs)]
    for task in tasks:
        __import__(task.needs)
    import edge_train.cli
    import edge_train.run.session  # noqa: F401 - once, before the forks

    root = Path(tempfile.mkdtemp(prefix="faults-"))
    keep = options.keep or Path(tempfile.mkdtemp(prefix="faults-kept-"))
    try:
        write_data(root / "data", tasks)
        bases = [make_base(task, root / "data", root, options.kinds) for task in tasks]
        cases = [
            (base, kind, number)
            for kind in options.kinds
            for number in range(options.count or KINDS[kind])
            for base in [bases[number % len(bases)]]
            if options.case in (None, number)
        ]
        counts, failed = try_all(cases, options, root, keep)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for (task, kind, outcome), count in sorted(counts.items()):
        print(f"{task:16} {kind:10} {outcome:24} {count}")
    print(f"{sum(counts.values())} cases, {failed} failed" + (f", kept in {keep}" * bool(failed)))
    if not failed:
        shutil.rmtree(keep, ignore_errors=True)
    return int(failed > 0)


def try_all(cases, options, root: Path, keep: Path) -> tuple[Counter, int]:
    """Try cases in `--jobs` processes; print and keep those that fail."""
    counts: Counter = Counter()
    failed, waiting, running = 0, list(reversed(cases)), {}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            base, kind, number = case = waiting.pop()
            folder = root / f"{base.task.name}-{kind}-{number}"
            child = os.fork()
            if child == 0:
                try:
                    found = try_case(base, kind, number, options.seed, folder)
                except BaseException:  # noqa: BLE001 - a fault of the campaign itself
                    found = "?", f"CAMPAIGN: {traceback.format_exc()}"
                (root / f"{folder.name}.json").write_text(json.dumps(found))
                os._exit(0)
            running[child] = case, folder
        child, _ = os.wait()
        (base, kind, number), folder = running.pop(child)
        done, outcome = json.loads((root / f"{folder.name}.json").read_text())
        counts[base.task.name, kind, outcome.partition(":")[0]] += 1
        if outcome[0].isupper():
            failed += 1
            print(f"{base.task.name} {kind} {number}: {done}: {outcome}", flush=True)
            if folder.exists():
                shutil.copytree(
                    folder, keep / folder.name, symlinks=True, ignore=_specials, dirs_exist_ok=True
                )
        shutil.rmtree(folder, ignore_errors=True)
    return counts, failed


def _specials(folder: str, names: list[str]) -> list[str]:
    """Return what cannot be copied: pipes."""
    return [name for name in names if Path(folder, name).is_fifo()]


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(status)
