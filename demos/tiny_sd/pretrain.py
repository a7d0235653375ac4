"""Pretrain the tiny Stable Diffusion that edge-train ships, on one CPU core in about an hour.

Run it from the repository: `python demos/tiny_sd/pretrain.py --data ../shared/data`.

Stages: tokenizer, VAE, judge, text encoder with UNet, export, measurement. A stage continues from
its last checkpoint in the work folder, so the command can be stopped and typed again at any time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from evaluate import GUIDANCE, SAMPLING_STEPS, evaluate
from judge_training import train_judge, write_judge
from networks import write_tokenizer
from pictures import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    NAMED,
    UNNAMED,
    VOCABULARY,
    load_grey,
)
from shipping import write_card, write_photos, write_pipeline
from training import Plan
from unet_training import POOL, train_painter
from vae_training import train_vae

ROOT = Path(__file__).resolve().parents[2]
SEED = 1


@dataclass(frozen=True)
class Plans:
    """The plan of every trained stage, and how much is drawn around them."""

    vae: dict[str, Plan]
    judge: Plan
    painter: dict[str, Plan]
    pool: int  # pictures encoded at a time
    compiled: bool
    tested: int  # pictures that measure the VAE, and the judge
    samples: int  # pictures a word that measure the pipeline


FULL = Plans(
    vae={
        "vae": Plan(steps=1150, batch=64, rate=2e-3, warmup=30, average=0.99, save_every=100),
        # Many small steps sharpen what few large ones left blurred: 23.8 dB after the first stage.
        "vae-fine": Plan(
            steps=1600, batch=32, rate=1.5e-3, warmup=30, average=0.99, save_every=200
        ),
    },
    judge=Plan(steps=1000, batch=128, rate=2e-3, warmup=30, average=0.99, save_every=200),
    painter={
        "painter": Plan(
            steps=2900, batch=64, rate=1.2e-3, warmup=100, average=0.998, save_every=100
        ),
        "painter-fine": Plan(
            steps=3300, batch=64, rate=1.2e-3, warmup=100, average=0.998, save_every=100
        ),
    },
    pool=POOL,
    compiled=True,
    tested=4096,
    samples=16,
)
QUICK = Plans(
    vae={
        "vae": Plan(steps=4, batch=8, rate=2e-3, warmup=2, average=0.9, save_every=2),
        "vae-fine": Plan(steps=2, batch=8, rate=1e-3, warmup=1, average=0.9, save_every=2),
    },
    judge=Plan(steps=4, batch=8, rate=2e-3, warmup=2, average=0.9, save_every=2),
    painter={
        "painter": Plan(steps=8, batch=4, rate=1e-3, warmup=2, average=0.9, save_every=2),
        "painter-fine": Plan(steps=2, batch=4, rate=1e-3, warmup=1, average=0.9, save_every=2),
    },
    pool=32,
    compiled=False,
    tested=32,
    samples=1,
)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "edge_train" / "data")
    parser.add_argument("--work", type=Path, default=Path("pretrain-work"), help="checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="seconds a stage, to test the script")
    return parser.parse_args()


def count_weights(*networks: nn.Module) -> int:
    """Return how many weights the networks have together."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def stage_row(name: str, plan: Plan, seconds: float) -> str:
    """Return one row of the model card's table of stages."""
    return f"| {name} | {plan.steps:,} x {plan.batch} | {seconds:,.0f} |"


def main() -> int:
    """Run all stages; see the module."""
    options = parse()
    torch.set_num_threads(options.threads)
    plans = QUICK if options.quick else FULL
    try:
        train, test = load_grey(options.data, "train"), load_grey(options.data, "test")
    except FileNotFoundError as missing:
        print(missing, file=sys.stderr)
        return 2
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = train.without(HELD_OUT)

    tokenizer = write_tokenizer(VOCABULARY, options.work / "tokenizer")
    vae, vae_report = train_vae(shown, test, plans.vae, plans.tested, SEED, options.work)
    print(vae_report, flush=True)
    judge, judge_report = train_judge(train, test, plans.judge, plans.tested, SEED, options.work)
    print(judge_report, flush=True)
    write_judge(judge, options.out / "judge.safetensors")
    write_photos(test, SEED, options.out / "photos")
    painter, painter_seconds = train_painter(
        tokenizer, vae, shown, plans.painter, SEED, options.work, plans.compiled, plans.pool
    )

    facts = {
        "weights": count_weights(vae, painter.text_encoder, painter.unet),
        "named": ", ".join(NAMED),
        "colors": ", ".join(COLORS),
        "backgrounds": ", ".join(BACKGROUNDS),
        "unnamed": "`, `".join(UNNAMED),
        "held_out": "`, `".join(HELD_OUT),
        "command": "python demos/tiny_sd/pretrain.py",
        "stages": "\n".join(
            (
                *(
                    stage_row(*row)
                    for row in zip(plans.vae, plans.vae.values(), vae_report.seconds, strict=True)
                ),
                stage_row("judge", plans.judge, judge_report.seconds),
                *(
                    stage_row(f"text encoder and UNet, {name}", plan, seconds)
                    for (name, plan), seconds in zip(
                        plans.painter.items(), painter_seconds, strict=True
                    )
                ),
            )
        ),
        "psnr": vae_report.psnr_db,
        "held_out_psnr": vae_report.held_out_psnr_db,
        "sampling_steps": SAMPLING_STEPS,
        "guidance": GUIDANCE,
    }
    folder = options.out / "tiny_sd"
    write_pipeline(painter, vae, folder)
    measured = "\n".join(evaluate(options.out, options.data, plans.samples, SEED))
    print(measured, flush=True)
    write_card({**facts, "measured": measured}, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
