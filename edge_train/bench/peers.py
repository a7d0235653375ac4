"""An adapter on a GGUF model beside the same one by peers: memory, processor seconds, loss.

The peers are peft and, where they are installed, litgpt and torchtune; then all weights are trained
by two rules beside their authors' code, where that is installed. All get the same
model (its blocks here, the float32 numbers of those there), the same windows of the same text,
start values, rates and number of threads, each in a process of its own. `--model` names the GGUF
file, `--data` a JSONL file with `question` and `answer`.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.bench import peers_frameworks, table
from edge_train.bench.peers_frameworks import FRAMEWORKS, Loss
from edge_train.bench.peers_full import AUTHORS, RANK, REFRESH, SCALES, is_installed, make_optimizer
from edge_train.bench.step_cost import open_loop
from edge_train.errors import InputError, TrainingStopped
from edge_train.formats.adapter import write_adapter
from edge_train.formats.gguf.model import open_gguf
from edge_train.memory.measure import measure
from edge_train.rng import Key
from edge_train.tasks import open_job
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

_STEPS, _LENGTH, _RANK, _RATE, _CLIP = 8, 512, 16, 2e-4, 1.0
_JUDGED = 8  # sequences of the held-out text
_TEXTS = 600  # questions with their answers: some 150 windows
_BATCHES, _START, _TEXT = "batches.npz", "start", "text.txt"
CONTESTANTS = (
    "edge-train",
    "edge-train bfloat16",
    "edge-train lean",
    "edge-train numpy",
    "peft float32",
    "peft bfloat16",
    *(f"{name} {dtype}" for name in FRAMEWORKS for dtype in ("float32", "bfloat16")),
)
FULL = ("edge-train galore", "galore-torch", "edge-train apollo", "apollo-torch")
_FULL_RATE = 2e-5


def main(
    out: Path, _: int, model: Path | None = None, data: Path | None = None, limit: int = _STEPS
) -> str:
    """Return the table.

    Args:
      out: where text, batches and start values are kept.
      limit: steps of each contestant.

    Raises:
      InputError: model or data are not named.
    """
    if model is None or data is None:
        raise InputError("bench peers needs --model FILE.gguf and --data FILE.jsonl.")
    out.mkdir(parents=True, exist_ok=True)
    lines = data.read_text("utf-8").splitlines()[:_TEXTS]
    texts = [json.loads(line) for line in lines]
    told = "".join(f"Question: {t['question']}\nAnswer: {t['answer']}\n\n" for t in texts)
    (out / _TEXT).write_text(told, "utf-8")
    rows = []
    for name in (*CONTESTANTS, *FULL):
        missing = _missing(name)
        if missing is not None:
            rows.append([name, missing, *[""] * 3])
            continue
        words = [sys.executable, "-m", __spec__.name, name, str(model), str(out), str(limit)]
        one = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as in a run with a cap
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=one)
        if done.returncode != 0:
            raise TrainingStopped(f"{' '.join(words)}: {done.stderr.strip()[-800:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(
            [
                name,
                f"{found['peak_bytes'] / 1e6:.0f}",
                f"{found['step_seconds']:.2f}",
                f"{found['before']:.4f}",
                f"{found['after']:.4f}",
            ]
        )
    head = ("", "peak, MB", "processor s a step", "held-out loss before", f"after {limit} steps")
    return table(head, rows)


def _missing(name: str) -> str | None:
    """Return how a contestant is installed that is not; None if it is."""
    framework = name.partition(" ")[0]
    if name in AUTHORS and not is_installed(name):
        return f"not installed: pip install --no-deps {name}"
    if framework in FRAMEWORKS and not peers_frameworks.is_installed(framework):
        return f"not installed: {FRAMEWORKS[framework][1]}"
    return None


def _recipe(model: Path, out: Path, steps: int, way: str) -> LanguageModelRecipe:
    shared: dict[str, Any] = {
        "model": str(model),
        "data": str(out / _TEXT),
        "steps": steps,
        "samples": 1,
        "length": _LENGTH,
        "schedule": "constant",
        "warmup": 0,
        "threads": 1,
    }
    if way in SCALES:
        own: dict[str, Any] = {"method": way, "rank": RANK, "scale": SCALES[way]}
        own |= {"trainable": "all", "refresh_every": REFRESH, "learning_rate": _FULL_RATE}
        return LanguageModelRecipe(**own, **shared)
    return LanguageModelRecipe(
        trainable="lora",
        rank=_RANK,
        learning_rate=_RATE,
        clip=_CLIP,
        runtime="numpy" if way == "numpy" else "torch",
        lean=way == "lean",
        dtype="bfloat16" if way == "bfloat16" else "float32",
        **shared,
    )


def _ours(model: Path, out: Path, steps: int, way: str) -> dict[str, float]:
    recipe = _recipe(model, out, steps, way)
    job: Any = open_job(recipe)
    job.load()
    job.prepare(out, lambda line: None)
    loop = replace(open_loop(job, out), clip=recipe.clip)
    runtime, task = loop.runtime, job.task()
    held = task.held_out(_JUDGED)
    if not way:  # the others take what this one began with
        write_adapter(out / _START, job.adapter, runtime.parameters)
        batches = [task.batch(Key(recipe.seed, step))["ids"] for step in range(steps)]
        np.savez(out / _BATCHES, held=held["ids"], batches=np.stack(batches))

    def judged() -> float:
        return float(task.loss(runtime, held, [runtime.parameters]).mean())

    before, seconds = judged(), []
    for step in range(steps):
        start = time.process_time()
        loop.step(step)
        seconds.append(time.process_time() - start)
    return _found(seconds, before, judged())


def _network(model: Path, dtype: str) -> Any:
    """Return the network of transformers with the numbers of the file, checkpointing on."""
    hidden: dict[str, Any] = {"torchao": None}  # peft refuses the one that torchtune needs
    sys.modules.update(hidden)
    import torch
    import transformers

    torch.set_num_threads(1)
    folder = open_gguf(model)
    kind = transformers.CONFIG_MAPPING[str(folder.config["model_type"])]
    config = kind.from_dict(dict(folder.config))
    network: Any = transformers.AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, dtype)
    )
    [file] = folder.files
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(file.read(name)))
    network.gradient_checkpointing_enable({"use_reentrant": False})
    return network


def _peft(model: Path, out: Path, steps: int, dtype: str) -> dict[str, float]:
    import peft

    network = _network(model, dtype)
    adapted: Any = peft.PeftModel.from_pretrained(network, str(out / _START), is_trainable=True)
    return _adapted(adapted, _labelled(adapted), out, steps)


def _framework(model: Path, out: Path, steps: int, name: str, dtype: str) -> dict[str, float]:
    network, loss = peers_frameworks.open_network(name, model, out / _START, dtype)
    return _adapted(network, loss, out, steps)


def _adapted(network: Any, loss: Loss, out: Path, steps: int) -> dict[str, float]:
    import torch

    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_RATE, weight_decay=0.0)
    return _trained(network, loss, optimizer, trained, np.load(out / _BATCHES), steps, _CLIP)


def _authors(model: Path, out: Path, steps: int, name: str) -> dict[str, float]:
    network = _network(model, "float32")
    optimizer = make_optimizer(name, network, _FULL_RATE)
    trained, stored = list(network.parameters()), np.load(out / _BATCHES)
    return _trained(network, _labelled(network), optimizer, trained, stored, steps, None)


def _labelled(network: Any) -> Loss:
    """Return the loss of a network of transformers."""
    return lambda ids: network(input_ids=ids, labels=ids, use_cache=False).loss


def _trained(
    network: Any,
    loss: Loss,
    optimizer: Any,
    trained: list[Any],
    stored: Any,
    steps: int,
    clip: float | None,
) -> dict[str, float]:
    """Train as scripts do; return what it cost and what came of it."""
    import torch

    def judged() -> float:
        network.eval()
        with torch.no_grad():
            rows = [torch.from_numpy(row[None]) for row in stored["held"]]
            found = float(np.mean([float(loss(row)) for row in rows]))
        network.train()
        return found

    before, seconds = judged(), []
    for step in range(steps):
        start = time.process_time()
        loss(torch.from_numpy(stored["batches"][step])).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - start)
    return _found(seconds, before, judged())


def _found(seconds: list[float], before: float, after: float) -> dict[str, float]:
    return {
        "peak_bytes": measure().peak_bytes,
        "step_seconds": float(np.median(seconds)),
        "before": before,
        "after": after,
    }


if __name__ == "__main__":
    _, contestant, gguf, place, count = sys.argv
    author, _, way = contestant.partition(" ")
    file, folder, number = Path(gguf), Path(place), int(count)
    if author == "edge-train":
        scores = _ours(file, folder, number, way)
    elif contestant in AUTHORS:
        scores = _authors(file, folder, number, contestant)
    elif author in FRAMEWORKS:
        scores = _framework(file, folder, number, author, way)
    elif author == "peft":
        scores = _peft(file, folder, number, way)
    else:
        raise InputError(f"{contestant!r} is no contestant of bench peers.")
    print(json.dumps(scores))
