"""Graphs of a Stable Diffusion without its weights: a training step, and the two halves of the VAE.

The networks are built on fake tensors, so exporting takes the memory of the graph, not of the
model; an initializer carries the name of its parameter and no value. Attention is exported as
com.microsoft.MultiHeadAttention, which never holds the attention matrix of all heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from edge_train.errors import InputError, ModelError
from edge_train.export.group_norms import join_scale_and_shift
from edge_train.export.model_weights import HALVES
from edge_train.export.quiet import quiet
from edge_train.export.shared_sample import share_sample
from edge_train.formats.diffusion_folder import ModelFolder

OPSET = 18
IR_VERSION = 10  # what onnxruntime-training 1.19.2 still reads
_BATCH = torch.export.Dim("batch")


def check_exporter() -> None:
    """Raise InputError if torch cannot write operators of other domains, as 2.8 was first to."""
    if not hasattr(torch.onnx, "ops") or not hasattr(torch.onnx.ops, "symbolic"):
        raise InputError(
            f"export needs torch 2.8 or later, found {torch.__version__}; `pip install -U torch`."
        )


def step_graph(model: ModelFolder, resolution: int) -> ir.Model:
    """Return the graph of `step.onnx` (see `formats/artifact.py`), its weights without values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = _Step(model)
        side = resolution // model.latent_scale
        latents = torch.zeros(2, model.latent_channels, side, side)
        inputs = {"latents": latents, "timesteps": torch.zeros(2, dtype=torch.int64)}
        inputs["target"] = latents.clone()
        for suffix, width in zip(("", "_2"), model.text_widths, strict=False):
            inputs[f"ids{suffix}"] = torch.zeros(2, model.prompt_tokens, dtype=torch.int64)
            inputs[f"rows{suffix}"] = torch.zeros(2, model.prompt_tokens, width)
            inputs[f"token{suffix}"] = torch.zeros(2, 2, width)
        if model.family == "sdxl":
            inputs["time_ids"] = torch.zeros(2, 6)
        graph = _export(network, inputs, ["loss", "prediction"])
    join_scale_and_shift(graph)
    share_sample(graph)
    RemoveUnusedNodesPass()(graph)
    return graph


def vae_graphs(model: ModelFolder, resolution: int) -> tuple[ir.Model, ir.Model]:
    """Return the graphs of `vae_encoder.onnx` and `vae_decoder.onnx`, weights without values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = _build_vae(model)
        side = resolution // model.latent_scale
        pixels = {"pixels": torch.zeros(2, 3, resolution, resolution)}
        latents = {"latents": torch.zeros(2, model.latent_channels, side, side)}
        encoder = _export(_Encoder(vae), pixels, ["mean", "deviation"])
        return encoder, _export(_Decoder(vae), latents, ["pixels"])


def _export(network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> ir.Model:
    """Return the optimized graph; initializers that are parameters have no value."""
    shapes: dict[str, dict[int, Any]] = {
        name: {0: _BATCH, 1: torch.export.Dim("vectors")} if name == "token" else {0: _BATCH}
        for name in inputs
    }
    if "token_2" in shapes:
        shapes["token_2"] = shapes["token"]
    with quiet():
        try:
            program = torch.onnx.export(
                network.eval().requires_grad_(False),
                kwargs={"inputs": dict(inputs)},
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={"inputs": shapes},
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"torch {torch.__version__} cannot write this model as a graph ({reason}); use a "
                "Stable Diffusion 1.x, 2.x or XL base model."
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        model: ir.Model = program.model
        names = dict(network.named_parameters()).keys()
        for value in model.graph.initializers.values():
            if value.name in names:
                value.const_value = None  # so that the optimizer leaves it alone
        optimizer.optimize_ir(model)
    model.ir_version = IR_VERSION
    return model


class _Step(nn.Module):
    """Text encoders, denoiser and the loss of every sample, as one network."""

    def __init__(self, model: ModelFolder) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.unet = UNet2DConditionModel.from_config(dict(model.configs["unet"]))
        self.unet.set_attn_processor(_FusedAttention())
        _split_gates(self.unet)
        self.text_encoder = _build_text_encoder(model, "text_encoder")
        if model.family == "sdxl":
            self.text_encoder_2 = _build_text_encoder(model, "text_encoder_2")

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output = self.unet(
            inputs["latents"], inputs["timesteps"], return_dict=False, **self._condition(inputs)
        )[0]
        error = output - inputs["target"]
        return error.square().flatten(1).mean(1), output

    def _condition(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Return what the denoiser is told of the prompts; XL takes both encoders' penultimate."""
        first = _encode(self.text_encoder, inputs, "")
        if "ids_2" not in inputs:
            return {"encoder_hidden_states": first.last_hidden_state}
        second = _encode(self.text_encoder_2, inputs, "_2")
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        added = {"text_embeds": second.text_embeds, "time_ids": inputs["time_ids"]}
        return {"encoder_hidden_states": hidden, "added_cond_kwargs": added}


def _encode(encoder: Any, inputs: dict[str, Tensor], suffix: str) -> Any:
    """Return the outputs of a text encoder whose token embedding is made of the graph's inputs."""
    ids, rows, token = (inputs[f"{name}{suffix}"] for name in ("ids", "rows", "token"))
    place = (-1 - ids).clamp_min(0)[..., None].expand_as(rows)
    embedded = torch.where((ids < 0)[..., None], token.gather(1, place), rows)
    hook = encoder.get_input_embeddings().register_forward_hook(lambda *_: embedded)
    positions = torch.arange(ids.shape[1])[None]
    output = encoder(ids, position_ids=positions, output_hidden_states=True)
    hook.remove()
    return output


class _Encoder(nn.Module):
    """Pictures to the mean and deviation of their latents."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        latents = self.vae.encode(inputs["pixels"]).latent_dist  # type: ignore[operator]
        return latents.mean, latents.std


class _Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        picture: Tensor = self.vae.decode(  # type: ignore[operator]
            inputs["latents"], return_dict=False
        )[0]
        return picture


def _build_vae(model: ModelFolder) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae: Any = AutoencoderKL.from_config(dict(model.configs["vae"]))
    vae.set_attn_processor(_FusedAttention())
    built: nn.Module = vae
    return built


def _build_text_encoder(model: ModelFolder, component: str) -> nn.Module:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import (
        CLIPAttention,
        CLIPTextModel,
        CLIPTextModelWithProjection,
    )

    kind = CLIPTextModelWithProjection if component == "text_encoder_2" else CLIPTextModel
    encoder: nn.Module = kind(CLIPTextConfig.from_dict(dict(model.configs[component])))
    for path, module in list(encoder.named_modules()):
        if isinstance(module, CLIPAttention):
            parent, _, name = path.rpartition(".")
            setattr(encoder.get_submodule(parent), name, _CausalAttention(module))
    return encoder


def _split_gates(network: nn.Module) -> None:
    """Replace every gated linear unit, so that nothing twice as wide as its output is made."""
    from diffusers.models.activations import GEGLU

    for path, module in list(network.named_modules()):
        if isinstance(module, GEGLU):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, _Gated(module.proj))


class _Gated(nn.Module):
    """value(x) * gelu(gate(x)); `value` and `gate` are the halves of one stored layer."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        inputs, outputs = whole.in_features, whole.out_features // 2
        self.proj = nn.ModuleDict(
            {half: nn.Linear(inputs, outputs, whole.bias is not None) for half in HALVES}
        )

    def forward(self, hidden: Tensor) -> Tensor:
        gate = self.proj["gate"](hidden)
        opened: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::Gelu", (gate,), {}, dtype=gate.dtype, shape=gate.shape, version=1
        )
        product: Tensor = self.proj["value"](hidden) * opened
        return product


class _FusedAttention:
    """Attention of diffusers' UNets and VAEs as one node."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        hidden = hidden_states
        if picture := hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
        text = hidden if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = attn.to_q(hidden), attn.to_k(text), attn.to_v(text)
        output: Tensor = attn.to_out[0](
            _attention(queries, keys, values, heads=attn.heads, scale=attn.scale)
        )
        if picture:
            output = output.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor if attn.rescale_output_factor != 1 else output


class _CausalAttention(nn.Module):
    """A CLIP text encoder's attention as one node."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj
        self._heads, self._scale = attention.num_heads, attention.scale

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        output = _attention(
            self.q_proj(hidden_states),
            self.k_proj(hidden_states),
            self.v_proj(hidden_states),
            heads=self._heads,
            scale=self._scale,
            unidirectional=1,
        )
        return self.out_proj(output), None


def _attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, heads: int, scale: float, **more: int
) -> Tensor:
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (queries, keys, values),
        {"num_heads": heads, "scale": float(scale), **more},
        dtype=queries.dtype,
        shape=queries.shape,
        version=1,
    )
