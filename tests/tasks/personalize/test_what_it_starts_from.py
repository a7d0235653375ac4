"""What a run starts from and what it trains do not fit: one sentence that says so."""

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("torch")

from edge_train.errors import InputError
from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE
from edge_train.formats.embedded import EMBEDDED
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
HELD = {
    "word": ("<my-dog>",),
    "word of XL": ("clip_l", "clip_g"),
    "lora": (f"{LAYER}.lora.down.weight", f"{LAYER}.lora.up.weight"),
    "lora of peft": (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"),
    "dora": (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_magnitude_vector"),
    "kohya": (f"{KOHYA}.lora_down.weight", f"{KOHYA}.alpha"),
    "lycoris": (f"{KOHYA}.hada_w1_a", f"{KOHYA}.hada_w1_b"),
}


def start(folder, held, **metadata):
    path = folder / "start.safetensors"
    save_file({name: np.zeros((1, 4), np.float32) for name in HELD[held]}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("held", "trainable", "says"),
    [
        ("word", "lora", "holds the vectors of a word, and this run trains a LoRA; use"),
        ("word of XL", "lora", "use --trainable token to go on with the word"),
        ("lora", "token", "holds a LoRA, and this run learns the vectors of a word; use"),
        ("lora of peft", "token", "use --trainable lora to go on with the LoRA"),
        ("dora", "token", "holds a DoRA, and this task learns a word or a LoRA"),
        ("dora", "lora", "holds a DoRA, and this task learns a word or a LoRA"),
        ("kohya", "lora", f"name the {DIFFUSERS_FILE} of the same LoRA"),
        ("kohya", "token", "holds a LoRA in names that are not diffusers'"),
        ("lycoris", "lora", "holds a LoRA in names that are not diffusers'"),
    ],
)
@pytest.mark.parametrize("method", ["auto", "zo"])  # zo as a run has it that learned a word
def test_what_is_in_a_file_and_what_is_trained_are_both_said(
    tmp_path, held, trainable, says, method
):
    path = start(tmp_path, held)
    recipe = PersonalizeRecipe(start=str(path), trainable=trainable, method=method, threads=1)
    with pytest.raises(InputError) as refused:
        parts.check(recipe)
    message = str(refused.value)
    assert message.startswith(f"--from {path}: it ") and says in message
    assert message.endswith(".") and ". " not in message


def test_the_folder_is_named_where_that_of_diffusers_lies_beside(tmp_path):
    path = start(tmp_path, "kohya")
    (tmp_path / DIFFUSERS_FILE).touch()
    with pytest.raises(InputError, match=f"name --from {tmp_path}\\.$"):
        parts.check(PersonalizeRecipe(start=str(path), trainable="lora"))


def test_another_base_is_said_before_layers_that_it_has_not(tmp_path):
    path = start(tmp_path, "lora", base_model_sha256="abc", base_model="sd15")
    with pytest.raises(InputError, match=f"trained on model sd15 .*, not on {EMBEDDED} .* name"):
        parts.check(PersonalizeRecipe(start=str(path), trainable="lora"))


@pytest.mark.parametrize(
    ("held", "keys", "says"),
    [
        ("lora", {"method": "zo"}, "not by method 'zo'; use --method backprop or adamw."),
        ("lora", {"vectors": 2}, "without vectors of its own; leave it out."),
        ("lora", {"preset": "zoodip"}, "preset is 'zoodip'; leave it out."),
        ("lora", {"runtime": "onnx"}, "tiny-sd on this engine has forward passes only; use --run"),
        ("word", {"rank": 4}, "learns the vectors of a word; leave it out."),
    ],
)
def test_no_sentence_advises_what_the_start_rules_out(tmp_path, held, keys, says):
    trainable = "lora" if held == "lora" else "token"
    path = start(tmp_path, held)
    with pytest.raises(InputError) as refused:
        parts.check(PersonalizeRecipe(start=str(path), trainable=trainable, **keys))
    assert says in str(refused.value)
