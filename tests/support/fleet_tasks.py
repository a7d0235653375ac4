"""Small recipes of every task that a fleet trains, with data for two devices."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from fleets import write_data
from places import GOLDEN
from safetensors.numpy import load_file

STEPS = 4
_LLAMA = {"trainable": "lora", "length": 16, "evaluation_samples": 2, "learning_rate": 1e-2}
SHARED = {"method": "zo", "steps": STEPS, "evaluate_every": 2, "samples": 2}


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


SLOW = {name for name in CASES if "torch" in name or name.startswith("classify")}


def learned(run: Path) -> str:
    """Return a hash of the last parameters and moments of a run."""
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    digest = hashlib.sha256()
    for name, values in sorted(load_file(newest).items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()
