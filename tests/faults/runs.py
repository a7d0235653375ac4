"""The small runs that faults are tried on, one a task, and what they must leave."""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden"
STEPS = 24
POLL = 0.005  # seconds
HANGS_AFTER = 60_000  # polls; counted, so that a campaign that was stopped itself blames no run


@dataclass(frozen=True)
class Task:
    """A task of the campaign.

    Attributes:
      words: of the command that starts its run; `{data}` is the folder of models and data.
      weights: what a finished run leaves of what it learned, as a pattern.
      needs: what must be installed.
      cap: so near to what its run needs that it is rehearsed.
    """

    name: str
    words: str
    weights: str
    needs: str
    cap: str


_SHORT = f"--steps {STEPS} --evaluate-every 4"
TASKS = {
    task.name: task
    for task in (
        Task("network", "--recipe {data}/network.toml", "network.safetensors", "numpy", "100MB"),
        Task(
            "personalize",
            f"{{data}}/photos --model {{data}}/artifact --class dog --threads 1 {_SHORT} "
            "--no-previews",
            "my-dog.safetensors",
            "onnxruntime",
            "170MB",
        ),
        Task(
            "classify",
            "--task classify --data {data}/models/texts --model {data}/models/bert --threads 1 "
            f"--samples 4 {_SHORT}",
            "model/model.safetensors",
            "torch",
            "500MB",
        ),
        Task(
            "language-model",
            "--task language-model --data {data}/models/text.txt --model {data}/models/llama "
            f"--threads 1 --length 16 --samples 2 {_SHORT}",
            "model/model.safetensors",
            "torch",
            "500MB",
        ),
    )
}


def write_data(folder: Path, tasks: list[Task]) -> None:
    """Write the models and data of tasks."""
    import shutil

    folder.mkdir(parents=True)
    sys.path[:0] = [str(TESTS / "support" / "same_results")]
    import models

    models.write_pictures(folder / "pictures.npz")
    keys = {"task": "network", "data": "pictures.npz", "network": "mlp 8 6", "quant": "int8"}
    lines = [f'{name} = "{value}"' for name, value in keys.items()]
    lines += [f"steps = {STEPS}", "samples = 10", "momentum = 0.5", "evaluate_every = 4"]
    (folder / "network.toml").write_text("\n".join(lines))
    models.write_photos(folder / "photos")
    shutil.copytree(GOLDEN / "artifact-v1", folder / "artifact")
    if any(task.needs == "torch" for task in tasks):
        models.make_models(folder / "models")


def words_for(task: Task, data: Path, out: Path) -> list[str]:
    """Return the words that start its run, or go on with one that has a recipe."""
    if any((out / name).exists() for name in ("recipe.toml", "journal.jsonl")):
        return ["run", "--resume", str(out)]
    return ["run", *task.words.format(data=data).split(), "--out", str(out)]


def bits_of(task: Task, out: Path) -> str:
    """Return the hash of what a run learned and of the numbers of its steps."""
    weights = out / task.weights
    results = sorted(weights.parent.iterdir()) if weights.parent != out else [weights]
    digest = hashlib.sha256()
    for path in results:  # all files of a model's folder
        digest.update(path.name.encode() + path.read_bytes())
    names = ("step", "loss", "scalars", "eval", "skipped")
    from edge_train.records import journal

    for record in journal.read(out / "journal.jsonl")[0]:
        if record["kind"] == "step":
            digest.update(json.dumps([record.get(name) for name in names]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (negative: a signal; None: it hung) and what it said."""

    status: int | None
    said: str


def run(words: list[str], said: Path, plant=None) -> Ended:
    """Run a command in a forked child that leads a session of its own; nothing of it is left.

    Args:
      said: file for what it prints.
      plant: called in the child before the command.
    """
    child = os.fork()
    if child == 0:
        status = 70  # whatever raises
        try:
            os.setsid()
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if plant is not None:
                plant()
            from edge_train import cli

            status = cli.main(words)
        except BaseException:  # noqa: BLE001 - it is what the campaign looks for
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
    polls = 0
    while True:
        found, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if found and os.WIFSTOPPED(status):
            os.killpg(child, signal.SIGCONT)
        elif found:
            break
        elif polls > HANGS_AFTER:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(None, said.read_text("utf-8", "replace"))
        time.sleep(POLL)
        polls += 1
    return Ended(os.waitstatus_to_exitcode(status), said.read_text("utf-8", "replace"))


def judged(task: Task, ended: Ended, out: Path, wanted: str) -> str:
    """Return what became of a run after a fault, in a word or two; capitals are failures."""
    if ended.status is None:
        return "HANG"
    if "Traceback (most recent call last)" in ended.said or ended.status == 70:
        return "TRACEBACK"
    if ended.status == 0:
        try:
            found = bits_of(task, out)
        except (OSError, ValueError, KeyError) as error:
            return f"DONE WITHOUT RESULT ({type(error).__name__})"
        return "same bits" if found == wanted else "OTHER BITS"
    if ended.status in (2, 3):
        last = ended.said.strip().splitlines()[-1:]
        return "one sentence" if last and last[0].startswith("edge-train: ") else "NO SENTENCE"
    return f"STATUS {ended.status}"
