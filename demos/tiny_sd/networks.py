"""The parts of the tiny Stable Diffusion: tokenizer, text encoder, VAE, UNet and noise schedule."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
CAPTION_TOKENS = 20


@dataclass(frozen=True)
class Sizes:
    """How large text encoder and UNet are.

    `text_width` is what a token has, `text_inner` the width inside of a feed-forward layer;
    `channels` are the UNet's, level by level, of `unet_layers` blocks each.
    """

    text_width: int
    text_layers: int
    text_heads: int
    text_inner: int
    channels: tuple[int, ...]
    unet_layers: int


TINY = Sizes(
    text_width=128,
    text_layers=2,
    text_heads=4,
    text_inner=512,
    channels=(64, 128),
    unet_layers=1,
)
# Tokens as wide as those of Stable Diffusion 1.x, and twice as many blocks a level.
WIDE = Sizes(
    text_width=768,
    text_layers=2,
    text_heads=12,
    text_inner=1536,
    channels=(64, 128),
    unet_layers=2,
)


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Learn byte-pair merges until every word is one token.

    Each round merges the most frequent pair of neighbours; ties go to the pair first in the
    alphabet. The last letter of a word carries `</w>`, as in CLIP.

    >>> learn_merges(("on", "one"))
    [('o', 'n'), ('o', 'n</w>'), ('on', 'e</w>')]
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while any(len(pieces) > 1 for pieces in spelled):
        pairs = Counter(pair for pieces in spelled for pair in pairwise(pieces))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for pieces in spelled:
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == best:
                    pieces[at : at + 2] = ["".join(best)]
                at += 1
    return merges


def write_tokenizer(words: tuple[str, ...], folder: Path) -> CLIPTokenizer:
    """Write a CLIP tokenizer that knows `words` as single tokens and spells every other text."""
    letters = sorted(ByteLevel.alphabet())  # one visible letter for each of the 256 bytes
    merges = learn_merges(words)
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CAPTION_TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def encode_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return (n, 20) int64 token ids, padded and cut as the stock pipeline does."""
    return tokenizer(
        captions,
        padding="max_length",
        max_length=CAPTION_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def make_vae() -> AutoencoderKL:
    """Return the VAE, 0.68 M weights: (n, 3, 32, 32) to (n, 4, 8, 8) and back."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
    )


def make_text_encoder(tokenizer: CLIPTokenizer, sizes: Sizes) -> CLIPTextModel:
    """Return the text encoder; its token ids agree with the tokenizer. TINY: 0.48 M weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_width,
            projection_dim=sizes.text_width,
            intermediate_size=sizes.text_inner,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
            max_position_embeddings=CAPTION_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Return the UNet for latents of (n, 4, 8, 8). TINY: 4.28 M weights."""
    levels = len(sizes.channels)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=sizes.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=sizes.unet_layers,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule with DDIM sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def read_text(model: CLIPTextModel, ids: Tensor, nouns: Tensor, slot_id: int) -> Tensor:
    """Return the hidden states of captions whose slot word is shifted by a vector.

    With zero `nouns` this equals `model(ids).last_hidden_state`.

    Args:
      ids: (n, length) token ids.
      nouns: (n, width) added to the embedding of every token `slot_id`.

    Returns:
      (n, length, width).
    """
    words = model.embeddings.token_embedding(ids)  # (n, length, width)
    words = words + (ids == slot_id)[:, :, None] * nouns[:, None]
    length = ids.shape[1]
    mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
    hidden = model.encoder(
        inputs_embeds=model.embeddings(inputs_embeds=words), attention_mask=mask
    ).last_hidden_state
    return model.final_layer_norm(hidden)


class Painter(nn.Module):
    """What the last stage trains: text encoder, UNet, and a map from shape features to nouns."""

    def __init__(self, tokenizer: CLIPTokenizer, features: int, sizes: Sizes) -> None:
        super().__init__()
        self.text_encoder = make_text_encoder(tokenizer, sizes)
        self.unet = make_unet(sizes)
        self.noun = nn.Linear(
            features, sizes.text_width, bias=False
        )  # training only; never shipped
