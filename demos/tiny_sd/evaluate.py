"""Measure what the shipped tiny Stable Diffusion paints, as the judge sees it.

Run it from the repository: `python demos/tiny_sd/evaluate.py --data ../shared/data`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from edge_train.tasks.personalize.judge import Judge, Verdict
from mixes import Mix
from model_recipes import RECIPES, Recipe
from pictures import (
    ANYTHING,
    BACKGROUNDS,
    COLORS,
    SLOT,
    Pictures,
    draw_looks,
    sentence,
    to_bytes,
)
from training import keyed

DATA = Path(__file__).resolve().parents[2] / "edge_train" / "data"
SAMPLING_STEPS = 20
GUIDANCE = 3.0
BATCH = 32  # pictures sampled at a time
REAL_PICTURES = 128  # real test pictures judged, per picture painted for a class word


@dataclass(frozen=True)
class Score:
    """Shares of right answers, each in [0, 1]."""

    class_share: float
    color_share: float
    background_share: float

    def __str__(self) -> str:
        return (
            f"class {self.class_share:.1%}, color {self.color_share:.1%}, "
            f"background {self.background_share:.1%}"
        )


def sample(pipeline: StableDiffusionPipeline, captions: list[str], seed: int) -> np.ndarray:
    """Paint one picture a caption with DDIM; returns (n, 32, 32, 3) uint8."""
    parts = []
    for start in range(0, len(captions), BATCH):
        painted = pipeline(
            captions[start : start + BATCH],
            num_inference_steps=SAMPLING_STEPS,
            guidance_scale=GUIDANCE,
            generator=keyed(seed, "sample", start),
            output_type="np",
        ).images
        parts.append((painted * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def right_answers(verdict: Verdict, *truths: Tensor) -> np.ndarray:
    """Return (3, n) bool: whether class, color and background agree with three (n,) truths."""
    answers = (verdict.class_index, verdict.color_index, verdict.background_index)
    return np.stack([a == t.numpy() for a, t in zip(answers, truths, strict=True)])


def score_pictures(judge: Judge, images: np.ndarray, truth: Pictures) -> Score:
    """Return the judge's score on real or restored pictures."""
    right = right_answers(judge.predict(images), truth.label, truth.color, truth.background)
    return Score(*right.mean(axis=1).tolist())


def score_words(
    pipeline: StableDiffusionPipeline, judge: Judge, mix: Mix, count: int, seed: int
) -> list[tuple[str, object]]:
    """Paint `a photo of a {color} {noun} on a {background} background` and judge it.

    Every named class is painted `count` times and the words SLOT and ANYTHING 4 times as often,
    all in drawn colors. Returns rows of (what, result).
    """
    nouns = np.array([*mix.named * count, *[SLOT] * (4 * count), *[ANYTHING] * (4 * count)])
    color, background = draw_looks(len(nouns), keyed(seed, "evaluate-looks", 0))
    color_names, background_names = tuple(COLORS), tuple(BACKGROUNDS)
    captions = [
        sentence(noun, color_names[c], background_names[b], False, "a photo of a")
        for noun, c, b in zip(nouns.tolist(), color.tolist(), background.tolist(), strict=True)
    ]
    verdict = judge.predict(sample(pipeline, captions, seed))
    wanted = torch.tensor(
        [mix.classes.index(n) if n in mix.classes else -1 for n in nouns.tolist()]
    )
    right = right_answers(verdict, wanted, color, background)

    named = Score(*right[:, wanted.numpy() >= 0].mean(axis=1).tolist())
    each = ", ".join(f"{noun} {right[0, nouns == noun].mean():.0%}" for noun in mix.named)
    rows: list[tuple[str, object]] = [
        (f"**text to image, {len(mix.named)} named classes x {count}**", f"**{named}**"),
        ("class, by word", each),
    ]
    for noun in (SLOT, ANYTHING):
        chosen = nouns == noun
        seen = [
            f"{name} {(verdict.class_index[chosen] == mix.classes.index(name)).mean():.1%}"
            for name in mix.unnamed + mix.held_out
        ]
        looks = "color {:.1%}, background {:.1%}".format(*right[1:, chosen].mean(axis=1))
        rows.append((f"`{noun}`, {chosen.sum()} pictures", f"seen as {', '.join(seen)}; {looks}"))
    return rows


def evaluate(folder: Path, data: Path, count: int, seed: int, recipe: Recipe) -> list[str]:
    """Measure the pipeline and the judge in `folder`; returns a Markdown table, line by line.

    Args:
      folder: holds the pipeline's folder, named as its recipe, and `judge.safetensors`.
      data: holds the test pictures.
      count: pictures painted per class word.
    """
    judge = Judge.load(folder / "judge.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder / recipe.name, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)

    mix = recipe.mix
    test = mix.load(data, "test")
    everything = mix.compose(test, REAL_PICTURES * count, keyed(seed, "evaluate-all", 0))
    named = mix.compose(
        test.without(mix.held_out + mix.unnamed),
        REAL_PICTURES * count,
        keyed(seed, "evaluate-named", 0),
    )
    named = named.pick(~named.small)
    with torch.no_grad():
        latent = pipeline.vae.encode(named.pixels).latent_dist.mean
        restored = to_bytes(pipeline.vae.decode(latent).sample)
    rows = [
        ("what", "result"),
        ("---", "---"),
        (
            f"judge on {len(everything.label):,} real test pictures, "
            f"all {len(mix.classes)} classes",
            score_pictures(judge, everything.bytes(), everything),
        ),
        (
            f"judge on {len(named.label):,} real pictures of the named classes, none small",
            score_pictures(judge, named.bytes(), named),
        ),
        ("the same pictures through the VAE", score_pictures(judge, restored, named)),
        *score_words(pipeline, judge, mix, count, seed),
    ]
    return [f"| {what} | {result} |" for what, result in rows]


def main() -> int:
    """Print the report; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DATA)
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="tiny_sd")
    parser.add_argument("--data", type=Path, default=DATA.parents[2] / "shared" / "data")
    parser.add_argument("--count", type=int, default=16, help="pictures per word")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe]
    rows = evaluate(options.folder, options.data, options.count, options.seed, recipe)
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
