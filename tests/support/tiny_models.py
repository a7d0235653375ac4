"""Tiny Stable Diffusion folders with random weights, in the layout diffusers really writes."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

Family = Literal["sd1", "sd2", "sdxl"]

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "photo", "of", "dog", "thing")
PROMPT_TOKENS = 16
_LETTERS = sorted(ByteLevel.alphabet())  # one visible letter for each of the 256 bytes
_TEXT_WIDTH = 32
_WIDTHS = (32, 64)  # UNet channels of the two levels


def _merges() -> list[tuple[str, str]]:
    pairs: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pairs[pieces[0], pieces[1]] = None
            pieces[:2] = [pieces[0] + pieces[1]]
    return list(pairs)


def vocabulary() -> dict[str, int]:
    """Return token -> id of every tiny tokenizer; as in CLIP, the end of text is the last id."""
    tokens = _LETTERS + [letter + "</w>" for letter in _LETTERS]
    tokens += dict.fromkeys("".join(pair) for pair in _merges())
    return {token: index for index, token in enumerate([*tokens, START, END])}


def prompt_ids(*words: str | int, pad: int | None = None) -> list[int]:
    """Return ids of a padded prompt; an integer stands for itself (-1: the trained token).

    >>> len(prompt_ids("a", "photo", "of", -1))
    16
    """
    ids = vocabulary()
    inner = [word if isinstance(word, int) else ids[word + "</w>"] for word in words]
    row = [ids[START], *inner, ids[END]]
    return row + [ids[END] if pad is None else pad] * (PROMPT_TOKENS - len(row))


def make_tiny_model(
    folder: Path,
    family: Family = "sd1",
    *,
    dtype: torch.dtype = torch.float32,
    legacy_end: bool = False,
    widths: tuple[int, ...] = _WIDTHS,
    text_width: int = _TEXT_WIDTH,
) -> Path:
    """Write a tiny model of one family and return its folder.

    Args:
      folder: made if missing.
      dtype: of the stored weights.
      legacy_end: the text configs say end-of-text is id 2, as those of the published models do.
      widths: UNet channels, one level each; multiples of 8.
      text_width: hidden size of the (first) text encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20240607)
        _write_weights(folder, family, dtype, legacy_end, widths, text_width)
    _write_texts(folder, family)
    return folder


def _write_texts(folder: Path, family: Family) -> None:
    xl = family == "sdxl"
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if xl:
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        index["force_zeros_for_empty_prompt"] = True
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    _write_json(folder / "model_index.json", index)
    _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler(family))
    _write_tokenizer(folder / "tokenizer", pad=END if family != "sd2" else "!")
    if xl:
        _write_tokenizer(folder / "tokenizer_2", pad="!")


def _write_weights(
    folder: Path,
    family: Family,
    dtype: torch.dtype,
    legacy_end: bool,
    widths: tuple[int, ...],
    text_width: int,
) -> None:
    encoder = CLIPTextModel(_text_config(text_width, legacy_end))
    parts: dict[str, Any] = {"text_encoder": encoder}
    text_widths = [text_width]
    if family == "sdxl":
        text_widths.append(text_width + 16)
        config = _text_config(text_widths[1], legacy_end, hidden_act="gelu")
        parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    parts["unet"] = UNet2DConditionModel(**_unet(family, widths, text_widths))
    parts["vae"] = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        force_upcast=family == "sdxl",
    )
    for name, part in parts.items():
        if dtype != torch.float32:
            part.to(dtype)
        part.save_pretrained(folder / name)


def _scheduler(family: Family) -> dict[str, Any]:
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction" if family == "sd2" else "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }


def _text_config(width: int, legacy_end: bool, hidden_act: str = "quick_gelu") -> CLIPTextConfig:
    ids = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(ids),
        hidden_size=width,
        projection_dim=32,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS,
        hidden_act=hidden_act,
        initializer_factor=2.0,  # larger weights: a prompt must matter
        bos_token_id=0 if legacy_end else ids[START],
        eos_token_id=2 if legacy_end else ids[END],
        pad_token_id=1 if legacy_end else ids[END],
    )


def _unet(family: Family, widths: tuple[int, ...], text_widths: list[int]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": widths,
        "down_block_types": ("CrossAttnDownBlock2D",) * len(widths),
        "up_block_types": ("CrossAttnUpBlock2D",) * len(widths),
        "layers_per_block": 1,
        "cross_attention_dim": sum(text_widths),
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    if family != "sd1":
        options["use_linear_projection"] = True
    if family == "sdxl":
        options |= {
            "transformer_layers_per_block": 2,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
        }
    return options


def _write_tokenizer(folder: Path, pad: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", vocabulary())
    lines = ["#version: 0.2", *(" ".join(pair) for pair in _merges())]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    _write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": PROMPT_TOKENS}
    _write_json(folder / "tokenizer_config.json", {**settings, "do_lower_case": True, **special})


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
