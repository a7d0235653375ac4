"""Try damaged inputs: `python tests/attacks/campaign.py [--count 100000] [--jobs 2] [--seed 0]`.

A case is drawn from the seed and its number, `--case 17` repeats it and says all of it. Cases go
over the samples in turn. Each is read by the product's own functions in a forked child that tells
what it opened; what fails is kept, and counts are printed by format and outcome.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from damage import OUTSIDE, damage, write
from samples import Sample, samples
from watching import Case, Ended, Places, limit_memory, watched

_BATCH = 200  # cases of a process, which then gives its memory back
_TOLD = 1000  # cases between two lines of progress
_SHOWN = 3  # failures of one kind that are told


def prepare_places(root: Path) -> Places:
    """Make the folders of a case, and the files outside that nobody may open."""
    places = Places(root)
    for folder in (places.named, places.outside, places.work):
        folder.mkdir(parents=True)
    for name in OUTSIDE:
        (places.outside / name).write_bytes(_secret(name))
    return places


def _secret(name: str) -> bytes:
    from samples import GOLDEN

    return {
        ".png": (GOLDEN / "stopped" / "photos" / "0.png").read_bytes,
        ".json": lambda: b'{"secret": "outside"}',
        ".safetensors": (GOLDEN / "stopped" / "bert" / "model.safetensors").read_bytes,
    }.get(Path(name).suffix, lambda: b"secret,of\nsomebody,else\n")()


def case_of(number: int, seed: int, chosen: list[Sample], places: Places) -> Case:
    """Write the input of a case and damage it."""
    sample = chosen[number % len(chosen)]
    draws = random.Random(f"{seed} {sample.name} {number}")
    for folder in (places.named, places.work):
        shutil.rmtree(folder)
        folder.mkdir()
    write(sample.files, places.named)
    done = damage(sample, places.named, draws)
    return done, lambda: sample.read(places.named, places.work)


def try_some(
    numbers: Sequence[int], seed: int, chosen: list[Sample], keep: Path
) -> list[tuple[str, Ended]]:
    """Return the sample of each case and what became of it; keep the inputs of those that fail."""
    found = []
    with tempfile.TemporaryDirectory(prefix="attacks-", dir=_in_memory()) as folder:
        places = prepare_places(Path(folder))
        for ended in watched(numbers, lambda n: case_of(n, seed, chosen, places), places):
            if ended.failed:
                _keep(ended.number, seed, chosen, keep)
            found.append((chosen[ended.number % len(chosen)].name, ended))
    return found


def _in_memory() -> Path | None:
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


def _keep(number: int, seed: int, chosen: list[Sample], keep: Path) -> None:
    """Make the input of a case once more, among what is kept."""
    places = prepare_places(keep / str(number))
    case_of(number, seed, chosen, places)
    for path in places.named.rglob("*"):
        if path.is_fifo():  # nobody should wait for it later
            path.unlink()
    for folder in (places.outside, places.work):
        shutil.rmtree(folder)


def main() -> int:
    """Run the campaign; return 1 if any case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this number alone")
    parser.add_argument("--samples", nargs="*", help="those whose names begin so; changes numbers")
    parser.add_argument("--keep", type=Path, help="folder for what failed; a new one by default")
    parser.add_argument("--list", action="store_true", help="print the names of the samples")
    options = parser.parse_args()
    chosen = [
        sample
        for sample in samples().values()
        if options.samples is None or sample.name.startswith(tuple(options.samples))
    ]
    if options.list:
        print(*(sample.name for sample in chosen), sep="\n")
        return 0
    keep = options.keep or Path(tempfile.mkdtemp(prefix="attacks-kept-"))
    _warm(chosen)
    numbers = list(range(options.first, options.first + options.count))
    if options.case is not None:
        numbers = [options.case]
    parts = [numbers[start : start + _BATCH] for start in range(0, len(numbers), _BATCH)]
    counts: Counter = Counter()
    failures: dict[tuple[str, str], int] = {}
    try:
        for name, ended in _in_jobs(parts, options.jobs, options.seed, chosen, keep):
            counts[name, ended.outcome] += 1
            kind = (ended.outcome, ended.said.rpartition(" at ")[2])
            failures[kind] = failures.get(kind, 0) + ended.failed
            if options.case is not None or (ended.failed and failures[kind] <= _SHOWN):
                line = f"{ended.number} {name}: {ended.done}: {ended.outcome} {ended.said}"
                print(line, flush=True)
            if sum(counts.values()) % _TOLD == 0:
                print(f"{sum(counts.values())} of {len(numbers)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    _print_counts(counts)
    failed = sum(failures.values())
    print(f"{sum(counts.values())} cases, {failed} failed" + f", kept in {keep}" * bool(failed))
    if not failed and options.keep is None:
        shutil.rmtree(keep, ignore_errors=True)
    return int(failed > 0)


def _print_counts(counts: Counter) -> None:
    by_name: dict[str, Counter] = {}
    for (name, outcome), count in counts.items():
        by_name.setdefault(name, Counter())[outcome] += count
    for name, some in sorted(by_name.items()):
        print(f"{name:34} " + ", ".join(f"{o} {n}" for o, n in sorted(some.items())))


def _warm(chosen: list[Sample]) -> None:
    """Read every sample as it is: all is imported before the forks, and nothing fails by itself."""
    root = Path(tempfile.mkdtemp(prefix="attacks-"))
    places = prepare_places(root / "whole")
    for sample in chosen:
        for folder in (places.named, places.work):  # what one leaves is not in the way of the next
            shutil.rmtree(folder)
            folder.mkdir()
        write(sample.files, places.named)
        sample.read(places.named, places.work)
    shutil.rmtree(root)


def _in_jobs(
    parts: list[Sequence[int]], jobs: int, seed: int, chosen: list[Sample], keep: Path
) -> Iterator[tuple[str, Ended]]:
    """Yield what `try_some` returns, from so many processes at a time."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=limit_memory)
    try:
        waiting = [pool.submit(try_some, part, seed, chosen, keep) for part in parts]
        for one in as_completed(waiting):
            yield from one.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
