"""Pretrain a small Stable Diffusion: by default the one that edge-train ships, in about an hour.

Run it from the repository: `python demos/tiny_sd/pretrain.py --data ../shared/data`. Others, such
as `--recipe wide_clothes` with tokens of 768 numbers, are made the same way and not shipped.

Stages: tokenizer, VAE, judge, text encoder with UNet, export, measurement. A stage continues from
its last checkpoint in the work folder, so the command can be stopped and typed again at any time:
it ends with the same weights, bit for bit, on the same processor with the same torch.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from edge_train.memory.processor import multiplies_bfloat16
from evaluate import GUIDANCE, SAMPLING_STEPS, evaluate
from judge_training import train_judge, write_judge
from model_recipes import RECIPES, Recipe, quick
from networks import Painter, write_tokenizer
from pictures import BACKGROUNDS, COLORS, Grey
from shipping import write_card, write_photos, write_pipeline
from training import OtherPlan, Plan
from unet_training import FEATURES, POOL_STEPS, train_painter
from vae_training import VaeReport, train_vae

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "edge_train" / "data"
SEED = 1
STATES = 4  # of every weight in a checkpoint: itself, its average and two moments
POOLED_BYTES = 4 * 8 * 8 * 4 + 33  # of one picture: its latent, and five facts


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="tiny_sd")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--out", type=Path, help="default: the package's data; not shipped: out in the work folder"
    )
    parser.add_argument(
        "--work", type=Path, help="checkpoints; default: pretrain-work/ and the recipe's name"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="seconds a stage, to test the script")
    return parser.parse_args()


def count_weights(*networks: nn.Module) -> int:
    """Return how many weights the networks have together."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def stage_row(name: str, plan: Plan, seconds: float) -> str:
    """Return one row of the model card's table of stages."""
    return f"| {name} | {plan.steps:,} x {plan.batch} | {seconds:,.0f} |"


def text_type(recipe: Recipe) -> torch.dtype:
    """Return what the text encoder multiplies in on this processor.

    One without instructions for bfloat16, which imitates it, was 24 times as fast in float32.
    """
    return recipe.text_type if multiplies_bfloat16() else torch.float32


def processor(recipe: Recipe) -> str:
    """Return which processors give the same bits as this one."""
    capability = torch.backends.cpu.get_cpu_capability()
    multiplies = str(text_type(recipe)).removeprefix("torch.")
    return (
        f"Same bits again: torch {torch.__version__}, kernels {capability}, "
        f"text encoder in {multiplies}, {torch.get_num_threads()} thread(s); "
        "other processors round sums otherwise."
    )


def expected(recipe: Recipe, tokenizer: CLIPTokenizer) -> str:
    """Return the minutes and bytes of a recipe, before anything is trained."""
    painter = count_weights(Painter(tokenizer, FEATURES, recipe.sizes))
    plans = recipe.plans
    pools = sum(-(-plan.steps // POOL_STEPS) for plan in plans.painter.values())
    disk_bytes = len(plans.painter) * STATES * 4 * painter + pools * plans.pool * POOLED_BYTES
    return (
        f"{recipe.name}: {painter:,} weights of text encoder and UNet; about "
        f"{recipe.core_minutes} minutes of one AVX-512 core with bfloat16; "
        f"{disk_bytes / 1e6:,.0f} MB of checkpoints and latents in the work folder, "
        f"{2 * painter / 1e6:,.0f} MB of result. {processor(recipe)}"
    )


def claim(work: Path, recipe: Recipe) -> None:
    """Make a work folder, or go on in the one of the same recipe.

    Raises:
      OtherPlan: another recipe began it.
    """
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "recipe.txt"
    words = f"{recipe.name}: {recipe.sizes}, {recipe.text_type}, {recipe.plans}\n"
    if not mark.exists():
        mark.write_text(words, "utf-8")
    if mark.read_text("utf-8") != words:
        raise OtherPlan(f"{work} was begun with another recipe; use another --work.")


def vae_and_judge(
    recipe: Recipe, train: Grey, test: Grey, work: Path, out: Path
) -> tuple[AutoencoderKL, list[str], VaeReport | None]:
    """Train the VAE and the judge, or take those that are shipped; write the judge.

    Returns:
      The VAE, rows of the card's table of stages, and the VAE's report where it was trained.
    """
    plans = recipe.plans
    if not plans.vae:
        shutil.copyfile(SHIPPED / "judge.safetensors", out / "judge.safetensors")
        vae = AutoencoderKL.from_pretrained(SHIPPED / "tiny_sd" / "vae", torch_dtype=torch.float32)
        return vae.eval().requires_grad_(False), [], None
    mix = recipe.mix
    shown = train.without(mix.held_out)
    vae, report = train_vae(mix, shown, test, plans.vae, plans.tested, SEED, work)
    print(report, flush=True)
    judge, judge_report = train_judge(mix, train, test, plans.judge, plans.tested, SEED, work)
    print(judge_report, flush=True)
    write_judge(judge, mix.classes, out / "judge.safetensors")
    rows = [
        stage_row(name, plan, seconds)
        for (name, plan), seconds in zip(plans.vae.items(), report.seconds, strict=True)
    ]
    return vae, [*rows, stage_row("judge", plans.judge, judge_report.seconds)], report


def origin(report: VaeReport | None) -> str:
    """Return where VAE and judge come from, for the card."""
    if report is None:
        return "VAE and judge are those of the embedded model."
    return (
        f"VAE: PSNR {report.psnr_db:.1f} dB on test pictures of shown classes, "
        f"{report.held_out_psnr_db:.1f} dB on those held out."
    )


def make(recipe: Recipe, data: Path, work: Path, out: Path) -> None:
    """Run all stages; see the module.

    Raises:
      FileNotFoundError: a data set is missing.
      OtherPlan: the work folder is another recipe's.
    """
    mix = recipe.mix
    train, test = mix.load(data, "train"), mix.load(data, "test")
    claim(work, recipe)
    out.mkdir(parents=True, exist_ok=True)
    plans = recipe.plans
    tokenizer = write_tokenizer(mix.vocabulary, work / "tokenizer")
    print(expected(recipe, tokenizer), flush=True)
    vae, rows, vae_report = vae_and_judge(recipe, train, test, work, out)
    if recipe.shipped:
        write_photos(test, SEED, out / "photos")
    painter, painter_seconds = train_painter(
        mix,
        tokenizer,
        vae,
        train.without(mix.held_out),
        plans.painter,
        SEED,
        work,
        plans.compiled,
        recipe.sizes,
        text_type(recipe),
        plans.pool,
    )
    rows += [
        stage_row(f"text encoder and UNet, {name}", plan, seconds)
        for (name, plan), seconds in zip(plans.painter.items(), painter_seconds, strict=True)
    ]
    facts = {
        "name": recipe.name,
        "text_width": recipe.sizes.text_width,
        "weights": count_weights(vae, painter.text_encoder, painter.unet),
        "named": ", ".join(mix.named),
        "colors": ", ".join(COLORS),
        "backgrounds": ", ".join(BACKGROUNDS),
        "unnamed": "`, `".join(mix.unnamed),
        "held_out": "`, `".join(mix.held_out),
        "command": "python demos/tiny_sd/pretrain.py"
        + ("" if recipe.shipped else f" --recipe {recipe.name}"),
        "origin": origin(vae_report),
        "data": mix.data,
        "stages": "\n".join(rows),
        "processor": processor(recipe),
        "psnr": vae_report.psnr_db if vae_report else 0.0,
        "held_out_psnr": vae_report.held_out_psnr_db if vae_report else 0.0,
        "sampling_steps": SAMPLING_STEPS,
        "guidance": GUIDANCE,
    }
    folder = out / recipe.name
    write_pipeline(painter, vae, mix.vocabulary, folder)
    measured = "\n".join(evaluate(out, data, plans.samples, SEED, recipe))
    print(measured, flush=True)
    write_card(recipe.card, {**facts, "measured": measured}, folder)


def main() -> int:
    """Make what the command line names; see the module."""
    options = parse()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe]
    if options.quick:
        recipe = replace(recipe, plans=quick(recipe.plans))
    work = options.work or Path("pretrain-work") / recipe.name
    out = options.out or (SHIPPED if recipe.shipped else work / "out")
    if not recipe.shipped and out.resolve() == SHIPPED:
        print(f"{recipe.name} is not shipped; use another --out.", file=sys.stderr)
        return 2
    try:
        make(recipe, options.data, work, out)
    except (FileNotFoundError, OtherPlan) as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
