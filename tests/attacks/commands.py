"""Damaged inputs through the whole command: `python tests/attacks/commands.py [--count 200]`.

Each case is `edge-train run ... --mem`, with its supervisor and worker, on a damaged input: it must
end within a minute with status 0, 2 or 3, without a traceback, and name what is wrong.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from campaign import prepare_places
from damage import damage, write
from samples import GOLDEN, Sample, samples

SECONDS = 120.0  # of a command on a machine that does other things; one takes two
_NETWORK = "--task network --network mlp_8 --steps 2 --samples 4 --evaluate-every 2 --mem 400MB"
_PHOTOS = (
    f"--model {GOLDEN / 'artifact-v1'} --class dog --steps 2 --threads 1 --no-previews --mem 1GB"
)
_TEXTS = "--task classify --steps 2 --samples 4 --threads 1 --evaluate-every 2 --mem 3GB"
_CORPUS = "--task language-model --steps 2 --samples 2 --length 16 --threads 1 --mem 3GB"


def commands() -> dict[str, tuple[Sample, str]]:
    """Return samples with the words of the command that reads them; `{data}` is what is named."""
    found = {}
    for name, sample in samples().items():
        if name.startswith(("tables/numbers", "npz", "picture folder", "metadata")):
            found[name] = sample, f"{{data}} {_NETWORK}"
        elif name.startswith(("photos", "captions")):
            found[name] = sample, f"{{data}} {_PHOTOS}"
        elif name.startswith("recipe"):
            found[name] = sample, "--recipe {data} --mem 400MB"
    for model, data, words in (("bert", "texts", _TEXTS), ("llama", "text.txt", _CORPUS)):
        folder, read = GOLDEN / "stopped" / model, found["npz/numbers"][0]
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        sample = replace(read, name=model, files=files, attacked=tuple(files), named="")
        found[model] = sample, f"{words} --data {GOLDEN / 'stopped' / data} --model {{data}}"
    return found


def try_case(sample: Sample, words: str, draws: random.Random) -> tuple[str, str, str]:
    """Return what was done, what became of it, and what the command said."""
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        places = prepare_places(Path(folder) / "in")
        write(sample.files, places.named)
        done = damage(sample, places.named, draws)
        before = _content(places)
        inside = sorted(places.named.iterdir())
        whole = len(inside) != 1 or inside[0].suffix in (".png", ".jpg") or not sample.named
        data = places.named if whole else inside[0]
        asked = [
            word.replace("{data}", str(data)).replace("mlp_8", "mlp 8") for word in words.split()
        ]
        command = [sys.executable, "-m", "edge_train", "run", *asked]
        status, said = _ended([*command, "--out", str(places.work / "run")], places.work)
        outcome = _judged(status, said)
        if _content(places) != before:
            outcome = "CHANGED ITS INPUT"
        shutil.rmtree(places.root)
    return done, outcome, said


def _ended(command: list[str], folder: Path) -> tuple[int | None, str]:
    """Return the status of a command, None where it hung, and all that it said."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return None, said.decode("utf-8", "replace")
    return process.returncode, said.decode("utf-8", "replace")


def _judged(status: int | None, said: str) -> str:
    if status is None:
        return "HANG"
    if "Traceback (most recent call last)" in said:
        return "TRACEBACK"
    if "Warning:" in said:
        return "WARNING"
    if status == 0:
        return "done"
    if status in (2, 3):
        return f"one sentence, {status}" if "edge-train: " in said else "NO SENTENCE"
    return f"STATUS {status}"


def _content(places) -> list[tuple[str, int]]:
    return [
        (str(path), path.lstat().st_size)
        for folder in (places.named, places.outside)
        for path in sorted(folder.rglob("*"))
    ]


def main() -> int:
    """Run the commands; return 1 if any case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", nargs="*", help="those whose names begin so; changes numbers")
    options = parser.parse_args()
    chosen = [
        (name, *one)
        for name, one in commands().items()
        if options.samples is None or name.startswith(tuple(options.samples))
    ]
    counts: Counter = Counter()
    try:
        for number in range(options.first, options.first + options.count):
            name, sample, words = chosen[number % len(chosen)]
            draws = random.Random(f"{options.seed} command {name} {number}")
            done, outcome, said = try_case(sample, words, draws)
            counts[name, outcome] += 1
            if outcome.isupper() or options.count == 1:
                print(f"{number} {name}: {done}: {outcome}\n{said}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:34} {outcome:20} {count}")
    failed = sum(count for (_, outcome), count in counts.items() if outcome.isupper())
    print(f"{sum(counts.values())} commands, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
