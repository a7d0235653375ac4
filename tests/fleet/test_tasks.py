"""Every task makes a fleet or is refused in one sentence; each engine ends with the same bits."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from fleets import finish, server, steps, write_data
from places import GOLDEN
from safetensors.numpy import load_file

from edge_train.errors import InputError
from edge_train.fleet.grid import LocalDevice, LocalGrid
from edge_train.fleet.init import init
from edge_train.recipe import to_toml
from edge_train.tasks import recipe_of, tasks

_STEPS = 4
_LLAMA = {"trainable": "lora", "length": 16, "evaluation_samples": 2, "learning_rate": 1e-2}
SHARED = {"method": "zo", "steps": _STEPS, "evaluate_every": 2, "samples": 2}


def _write_text(folder: Path, number: int) -> str:
    path = folder / f"{number}.txt"
    who = ("cat", "dog")[number]
    path.write_text(f"the {who} sat on the mat and the {who} lay on the floor\n" * 60)
    return str(path)


def _photos(folder: Path, number: int) -> str:
    from PIL import Image

    place = folder / f"photos-{number}"
    place.mkdir()
    for one in range(2):
        pixels = np.random.default_rng(10 * number + one).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{one}.png")
    return str(place)


def _network(folder: Path) -> dict[str, object]:
    return {"network": "mlp 4", "standardization": " ".join(["0"] * 6 + ["1"] * 6)}


def _network_data(folder: Path, number: int) -> str:
    return str(write_data(folder / f"{number}.npz", (0, 1, 2), seed=number))


def _golden(folder: Path) -> dict[str, object]:
    return {"model": str(GOLDEN), "class_word": "dog", "preview_every": 0, "threads": 1}


def _diffusion(folder: Path) -> dict[str, object]:
    pytest.importorskip("diffusers")
    from tiny_models import make_tiny_model

    model = make_tiny_model(folder / "sd", widths=(8,), text_width=16)
    return {"model": str(model), "class_word": "dog", "preview_every": 0, "threads": 1}


def _classifier(folder: Path) -> dict[str, object]:
    pytest.importorskip("transformers")
    from classifiers import make_data, make_tiny_classifier

    model = make_tiny_classifier(folder / "bert", make_data(folder / "all"))
    return {"model": str(model), "trainable": "head", "threads": 1}


def _classified(folder: Path, number: int) -> str:
    from classifiers import make_data

    place = make_data(folder / f"texts-{number}", count=40 + 20 * number)
    return str(place)


def _llama(folder: Path) -> dict[str, object]:
    transformers = pytest.importorskip("transformers")
    from byte_tokenizer import save_byte_tokenizer

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 300,
        "max_position_embeddings": 32,
    }
    (folder / "letters.txt").write_text("the cat and the dog sat on the mat\n" * 20)
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    network.save_pretrained(folder / "llama")
    save_byte_tokenizer(folder / "llama", folder / "letters.txt")
    return {"model": str(folder / "llama"), **_LLAMA}


def _gguf(folder: Path) -> dict[str, object]:
    from gguf_models import plain_llama

    (folder / "model.gguf").write_bytes(plain_llama(random=True))
    return {"model": str(folder / "model.gguf"), **_LLAMA}


CASES = {
    "network, numpy": ("network", _network, _network_data, {}),
    "network, int8": ("network", _network, _network_data, {"quant": "int8"}),
    "personalize, onnx": ("personalize", _golden, _photos, {}),
    "personalize, torch": ("personalize", _diffusion, _photos, {}),
    "personalize, torch int8": ("personalize", _diffusion, _photos, {"quant": "int8"}),
    "classify, head": ("classify", _classifier, _classified, {}),
    "language-model, torch": ("language-model", _llama, _write_text, {}),
    "language-model, numpy": ("language-model", _gguf, _write_text, {}),
}


def learned(run: Path) -> str:
    """Return a hash of the last parameters and moments of a run."""
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    digest = hashlib.sha256()
    for name, values in sorted(load_file(newest).items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_two_devices_end_with_the_same_bits(tmp_path, case):
    name, shared, data, more = CASES[case]
    values = {"task": name, **SHARED, **shared(tmp_path), **more}
    source = tmp_path / "recipe.toml"
    source.write_text(to_toml(recipe_of(values, "")))
    init(source, tmp_path / "app")  # takes it
    devices = {}
    for number in range(2):
        own = {tasks.get(name).data: data(tmp_path, number)}
        recipe = recipe_of({**values, **own}, "")
        devices[number] = LocalDevice(recipe, tmp_path / f"d{number}")
        # one after the other: transformers loads a model in one thread at a time
        assert devices[number].calls.listening.wait(120), devices[number].error

    def look() -> None:
        assert [one.error for one in devices.values()] == ["", ""]
        assert any(one.thread.is_alive() for one in devices.values())
        time.sleep(0.05)

    finish(server(tmp_path / "s", 2, []), LocalGrid(devices), look, wait=60)
    assert learned(tmp_path / "d0") == learned(tmp_path / "d1")
    assert steps(tmp_path / "d0") == steps(tmp_path / "d1") == steps(tmp_path / "s")
    assert len(steps(tmp_path / "s")) == _STEPS


@pytest.mark.parametrize("name", sorted(tasks.names()))
def test_a_task_makes_a_fleet_or_says_why_not(tmp_path, name):
    source = tmp_path / "recipe.toml"
    source.write_text(f'task = "{name}"\nmethod = "zo"\nsteps = 4\n')
    if name in {one[0] for one in CASES.values()} - {"network"}:
        assert "trains it" in init(source, tmp_path / "app")
        return
    with pytest.raises(InputError) as error:
        init(source, tmp_path / "app")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "app").exists()
    assert "fleet" in str(error.value) or "standardization" in str(error.value)
