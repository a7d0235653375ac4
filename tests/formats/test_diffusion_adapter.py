"""kohya's names of a LoRA land on the layers of A1111, ComfyUI and stable-diffusion.cpp.

Their rules are written down again here, from their sources (networks.py, comfy/lora.py, lora.hpp
and name_conversion.cpp); diffusers' own loader is asked in
tests/runtimes/test_adapted_diffusion.py.
"""

import json
import re

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.formats.adapter import Adapter, Target, names_of
from edge_train.formats.adapter_scales import KEY
from edge_train.formats.diffusion_adapter import (
    DIFFUSERS_FILE,
    attention_layers,
    for_diffusers,
    for_kohya,
    kohya_name,
    linear_layers,
    read_lora,
)
from edge_train.formats.tensor_store import to_safetensors

# Attention blocks of the published U-Nets: blocks down, layers in each, blocks up, layers in each.
SD15 = {"down": (0, 1, 2), "up": (1, 2, 3)}
XL = {"down": (1, 2), "up": (0, 1)}
# The same places in the original code, as its configuration files lay them out.
IN_ORIGINAL = {
    "sd1": {"input": (1, 2, 4, 5, 7, 8), "output": (3, 4, 5, 6, 7, 8, 9, 10, 11)},
    "sdxl": {"input": (4, 5, 7, 8), "output": (0, 1, 2, 3, 4, 5)},
}
INNER = "transformer_blocks.0.attn2.to_out.0"


def paths(geometry):
    down = [f"down_blocks.{b}.attentions.{j}" for b in geometry["down"] for j in range(2)]
    up = [f"up_blocks.{b}.attentions.{j}" for b in geometry["up"] for j in range(3)]
    return [f"unet.{place}.{INNER}" for place in (*down, "mid_block.attentions.0", *up)]


def original_modules(family):
    """Return the layers of the original U-Net, dots as underscores, as these programs list them."""
    numbers = IN_ORIGINAL[family]
    places = [f"input_blocks.{n}.1" for n in numbers["input"]] + ["middle_block.1"]
    places += [f"output_blocks.{n}.1" for n in numbers["output"]]
    return {f"diffusion_model.{place}.{INNER}".replace(".", "_") for place in places}


def by_a1111(name, family):
    """Return the module that A1111 and Forge put a name on."""
    if family == "sdxl":
        return name.replace("lora_unet", "diffusion_model")
    if found := re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_attentions_(\d+)_(.+)", name):
        block, layer = int(found[2]), int(found[3])
        if found[1] == "down":
            return f"diffusion_model_input_blocks_{1 + 3 * block + layer}_1_{found[4]}"
        return f"diffusion_model_output_blocks_{3 * block + layer}_1_{found[4]}"
    found = re.fullmatch(r"lora_unet_mid_block_attentions_(\d+)_(.+)", name)
    return f"diffusion_model_middle_block_{1 + 2 * int(found[1])}_{found[2]}"


def by_comfyui(name, family):
    """Return the same for ComfyUI, which lists both spellings of every layer."""
    listed = {
        module.replace("diffusion_model", "lora_unet"): module
        for module in original_modules(family)
    }
    geometry = SD15 if family == "sd1" else XL
    for path in paths(geometry):  # its table of diffusers' names
        spelled = "lora_unet_" + path.removeprefix("unet.").replace(".", "_")
        listed[spelled] = by_a1111(spelled, "sd1")
    return listed[name]


def by_stable_diffusion_cpp(name, family):
    """Return the same for stable-diffusion.cpp, which renames by tables of prefixes."""
    inner = name.removeprefix("lora_unet_")
    for block in range(4):
        for layer in range(3):
            for kind, start in (("down", 3 * block + layer + 1), ("up", 3 * block + layer)):
                side = "input" if kind == "down" else "output"
                before = f"{kind}_blocks_{block}_attentions_{layer}_"
                if inner.startswith(before):
                    inner = f"{side}_blocks_{start}_1_{inner.removeprefix(before)}"
    return "diffusion_model_" + inner.replace("mid_block_attentions_0_", "middle_block_1_")


@pytest.mark.parametrize("rule", [by_a1111, by_comfyui, by_stable_diffusion_cpp])
@pytest.mark.parametrize(("family", "geometry"), [("sd1", SD15), ("sdxl", XL)])
def test_every_name_lands_on_a_layer_of_its_own(rule, family, geometry):
    names = [kohya_name(path, family=family, layers_per_block=2) for path in paths(geometry)]
    assert {rule(name, family) for name in names} == original_modules(family)
    assert len(names) == len(original_modules(family))


def test_text_encoders_have_the_names_that_kohya_gives_them():
    layer = "encoder.layers.3.self_attn.out_proj"
    spelled = "text_model_encoder_layers_3_self_attn_out_proj"
    for family, component, start in (
        ("sd1", "text_encoder", "lora_te"),
        ("sd2", "text_encoder", "lora_te"),
        ("sdxl", "text_encoder", "lora_te1"),
        ("sdxl", "text_encoder_2", "lora_te2"),
    ):
        found = kohya_name(f"{component}.{layer}", family=family, layers_per_block=2)
        assert found == f"{start}_{spelled}"


@pytest.mark.parametrize("rslora", [False, True])
def test_both_files_hold_the_same_change(rslora):
    target = Target("unet.mid_block.attentions.0.proj_in", 6, 4)
    adapter = Adapter("lora", 3, 5.0, (target,), rslora)
    draw = np.random.default_rng(0)
    blocks = {n: draw.standard_normal(s, np.float32) for n, s in adapter.shapes().items()}
    first, second, _ = names_of(target.path)
    change = adapter.scale * blocks[second] @ blocks[first]
    kohya = for_kohya(adapter, blocks, family="sd1", layers_per_block=2)
    name = "lora_unet_mid_block_attentions_0_proj_in"
    # all of them multiply by alpha / rank, and take the rank from the first matrix
    scale = float(kohya[f"{name}.alpha"]) / len(kohya[f"{name}.lora_down.weight"])
    other = scale * kohya[f"{name}.lora_up.weight"] @ kohya[f"{name}.lora_down.weight"]
    np.testing.assert_allclose(other, change, rtol=1e-5, atol=1e-6)
    ours = for_diffusers(adapter, blocks)
    product = ours[f"{target.path}.lora.up.weight"] @ ours[f"{target.path}.lora.down.weight"]
    np.testing.assert_allclose(product, change, rtol=1e-5, atol=1e-6)


def test_attention_projections_are_found_and_nothing_else():
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    text = "text_encoder.text_model.encoder.layers.0"
    shapes = {
        f"{block}.attn1.to_q.weight": (8, 8),
        f"{block}.attn2.to_out.0.weight": (8, 8),
        f"{block}.attn2.to_out.0.bias": (8,),
        f"{block}.ff.net.2.weight": (8, 32),
        "unet.down_blocks.0.attentions.0.proj_in.weight": (8, 8, 1, 1),
        "unet.time_embedding.linear_1.weight": (8, 8),
        f"{text}.self_attn.q_proj.weight": (4, 4),
        f"{text}.mlp.fc1.weight": (8, 4),
    }
    known = linear_layers(shapes)
    assert len(known) == 5
    ends = [target.path.split(".")[-1] for target in attention_layers(known, ["unet"])]
    assert sorted(ends) == ["0", "to_q"]
    assert len(attention_layers(known, ["unet", "text_encoder"])) == 3


TARGET = Target("unet.mid_block.attentions.0.proj_in", 6, 4)
DOWN, UP = (f"{TARGET.path}.lora.{part}.weight" for part in ("down", "up"))
GOOD = {DOWN: np.ones((2, 4), np.float32), UP: np.ones((6, 2), np.float32)}


def test_a_file_of_another_program_is_read(tmp_path):
    peft = {
        name.replace("lora.down", "lora_A").replace("lora.up", "lora_B"): v.astype(np.float16)
        for name, v in GOOD.items()
    }
    (tmp_path / DIFFUSERS_FILE).write_bytes(to_safetensors(peft, {}))
    pairs, metadata = read_lora(tmp_path, [TARGET])
    assert metadata == {} and list(pairs) == [TARGET.path]
    assert pairs[TARGET.path][0].dtype == np.float32


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, "holds no tensors"),
        ({DOWN: GOOD[DOWN]}, "has matrices"),
        ({**GOOD, UP: np.ones((6, 3), np.float32)}, "has matrices"),
        ({**GOOD, DOWN: np.ones((2, 5), np.float32)}, "has 4 inputs and 6 outputs"),
        ({**GOOD, DOWN: np.full((2, 4), np.nan, np.float32)}, "not finite"),
        ({"lora_unet_x.lora_up.weight": GOOD[UP]}, "which is no LoRA of a layer of this model"),
        ({DOWN: np.ones((0, 4), np.float32), UP: np.ones((6, 0), np.float32)}, "has matrices"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_sentence(tmp_path, tensors, sentence):
    (tmp_path / DIFFUSERS_FILE).write_bytes(to_safetensors(tensors, {}))
    with pytest.raises(InputError, match=sentence):
        read_lora(tmp_path, [TARGET])


def test_a_file_cut_off_or_missing_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no LoRA in safetensors"):
        read_lora(tmp_path, [TARGET])
    whole = to_safetensors(GOOD, {})
    for length in (0, 7, 40, len(whole) - 1):
        (tmp_path / DIFFUSERS_FILE).write_bytes(whole[:length])
        with pytest.raises(InputError, match="no LoRA in safetensors"):
            read_lora(tmp_path, [TARGET])


def described(**config):
    """Return metadata as diffusers writes them, of a U-Net's LoRA."""
    return {KEY: json.dumps({f"unet.{name}": value for name, value in config.items()})}


@pytest.mark.parametrize(
    ("config", "alpha", "rslora", "scale"),
    [
        ({"lora_alpha": 8, "use_rslora": False}, "8.0", "false", 4.0),
        ({"lora_alpha": 4, "use_rslora": True}, "4.0", "true", 4 / 2**0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"proj_in": 1}}, "1.0", "false", 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"proj_out": 1}}, "8.0", "false", 4.0),
        ({"r": 2}, "8.0", "false", 4.0),  # as peft has it where nobody says
    ],
)
def test_the_scale_that_diffusers_says_is_in_the_second_matrix(
    tmp_path, config, alpha, rslora, scale
):
    (tmp_path / DIFFUSERS_FILE).write_bytes(to_safetensors(GOOD, described(**config)))
    pairs, metadata = read_lora(tmp_path, [TARGET])
    assert (metadata["alpha"], metadata["rslora"]) == (alpha, rslora)
    np.testing.assert_allclose(pairs[TARGET.path][1], scale * GOOD[UP], rtol=1e-6)
    np.testing.assert_array_equal(pairs[TARGET.path][0], GOOD[DOWN])


def test_layers_of_different_alphas_are_refused(tmp_path):
    other = Target("unet.mid_block.attentions.0.proj_out", 6, 4)
    tensors = {**GOOD, **{n.replace("proj_in", "proj_out"): v for n, v in GOOD.items()}}
    said = described(lora_alpha=8, alpha_pattern={"proj_out": 4})
    (tmp_path / DIFFUSERS_FILE).write_bytes(to_safetensors(tensors, said))
    with pytest.raises(InputError, match="its layers have alphas 4, 8, and one for all is trained"):
        read_lora(tmp_path, [TARGET, other])


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({KEY: "{"}, "is damaged; copy the LoRA again"),
        ({KEY: "[" * 100_000}, "is damaged; copy the LoRA again"),
        ({KEY: "[]"}, "is damaged; copy the LoRA again"),
        (described(lora_alpha=0), "says alpha 0 and .* expected a number from"),
        (described(lora_alpha=float("nan")), "says alpha nan and"),
        (described(lora_alpha=10**400), "says alpha 1000"),
        (described(lora_alpha="8"), "expected a number from"),
        (described(lora_alpha=True), "says alpha True"),
        (described(use_rslora="no"), "use_rslora no of"),
        (described(alpha_pattern={"(a*)*b": 1}), r"names layers by '\(a\*\)\*b'"),
        (described(alpha_pattern=["proj_in"]), "is damaged; copy the LoRA again"),
    ],
)
def test_metadata_that_say_no_scale_are_one_sentence(tmp_path, metadata, sentence):
    (tmp_path / DIFFUSERS_FILE).write_bytes(to_safetensors(GOOD, metadata))
    with pytest.raises(InputError, match=sentence):
        read_lora(tmp_path, [TARGET])
