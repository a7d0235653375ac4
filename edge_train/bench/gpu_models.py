"""Models of random weights that `bench gpu` measures with: Stable Diffusion 1.5 and XL, a 7B.

Written on the card where there is one, which takes seconds; the numbers mean nothing and cost what
real ones do. `tiny` is the same code at a size for a processor.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train.bench.llama_7b import SEVEN_B, Shape, write_model
from edge_train.formats.embedded import DATA

_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77}
_TINY_TEXT = {
    "vocab_size": 639,
    "max_position_embeddings": 20,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_TEXT_OF: Mapping[str, tuple[dict[str, Any], ...]] = {
    "sd15": (
        {
            **_TEXT,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
        },
    ),
    "sdxl": (
        {
            **_TEXT,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
        },
        {
            **_TEXT,
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "hidden_act": "gelu",
            "projection_dim": 1280,
        },
    ),
}
_TINY_TEXT_OF = {"sd15": (_TINY_TEXT,), "sdxl": (_TINY_TEXT, {**_TINY_TEXT, "projection_dim": 32})}
_UNET_OF: Mapping[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
_TINY_UNET_OF: Mapping[str, dict[str, Any]] = {
    "sd15": {**_TINY_UNET, "cross_attention_dim": 32},
    "sdxl": {
        **_TINY_UNET,
        "cross_attention_dim": 64,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
_TINY_VAE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 32,
}
LLAMA = {"full": replace(SEVEN_B, layers=4), "tiny": Shape(64, 128, 2, 4, 600)}


def write_diffusion(folder: Path, family: str, size: str, device: str) -> None:
    """Write a Stable Diffusion folder with random weights, in float16 where it is full-sized.

    Args:
      family: `sd15` or `sdxl`.
      size: `full` or `tiny`.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    full, xl = size == "full", family == "sdxl"
    texts = (_TEXT_OF if full else _TINY_TEXT_OF)[family]
    unet = (_UNET_OF if full else _TINY_UNET_OF)[family]
    vae: dict[str, Any] = {**(_VAE if full else _TINY_VAE), "force_upcast": xl}
    vae["scaling_factor"] = 0.13025 if xl else 0.18215
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    scheduler: Any = DDIMScheduler(**_SCHEDULER)
    scheduler.save_pretrained(partial / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "_diffusers_version": "0.32.0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    with torch.device("meta"):
        made: dict[str, Any] = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
        }
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=False)):
            last = "" if number == 0 else f"_{number + 1}"
            made[f"text_encoder{last}"] = kind(CLIPTextConfig(**text))
            index[f"text_encoder{last}"] = ["transformers", kind.__name__]
            index[f"tokenizer{last}"] = ["transformers", "CLIPTokenizer"]
            _write_tokenizer(partial / f"tokenizer{last}", text["max_position_embeddings"])
    for name, network in made.items():
        network = network.half() if full else network
        _fill(network.to_empty(device=device))
        network.to("cpu").save_pretrained(partial / name)
    (partial / "model_index.json").write_text(json.dumps(index))
    partial.rename(folder)


def _fill(network: Any) -> None:
    """Give a network random weights that keep the size of activations, and its position numbers."""
    import torch

    generator = torch.Generator(next(network.parameters()).device).manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                spread = (value.numel() / value.shape[0]) ** -0.5
                value.normal_(0, spread, generator=generator)
            else:
                value.fill_(float("norm" in name and name.endswith("weight")))
        for name, value in network.named_buffers():
            if name.endswith("position_ids"):
                value.copy_(torch.arange(value.shape[-1])[None])


def _write_tokenizer(folder: Path, length: int) -> None:
    shutil.copytree(DATA / "tiny_sd" / "tokenizer", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**config, "model_max_length": length})
    )


def made(words: list[str]) -> None:
    """Write one model: KIND FOLDER SIZE DEVICE; nothing where it is there already."""
    kind, folder, size, device = words[0], Path(words[1]), words[2], words[3]
    if kind != "llama":
        if not (folder / "model_index.json").is_file():
            write_diffusion(folder, kind, size, device)
        return
    if not (folder / "model.safetensors.index.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text = folder / "text.txt"
        text.write_text("the cat sat on the mat and the dog sat on the cat\n" * 400)
        write_model(folder, text, LLAMA[size])


if __name__ == "__main__":
    made(sys.argv[1:])
