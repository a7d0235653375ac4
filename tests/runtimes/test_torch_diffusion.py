"""The torch runtime agrees with the stock modules, loads small, and leaves its inputs alone."""

import errno
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from fake_cuda import GB, FakeCuda
from numpy.typing import NDArray
from optimum.quanto import QLinear, freeze, qint4, qint8, quantize
from quanto_reference import read_by_definition, refuse_to_compile
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from tiny_models import Family, make_tiny_model, prompt_ids
from torch.utils.flop_counter import FlopCounterMode

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch
from edge_train.errors import InputError, ModelError
from edge_train.formats.diffusion_folder import ModelFolder, open_model
from edge_train.protocols import GradientRuntime
from edge_train.runtimes.torch.card_memory import _KERNEL_BYTES, CardMemory
from edge_train.runtimes.torch.diffusion import TorchDiffusion
from edge_train.runtimes.torch.vae import decode_latents, encode_photos
from edge_train.tasks.personalize.footprint import denoiser_operations

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
PROMPT = "a photo of"
TIME_IDS = (32, 32, 0, 0, 32, 32)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Take one thread, as `open` does, and give back what was there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    refuse_to_compile(monkeypatch, tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: make_tiny_model(root / family, family) for family in FAMILIES}


def assert_close(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Compare the same float32 arithmetic in another order: other batch sizes, other kernels."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def vectors_for(model: ModelFolder, vectors: int = 2) -> Parameters:
    generator = np.random.default_rng(5)
    names = ("token", "token_2")[: len(model.text_widths)]
    return Parameters(
        {
            name: 0.1 * generator.standard_normal((vectors, width))
            for name, width in zip(names, model.text_widths, strict=True)
        }
    )


def prompts(*rows: Sequence[str | int], pad: int | None = None) -> NDArray[np.int64]:
    return np.array([prompt_ids(*row, pad=pad) for row in rows], np.int64)


def batch_for(family: str, *rows: Sequence[str | int]) -> Batch:
    """Return a batch with one sample per prompt."""
    generator = np.random.default_rng(11)
    samples = len(rows)
    batch: dict[str, NDArray[Any]] = {
        "latents": generator.standard_normal((samples, 4, 8, 8), np.float32),
        "target": generator.standard_normal((samples, 4, 8, 8), np.float32),
        "timesteps": generator.integers(0, 1000, samples),
        "ids": prompts(*rows, pad=0 if family == "sd2" else None),
    }
    if family == "sdxl":
        batch["ids_2"] = prompts(*rows, pad=0)
        batch["time_ids"] = np.array([TIME_IDS] * samples, np.float32)
    return batch


def known_ids(batch: Batch) -> list[list[int]]:
    used = [np.unique(batch[key]) for key in ("ids", "ids_2") if key in batch]
    return [ids[ids >= 0].tolist() for ids in used]


def open_runtime(folder: Path, batch: Batch, **options: Any) -> TorchDiffusion:
    model = open_model(folder)
    options = {"device": "cpu", "dtype": "float32", "threads": 1, **options}
    return TorchDiffusion.open(model, vectors_for(model), token_ids=known_ids(batch), **options)


def gradients_of(runtime: TorchDiffusion, batch: Batch) -> tuple[Array, dict[str, Array]]:
    found: dict[str, Array] = {}
    losses = runtime.backward(batch, found.__setitem__)
    return losses, found


def stock_pipeline(folder: Path, family: str, parameters: Parameters, **options: Any) -> Any:
    """Return diffusers' own pipeline that has loaded the same vectors as `<new>`."""
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, local_files_only=True, **options)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(
        {"<new>": torch.from_numpy(parameters["token"].copy())},
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
    )
    if family == "sdxl":
        pipeline.load_textual_inversion(
            {"<new>": torch.from_numpy(parameters["token_2"].copy())},
            text_encoder=pipeline.text_encoder_2,
            tokenizer=pipeline.tokenizer_2,
        )
    return pipeline


def stock_output(pipeline: Any, batch: Batch, prompt: str) -> torch.Tensor:
    """Return the UNet's output for a prompt, all by diffusers' own code."""
    encoded = pipeline.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    condition = {}
    if len(encoded) == 4:
        time_ids = torch.from_numpy(batch["time_ids"])
        condition["added_cond_kwargs"] = {"text_embeds": encoded[2], "time_ids": time_ids}
    latents = torch.from_numpy(batch["latents"]).to(pipeline.unet.dtype)
    timesteps = torch.from_numpy(batch["timesteps"])
    output: torch.Tensor = pipeline.unet(latents, timesteps, encoded[0], **condition).sample
    return output


@pytest.mark.parametrize("family", FAMILIES)
def test_a_multi_vector_token_gives_what_diffusers_gives(
    family: Family, folders: dict[str, Path]
) -> None:
    batch = batch_for(family, ("a", "photo", "of", -1, -2))
    runtime = open_runtime(folders[family], batch)
    pipeline = stock_pipeline(folders[family], family, runtime.parameters)
    with torch.no_grad():
        stock = stock_output(pipeline, batch, f"{PROMPT} <new>").numpy()
    ours = runtime.predict(batch, runtime.parameters)
    assert_close(ours, stock)
    loss = runtime.forward(batch, [runtime.parameters])
    assert loss.shape == (1, 1) and loss.dtype == np.float32
    np.testing.assert_allclose(loss[0, 0], ((stock - batch["target"]) ** 2).mean(), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_the_stock_modules(
    family: Family, folders: dict[str, Path]
) -> None:
    batch = batch_for(family, ("a", "photo", "of", -1, -2))
    runtime = open_runtime(folders[family], batch)
    pipeline = stock_pipeline(folders[family], family, runtime.parameters)
    tables = [pipeline.text_encoder.get_input_embeddings().weight]
    if family == "sdxl":
        tables.append(pipeline.text_encoder_2.get_input_embeddings().weight)
    output = stock_output(pipeline, batch, f"{PROMPT} <new>")
    loss = (output - torch.from_numpy(batch["target"])).square().mean()
    stock = [table[-2:].numpy() for table in torch.autograd.grad(loss, tables)]
    losses, gradients = gradients_of(runtime, batch)
    np.testing.assert_allclose(losses, [loss.item()], rtol=1e-5)
    assert list(gradients) == ["token", "token_2"][: len(stock)]
    for ours, theirs in zip(gradients.values(), stock, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_slope_of_the_loss(family: Family, folders: dict[str, Path]) -> None:
    batch = batch_for(family, ("a", "photo", "of", -1, -2), ("a", "dog"), ("thing", -2, -1))
    runtime = open_runtime(folders[family], batch)
    start = runtime.parameters.copy()
    losses, gradients = gradients_of(runtime, batch)
    # Along its gradient a loss changes most, so float32 rounding (1e-7 of the loss) is far below.
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    step = np.float32(1e-3)
    ahead, behind = (
        {name: block + sign * step * gradients[name] / length for name, block in start.items()}
        for sign in (1, -1)
    )
    values = runtime.forward(batch, [ahead, behind, start]).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose((values[0] - values[1]) / (2 * step), length, rtol=0.02)
    np.testing.assert_allclose(losses.mean(), values[2], rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_small_batches_give_the_gradient_of_the_full_batch(
    family: Family, folders: dict[str, Path]
) -> None:
    rows = [("a", "photo", "of", -1, -2), ("dog", -1), ("a", "photo", "of", -1, -2), ("a", "dog")]
    batch = batch_for(family, *rows)
    runtime = open_runtime(folders[family], batch)
    runtime.gradient_batch_limit = 4
    losses, gradients = gradients_of(runtime, batch)
    for limit in (1, 3, None):
        runtime.gradient_batch_limit = limit
        other_losses, other = gradients_of(runtime, batch)
        assert_close(other_losses, losses)
        for name, gradient in gradients.items():
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(other[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_small_calls_give_the_losses_of_large_ones(folders: dict[str, Path]) -> None:
    batch = batch_for("sdxl", ("a", -1, -2), ("a", "dog"), ("thing", -1))
    runtime = open_runtime(folders["sdxl"], batch)
    start = runtime.parameters.copy()
    points = [{k: v * scale for k, v in start.items()} for scale in (1, 2, -1)]
    together, outputs = runtime.forward(batch, points), runtime.predict(batch, start)
    assert together.shape == (3, 3) and outputs.shape == batch["latents"].shape
    for limit in (1, 2, 5):
        runtime.batch_limit = limit
        assert_close(runtime.forward(batch, points), together)
        assert_close(runtime.predict(batch, start), outputs)


def test_a_prompt_without_the_token_has_one_loss_for_all_points(folders: dict[str, Path]) -> None:
    batch = batch_for("sd1", ("a", "dog"), ("a", -1))
    runtime = open_runtime(folders["sd1"], batch)
    runtime.batch_limit = 1
    losses = runtime.forward(batch, [{"token": runtime.parameters["token"] * s} for s in (1, -3)])
    assert losses[0, 0] == losses[1, 0]
    assert losses[0, 1] != losses[1, 1]


def test_forward_leaves_parameters_and_batch_as_they_were(folders: dict[str, Path]) -> None:
    batch = batch_for("sdxl", ("a", -1, -2))
    runtime = open_runtime(folders["sdxl"], batch)
    before, inputs = runtime.parameters.copy(), {key: value.copy() for key, value in batch.items()}
    first = runtime.forward(batch, [{k: v + 1 for k, v in before.items()}, before])
    runtime.backward(batch, lambda name, gradient: None)
    again = runtime.forward(batch, [{k: v + 1 for k, v in before.items()}, before])
    assert first.tobytes() == again.tobytes()
    for name, block in before.items():
        assert runtime.parameters[name].tobytes() == block.tobytes()
    for key, value in inputs.items():
        assert batch[key].tobytes() == value.tobytes()


def test_the_end_of_a_text_is_found_with_either_spelling_of_its_id(tmp_path: Path) -> None:
    """Published text configs say the end is id 2 and mean the largest id; both pool at the end."""
    batch = batch_for("sdxl", ("a", "photo", "of", -1, -2), ("a", "dog"))
    outputs = []
    for legacy in (True, False):
        folder = make_tiny_model(tmp_path / str(legacy), "sdxl", legacy_end=legacy)
        runtime = open_runtime(folder, batch)
        outputs.append(runtime.predict(batch, runtime.parameters))
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quant", ["int8", "int4"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_layer_by_layer_quantizing_equals_quantizing_the_loaded_model(
    family: Family,
    quant: str,
    dtype: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = batch_for(family, ("a", "photo", "of", -1, -2))
    runtime = open_runtime(folders[family], batch, quant=quant, dtype=dtype)
    ours = runtime.predict(batch, runtime.parameters)
    read_by_definition(monkeypatch)  # the stock model; ours has computed without
    number = getattr(torch, dtype)
    pipeline = stock_pipeline(folders[family], family, runtime.parameters, dtype=number)
    for part in (pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if part is not None:
            quantize(part, weights={"int8": qint8, "int4": qint4}[quant])
            freeze(part)
            for layer in part.modules():
                if isinstance(layer, QLinear):  # else the bfloat16 kernel refuses strided inputs
                    layer.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
    with torch.no_grad():
        stock = stock_output(pipeline, batch, f"{PROMPT} <new>").float().numpy()
    np.testing.assert_array_equal(ours, stock)
    assert runtime.dtype == dtype and runtime.device == "cpu"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_quantized_models_have_gradients(quant: str, dtype: str, folders: dict[str, Path]) -> None:
    batch = batch_for("sd1", ("a", "photo", "of", -1, -2))
    _, exact = gradients_of(open_runtime(folders["sd1"], batch), batch)
    runtime = open_runtime(folders["sd1"], batch, quant=quant, dtype=dtype)
    _, found = gradients_of(runtime, batch)
    a, b = exact["token"].ravel(), found["token"].ravel()
    # int8 weights are within 1/127 of the float ones, int4 weights within 1/15.
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > {"int8": 0.95, "int4": 0.3}[quant]


def test_int8_layers_that_would_crash_the_packed_kernel_stay_float(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, text_width=40)  # no multiple of 16
    batch = batch_for("sd1", ("a", -1))
    runtime = open_runtime(folder, batch, quant="int8", dtype="bfloat16")
    exact = open_runtime(folder, batch)
    found, expected = (each.forward(batch, [each.parameters]) for each in (runtime, exact))
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_files_with_the_published_tensor_names_load_the_same(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Published text encoders have a prefix, their old VAEs other names, that we save without."""
    make_tiny_model(tmp_path)
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name}": value for name, value in load_file(path).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(16)[None]}, path)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in load_file(path).items():
        for new_name, old_name in old.items():
            name = name.replace(f".{new_name}.", f".{old_name}.")
        renamed[name] = value
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in renamed
    save_file(renamed, path)
    batch = batch_for("sd1", ("a", -1))
    ours, stock = (open_runtime(folder, batch) for folder in (tmp_path, folders["sd1"]))
    assert ours.forward(batch, [ours.parameters]) == stock.forward(batch, [ours.parameters])
    found, expected = (
        decode_latents(open_model(folder), batch["latents"])
        for folder in (tmp_path, folders["sd1"])
    )
    np.testing.assert_array_equal(found, expected)


def test_float16_files_open_in_float32(tmp_path: Path, folders: dict[str, Path]) -> None:
    batch = batch_for("sd1", ("a", -1))
    half = open_runtime(make_tiny_model(tmp_path, dtype=torch.float16), batch)
    full = open_runtime(folders["sd1"], batch)
    found, expected = (each.forward(batch, [each.parameters]) for each in (half, full))
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert half.dtype == "float32"


def test_ids_that_were_not_announced_are_refused(folders: dict[str, Path]) -> None:
    runtime = open_runtime(folders["sd1"], batch_for("sd1", ("a", -1)))
    other = batch_for("sd1", ("dog", -1))
    with pytest.raises(ValueError, match="were not in token_ids"):
        runtime.forward(other, [runtime.parameters])


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("quant", "int3", "did you mean 'int8'"),
        ("dtype", "float8", "expected auto, float32, bfloat16, float16"),
        ("device", "tpu", "expected auto, cpu or cuda"),
    ],
)
def test_unknown_options_are_refused_by_name(
    option: str, value: str, expected: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=f"{value}.*{expected}"):
        open_runtime(folders["sd1"], batch_for("sd1", ("a",)), **{option: value})


def test_a_unet_is_counted_as_torch_counts_it() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64, 64),
            cross_attention_dim=48,
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
        unet(torch.randn(1, 4, 16, 16), torch.tensor([5]), torch.randn(1, 7, 48))
    shapes = {f"unet.{name}": tuple(value.shape) for name, value in unet.state_dict().items()}
    assert denoiser_operations(shapes, 256, 7) == counted.get_total_flops()


def test_cuda_is_refused_where_there_is_none(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="use --device cpu"):
        open_runtime(folders["sd1"], batch_for("sd1", ("a",)), device="cuda")
    runtime = open_runtime(folders["sd1"], batch_for("sd1", ("a",)), device="auto", dtype="auto")
    assert (runtime.device, runtime.dtype) == ("cpu", "float32")
    assert runtime.device_bytes() == 0


@pytest.mark.parametrize(
    ("cap_bytes", "share"), [(2 * GB, (2 * GB - _KERNEL_BYTES) / (8 * GB)), (1000 * GB, 1.0)]
)
def test_on_cuda_the_allocator_is_limited_to_the_cap(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, cap_bytes: int, share: float
) -> None:
    cuda = FakeCuda().install(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):  # there is none
        open_runtime(folders["sd1"], batch_for("sd1", ("a",)), device="cuda", cap_bytes=cap_bytes)
    assert cuda.shares == [pytest.approx(share)]


def test_on_cuda_workspaces_outside_the_allocator_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(1000).install(monkeypatch)
    cuda.free, cuda.reserved = 900, 100
    card = CardMemory(torch.device("cuda"))
    cuda.reserved = 150
    assert card.peak_bytes() == 150
    cuda.free = 600
    assert card.peak_bytes() == 400
    cuda.gone = True  # a driver that went away does not hide what was measured, nor raise
    card.give_back()
    assert card.peak_bytes() == 400


def _without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_in.weight"]


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:8].clone()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [(_without, "no tensor 'conv_in.weight'"), (_narrow, r"is F32 \[8, 4, 3, 3\]")],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    spoil: Callable[[dict[str, torch.Tensor]], None], expected: str, tmp_path: Path
) -> None:
    make_tiny_model(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path)
    with pytest.raises(ModelError, match=expected):
        open_runtime(tmp_path, batch_for("sd1", ("a",)))


def test_a_closed_runtime_holds_no_weights(folders: dict[str, Path]) -> None:
    gc.collect()
    before = sum(type(each) is torch.nn.Parameter for each in gc.get_objects())
    runtime = open_runtime(folders["sd1"], batch_for("sd1", ("a",)))
    runtime.close()
    gc.collect()
    assert sum(type(each) is torch.nn.Parameter for each in gc.get_objects()) == before


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_photos_become_the_latents_of_the_stock_pipeline(
    family: Family, folders: dict[str, Path]
) -> None:
    model = open_model(folders[family])
    pipeline = stock_pipeline(folders[family], family, vectors_for(model))
    photos = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    mean, deviation = encode_photos(model, photos, "cpu")
    with torch.no_grad():
        pixels = pipeline.image_processor.preprocess(photos.astype(np.float32) / 255)
        stock = pipeline.vae.encode(pixels).latent_dist
    factor = pipeline.vae.config.scaling_factor
    assert_close(mean, stock.mean.numpy() * factor)
    assert_close(deviation, stock.std.numpy() * factor)
    assert mean.dtype == deviation.dtype == np.float32


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_latents_become_the_pictures_of_the_stock_pipeline(
    family: Family, folders: dict[str, Path]
) -> None:
    model = open_model(folders[family])
    pipeline = stock_pipeline(folders[family], family, vectors_for(model))
    latents = np.random.default_rng(2).standard_normal((3, 4, 8, 8), np.float32)
    pictures = decode_latents(model, latents, "cpu")
    with torch.no_grad():
        scaled = torch.from_numpy(latents) / pipeline.vae.config.scaling_factor
        decoded = pipeline.vae.decode(scaled).sample
    stock = pipeline.image_processor.postprocess(decoded, output_type="pil")
    difference = pictures.astype(int) - np.stack([np.asarray(image) for image in stock])
    assert np.abs(difference).max() <= 1  # a level may round the other way
    assert np.abs(difference).mean() < 0.01


FRESH_PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
import torch
import diffusers.models.unets.unet_2d_condition, transformers.models.clip.modeling_clip
import optimum.quanto.nn
from safetensors.numpy import load_file
from edge_train.formats.diffusion_folder import open_model
from edge_train.arrays.parameters import Parameters
from edge_train.runtimes.torch.diffusion import TorchDiffusion

def memory(key):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if key in l)
    return int(line.split()[1]) * 1024

folder, quant = sys.argv[1:]
model = open_model(Path(folder))
batch = load_file(Path(folder) / "batch.safetensors")
parameters = Parameters({"token": batch.pop("token")})
torch.set_num_threads(1)
torch.ones(64, 64) @ torch.ones(64, 64)
before = memory("VmRSS")
runtime = TorchDiffusion.open(
    model, parameters, quant=quant, dtype="float32", device="cpu",
    token_ids=[[i for i in np.unique(batch["ids"]).tolist() if i >= 0]], threads=1,
)
peak = memory("VmHWM") - before
loss = runtime.forward(batch, [parameters])
print(json.dumps({"peak": peak, "loss": loss.tobytes().hex()}))
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_float_model_never_exists_whole(tmp_path: Path) -> None:
    """And a fresh process computes bitwise the same losses as this one."""
    folder = make_tiny_model(tmp_path, widths=(192, 384))
    batch = batch_for("sd1", ("a", "photo", "of", -1, -2))
    runtime = open_runtime(folder, batch, quant="int8")
    save_arrays({**batch, "token": runtime.parameters["token"]}, folder / "batch.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(folder), "int8"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    model = open_model(folder)
    (file,) = model.tensor_files("unet")
    largest = max(entry.nbytes for entry in file.entries.values())
    count = model.parameter_count("unet")
    assert count > 30_000_000
    # One byte a weight, four copies of the largest layer, 16 MB for code and the text encoder.
    assert found["peak"] < 1.05 * count + 4 * largest + 16_000_000 < 0.75 * 4 * count
    assert found["loss"] == runtime.forward(batch, [runtime.parameters]).tobytes().hex()


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_weights_in_a_file_give_the_bits_of_weights_in_memory(
    quant: str, folders: dict[str, Path]
) -> None:
    batch = batch_for("sd1", ["a", -1], ["b"])
    usual = open_runtime(folders["sd1"], batch, quant=quant)
    lean = open_runtime(folders["sd1"], batch, quant=quant, lean=True)
    assert usual.pages is None and lean.pages is not None
    lean.pages.release()
    np.testing.assert_array_equal(
        lean.forward(batch, [lean.parameters]), usual.forward(batch, [usual.parameters])
    )
    lean.pages.release()
    losses, gradients = gradients_of(lean, batch)
    expected_losses, expected = gradients_of(usual, batch)
    np.testing.assert_array_equal(losses, expected_losses)
    np.testing.assert_array_equal(gradients["token"], expected["token"])
    assert (lean.passes, lean.evaluations) == (1, 2)


def test_of_weights_in_a_file_none_stays_in_memory(folders: dict[str, Path]) -> None:
    batch = batch_for("sd1", ["a", -1])
    runtime = open_runtime(folders["sd1"], batch, quant="int8", lean=True)
    weights = dict(runtime._unet.named_parameters())
    first = np.frombuffer(runtime.pages._file.map, np.uint8, 1).ctypes.data
    for name, weight in weights.items():
        parts = [weight]
        if hasattr(weight, "_data"):
            parts = [weight._data, weight._scale]
        for part in parts:
            assert first <= part.data_ptr() < first + runtime.pages.bytes, name
    runtime.pages.release()
    if runtime.pages.resident_bytes() is not None:
        assert runtime.pages.resident_bytes() == 0
    runtime.close()
    runtime.close()


def test_a_disk_without_room_for_the_weights_is_said(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, start: int, count: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        InputError, match=r"no room .* more \(No space left on device\); set TMPDIR"
    ):
        open_runtime(folders["sd1"], batch_for("sd1", ["a"]), lean=True)


def test_it_is_a_gradient_runtime(folders: dict[str, Path]) -> None:
    runtime: GradientRuntime = open_runtime(folders["sd1"], batch_for("sd1", ("a",)))
    assert set(runtime.parameters) == {"token"}
