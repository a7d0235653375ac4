"""Classifiers, backbones, encoders and Stable Diffusion on a card: the numbers are the host's.

On the stand-in of `stand_in_card`, where a tensor that was left on the host is found. The kernels
of a real card are in `make test-gpu`.
"""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from classifiers import make_data, make_tiny_classifier
from stand_in_card import CARD, on_card
from tiny_models import make_tiny_model, prompt_ids

from edge_train.arrays.parameters import Parameters
from edge_train.formats.adapter import Adapter
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.diffusion_adapter import attention_layers, linear_layers
from edge_train.formats.diffusion_folder import open_model
from edge_train.formats.vision_folder import open_vision_folder
from edge_train.rng import Key
from edge_train.runtimes.torch import (
    adapted_diffusion,
    classifier,
    diffusion,
    encoder,
    lora,
    pictures,
    vae,
)
from edge_train.tasks.personalize.on_torch import weight_shapes

SAME = 1e-4  # fused attention and matrices add up in another order; of the largest number
ROUNDED = 0.05  # a dozen roundings to bfloat16, of 8 bits; of the largest number


def assert_same(found, expected, tolerance=SAME):
    assert found.keys() == expected.keys()
    least = 1e-3 * max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        assert isinstance(found[name], np.ndarray), name
        most = tolerance * max(np.abs(value).max(), least)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=most, err_msg=name)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    return open_classifier(make_tiny_classifier(root / "model", make_data(root / "data", 20)))


def batch_of(**more):
    draw = np.random.default_rng(2)
    mask = np.ones((6, 12), np.int64)
    mask[1, 7:] = 0
    return {
        "ids": draw.integers(5, 60, (6, 12)),
        "mask": mask,
        "labels": draw.integers(0, 2, 6),
        **more,
    }


def of_classifier(runtime, batch, more=True):
    found = {}
    runtime.batch_limit = 4
    found["losses"] = runtime.backward(
        batch, lambda name, value: found.update({name: np.array(value)})
    )
    for name, gradient in list(found.items())[:-1]:  # a step: the card takes what it changed
        if name in runtime.parameters:
            runtime.parameters.subtract(name, np.float32(0.1) * gradient, Key(1, 1))
    point = {n: v + np.float32(0.01) for n, v in runtime.parameters.items()}
    found["points"] = runtime.forward(batch, [runtime.parameters, point])
    found["logits"] = runtime.logits(batch, runtime.parameters)
    found |= {f"weights {n}": v for n, v in runtime.weights(runtime.parameters).items()}
    if more:
        last = runtime.last_layer(batch)
        found |= {"entered": last.inputs, "errors": last.errors}
        found |= {f"inputs {n}": v for n, (v, _) in runtime.inputs(batch)}
    return found


@pytest.mark.parametrize("trainable", ["all", "head", "norms", "lora"])
def test_a_classifier_learns_on_a_card_what_it_does_on_the_host(texts, monkeypatch, trainable):
    batch = batch_of(weights=np.linspace(0.5, 1.5, 6, dtype=np.float32))

    def opened(**words):
        if trainable == "lora":
            return lora.TorchLora.open_adapted(texts, rank=3, scale=2.0, threads=1, **words)
        return classifier.TorchClassifier.open(texts, trainable=trainable, threads=1, **words)

    expected = of_classifier(opened(), batch)
    with on_card(monkeypatch, classifier, lora, calls=100):
        runtime = opened(device="cuda")
        assert runtime.device == CARD.type
        assert_same(of_classifier(runtime, batch), expected)


def test_dropout_of_a_classifier_draws_the_same_on_a_card(texts, monkeypatch):
    words = {"trainable": "all", "threads": 1, "attention": "eager"}
    batch = batch_of(dropout=np.arange(6))
    expected = of_classifier(classifier.TorchClassifier.open(texts, **words), batch)
    with on_card(monkeypatch, classifier):
        runtime = classifier.TorchClassifier.open(texts, **words)
        assert_same(of_classifier(runtime, batch), expected)


def test_products_in_bfloat16_leave_gradients_and_losses_in_float32(texts):
    """By autocast of the host, which is the one of a card by another name."""
    words = {"trainable": "all", "threads": 1}
    expected = of_classifier(classifier.TorchClassifier.open(texts, **words), batch_of(), False)
    runtime = classifier.TorchClassifier.open(texts, **words, dtype="bfloat16")
    found = of_classifier(runtime, batch_of(), False)
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}
    assert not np.array_equal(found["logits"], expected["logits"])
    assert_same(
        {n: found[n] for n in ("losses", "logits", "points")},
        {n: expected[n] for n in ("losses", "logits", "points")},
        ROUNDED,
    )


def test_features_of_pictures_are_the_same_on_a_card(tmp_path, monkeypatch):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**sizes, intermediate_size=32, image_size=32, patch_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    folder = open_vision_folder(tmp_path / "vit")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    expected = pictures.TorchPictures(folder, 1)(pixels)
    with on_card(monkeypatch, pictures):
        found = pictures.TorchPictures(folder, 1, "cuda")(pixels)
    assert_same({"features": found}, {"features": expected})


def test_hidden_values_of_an_encoder_are_the_same_on_a_card(texts, monkeypatch):
    batch = batch_of()
    expected = encoder.TorchEncoder(texts, threads=1).hidden(batch["ids"], batch["mask"])
    with on_card(monkeypatch, encoder):
        opened = encoder.TorchEncoder(texts, threads=1, device="cuda")
        found = opened.hidden(batch["ids"], batch["mask"])
    assert_same({"hidden": found}, {"hidden": expected})


FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("tiny"), {}

    def make(family):
        if family not in made:
            made[family] = open_model(make_tiny_model(root / family, family))
        return made[family]

    return make


def noise_of(family):
    draw = np.random.default_rng(11)
    rows = (("a", "photo", "of", -1), ("a", -1))
    pad = 0 if family == "sd2" else None
    batch = {
        "latents": draw.standard_normal((2, 4, 8, 8), np.float32),
        "target": draw.standard_normal((2, 4, 8, 8), np.float32),
        "timesteps": draw.integers(0, 1000, 2),
        "ids": np.array([prompt_ids(*row, pad=pad) for row in rows], np.int64),
        "weights": draw.uniform(0.5, 1.5, (2, 1, 8, 8)).astype(np.float32),
    }
    if family == "sdxl":
        batch["ids_2"] = np.array([prompt_ids(*row, pad=0) for row in rows], np.int64)
        batch["time_ids"] = np.array([(32, 32, 0, 0, 32, 32)] * 2, np.float32)
    return batch


def known_ids(batch):
    used = [np.unique(batch[key]) for key in ("ids", "ids_2") if key in batch]
    return [ids[ids >= 0].tolist() for ids in used]


def vectors_of(model):
    draw = np.random.default_rng(5)
    names = ("token", "token_2")[: len(model.text_widths)]
    shapes = zip(names, model.text_widths, strict=True)
    return Parameters({n: 0.1 * draw.standard_normal((1, w)) for n, w in shapes})


def of_diffusion(runtime, batch, each=True):
    found = {}
    found["losses"] = runtime.backward(
        batch, lambda name, value: found.update({name: np.array(value)})
    )
    other = {n: v * np.float32(1.1) for n, v in runtime.parameters.items()}
    found["points"] = runtime.forward(batch, [runtime.parameters, other])
    found["predictions"] = runtime.predictions(batch, [other])
    if each:
        vectors = {n: np.stack([v, v]) for n, v in runtime.parameters.items()}
        found["each"], slopes = runtime.backward_each(batch, vectors)
        found |= {f"each {n}": v for n, v in slopes.items()}
    return found


# quanto's weights in few bits are tensors in tensors, which no stand-in holds: `make test-gpu`
@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_learned_on_a_card_as_on_the_host(models, monkeypatch, family):
    model, batch = models(family), noise_of(family)
    words = {"token_ids": known_ids(batch), "threads": 1, "dtype": "float32"}
    opened = diffusion.TorchDiffusion.open(model, vectors_of(model), device="cpu", **words)
    expected = of_diffusion(opened, batch)
    with on_card(monkeypatch, diffusion, calls=100):
        monkeypatch.setitem(diffusion._CELLS_PER_CALL, CARD.type, 4096)
        runtime = diffusion.TorchDiffusion.open(model, vectors_of(model), device="cuda", **words)
        assert_same(of_diffusion(runtime, batch), expected)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_adapters_of_pictures_are_learned_on_a_card_as_on_the_host(models, monkeypatch, family):
    model, batch = models(family), noise_of(family)
    for key in ("ids", "ids_2"):
        if key in batch:
            batch[key] = np.where(batch[key] < 0, batch[key][0, 1], batch[key])
    shapes = linear_layers(weight_shapes(model))
    adapter = Adapter("lora", 3, 1.5, attention_layers(shapes, ("unet", *model.text_encoders)))
    draw = np.random.default_rng(3)
    blocks = {n: 0.3 * draw.standard_normal(s, np.float32) for n, s in adapter.shapes().items()}
    words = {"token_ids": known_ids(batch), "threads": 1, "dtype": "float32"}
    kind = adapted_diffusion.AdaptedDiffusion
    opened = kind.open_adapted(model, Parameters(blocks), adapter, device="cpu", **words)
    expected = of_diffusion(opened, batch, each=False)
    spans = planes_of(opened.input_spans(batch, 2))
    with on_card(monkeypatch, diffusion, calls=100):
        monkeypatch.setitem(diffusion._CELLS_PER_CALL, CARD.type, 4096)
        runtime = kind.open_adapted(model, Parameters(blocks), adapter, device="cuda", **words)
        assert_same(of_diffusion(runtime, batch, each=False), expected)
        assert_same(planes_of(runtime.input_spans(batch, 2)), spans, 1e-3)  # of an SVD in float32


def planes_of(bases):
    """Return what bases span, which the sign and order of their vectors leave as it is."""
    return {name: np.asarray(rows).T @ np.asarray(rows) for name, rows in bases.items()}


def test_the_vae_computes_on_a_card_what_it_does_on_the_host(models, monkeypatch):
    images = np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    mean, deviation = vae.encode_photos(models("sd1"), images, "cpu", threads=1)
    drawn = vae.decode_latents(models("sd1"), mean, "cpu", threads=1)
    with on_card(monkeypatch, vae):
        found = dict(
            zip(
                ("mean", "deviation"), vae.encode_photos(models("sd1"), images, "cuda"), strict=True
            )
        )
        assert_same(found, {"mean": mean, "deviation": deviation})
        levels = vae.decode_latents(models("sd1"), mean, "cuda").astype(int)
    assert np.abs(levels - drawn).max() <= 1  # a level of 255 may round to its neighbor
