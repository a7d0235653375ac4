"""The runs of `edge-train bench cap`: every way to train a small model that is installed here.

Models, texts and pictures are made here from random numbers, or exported from the embedded model,
and kept: what is exported where torch is can be copied, and runs where it is not.
"""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.formats.embedded import EMBEDDED
from edge_train.memory.fresh import command as command_of
from edge_train.recipe import Recipe, as_mapping
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.network.recipe import NetworkRecipe
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

Keys = Mapping[str, Any]

_STEPS = 3
_EPSILON = 0.1  # the check could find that a profile does not learn, which is no matter here
_QUANTS, _SIDES = ("none", "int8", "int8-fast", "int4"), (32, 64)
_SAMPLES, _IMAGE = (2000, 200), (28, 28)  # of the pictures: train and test, and a side
_TEXTS, _WORDS, _WORDS_A_TEXT = 400, 3000, 60
_TOKENS = 1000
_LLAMA = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
}


def ways(out: Path) -> list[Recipe]:
    """Return every recipe of the grid that this environment can run, kinds taking turns.

    So the first few are as different as they can be.
    """
    base = {"steps": _STEPS, "evaluate_every": _STEPS, "threads": 1}
    torch = find_spec("torch") is not None
    found: list[Recipe] = [
        *_artifacts(base, out, torch),
        *_networks({**base, "threads": None}, out),
    ]
    if torch:
        found += [*_folders(base), *_language_models(base, out)]
    found += _classifiers(base, out, torch)
    random.Random(0).shuffle(found)
    before: Counter[tuple[str, str]] = Counter()
    turns = []
    for way in found:
        kind = (way.task, way.runtime if way.task == "classify" else way.method)
        turns.append((before[kind], way))
        before[kind] += 1
    return [way for _, way in sorted(turns, key=lambda turn: turn[0])]


def name(way: Recipe) -> str:
    """Return what tells a way from the others, for people."""
    keys = as_mapping(way)
    words = [keys.get("network") or Path(way.model).name, way.method, way.quant]
    words.append(str(keys.get("resolution") or ""))
    words += ["lean"] * way.lean
    words += [f"{way.batch_limit} a call"] * (way.batch_limit is not None)
    micro_batch = keys.get("micro_batch")
    words += [f"micro-batches of {micro_batch}"] * (micro_batch is not None)
    return " ".join(word for word in words if word and word != "auto")


def folder(out: Path, quant: str, side: int) -> Path:
    """Return where the artifact of the embedded model is."""
    return out / f"{EMBEDDED}-{quant}-{side}"


def _artifacts(given: Keys, out: Path, torch: bool) -> Iterator[Recipe]:
    base = _pictures(given)
    for quant in _QUANTS:
        for side in _SIDES:
            path = folder(out, quant, side)
            if torch and not path.is_dir():
                words = (EMBEDDED, str(path), "--quant", quant, "--resolution", str(side))
                _export(*words)
            if path.is_dir():
                for lean in (False, True):
                    for batch in (None, 1):
                        yield replace(
                            base, model=str(path), lean=lean, batch_limit=batch, method="zo"
                        )


def _folders(given: Keys) -> Iterator[Recipe]:
    for method in ("zo", "backprop"):
        epsilon = _EPSILON if method == "zo" else None
        for quant in ("none", "int8"):
            for side in _SIDES:
                for batch in (None, 1):
                    yield replace(
                        _pictures(given),
                        method=method,
                        epsilon=epsilon,
                        quant=quant,
                        resolution=side,
                        batch_limit=batch,
                    )


def _pictures(given: Keys) -> PersonalizeRecipe:
    return PersonalizeRecipe(**given, preview_steps=1, evaluation_samples=8, epsilon=_EPSILON)


def _networks(given: Keys, out: Path) -> Iterator[Recipe]:
    data = out / "pictures.npz"
    if not data.is_file():
        out.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        parts = zip(("train", "test"), _SAMPLES, strict=True)
        arrays: dict[str, Any] = {}
        for part, count in parts:
            arrays[f"{part}_images"] = draw.integers(0, 255, (count, *_IMAGE), np.uint8)
            arrays[f"{part}_labels"] = np.arange(count) % 10
        np.savez(data, **arrays)
    base = NetworkRecipe(**given, data=str(data))
    for method in ("tpsgd", "backprop"):
        for quant in ("none", "int8"):
            for network, micro_batch in (("mlp 500 500", None), ("lenet", None), ("lenet", 10)):
                yield replace(
                    base, method=method, quant=quant, network=network, micro_batch=micro_batch
                )


def _classifiers(given: Keys, out: Path, torch: bool) -> Iterator[Recipe]:
    model, artifact, data = out / "bert", out / "bert-training", out / "texts"
    if torch and not model.is_dir():
        _make_classifier(model, data)
    trains = _trains()
    if torch and trains and not artifact.is_dir():
        _export(str(model), str(artifact), "--for", "ort-training")
    base = ClassifyRecipe(**given, data=str(data), samples=32, evaluation_samples=32)
    if torch:
        for method in ("adamw", "adamw8bit", "q-galore", "zo"):
            for batch in (None, 8):
                yield replace(base, model=str(model), method=method, batch_limit=batch)
    if trains and artifact.is_dir():
        for lean in (False, True):
            for batch in (None, 8):
                yield replace(
                    base,
                    model=str(artifact),
                    runtime="ort-training",
                    method="adamw",
                    lean=lean,
                    batch_limit=batch,
                )


def _language_models(given: Keys, out: Path) -> Iterator[Recipe]:
    model, data = out / "llama", out / "text.txt"
    if not model.is_dir():
        from edge_train.bench.small_llama import write_folder

        out.mkdir(parents=True, exist_ok=True)
        data.write_text("\n".join(_random_texts()))
        write_folder(model, data, _TOKENS, **_LLAMA)
    base = LanguageModelRecipe(
        **given, model=str(model), data=str(data), length=32, evaluation_samples=8, samples=8
    )
    for method, quant in (("adamw", "none"), ("q-galore", "int8"), ("zo", "none")):
        rank = 16 if method == "q-galore" else None
        for batch in (None, 1):
            yield replace(base, method=method, quant=quant, rank=rank, batch_limit=batch)


def _random_texts() -> list[str]:
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghij"), 6)) for _ in range(_WORDS)]
    return [" ".join(draw.choice(words, _WORDS_A_TEXT)) for _ in range(_TEXTS)]


def _trains() -> bool:
    """Return whether the ONNX Runtime here is one that trains."""
    for flavor in ("onnxruntime-training", "onnxruntime-training-cpu"):
        try:
            version(flavor)
        except PackageNotFoundError:
            continue
        return True
    return False


def _make_classifier(model: Path, data: Path) -> None:
    from edge_train.bench.small_classifier import make_classifier

    texts = _random_texts()
    data.mkdir(parents=True, exist_ok=True)
    lines = [f"{text}\t{number % 2}\n" for number, text in enumerate(texts)]
    (data / "train.tsv").write_text("".join(lines[: -_TEXTS // 4]))
    (data / "dev.tsv").write_text("".join(lines[-_TEXTS // 4 :]))
    make_classifier(model, texts, positions=128)


def _export(*words: str) -> None:
    command = command_of(["export", *words, "--threads", "1"])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
