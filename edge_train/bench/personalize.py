"""`edge-train bench personalize`: what the embedded model learns, how fast, at what overhead."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.arrays.parameters import Parameters
from edge_train.bench.items import PHOTO_LOOKS, Grey, write_class_photos
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import InputError
from edge_train.formats.embedded import DATA
from edge_train.rng import Key
from edge_train.tasks.personalize import encoding
from edge_train.tasks.personalize import parts as diffusion
from edge_train.tasks.personalize.judge import Judge
from edge_train.tasks.personalize.pictures import (
    EmbeddedJudge,
    differing_pairs,
    draw,
)
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

# row name, photos, options; the target stands in the issue tracker, not here
_ISOTROPIC = ("--method", "zo", "--directions", "isotropic")
_PRIOR = ("--method", "zo", "--directions", "prior")
_RATE = ("--method", "zo", "--relative-rate", "0.5")
_BEFORE = (
    *("--method", "backprop", "--relative-rate", "0.2"),
    *("--schedule", "cosine", "--steps", "100"),
)
_CELLS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("bag, backprop", "bag", ("--method", "backprop")),
    ("bag, backprop with the rate before", "bag", _BEFORE),
    ("bag, zo", "bag", ("--method", "zo")),
    ("bag, zo, isotropic directions", "bag", _ISOTROPIC),
    ("bag, zo along the prior", "bag", _PRIOR),
    ("bag, zo with a rate", "bag", _RATE),
    ("bag, zo, int8 weights", "bag", ("--method", "zo", "--quant", "int8")),
    ("bag, zo, int4 weights", "bag", ("--method", "zo", "--quant", "int4")),
    ("bag, zo, preset zoodip cut at 450 steps", "bag", ("--preset", "zoodip", "--steps", "450")),
    ("sneaker, backprop", "sneaker", ("--method", "backprop")),
    ("sneaker, zo", "sneaker", ("--method", "zo")),
    ("sneaker, zo, isotropic directions", "sneaker", _ISOTROPIC),
    ("sneaker, zo along the prior", "sneaker", _PRIOR),
    ("sneaker, zo with a rate", "sneaker", _RATE),
    ("three, backprop", "three", ("--method", "backprop")),
    ("three, zo", "three", ("--method", "zo")),
    ("three, zo, isotropic directions", "three", _ISOTROPIC),
    ("three, zo along the prior", "three", _PRIOR),
    ("three, zo with a rate", "three", _RATE),
)
# No part of the model has seen the last two, one a digit of MNIST; with each the word of the model
# that is nearest to it.
_UNSEEN: Mapping[str, str | None] = {"bag": None, "sneaker": "boot", "seven": "one"}
_WAYS: Mapping[str, tuple[str, ...]] = {
    "backprop": ("--method", "backprop"),
    "backprop with the rate before": _BEFORE,
    "zo": ("--method", "zo"),
    "backprop, three vectors": ("--method", "backprop", "--vectors", "3"),
    "a LoRA": ("--trainable", "lora"),
}
_SHARES = ("class", "color", "background")
_HEAD = ("cell", *_SHARES, "forwards", "backwards", "seconds", "peak MB")
_PICTURES_PER_WORD = 12
_TIMED_STEPS = 60


def main(out: Path, seeds: int, data: Path | None = None) -> str:
    """Run every cell with seeds 0, 1, ... in fresh processes; return Markdown tables.

    Args:
      data: the folder of `mnist.npz`; with it another table, of classes that were never seen.

    Raises:
      InputError: that file is missing.
      TrainingStopped: a run failed; what is done stays.
    """
    if data is not None:
        return unseen(out, seeds, data)
    rows = [_untrained()]
    classes: dict[str, float] = {}
    for name, photos, options in _CELLS:
        reports = _reports(out, name, DATA / "photos" / photos, options, seeds)
        classes[name] = statistics.mean(r["metrics"]["class_accuracy"] for r in reports)
        rows.append(_row(name, reports))
    parts = [
        f"{seeds} seeds, 64 pictures each, one thread: mean (range).",
        bench.table(_HEAD, rows),
        "Class accuracy of zo over backprop: "
        + ", ".join(
            f"{concept} {classes[f'{concept}, zo'] / classes[f'{concept}, backprop']:.2f}"
            for concept in ("bag", "sneaker", "three")
        )
        + ".",
        named_words(),
        overhead(),
    ]
    return "\n\n".join(parts)


def unseen(out: Path, seeds: int, data: Path) -> str:
    """Return a table of classes that no part of the model has seen, and of bag, way by way.

    Raises:
      InputError: `mnist.npz` is missing.
      TrainingStopped: a run failed; what is done stays.
    """
    rows = []
    for concept, nearest in _UNSEEN.items():
        photos = DATA / "photos" / concept
        if concept == "seven":
            photos = write_class_photos(_sevens(data), out / "photos" / concept)
        for way, options in {**_WAYS, **_ways_from(nearest)}.items():
            name = f"{concept}, {way}"
            rows.append(_row(name, _reports(out, name, photos, options, seeds)))
    said = f"{seeds} seeds, 64 pictures each, one thread: mean (range)."
    return f"{said}\n\n{bench.table(_HEAD, rows)}"


def _ways_from(word: str | None) -> dict[str, tuple[str, ...]]:
    """Return what is learned from a word that the model knows."""
    if word is None:
        return {}
    return {
        f"backprop from {word}": ("--method", "backprop", "--class", word),
        f"a LoRA from {word}": ("--trainable", "lora", "--class", word, "--token", word),
    }


def _sevens(data: Path) -> Grey:
    """Return five test digits, always the same."""
    path = data / "mnist.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["test_images"], arrays["test_labels"]
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; name the folder that holds it: --data.") from error
    rows = (
        Key(0, 0)
        .generator("photos", "seven")
        .choice(np.flatnonzero(labels == 7), len(PHOTO_LOOKS), replace=False)
    )
    found: Grey = images[rows]
    return found


def _reports(
    out: Path, name: str, photos: Path, options: Sequence[str], seeds: int
) -> list[dict[str, Any]]:
    stem = name.replace(", ", "-").replace(" ", "-")
    return [
        bench.run(out / f"{stem}-seed{seed}", str(photos), *options, "--seed", str(seed))
        for seed in range(seeds)
    ]


def _row(name: str, reports: list[dict[str, Any]]) -> list[str]:
    metrics = [report["metrics"] for report in reports]
    return [
        name,
        bench.percent([m["class_accuracy"] for m in metrics]),
        bench.percent([m["color_accuracy"] for m in metrics]),
        bench.percent([m["background_accuracy"] for m in metrics]),
        str(max(report["forwards"] for report in reports)),
        str(max(report["backwards"] for report in reports)),
        f"{statistics.median(r['training_seconds'] for r in reports):.0f}",
        f"{statistics.median(r['measured_peak_bytes'] for r in reports) / 1e6:.0f}",
    ]


def _untrained() -> list[str]:
    """Return the row of the word that training starts from."""
    job = diffusion.check(PersonalizeRecipe())
    photos, _ = encoding.load_job_photos(job)
    judge = EmbeddedJudge(np.stack([photo.pixels for photo in photos.photos]))
    ids = {name: np.concatenate([job.ids(p)[name] for p in judge.prompts]) for name in ("ids",)}
    ids["ids"] = np.concatenate([ids["ids"], job.ids("")["ids"]])
    runtime = diffusion.open_runtime(job, Parameters(job.start), ids)
    scores = judge.score(draw(job, runtime, job.start, judge.prompts, together=64))
    shares = [scores[name] for name in ("class_accuracy", "color_accuracy", "background_accuracy")]
    return ["bag, before training", *(bench.percent([s]) for s in shares), "0", "0", "0", "-"]


def named_words() -> str:
    """Return how well the words that the model knows are drawn."""
    judge = Judge.load(DATA / "judge.safetensors")
    job = diffusion.check(PersonalizeRecipe())
    tokenizer = job.tokenizers["ids"]
    known = [word for word in judge.class_names if len(tokenizer.word_ids(word)) == 1]
    held_out = {"bag", "three", "sneaker", "seven"}
    words = [word for word in known if word not in held_out]
    colors, backgrounds = judge.color_names, judge.background_names
    pairs = differing_pairs(judge)
    draws = np.random.default_rng(0)
    prompts, expected = [], []
    for word in words:
        for _ in range(_PICTURES_PER_WORD):
            color, background = pairs[draws.integers(len(pairs))]
            prompts.append(
                f"a photo of a {colors[color]} {word} on a {backgrounds[background]} background"
            )
            expected.append((judge.class_names.index(word), color, background))
    ids = {"ids": np.concatenate([job.ids(text)["ids"] for text in (*prompts, "")])}
    runtime = diffusion.open_runtime(job, Parameters(job.start), ids)
    verdict = judge.predict(draw(job, runtime, job.start, prompts, together=64))
    wanted = np.array(expected)
    found = (verdict.class_index, verdict.color_index, verdict.background_index)
    shares = [float((column == wanted[:, i]).mean()) for i, column in enumerate(found)]
    return (
        f"Named words, text to image ({len(words)} words x {_PICTURES_PER_WORD} pictures): "
        + ", ".join(
            f"{name} {100 * share:.0f} %"
            for name, share in zip(("class", "color", "background"), shares, strict=True)
        )
        + "."
    )


def overhead() -> str:
    """Return the time of a zo step over that of its forwards through the stock modules."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    recipe = replace(PersonalizeRecipe(), threads=1)
    job = diffusion.check(recipe)
    photos, texts = encoding.load_job_photos(job)
    cache = encoding.encode_photos(job, photos, texts)
    zo = TokenSteps.of(job, cache)
    text: Any = CLIPTextModel.from_pretrained(job.model.path / "text_encoder").float().eval()
    unet: Any = UNet2DConditionModel.from_pretrained(job.model.path / "unet").float().eval()

    def bare(number: int) -> None:
        batch = zo.task.batch(Key(0, number))
        with torch.no_grad():
            ids = torch.from_numpy(np.maximum(batch["ids"], 0))
            hidden = text(ids).last_hidden_state
            unet(torch.from_numpy(batch["latents"]), torch.from_numpy(batch["timesteps"]), hidden)

    steps: list[float] = []
    forwards: list[float] = []
    for number in range(_TIMED_STEPS):
        for call, times in ((zo.take, steps), (bare, forwards)):
            start = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - start)
    ratio = statistics.median(steps) / (zo.step_forwards * statistics.median(forwards))
    return (
        f"Overhead: a zo step of {zo.step_forwards} single-sample forwards takes {ratio:.2f} times "
        f"{zo.step_forwards} bare forwards of the stock text encoder and UNet (medians of "
        f"{_TIMED_STEPS}, interleaved in one process)."
    )
