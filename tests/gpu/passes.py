"""Checks of losses and gradients: a card computes what the host does, and the same again."""

from pathlib import Path
from typing import Any

import made_models
import numpy as np
from comparing import ROUNDED, SAME, assert_close, assert_equal


def _gradients(runtime: Any, batch: Any) -> dict[str, Any]:
    from edge_train.arrays.factored import dense

    found: dict[str, Any] = {}
    found["losses"] = runtime.backward(
        batch, lambda name, value: found.update({name: np.array(dense(value))})
    )
    found["at points"] = runtime.forward(batch, [runtime.parameters])
    return found


def _compared(open_: Any, batch: Any, device: str, most: float = SAME, **words: Any) -> float:
    """Return the largest difference between a device and the host; the same call gives its bits."""
    host = open_(device="cpu", **{**words, **({"dtype": "float32"} if "dtype" in words else {})})
    expected = _gradients(host, batch)
    runtime = open_(device=device, **words)
    found = _gradients(runtime, batch)
    assert_equal(_gradients(runtime, batch), found)
    worst = assert_close(found, expected, most)
    runtime.close()
    return worst


def language_model(root: Path, device: str) -> dict[str, Any]:
    """All weights, LoRA and DoRA, on bases in float32, int8 and int4; and products of bfloat16."""
    from edge_train.formats.adapter import Adapter
    from edge_train.formats.language_folder import open_language_model
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.adapted_network import linear_layers
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    folder = open_language_model(made_models.language(root)[0])
    batch = {"ids": np.random.default_rng(1).integers(1, 280, (2, 65))}
    found: dict[str, Any] = {}
    for what in ("all", "lora", "dora"):

        def opened(what: str = what, **words: Any) -> Any:
            if what == "all":
                return TorchLanguageModel.open(folder, threads=2, seed=3, **words)
            adapter = Adapter(what, 4, 8.0, linear_layers(folder), base="base")
            return AdaptedLanguageModel.open(folder, adapter, threads=2, seed=3, **words)

        for quant in ("none", "int8", "int4"):
            found[f"{what}, {quant}"] = _compared(opened, batch, device, quant=quant)
        found[f"{what}, bfloat16"] = _compared(
            opened, batch, device, ROUNDED, quant="none", dtype="bfloat16"
        )
    return found


def gguf_blocks(root: Path, device: str) -> dict[str, Any]:
    """A base that stays in the blocks of a GGUF file, decoded on the card."""
    import gguf_models
    from gguf_files import Q4_0, Q8_0

    from edge_train.formats.adapter import Adapter
    from edge_train.formats.gguf.model import open_gguf
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.adapted_network import linear_layers

    found: dict[str, Any] = {}
    for name, stored in (("Q4_0", Q4_0), ("Q8_0", Q8_0)):
        file = root / f"{name}.gguf"
        gguf_models.make_gguf(file, "llama", stored)
        folder = open_gguf(file)
        adapter = Adapter("lora", 4, 8.0, linear_layers(folder), base="base")
        ids = np.random.default_rng(1).integers(1, folder.vocabulary, (2, 13))

        def opened(folder: Any = folder, adapter: Any = adapter, **words: Any) -> Any:
            return AdaptedLanguageModel.open(folder, adapter, threads=2, seed=3, **words)

        found[name] = _compared(opened, {"ids": ids}, device, quant="none")
    return found


def classifier(root: Path, device: str) -> dict[str, Any]:
    """All weights and the head alone, and products of bfloat16."""
    from edge_train.formats.classifier_folder import open_classifier
    from edge_train.runtimes.torch.classifier import TorchClassifier

    folder = open_classifier(made_models.classifier(root)[0])
    draw = np.random.default_rng(2)
    batch = {
        "ids": draw.integers(5, 60, (6, 12)),
        "mask": np.ones((6, 12), np.int64),
        "labels": draw.integers(0, 2, 6),
    }
    found: dict[str, Any] = {}
    for trainable in ("all", "head"):

        def opened(trainable: str = trainable, **words: Any) -> Any:
            return TorchClassifier.open(folder, trainable=trainable, threads=2, **words)

        found[trainable] = _compared(opened, batch, device)
        found[f"{trainable}, bfloat16"] = _compared(
            opened, batch, device, ROUNDED, dtype="bfloat16"
        )
    return found


def pictures(root: Path, device: str) -> dict[str, Any]:
    """The word of a tiny Stable Diffusion, weights in few bits among it."""
    from tiny_models import make_tiny_model, prompt_ids

    from edge_train.arrays.parameters import Parameters
    from edge_train.formats.diffusion_folder import open_model
    from edge_train.runtimes.torch.diffusion import TorchDiffusion

    found: dict[str, Any] = {}
    for family in ("sd1", "sdxl"):
        model = open_model(make_tiny_model(root / family, family))
        draw = np.random.default_rng(11)
        names = ("token", "token_2")[: len(model.text_widths)]
        vectors = {
            n: 0.1 * draw.standard_normal((1, w))
            for n, w in zip(names, model.text_widths, strict=True)
        }
        batch: dict[str, Any] = {
            "latents": draw.standard_normal((2, 4, 8, 8), np.float32),
            "target": draw.standard_normal((2, 4, 8, 8), np.float32),
            "timesteps": draw.integers(0, 1000, 2),
            "ids": np.array([prompt_ids("a", "photo", "of", -1)] * 2, np.int64),
        }
        if family == "sdxl":
            batch["ids_2"] = np.array([prompt_ids("a", "photo", "of", -1, pad=0)] * 2, np.int64)
            batch["time_ids"] = np.array([(32, 32, 0, 0, 32, 32)] * 2, np.float32)
        keys = [key for key in ("ids", "ids_2") if key in batch]
        ids = [[int(one) for one in np.unique(batch[key]) if one >= 0] for key in keys]

        def opened(model: Any = model, vectors: Any = vectors, ids: Any = ids, **words: Any) -> Any:
            parameters = Parameters(vectors)
            return TorchDiffusion.open(model, parameters, token_ids=ids, threads=2, **words)

        for quant in ("none", "int8", "int4") if family == "sd1" else ("none",):
            found[f"{family}, {quant}"] = _compared(
                opened, batch, device, quant=quant, dtype="float32"
            )
        half = opened(device=device, dtype="auto", quant="none")
        assert_close(
            {"losses": half.forward(batch, [half.parameters])},
            {"losses": opened(device="cpu", dtype="float32").forward(batch, [half.parameters])},
            ROUNDED,
        )
        found[f"{family}, auto"] = half.dtype
    return found


def features(root: Path, device: str) -> dict[str, Any]:
    """A frozen encoder of texts."""
    from edge_train.formats.classifier_folder import open_classifier
    from edge_train.runtimes.torch.encoder import TorchEncoder

    folder = open_classifier(made_models.classifier(root)[0])
    ids, mask = np.random.default_rng(2).integers(5, 60, (6, 12)), np.ones((6, 12), np.int64)
    expected = TorchEncoder(folder, threads=2).hidden(ids, mask)
    found = TorchEncoder(folder, threads=2, device=device).hidden(ids, mask)
    return {"texts": assert_close({"hidden": found}, {"hidden": expected}, SAME)}


def own_module(root: Path, device: str) -> dict[str, Any]:
    """Somebody's own module, `et.fit`: statistics of a norm move there and come back.

    Without dropout, whose generator on a card draws other numbers than that of the host.
    """
    import torch
    from torch import nn

    from edge_train.runtimes.torch.own_module import OwnModule

    draw = torch.Generator().manual_seed(1)
    batches = [(torch.randn(6, 5, generator=draw), torch.arange(6) % 3) for _ in range(3)]

    def opened(device: str) -> Any:
        torch.manual_seed(1)
        layers = (nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        return OwnModule(
            nn.Sequential(*layers), _entropy, lambda step: batches[step], batches, 7, device
        )

    def computed(device: str) -> dict[str, Any]:
        runtime = opened(device)
        found = _gradients(runtime, {"step": np.array([1])})
        found["evaluation"] = runtime.forward({"evaluation": np.arange(3)}, [runtime.parameters])
        return found | dict(runtime.learned())

    found = computed(device)
    assert_equal(computed(device), found)
    return {"own module": assert_close(found, computed("cpu"), SAME)}


def _entropy(module: Any, batch: Any) -> Any:
    from torch.nn.functional import cross_entropy

    inputs, labels = batch
    return cross_entropy(module(inputs), labels)


def artifact(root: Path, device: str) -> dict[str, Any]:
    """A graph on the CUDA provider of ONNX Runtime, where the installed one has it."""
    from tiny_encoder import make_encoder

    from edge_train.runtimes.onnx.engine import call, installed_engine, open_session, pick_provider

    name, devices = installed_engine()
    if device not in devices:
        return {"skipped": f"{name} offers {', '.join(devices)}, not {device}"}
    make_encoder(root / "graph")
    feeds = {
        "input_ids": np.random.default_rng(0).integers(4, 20, (2, 6)),
        "attention_mask": np.ones((2, 6), np.int64),
    }
    outputs = []
    for where in ("cpu", device):
        provider = pick_provider(where, "none")
        session = open_session(root / "graph" / "model.onnx", provider, threads=1, options={})
        known = {entry.name for entry in session.get_inputs()}
        outputs.append(call(session, None, {n: v for n, v in feeds.items() if n in known})[0])
    return {name: assert_close({"output": outputs[1]}, {"output": outputs[0]}, SAME)}
