"""`edge-train bench sd15`: memory and seconds of the full Stable Diffusion 1.5 architecture.

The weights are random: they cost exactly what real ones cost, and say nothing of quality.
"""

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.formats.embedded import DATA
from edge_train.units import format_bytes

# As little as can be beside the three steps that are measured.
_RECIPE = """
class_word = "thing"
steps = 3
samples = 1
threads = 1
flips = false
evaluation_samples = 1
evaluate_every = 3
preview_steps = 1
"""
_HEAD = ("method", "peak in training", "peak with pictures", "seconds per step", "activations")
_CELLS = (
    ("zo, int8", ("--method", "zo", "--quant", "int8", "--epsilon", "0.1")),
    ("backprop with recomputation, int8", ("--method", "backprop", "--quant", "int8")),
    ("LoRA of rank 8, exact, int8", ("--trainable", "lora", "--rank", "8", "--quant", "int8")),
    (
        "LoRA of rank 8, exact, int8, lean",
        ("--trainable", "lora", "--rank", "8", "--quant", "int8", "--lean"),
    ),
)


def main(out: Path, seeds: int) -> str:
    """Run three steps of each method at 512 px in fresh processes; return a Markdown table."""
    model = out / "sd15-random"
    if not (model / "model_index.json").is_file():
        make_model(model)
    recipe = out / "sd15.toml"
    recipe.write_text(_RECIPE)
    rows = []
    for name, options in _CELLS:
        reports = [
            bench.run(
                out / f"sd15-{name.replace(', ', '-').replace(' ', '-')}-seed{seed}",
                str(DATA / "photos" / "bag"),
                *("--recipe", str(recipe), "--model", str(model), "--seed", str(seed), *options),
            )
            for seed in range(seeds)
        ]
        rows.append(
            [
                name,
                format_bytes(max(report["training_peak_bytes"] for report in reports)),
                format_bytes(max(report["measured_peak_bytes"] for report in reports)),
                f"{statistics.median(r['seconds_per_step'] for r in reports):.1f}",
                reports[0]["dtype"],
            ]
        )
    return bench.table(_HEAD, rows)


def make_model(folder: Path) -> None:
    """Write a Stable Diffusion 1.5 folder with random float16 weights, about 2.1 GB."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = partial / "tokenizer"
    shutil.copytree(DATA / "tiny_sd" / "tokenizer", tokenizer)
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 77}))
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
    )
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(partial / "scheduler")
    parts: dict[str, Callable[[], Any]] = {
        "text_encoder": lambda: CLIPTextModel(text),
        "unet": lambda: UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ),
        "vae": lambda: AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, make in parts.items():
            make().half().save_pretrained(partial / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (partial / "model_index.json").write_text(json.dumps(index))
    partial.rename(folder)
