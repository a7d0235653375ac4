"""An adapter on a GGUF model beside the same one by peft: memory, processor seconds, loss.

Both get the same model (its blocks here, the float32 numbers of those there), the same windows of
the same text, the same start values, update rule, rate and number of threads, each in a process of
its own. `--model` names the GGUF file, `--data` a JSONL file with `question` and `answer`.
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

from edge_train.bench import table
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
)


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
    for name in CONTESTANTS:
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


def _ours(model: Path, out: Path, steps: int, way: str) -> dict[str, float]:
    lean, runtime = way == "lean", "numpy" if way == "numpy" else "torch"
    recipe = LanguageModelRecipe(
        model=str(model),
        data=str(out / _TEXT),
        steps=steps,
        samples=1,
        length=_LENGTH,
        trainable="lora",
        rank=_RANK,
        learning_rate=_RATE,
        schedule="constant",
        warmup=0,
        clip=_CLIP,
        threads=1,
        runtime=runtime,
        lean=lean,
        dtype="bfloat16" if way == "bfloat16" else "float32",
    )
    job: Any = open_job(recipe)
    job.load()
    job.prepare(out, lambda line: None)
    loop = replace(open_loop(job, out), clip=_CLIP)
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


def _peft(model: Path, out: Path, steps: int, dtype: str) -> dict[str, float]:
    import peft
    import torch
    import transformers

    torch.set_num_threads(1)
    stored = np.load(out / _BATCHES)
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
    adapted: Any = peft.PeftModel.from_pretrained(network, str(out / _START), is_trainable=True)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_RATE, weight_decay=0.0)

    def loss(ids: Any) -> Any:
        tokens = torch.from_numpy(ids)
        return adapted(input_ids=tokens, labels=tokens, use_cache=False).loss

    def judged() -> float:
        adapted.eval()
        with torch.no_grad():
            found = float(np.mean([float(loss(row[None])) for row in stored["held"]]))
        adapted.train()
        return found

    before, seconds = judged(), []
    for step in range(steps):
        start = time.process_time()
        loss(stored["batches"][step]).backward()
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
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
    if contestant.startswith("edge-train"):
        scores = _ours(Path(gguf), Path(place), int(count), contestant.partition(" ")[2])
    else:
        scores = _peft(Path(gguf), Path(place), int(count), contestant.partition(" ")[2])
    print(json.dumps(scores))
