"""What diffusers' training scripts do in a step at the size of Stable Diffusion 1.5, by its API.

Written anew from the public functions of diffusers, peft and transformers, without accelerate: the
same parts stay in memory (the VAE encodes each photo in its step), the same tensors are trained,
activations are recomputed (`--gradient_checkpointing`), gradients clipped at 1.0, AdamW. bfloat16
is `--mixed_precision bf16`: frozen weights in bfloat16, trained ones in float32, autocast around
the passes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_train.memory.measure import measure

_SIDE, _TOKENS, _WORDS = 512, 77, 49408
_RATE, _DECAY, _CLIP = 1e-4, 1e-2, 1.0


def lora(model: Path, steps: int, dtype: str, rank: int) -> dict[str, Any]:
    """Take steps of a LoRA beside the U-Net's attentions; return what they cost."""
    import torch
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    parts = _Parts(model, dtype)
    parts.unet.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=rank,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    cast_training_params(parts.unet, dtype=torch.float32)
    trained = [parameter for parameter in parts.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_RATE, weight_decay=_DECAY)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()

    return _taken(parts, optimizer, update, steps)


def textual_inversion(model: Path, steps: int, dtype: str) -> dict[str, Any]:
    """Take steps of a new word; the script trains the whole table and puts the old rows back."""
    import torch

    parts = _Parts(model, dtype)
    parts.text.resize_token_embeddings(_WORDS + 1)
    table = parts.text.get_input_embeddings().weight
    table.requires_grad_(True)
    parts.text.gradient_checkpointing_enable()
    parts.text.train()
    before = table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=_RATE, weight_decay=_DECAY)
    parts.ids[0, 5] = _WORDS

    def update() -> None:
        optimizer.step()
        with torch.no_grad():
            table[:_WORDS] = before[:_WORDS]

    return _taken(parts, optimizer, update, steps)


class _Parts:
    """The parts of a pipeline as the scripts hold them: frozen, the U-Net recomputing."""

    def __init__(self, model: Path, dtype: str) -> None:
        import torch
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.dtype = getattr(torch, dtype)
        self.scheduler: Any = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
        kinds: dict[str, Any] = {
            "text_encoder": CLIPTextModel,
            "vae": AutoencoderKL,
            "unet": UNet2DConditionModel,
        }
        self.text, self.vae, self.unet = (
            self._opened(kind, model, name) for name, kind in kinds.items()
        )
        self.unet.enable_gradient_checkpointing()
        self.unet.train()
        self.ids = torch.randint(_WORDS, (1, _TOKENS))

    def _opened(self, kind: Any, model: Path, name: str) -> Any:
        import torch

        part = kind.from_pretrained(model, subfolder=name, torch_dtype=torch.float32)
        part.requires_grad_(False)
        return part.to(self.dtype)

    def loss(self) -> Any:
        """Return the loss of one photo, encoded and noised here."""
        import torch

        pixels = torch.rand(1, 3, _SIDE, _SIDE).to(self.dtype) * 2 - 1
        latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (1,))
        noised = self.scheduler.add_noise(latents, noise, timesteps)
        hidden = self.text(self.ids, return_dict=False)[0]
        output = self.unet(noised, timesteps, hidden, return_dict=False)[0]
        return torch.nn.functional.mse_loss(output.float(), noise.float())


def _taken(parts: _Parts, optimizer: Any, update: Callable[[], None], steps: int) -> dict[str, Any]:
    """Return the most that this process held, and processor seconds of a step."""
    import torch

    mixed = parts.dtype != torch.float32
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = parts.loss()
        loss.backward()
        update()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - start)
    return {
        "peak_bytes": measure().peak_bytes,
        "step_seconds": min(seconds),
        "activations": str(parts.dtype).removeprefix("torch."),
    }
