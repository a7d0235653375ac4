"""A LoRA of a Stable Diffusion as diffusers writes it, and what starts from one."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from samples import Sample

from edge_train.formats.adapter import Adapter, Target
from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE, for_diffusers
from edge_train.formats.tensor_store import to_safetensors

_SHA256 = "1" * 64
_LAYERS = "unet.mid_block.attentions.0.transformer_blocks.0.attn"
_SHAPES = {f"{_LAYERS}{n}.to_{p}.weight": (8, 8) for n in (1, 2) for p in "qk"}
_TARGETS = tuple(Target(f"{_LAYERS}1.to_{p}", 8, 8) for p in "qk")


def diffusion_samples() -> list[Sample]:
    """Return all of them."""
    adapter = Adapter("lora", 2, 4.0, _TARGETS)
    blocks = adapter.drawn(0)
    first = next(iter(blocks.values()))
    first.flat[0] = np.frombuffer(b"mark", np.float32)[0]  # where an attack finds it
    told = {"rank": "2", "alpha": "4", "rslora": "false", "base_model_sha256": _SHA256}
    made = to_safetensors(for_diffusers(adapter, blocks), told)
    return [Sample("adapter/diffusers", {DIFFUSERS_FILE: made}, (DIFFUSERS_FILE,), _read)]


def _read(folder: Path, work: Path) -> None:
    from edge_train.tasks.personalize.adapting import adapter_of
    from edge_train.tasks.personalize.recipe import PersonalizeRecipe

    recipe = PersonalizeRecipe(
        model="a/model", class_word="dog", trainable="lora", start=str(folder)
    )
    model = SimpleNamespace(sha256=lambda: _SHA256, text_encoders=("text_encoder",))
    adapter, blocks = adapter_of(recipe, model, _SHAPES)
    (work / "again").write_bytes(to_safetensors(for_diffusers(adapter, blocks), {}))
