"""Tiny models and data for the cases, written once; later records read the same files."""

import json
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[2]


def make_models(folder: Path) -> None:
    """Write every model and all data of the cases into `folder`; needs the desk environment."""
    sys.path[:0] = [str(_TESTS), str(_TESTS / "support")]  # where the tests' helpers stand
    import torch
    from classifiers import make_data, make_tiny_classifier
    from tiny_models import make_tiny_model

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    make_tiny_model(folder / "sd", widths=(8,), text_width=16)
    make_tiny_model(folder / "sd2", "sd2", widths=(8,), text_width=16)
    make_tiny_model(folder / "sdxl", "sdxl", widths=(8,), text_width=16)
    data = make_data(folder / "texts")
    make_tiny_classifier(folder / "bert", data)
    make_tiny_classifier(folder / "roberta", data, kind="roberta")
    write_photos(folder / "photos")
    write_pictures(folder / "pictures.npz")
    (folder / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 200)
    write_language_model(folder / "llama", folder / "text.txt")


def write_language_model(folder: Path, text: Path, width: int = 32) -> None:
    """Write a Llama without weights: a run starts it from its seed."""
    import tokenizers

    config = {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "vocab_size": 300,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_photos(folder: Path, side: int = 40) -> None:
    """Write two pictures of noise, a little wider than high."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (side, side + 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_pictures(path: Path) -> None:
    """Write pictures of three patterns under noise."""
    import numpy as np

    patterns = np.random.default_rng(5).integers(0, 256, (3, 8, 8))
    random = np.random.default_rng(1)
    found = {"class_names": np.array(["a", "b", "c"])}
    for part, size in (("train", 120), ("test", 30)):
        labels = random.integers(0, 3, size)
        noisy = patterns[labels] + 60 * random.standard_normal((size, 8, 8))
        found[f"{part}_images"] = np.clip(noisy, 0, 255).astype(np.uint8)
        found[f"{part}_labels"] = labels
    np.savez_compressed(path, **found)
