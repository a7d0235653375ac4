"""Adapters: named and scaled as peft does it, the same bytes again, hostile folders refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_train.errors import InputError, ModelError
from edge_train.formats.adapter import (
    CONFIG_FILE,
    TENSORS_FILE,
    Adapter,
    Target,
    names_of,
    read_adapter,
    write_adapter,
)
from edge_train.formats.tensor_store import to_safetensors

PATHS = tuple(f"model.layers.{n}.mlp.down_proj" for n in (2, 10))
ADAPTER = Adapter(
    "lora", 3, 6.0, tuple(Target(path, 5, 7) for path in PATHS), base="owner/base", base_sha256="ab"
)


def filled(adapter, seed=1):
    """Blocks with numbers in all of them."""
    draw = np.random.default_rng(seed)
    shapes = adapter.shapes().items()
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_written_adapter_is_read_back_bit_for_bit(tmp_path, kind, rslora):
    adapter = replace(ADAPTER, kind=kind, rslora=rslora, alpha=2.5)
    blocks = filled(adapter)
    write_adapter(tmp_path / "a", adapter, blocks)
    again, found = read_adapter(tmp_path / "a")
    assert again == adapter
    assert list(found) == list(blocks)
    for name, value in blocks.items():
        np.testing.assert_array_equal(found[name], value)
    write_adapter(tmp_path / "b", again, found)
    for name in (CONFIG_FILE, TENSORS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_draws_of_a_are_of_the_seed_and_the_block_and_b_is_zero():
    blocks, again = ADAPTER.drawn(5), ADAPTER.drawn(5)
    first, second, _ = names_of(PATHS[0])
    np.testing.assert_array_equal(blocks[first], again[first])
    assert not blocks[second].any()
    assert (blocks[first] != ADAPTER.drawn(6)[first]).any()
    assert (blocks[first] != blocks[names_of(PATHS[1])[0]]).any()
    assert np.abs(blocks[first]).max() <= 7**-0.5


def test_lengths_of_dora_start_as_those_of_the_base():
    adapter = replace(ADAPTER, kind="dora")
    lengths = {path: np.arange(1, 6, dtype=np.float32) for path in PATHS}
    np.testing.assert_array_equal(
        adapter.drawn(0, lengths)[names_of(PATHS[1])[2]], np.arange(1, 6, dtype=np.float32)
    )


def test_dora_beside_a_row_of_zeros_is_refused_by_the_layer():
    """Its length divides; the model was called damaged."""
    adapter = replace(ADAPTER, kind="dora")
    lengths = {path: np.arange(5, dtype=np.float32) for path in PATHS}
    with pytest.raises(InputError, match=f"1 of 5 rows of layer '{PATHS[0]}' are zero"):
        adapter.drawn(0, lengths)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_peft_computes_with_the_folder_what_the_equation_says(tmp_path, kind):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    base = torch.nn.Sequential()
    base.prepare_inputs_for_generation = None  # of what generates text, peft keeps these two
    base.config = {"model_type": "custom"}
    base.add_module("one", torch.nn.Linear(7, 5))
    adapter = Adapter(kind, 3, 6.0, (Target("one", 5, 7),), rslora=True, base="somewhere")
    blocks = filled(adapter)
    write_adapter(tmp_path, adapter, blocks)
    weight, bias = (p.detach().numpy().copy() for p in base.one.parameters())
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    x = np.random.default_rng(2).standard_normal((4, 7)).astype(np.float32)
    with torch.no_grad():
        found = loaded.base_model.model(torch.from_numpy(x)).numpy()
    a, b, lengths = (blocks.get(name) for name in names_of("one"))
    whole = weight + 6.0 / np.sqrt(3.0) * b @ a
    if kind == "dora":
        whole *= (lengths / np.linalg.norm(whole, axis=1))[:, None]
    np.testing.assert_allclose(found, x @ whole.T + bias, rtol=1e-4, atol=1e-5)  # float32 products


def changed(folder, **values):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"r": 4}, "rank 4"),
        ({"lora_alpha": float("inf")}, "lora_alpha"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"bias": "all"}, "bias is all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q": 2}}, "rank_pattern"),
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is olora"),
    ],
)
def test_a_configuration_of_something_else_is_refused_by_name(tmp_path, values, said):
    write_adapter(tmp_path, ADAPTER, filled(ADAPTER))
    changed(tmp_path, **values)
    with pytest.raises(ModelError, match=said):
        read_adapter(tmp_path)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match=CONFIG_FILE):
        read_adapter(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "missing", "foreign", "half", "nan"])
def test_damaged_tensors_are_refused_in_one_sentence(tmp_path, harm):
    write_adapter(tmp_path, ADAPTER, filled(ADAPTER))
    path = tmp_path / TENSORS_FILE
    name = f"base_model.model.{PATHS[0]}.lora_A.weight"
    one = np.ones((3, 7), np.float32)
    contents = {
        "cut": path.read_bytes()[:-5],
        "foreign": to_safetensors({name: one, "base_model.model.embed.weight": one}, {}),
        "half": to_safetensors({name: one}, {}),
        "nan": to_safetensors(
            {name: one * np.nan, name.replace("_A", "_B"): np.ones((5, 3), np.float32)}, {}
        ),
    }
    path.unlink()
    if harm in contents:
        path.write_bytes(contents[harm])
    with pytest.raises(ModelError):
        read_adapter(tmp_path)
