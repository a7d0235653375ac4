"""`edge-train bench discrete`: a prompt searched word by word, and a soft one, at equal passes.

Reviews are told apart by the first token that a frozen model would answer. What chooses a prompt
are reviews for training and for choosing; the accuracy is of others that chose nothing. These are
of the training file, behind those that are trained on: the start and the settings below were once
chosen on reviews of the test file, so none of that is used here. A run that is finished is read
and not run again.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.errors import InputError
from edge_train.methods import methods
from edge_train.rng import Key
from edge_train.tasks import open_job
from edge_train.tasks.classify.texts import Example, read_examples
from edge_train.tasks.language_model.labels import judge
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

_FORWARDS = 2000  # passes of one review, those of evaluations and of the check of slopes included
_CHOOSING = 64
_TRAINED, _REPORTED = 2000, 300
_WORDS = {"1": "positive", "0": "negative"}
_START = "Is the review positive or negative ?"
_LENGTH = 128
_DTYPE, _TOGETHER = "bfloat16", 32
_COMMON = (
    *("--task", "language-model", "--loss-on", "labels", "--length", str(_LENGTH)),
    *("--dtype", _DTYPE, "--batch-limit", str(_TOGETHER)),
    *("--threads", "1", "--evaluation-samples", str(_CHOOSING), "--prompt-start", _START),
)
_TRIES, _SAMPLES = 12, 32
_QUERIES, _SOFT_SAMPLES = 4, 16  # one-sided
_RATE = 1e-2  # of the vectors, whose numbers are about 0.1; not searched for
_HEAD = ("what stands before a review", "seed", "forward passes", "accuracy", "found")


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    samples: int = _REPORTED,
    limit: int = _FORWARDS,
) -> str:
    """Search and train prompts with seeds 0, 1, ... in fresh processes; return a Markdown table.

    Args:
      data: folder with train, dev and test files of labeled texts.
      model: a language model that has a chat template.
      samples: reviews that are reported on.
      limit: forward passes of a run.

    Raises:
      InputError: one of them was not named.
    """
    if data is None or model is None or not all((data / f"{p}.tsv").is_file() for p in _PARTS):
        raise InputError(
            "bench discrete needs a folder with train.tsv and dev.tsv, lines of a text, a tab and "
            "a label, and a language model: --data FOLDER --model MODEL."
        )
    chats = _write(out / "discrete-chats", data, samples)
    plain = LanguageModelRecipe(
        model=str(model),
        data=str(chats),
        trainable="lora",
        loss_on="labels",
        length=_LENGTH,
        threads=1,
        dtype=_DTYPE,
        batch_limit=_TOGETHER,
    )
    start = replace(plain, trainable="prompt", method="discrete", prompt_start=_START)
    rows = [
        ["the model's own system message", "", "0", _percent(_untrained(out, plain)), ""],
        ["the start, in its place", "", "0", _percent(_untrained(out, start)), _START],
    ]
    for one in (_search, _soft):
        rows += [one(out, chats, model, seed, limit) for seed in range(seeds)]
    count = f"{samples} reviews, which chose nothing"
    return "\n\n".join([f"{model.name}, frozen; {count}.", bench.table(_HEAD, rows)])


_PARTS = ("train", "dev")


def _search(out: Path, chats: Path, model: Path, seed: int, limit: int) -> list[str]:
    recipe = LanguageModelRecipe(options={"tries": _TRIES}, samples=_SAMPLES)
    passes = methods.get("discrete").passes(recipe).forwards
    steps = (limit - 2 * _CHOOSING) // passes
    options = ["--method", "discrete", "--tries", str(_TRIES)]
    report = _run(out, f"words-seed{seed}-{limit}", chats, model, seed, steps, _SAMPLES, options)
    return ["words, searched", *_cells(report, seed), report["metrics"]["prompt"]]


def _soft(out: Path, chats: Path, model: Path, seed: int, limit: int) -> list[str]:
    recipe = LanguageModelRecipe(queries=_QUERIES, sides=1, samples=_SOFT_SAMPLES)
    steps = (limit - 2 * _CHOOSING) // methods.get("zo").passes(recipe).forwards
    options = ["--trainable", "prompt", "--method", "zo", "--learning_rate", str(_RATE)]
    options += ["--queries", str(_QUERIES), "--sides", "1", "--epsilon", "0.1"]
    name = f"soft-rate{_RATE:g}-seed{seed}-{limit}"
    report = _run(out, name, chats, model, seed, steps, _SOFT_SAMPLES, options)
    return [f"vectors, zo at rate {_RATE:g}", *_cells(report, seed), ""]


def _run(
    out: Path,
    name: str,
    chats: Path,
    model: Path,
    seed: int,
    steps: int,
    samples: int,
    options: Sequence[str],
) -> dict[str, Any]:
    words = ["--data", str(chats), "--model", str(model), "--seed", str(seed), *_COMMON, *options]
    words += ["--steps", str(steps), "--evaluate-every", str(steps)]
    return bench.run(out / f"discrete-{name}", *words, "--samples", str(samples))


def _cells(report: dict[str, Any], seed: int) -> list[str]:
    return [str(seed), str(report["forwards"]), _percent(report["metrics"]["accuracy"])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _untrained(out: Path, recipe: LanguageModelRecipe) -> float:
    """Return the accuracy of what a run begins with, without a step of it."""
    kept = out / f"discrete-before-{recipe.trainable}.json"
    if kept.is_file():
        return float(json.loads(kept.read_text())["accuracy"])
    folder = out / f"discrete-ids-{recipe.trainable}"
    folder.mkdir(parents=True, exist_ok=True)
    job = open_job(recipe)
    job.load()
    job.prepare(folder, lambda line: None)
    runtime: Any = job.open_runtime()
    runtime.batch_limit = recipe.batch_limit
    task: Any = job.task()
    found = judge(runtime, task.held_out(_TRAINED)).accuracy
    runtime.close()
    kept.write_text(json.dumps({"accuracy": found}))
    return found


def _write(folder: Path, data: Path, reported: int) -> Path:
    """Write reviews as prompts with completions: to train on, and to choose by and report on.

    The last two stand in turn in one file, as they are held out.
    """
    train, dev = (
        _some(read_examples(data / f"{part}.tsv"), count)
        for part, count in zip(_PARTS, (_TRAINED + reported, reported), strict=True)
    )
    folder.mkdir(parents=True, exist_ok=True)
    train, others = train[:_TRAINED], train[_TRAINED:]
    held = [one for pair in zip(dev, others, strict=True) for one in pair]
    for name, examples in (("train", train), ("dev", held)):
        lines = (json.dumps(_chat(example)) + "\n" for example in examples)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def _some(examples: Sequence[Example], count: int) -> list[Example]:
    order = Key(0, 0).generator("reviews").permutation(len(examples))[:count]
    return [examples[place] for place in order.tolist()]


def _chat(example: Example) -> dict[str, str]:
    asked = f"Review: {example.text}\nSentiment:"
    return {"prompt": asked, "completion": _WORDS[str(example.label)]}
