"""A tiny text classifier and examples that it can learn, for tests."""

from pathlib import Path

import numpy as np

GOOD, BAD = ("fine", "great", "warm"), ("dull", "weak", "cold")
_FILLING = ("the", "film", "is", "a", "story", "of", "two", "friends")


def make_data(folder: Path, count: int = 120) -> Path:
    """Write train.tsv and dev.tsv, `text<TAB>0|1`: one word of each text decides."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for name, size in (("train", count), ("dev", 40)):
        lines = []
        for number in range(size):
            words = [*draw.choice(_FILLING, draw.integers(2, 7))]
            words.insert(draw.integers(len(words) + 1), draw.choice((BAD, GOOD)[number % 2]))
            lines.append(f"{' '.join(words)}\t{number % 2}\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder


def make_tiny_classifier(folder: Path, data: Path, kind: str = "bert") -> Path:
    """Write a classifier of a few thousand weights."""
    from edge_train.bench.small_classifier import make_classifier

    texts = [line.split("\t")[0] for line in (data / "train.tsv").read_text().splitlines()]
    return make_classifier(
        folder, texts, kind=kind, layers=1, width=32, vocabulary=80, positions=24
    )


def make_decided(folder: Path, factor: float) -> Path:
    """Multiply the matrices of a classifier: the losses of its texts differ by more."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    for value in weights.values():
        if value.ndim == 2:
            value *= np.float32(factor)
    save_file(weights, file, metadata={"format": "pt"})
    return folder
