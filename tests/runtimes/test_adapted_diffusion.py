"""A Stable Diffusion with adapters computes and differentiates as diffusers with the same file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_models import Family, make_tiny_model, prompt_ids

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch
from edge_train.formats.adapter import Adapter
from edge_train.formats.diffusion_adapter import (
    DIFFUSERS_FILE,
    attention_layers,
    linear_layers,
    read_lora,
    write_lora,
)
from edge_train.formats.diffusion_folder import ModelFolder, open_model
from edge_train.runtimes.torch.adapted_diffusion import AdaptedDiffusion
from edge_train.tasks.personalize.on_torch import weight_shapes
from edge_train.tasks.personalize.weights import weighted_losses

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
# The same float32 arithmetic in another order: other kernels, and a scale multiplied in elsewhere.
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: make_tiny_model(root / family, family) for family in FAMILIES}


def adapter_of(model: ModelFolder, *, texts: bool = True, rank: int = 3) -> Adapter:
    components = ("unet", *(model.text_encoders if texts else ()))
    targets = attention_layers(linear_layers(weight_shapes(model)), components)
    return Adapter("lora", rank, 1.5, targets)


def adapter_of_all(model: ModelFolder) -> Adapter:
    """Return one beside feed-forward layers, too, and beside those of text encoders."""
    adapter = Adapter("lora", 2, 1.5, linear_layers(weight_shapes(model)))
    ends = {target.path.rpartition(".")[2] for target in adapter.targets}
    assert {"proj", "2", "fc1", "fc2", "to_q", "q_proj"} <= ends
    return adapter


def blocks_of(adapter: Adapter) -> dict[str, Array]:
    """Return blocks that change something: B is not zero, as it is at the start."""
    draw = np.random.default_rng(3)
    return {
        name: 0.3 * draw.standard_normal(shape, np.float32)
        for name, shape in adapter.shapes().items()
    }


def batch_for(family: str, samples: int = 3) -> Batch:
    draw = np.random.default_rng(11)
    words = (("a", "photo", "of", "dog"), ("a", "thing"), ("a", "photo", "of", "dog"))
    pad = 0 if family == "sd2" else None
    batch: dict[str, Any] = {
        "latents": draw.standard_normal((samples, 4, 8, 8), np.float32),
        "target": draw.standard_normal((samples, 4, 8, 8), np.float32),
        "timesteps": draw.integers(0, 1000, samples),
        "ids": np.array([prompt_ids(*row, pad=pad) for row in words[:samples]], np.int64),
    }
    if family == "sdxl":
        batch["ids_2"] = np.array([prompt_ids(*row, pad=0) for row in words[:samples]], np.int64)
        batch["time_ids"] = np.array([(32, 32, 0, 0, 32, 32)] * samples, np.float32)
    return batch


def open_adapted(
    model: ModelFolder, adapter: Adapter, blocks: dict[str, Array], batch: Batch, **options: Any
) -> AdaptedDiffusion:
    ids = [np.unique(batch[key]).tolist() for key in ("ids", "ids_2") if key in batch]
    options = {"device": "cpu", "dtype": "float32", "threads": 1, **options}
    return AdaptedDiffusion.open_adapted(
        model, Parameters(blocks), adapter, token_ids=ids, **options
    )


def stock_pipeline(folder: Path, family: str) -> Any:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    return kind.from_pretrained(folder, local_files_only=True)


def stock_output(pipeline: Any, family: str, batch: Batch) -> torch.Tensor:
    """Return the output of diffusers' U-Net on our batch, texts by transformers' encoders."""
    ids = torch.from_numpy(batch["ids"])
    added: dict[str, Any] = {}
    if family == "sdxl":
        one = pipeline.text_encoder(ids, output_hidden_states=True)
        two = pipeline.text_encoder_2(torch.from_numpy(batch["ids_2"]), output_hidden_states=True)
        features = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        added = {
            "text_embeds": two.text_embeds,
            "time_ids": torch.from_numpy(batch["time_ids"]),
        }
    else:
        features = pipeline.text_encoder(ids).last_hidden_state
    latents, timesteps = torch.from_numpy(batch["latents"]), torch.from_numpy(batch["timesteps"])
    output: torch.Tensor = pipeline.unet(
        latents, timesteps, features, added_cond_kwargs=added
    ).sample
    return output


def written(folder: Path, model: ModelFolder, adapter: Adapter, blocks: dict[str, Array]) -> Path:
    write_lora(folder, "my-dog", adapter, blocks, {}, model)
    return folder


@pytest.mark.parametrize(
    ("family", "file", "beside"),
    [
        ("sd1", DIFFUSERS_FILE, adapter_of),
        ("sd1", "my-dog.safetensors", adapter_of),
        ("sd1", DIFFUSERS_FILE, adapter_of_all),
        ("sd1", "my-dog.safetensors", adapter_of_all),
        ("sdxl", "my-dog.safetensors", adapter_of),
        pytest.param("sd2", DIFFUSERS_FILE, adapter_of_all, marks=pytest.mark.slow),
        pytest.param("sd2", "my-dog.safetensors", adapter_of, marks=pytest.mark.slow),
        pytest.param("sdxl", DIFFUSERS_FILE, adapter_of, marks=pytest.mark.slow),
        pytest.param("sdxl", DIFFUSERS_FILE, adapter_of_all, marks=pytest.mark.slow),
        pytest.param("sdxl", "my-dog.safetensors", adapter_of_all, marks=pytest.mark.slow),
    ],
)
def test_predictions_are_those_of_diffusers_with_either_file(
    folders: dict[str, Path],
    tmp_path: Path,
    family: Family,
    file: str,
    beside: Callable[[ModelFolder], Adapter],
) -> None:
    model = open_model(folders[family])
    adapter, batch = beside(model), batch_for(family)
    blocks = blocks_of(adapter)
    runtime = open_adapted(model, adapter, blocks, batch)
    ours = runtime.predict(batch, runtime.parameters)
    pipeline = stock_pipeline(folders[family], family)
    with torch.no_grad():
        plain = stock_output(pipeline, family, batch).numpy()
        pipeline.load_lora_weights(written(tmp_path, model, adapter, blocks), weight_name=file)
        theirs = stock_output(pipeline, family, batch).numpy()
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert np.abs(plain - theirs).max() > 100 * np.abs(ours - theirs).max()


@pytest.mark.parametrize(("alpha", "rslora"), [(8, False), (8, True), (2, False)])
def test_a_file_of_diffusers_has_the_scale_of_its_own_loader(
    folders: dict[str, Path], tmp_path: Path, alpha: int, rslora: bool
) -> None:
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(folders["sd1"], local_files_only=True)
    ends = {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj"]}
    networks = {name: getattr(pipeline, name) for name in ends}
    draw = torch.Generator().manual_seed(1)
    for name, network in networks.items():
        network.add_adapter(
            LoraConfig(
                r=4,
                lora_alpha=8,
                alpha_pattern={} if alpha == 8 else dict.fromkeys(ends[name], alpha),
                use_rslora=rslora,
                target_modules=ends[name],
            )
        )
        for key, value in network.named_parameters():
            if "lora_B" in key:
                value.data.normal_(generator=draw)
    states = {
        name: convert_state_dict_to_diffusers(get_peft_model_state_dict(network))
        for name, network in networks.items()
    }
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        **_collate_lora_metadata(networks),
    )
    loaded = StableDiffusionPipeline.from_pretrained(folders["sd1"], local_files_only=True)
    loaded.load_lora_weights(tmp_path, adapter_name="own")
    known = linear_layers(weight_shapes(open_model(folders["sd1"])))
    pairs, metadata = read_lora(tmp_path, known)
    assert (float(metadata["alpha"]), metadata["rslora"]) == (alpha, str(rslora).lower())
    layers = {
        f"{name}.{path}".replace(".text_model.", "."): layer
        for name in ends
        for path, layer in getattr(loaded, name).named_modules()
        if hasattr(layer, "scaling")
    }
    assert layers.keys() == pairs.keys()
    for path, (first, second) in pairs.items():
        theirs = layers[path].get_delta_weight("own").detach().numpy()
        np.testing.assert_allclose(second @ first, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "beside"),
    [
        ("sdxl", adapter_of),
        ("sd1", adapter_of_all),
        pytest.param("sd1", adapter_of, marks=pytest.mark.slow),
        pytest.param("sd2", adapter_of, marks=pytest.mark.slow),
        pytest.param("sdxl", adapter_of_all, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_autograd_through_peft(
    folders: dict[str, Path],
    tmp_path: Path,
    family: Family,
    beside: Callable[[ModelFolder], Adapter],
) -> None:
    model = open_model(folders[family])
    adapter, batch = beside(model), batch_for(family)
    blocks = blocks_of(adapter)
    runtime = open_adapted(model, adapter, blocks, batch)
    runtime.gradient_batch_limit = 2  # two calls, whose gradients are added up
    found: dict[str, Array] = {}
    losses = runtime.backward(batch, found.__setitem__)
    pipeline = stock_pipeline(folders[family], family)
    pipeline.load_lora_weights(written(tmp_path, model, adapter, blocks))
    networks = {name: getattr(pipeline, name) for name in ("unet", *model.text_encoders)}
    trained = {}
    for component, network in networks.items():
        for name, value in network.named_parameters():
            if ".lora_" in name:
                path = name.replace("text_model.", "").replace(".default_0.weight", "")
                trained[f"{component}.{path}"] = value.requires_grad_()
    error = stock_output(pipeline, family, batch) - torch.from_numpy(batch["target"])
    loss = error.square().mean()
    theirs = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    assert found.keys() == trained.keys()
    np.testing.assert_allclose(losses.mean(), loss.item(), rtol=1e-5)
    for name, gradient in zip(trained, theirs, strict=True):
        expected = np.zeros_like(found[name]) if gradient is None else gradient.numpy()
        # theirs is of B times the scale
        expected = expected * (adapter.scale if name.endswith("lora_B") else 1.0)
        size = max(float(np.abs(expected).max()), 1e-8)
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-3 * size)


def test_weighted_losses_are_their_definition_and_move_the_gradient(
    folders: dict[str, Path],
) -> None:
    model = open_model(folders["sd1"])
    adapter, batch = adapter_of(model, texts=False), batch_for("sd1")
    blocks = blocks_of(adapter)
    runtime = open_adapted(model, adapter, blocks, batch)
    weights = np.random.default_rng(2).random((3, 1, 8, 8), np.float32)
    weights[2] = 0  # nothing of this sample counts
    weighted = {**batch, "weights": weights}
    output = runtime.predict(batch, runtime.parameters)
    expected = weighted_losses(output, np.asarray(batch["target"]), weights)
    (losses,) = runtime.forward(weighted, [runtime.parameters])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    found: dict[str, Array] = {}
    np.testing.assert_allclose(runtime.backward(weighted, found.__setitem__), expected, rtol=1e-5)
    without: dict[str, Array] = {}
    first = {name: value[:2] for name, value in weighted.items()}
    runtime.backward(first, without.__setitem__)
    for name, gradient in found.items():  # a mean over three samples, one of them zero
        size = float(np.abs(without[name]).max())
        np.testing.assert_allclose(3 * gradient, 2 * without[name], rtol=1e-3, atol=1e-4 * size)


def gradients_of(runtime: AdaptedDiffusion, batch: Batch) -> dict[str, Array]:
    found: dict[str, Array] = {}
    runtime.backward(batch, found.__setitem__)
    return found


@pytest.mark.parametrize("quant", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_beside_a_base_in_few_bits_slopes_are_those_of_its_own_loss(
    folders: dict[str, Path], quant: str
) -> None:
    model = open_model(folders["sd1"])
    adapter, batch = adapter_of(model), batch_for("sd1")
    blocks = blocks_of(adapter)
    runtime = open_adapted(model, adapter, blocks, batch, quant=quant)
    gradients = gradients_of(runtime, batch)
    direction = {name: np.sign(gradient) for name, gradient in gradients.items()}
    step = 1e-4  # long enough for float32, short enough for a straight line
    points = [
        {name: block + np.float32(side * step) * direction[name] for name, block in blocks.items()}
        for side in (1, -1)
    ]
    above, below = runtime.forward(batch, points).astype(np.float64).mean(axis=1)
    slope = sum(float(np.abs(gradient).sum()) for gradient in gradients.values())
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_weights_left_in_their_file_give_the_same_bits(folders: dict[str, Path]) -> None:
    model = open_model(folders["sd1"])
    adapter, batch = adapter_of(model), batch_for("sd1")
    blocks = blocks_of(adapter)
    held = gradients_of(open_adapted(model, adapter, blocks, batch, quant="int8"), batch)
    lean = gradients_of(open_adapted(model, adapter, blocks, batch, quant="int8", lean=True), batch)
    for name, gradient in held.items():
        np.testing.assert_array_equal(lean[name], gradient)


def test_products_in_bfloat16_come_near_those_in_float32(folders: dict[str, Path]) -> None:
    model = open_model(folders["sd1"])
    adapter, batch = adapter_of(model), batch_for("sd1")
    blocks = blocks_of(adapter)
    exact = gradients_of(open_adapted(model, adapter, blocks, batch), batch)
    rounded = gradients_of(open_adapted(model, adapter, blocks, batch, dtype="bfloat16"), batch)
    whole, near = (np.concatenate([g[name].ravel() for name in exact]) for g in (exact, rounded))
    assert near.dtype == np.float32
    cosine = float(whole @ near / np.linalg.norm(whole) / np.linalg.norm(near))
    assert cosine > 0.99  # 8 bits of a number, through a few layers, on any processor
