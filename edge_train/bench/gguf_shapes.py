"""`edge-train bench gguf-shapes`: the smallest cap that trains an adapter on a large GGUF.

Files of random weights in the shapes of Llama 3.2 1B and 3B and of Llama 2 7B. The cap is the one
that a plan advises where nothing fits; a run of the real command then takes a step under it, from
text to adapter. Processor seconds are those of a step in a process of its own, without a cap.
What one row showed is kept, and read by the same command given again.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from edge_train import bench
from edge_train.bench.random_gguf import Shape, write_gguf
from edge_train.bench.step_cost import open_loop
from edge_train.bench.watched import watched
from edge_train.errors import InputError, TrainingStopped
from edge_train.memory.processor import multiplies_bfloat16
from edge_train.recipe import Recipe, to_toml
from edge_train.run.scratch import BENCH, scratch
from edge_train.run.survey import survey
from edge_train.tasks import open_job, read_recipe
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.units import advised_bytes, format_bytes

_SHAPES = {
    "1B": Shape(2048, 8192, 16, 32, 8, 128_256, tied=True, merges=280_147),
    "3B": Shape(3072, 8192, 28, 24, 8, 128_256, tied=True, merges=280_147),
    "7B": Shape(4096, 11008, 32, 32, 32, 32_000, tied=False),
}
_KINDS, _ENGINES = ("Q4_0", "Q4_K"), ("torch", "numpy")
_LENGTH, _RANK = 512, 16
_TEXT_CHARACTERS = 12_000  # some sequences: nearly every letter is a token
_ROUND_TO = 10_000_000  # bytes
_HEAD = ("shape", "engine", "products", "file", "cap", "held", "given up", "processor s a step")


def main(out: Path, seeds: int, data: Path | None = None) -> str:
    """Return a Markdown table.

    Args:
      seeds: ignored: neither memory nor time depends on them.
      data: a text.

    Raises:
      InputError: no text was named.
      TrainingStopped: a run did not end well.
    """
    del seeds
    if data is None or not data.is_file():
        raise InputError("bench gguf-shapes needs a text: --data FILE.")
    text = out / "gguf-shapes.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(data.read_text()[:_TEXT_CHARACTERS])
    rows = []
    for name, shape in _SHAPES.items():
        for kind in _KINDS:
            file = out / f"{name}-{kind}.gguf"
            for engine in _ENGINES:
                kept = out / f"{name}-{kind}-{engine}.json"
                if not kept.is_file():
                    if not file.is_file():
                        write_gguf(file, shape, kind)
                    row = [f"{name} {kind}", engine, *_measured(out, file, text, engine)]
                    kept.write_text(json.dumps(row))
                rows.append(json.loads(kept.read_text()))
            file.unlink(missing_ok=True)
    return (
        f"LoRA of rank {_RANK} beside all linear layers, one sequence of {_LENGTH} tokens, one "
        f"thread.\n\n{bench.table(_HEAD, rows)}"
    )


def _measured(out: Path, file: Path, text: Path, engine: str) -> list[str]:
    """Return cells.

    Raises:
      TrainingStopped: a run or a step did not end well.
    """
    bfloat16 = engine == "torch" and multiplies_bfloat16()
    recipe = LanguageModelRecipe(
        model=str(file),
        data=str(text),
        trainable="lora",
        rank=_RANK,
        length=_LENGTH,
        samples=1,
        steps=1,
        evaluation_samples=1,
        evaluate_every=1,
        threads=1,
        runtime=engine,
        dtype="bfloat16" if bfloat16 else "auto",
        cap_bytes=1,  # nothing fits, so the plan looks for what takes least
    )
    least = min(survey(recipe).choices, key=lambda choice: choice.plan.peak_bytes)
    cap = -(-advised_bytes(least.plan.peak_bytes) // _ROUND_TO) * _ROUND_TO
    smaller = replace(recipe, **least.changes, cap_bytes=cap)
    run = out / "gguf-shapes-run"
    done = watched(run, smaller)
    if done.status != 0:
        raise TrainingStopped(done.said[-2000:])
    shutil.rmtree(run)
    return [
        "bfloat16" if bfloat16 else "float32",
        format_bytes(file.stat().st_size),
        format_bytes(cap),
        format_bytes(done.peak_bytes),
        least.flags,
        f"{_step_seconds(out, smaller):.0f}",
    ]


def _step_seconds(out: Path, recipe: Recipe) -> float:
    path = out / "gguf-shapes-step.toml"
    path.write_text(to_toml(recipe))
    words = [sys.executable, "-m", __spec__.name, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(words)}: {done.stderr.strip()[-800:]}")
    return float(done.stdout)


def _one_step(recipe: Recipe) -> float:
    job = open_job(recipe)
    with scratch(prefix=BENCH) as folder:
        job.load()
        job.prepare(folder, lambda line: None)
        loop = open_loop(job, folder)
        start = time.process_time()
        loop.step(0)
        return time.process_time() - start


if __name__ == "__main__":
    print(_one_step(read_recipe(Path(sys.argv[1]))))
