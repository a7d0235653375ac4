"""What diffusers' training scripts do in a step at the size of Stable Diffusion 1.5, by its API.

Written anew from the public functions of diffusers, peft and transformers, without accelerate: the
same parts stay in memory (the VAE encodes each photo in its step), the same tensors are trained,
activations are recomputed (`--gradient_checkpointing`), gradients clipped at 1.0, AdamW. bfloat16
is `--mixed_precision bf16`: frozen weights in bfloat16, trained ones in float32, autocast around
the passes.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_train.memory.measure import measure

_SIDE, _TOKENS = 512, 77
_RATE, _DECAY, _CLIP = 1e-4, 1e-2, 1.0


def lora(model: Path, steps: int, dtype: str, rank: int, device: str = "cpu") -> dict[str, Any]:
    """Take steps of a LoRA beside the U-Net's attentions; return what they cost."""
    import torch
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    parts = _Parts(model, dtype, device)
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


def textual_inversion(
    model: Path, steps: int, dtype: str, device: str = "cpu", side: int = _SIDE
) -> dict[str, Any]:
    """Take steps of a new word; the script trains the whole table and puts the old rows back."""
    import torch

    parts = _Parts(model, dtype, device, side)
    words = parts.text.config.vocab_size
    parts.text.resize_token_embeddings(words + 1)
    table = parts.text.get_input_embeddings().weight
    table.requires_grad_(True)
    parts.text.gradient_checkpointing_enable()
    parts.text.train()
    before = table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=_RATE, weight_decay=_DECAY)
    parts.ids[0, 5] = words

    def update() -> None:
        optimizer.step()
        with torch.no_grad():
            table[:words] = before[:words]

    return _taken(parts, optimizer, update, steps)


class _Parts:
    """The parts of a pipeline as the scripts hold them: frozen, the U-Net recomputing."""

    def __init__(self, model: Path, dtype: str, device: str = "cpu", side: int = _SIDE) -> None:
        import torch
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.dtype, self.device, self.side = getattr(torch, dtype), device, side
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
        most = self.text.config
        length = min(_TOKENS, most.max_position_embeddings)
        self.ids = torch.randint(most.vocab_size, (1, length)).to(device)

    def _opened(self, kind: Any, model: Path, name: str) -> Any:
        import torch

        part = kind.from_pretrained(model, subfolder=name, torch_dtype=torch.float32)
        part.requires_grad_(False)
        return part.to(self.device, self.dtype)

    def loss(self) -> Any:
        """Return the loss of one photo, encoded and noised here."""
        import torch

        pixels = torch.rand(1, 3, self.side, self.side).to(self.device, self.dtype) * 2 - 1
        latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (1,)).to(self.device)
        noised = self.scheduler.add_noise(latents, noise, timesteps)
        hidden = self.text(self.ids, return_dict=False)[0]
        output = self.unet(noised, timesteps, hidden, return_dict=False)[0]
        return torch.nn.functional.mse_loss(output.float(), noise.float())


def _taken(parts: _Parts, optimizer: Any, update: Callable[[], None], steps: int) -> dict[str, Any]:
    """Return the most that this process held, and processor seconds of a step."""
    import torch

    mixed = parts.dtype != torch.float32
    kind = torch.device(parts.device).type
    seconds, walls = [], []
    for _ in range(steps):
        start, wall = time.process_time(), time.perf_counter()
        with torch.autocast(kind, torch.bfloat16, enabled=mixed):
            loss = parts.loss()
        loss.backward()
        update()
        optimizer.zero_grad(set_to_none=True)
        if kind == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.process_time() - start)
        walls.append(time.perf_counter() - wall)
    return {
        "peak_bytes": measure().peak_bytes,
        "step_seconds": min(seconds),
        "wall_seconds": statistics.median(walls),
        "activations": str(parts.dtype).removeprefix("torch."),
    }
