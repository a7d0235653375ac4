"""Write tests/golden/stopped again: `python tests/support/make_golden_runs.py`, desk environment.

Every run in it was stopped half-way by the code of its day; later code must report it and bring it
to its end. Runs that were released stay as they are: add new ones, do not write old ones again.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden"
RUNS = GOLDEN / "stopped"
_WORD = "--class dog --method zo --preview-steps 1 --prompt 'a {}'"
_TEXTS = "run --task classify --data texts --samples 8 --lr 5e-3"
# name -> words, steps in all, the step after which it is stopped
STOPPED = {
    "personalize-torch": ("run --no-previews --method zo --samples 1 --queries 2", 40, 12),
    "personalize-onnx": (f"run photos --model ../artifact-v1 {_WORD}", 60, 20),
    "classify-torch": (f"{_TEXTS} --model bert --method lora --rank 4", 60, 20),
    "classify-ort-training": (
        f"{_TEXTS} --model bert-head --method adamw --trainable head",
        90,
        20,
    ),
    "language-model": (
        "run --task language-model --data text.txt --model llama --length 16 --lr 1e-2 "
        "--method q-galore --quant int8 --rank 4 --refresh-every 5 --samples 4",
        60,
        20,
    ),
    "network": ("run --recipe network.toml", 600, 60),
}
_KILLED = (
    "personalize-onnx",
)  # without a word: no last record, no newer checkpoint than the first
_NETWORK = {
    "task": "network",
    "data": "pictures.npz",
    "network": "conv 4 3, batchnorm, relu, maxpool 2, dense 12, tanh",
    "quant": "int8",
    "mode": "sequential",
    "momentum": 0.5,
    "samples": 20,
    "evaluate_every": 20,
}


def main() -> None:
    """Write models and data, then start every run and stop it."""
    sys.path[:0] = [str(TESTS), str(TESTS / "support"), str(TESTS / "support/same_results")]
    from classifiers import make_data, make_tiny_classifier
    from models import write_language_model, write_photos, write_pictures

    shutil.rmtree(RUNS, ignore_errors=True)
    RUNS.mkdir()
    os.chdir(RUNS)  # journals name models and data as they were typed
    make_tiny_classifier(Path("bert"), make_data(Path("texts")))
    write_photos(Path("photos"), side=16)
    write_pictures(Path("pictures.npz"))
    Path("text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 30)
    write_language_model(Path("llama"), Path("text.txt"), width=16)
    lines = [f"{key} = {json.dumps(value)}" for key, value in _NETWORK.items()]
    Path("network.toml").write_text("\n".join(lines) + "\n")
    words = "export bert bert-head --for ort-training --trainable head --threads 1"
    subprocess.run([sys.executable, "-m", "edge_train", *words.split()], check=True)
    for name, (words, steps, last) in STOPPED.items():
        _stop_after(name, words, steps, last)
        _tidy(Path(name))


def _stop_after(name: str, words: str, steps: int, last: int) -> None:
    import shlex

    threads = [] if name == "network" else ["--threads", "1"]
    command = [sys.executable, "-m", "edge_train", *shlex.split(words), *threads]
    command += ["--out", name, "--steps", str(steps), "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        event = json.loads(line)
        if event["event"] == "step" and event["step"] == last:
            run.send_signal(signal.SIGKILL if name in _KILLED else signal.SIGINT)
    expected = -signal.SIGKILL if name in _KILLED else 130
    assert run.wait() == expected, (name, run.returncode)


def _tidy(run: Path) -> None:
    """Leave out what is made again, and paths of this machine."""
    shutil.rmtree(run / "model", ignore_errors=True)
    for name in ("report.html", "report.json"):
        (run / name).unlink(missing_ok=True)
    for name in ("step", "best"):
        for old in sorted((run / "checkpoints").glob(f"{name}-*"))[:-1]:
            old.unlink()
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(GOLDEN), "{golden}"))


if __name__ == "__main__":
    main()
