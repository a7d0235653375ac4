"""`edge-train bench minutes`: how long runs of all tasks were predicted to take, and took.

Twelve short runs with random weights and data. Each is planned and then run, in fresh processes.
`plan` counts what a run computes and times this machine for a second; the run itself says how
long it will take before its first step, and has its first evaluation to go by. A plan is compared
with the whole command, timed from outside, and what a run said with the seconds of its report.
"""

import json
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.small_classifier import make_classifier
from edge_train.records.folder import RunFolder
from edge_train.units import format_seconds

LEAST, MOST = 0.7, 1.4  # of predicted over measured, which a run of any task should lie within
_WORDS, _TEXTS = 30_000, 600
_HEAD = ("run", "plan said", "run said", "took", "plan / took", "run / report", "processor seconds")


@dataclass(frozen=True)
class Timed:
    """Seconds of a run.

    Attributes:
      planned: by its plan; took: of the whole command, from outside.
      said: by the run itself at its start; counted: by its report, which has the same beginning.
      busy: of processors.
    """

    planned: float
    said: float
    took: float
    counted: float
    busy: float

    @property
    def ratios(self) -> tuple[float, float]:
        """Predicted over measured, by the plan and by the run."""
        return self.planned / self.took, self.said / self.counted


def main(out: Path, seeds: int, limit: int | None = None) -> str:
    """Plan and run twelve recipes, each `seeds` times; return a Markdown table of the ratios.

    Args:
      limit: runs of this many recipes only, the first ones.
    """
    recipes = dict(list(short_runs(out).items())[:limit])
    found: list[Timed] = []
    rows = []
    for name, words in recipes.items():
        for seed in range(seeds):
            run = out / f"minutes-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            one = _timed(run, (*words, "--seed", str(seed)))
            found.append(one)
            shown = (format_seconds(seconds) for seconds in (one.planned, one.said, one.took))
            rows.append([name, *shown, *(f"{r:.2f}" for r in one.ratios), f"{one.busy:.0f}"])
    planned, said = (sum(LEAST <= one.ratios[who] <= MOST for one in found) for who in (0, 1))
    return "\n\n".join(
        [
            bench.table(_HEAD, rows),
            f"Within {LEAST} and {MOST}: {planned} of {len(found)} by the plan, {said} by the run. "
            f"Load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors.",
        ]
    )


def _timed(run: Path, words: tuple[str, ...]) -> Timed:
    """Return what a run was predicted to take and took; one that ended before is read.

    Raises:
      TrainingStopped: it did not end.
    """
    kept = run / "minutes.json"
    if not kept.is_file():
        planned = json.loads(bench.command("plan", *words, "--json"))["predicted_seconds"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        bench.command("run", *words, "--out", str(run))
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        kept.write_text(json.dumps({"planned": planned, "took": took, "busy": busy}))
    report = json.loads(RunFolder(run).report.read_text())
    said, counted = report["predicted_seconds"], report["seconds_total"]
    return Timed(said=said, counted=counted, **json.loads(kept.read_text()))


def short_runs(out: Path) -> dict[str, tuple[str, ...]]:
    """Return the words of each run, by its name; models and data are made if they are not there."""
    out.mkdir(parents=True, exist_ok=True)
    model, artifact = _classifier(out)
    llama, text = _llama(out)
    exported = _exported(out)
    pictures = _pictures(out)
    network = ("--task", "network", "--data", str(pictures), "--network")
    classify = (
        "--task",
        "classify",
        "--data",
        str(out / "texts"),
        "--length",
        "32",
        "--evaluate-every",
        "20",
    )
    language = (
        *("--task", "language-model", "--data", str(text), "--model", str(llama)),
        *("--length", "64", "--samples", "4", "--evaluate-every", "10"),
    )
    cap = ("--mem", "8GB")
    return {
        "network, tpsgd": (*network, "mlp 256 256", "--steps", "400"),
        "network, backprop": (*network, "mlp 512 512", "--method", "backprop", "--steps", "300"),
        "network, convolutions": (
            *(*network, "conv 8 3, tanh, dense 64, tanh", "--method", "backprop"),
            *("--steps", "100"),
        ),
        "personalize, onnx": (*cap, "--model", str(exported), "--steps", "150"),
        "personalize, torch": (*cap, "--steps", "60"),
        "personalize, torch zo": (*cap, "--method", "zo", "--steps", "150"),
        "personalize, torch int8": (*cap, "--method", "zo", "--quant", "int8", "--steps", "100"),
        "classify, ort-training": (*classify, *cap, "--model", str(artifact), "--steps", "40"),
        "classify, torch": (*classify, *cap, "--model", str(model), "--steps", "40"),
        "classify, lora": (
            *(*classify, *cap, "--model", str(model), "--method", "lora", "--steps", "40"),
        ),
        "language-model, torch": (*language, *cap, "--steps", "30"),
        "language-model, galore": (
            *(*language, *cap, "--method", "galore", "--rank", "16", "--steps", "30"),
        ),
    }


def _words(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [f"w{number}" for number in draw.zipf(1.3, count) % 3000]


def _classifier(out: Path) -> tuple[Path, Path]:
    """Return a small BERT, and what was exported of it; write labeled texts beside them."""
    from edge_train.tasks.classify.export import export_training

    model, artifact, texts = out / "classifier", out / "classifier-ort", out / "texts"
    if not (model / "config.json").is_file():
        words = _words(20 * _TEXTS, 1)
        lines = [" ".join(words[20 * i : 20 * i + 20]) for i in range(_TEXTS)]
        texts.mkdir(exist_ok=True)
        for name, part in (("train", lines[100:]), ("dev", lines[:100])):
            rows = [f"{line}\t{len(line) % 2}\n" for line in part]
            (texts / f"{name}.tsv").write_text("".join(rows))
        make_classifier(model, lines, layers=2, width=128)
    if not artifact.is_dir():
        export_training(str(model), artifact, head_only=False, threads=1, say=print)
    return model, artifact


def _llama(out: Path) -> tuple[Path, Path]:
    """Return a small Llama with random weights, and a text."""
    from edge_train.bench.small_llama import write_folder

    folder, text = out / "llama", out / "text.txt"
    if not (folder / "model.safetensors").is_file():
        from transformers import AutoModelForCausalLM, LlamaConfig

        text.write_text(" ".join(_words(_WORDS, 2)))
        sizes = {
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 256,
        }
        config = LlamaConfig(vocab_size=2000, **sizes)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        write_folder(folder, text, 2000, **sizes)
    return folder, text


def _exported(out: Path) -> Path:
    """Return the embedded model as an artifact."""
    from edge_train.formats.embedded import EMBEDDED
    from edge_train.tasks.personalize.export import export

    artifact = out / "embedded-int8"
    if not artifact.is_dir():
        export(EMBEDDED, artifact, quant="int8", photos=None, resolution=None, threads=1, say=print)
    return artifact


def _pictures(out: Path) -> Path:
    """Return labeled pictures of noise."""
    path = out / "pictures.npz"
    if not path.is_file():
        draw = np.random.default_rng(3)
        parts = {"train": 6000, "test": 1000}
        arrays: dict[str, Any] = {
            f"{p}_images": draw.integers(0, 255, (n, 28, 28), np.uint8) for p, n in parts.items()
        }
        arrays |= {f"{part}_labels": np.arange(count) % 10 for part, count in parts.items()}
        np.savez(path, **arrays)
    return path
