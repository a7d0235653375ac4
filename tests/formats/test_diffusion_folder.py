"""Model folders: what is read from a good one, and one clear sentence for each bad one."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_model

from edge_train.errors import ModelError
from edge_train.formats.diffusion_folder import noise_schedule, open_model
from edge_train.formats.hub import find_model
from edge_train.formats.tensor_file import TensorFile

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "sd1")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """Return a copy of the good model, to be spoiled."""
    return shutil.copytree(good, tmp_path / "model")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def refused(name: Path | str) -> str:
    """Return the message with which a model is refused: one line, naming the next thing to do."""
    with pytest.raises(ModelError) as caught:
        find_model(str(name))
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", ")"))
    return message


@pytest.mark.parametrize(
    ("family", "widths", "prediction"),
    [
        ("sd1", (32,), "epsilon"),
        ("sd2", (32,), "v_prediction"),
        ("sdxl", (32, 48), "epsilon"),
    ],
)
def test_a_folder_tells_its_family_and_sizes(
    family: Any, widths: tuple[int, ...], prediction: str, tmp_path: Path
) -> None:
    model = find_model(str(make_tiny_model(tmp_path, family)))
    assert (model.family, model.text_widths, model.prediction_type) == (family, widths, prediction)
    assert (model.resolution, model.latent_scale, model.latent_channels) == (32, 4, 4)
    assert model.scaling_factor == (0.13025 if family == "sdxl" else 0.18215)
    assert model.prompt_tokens == 16
    assert [path.name for path in model.tokenizers] == ["tokenizer", "tokenizer_2"][: len(widths)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.4]},
    ],
)
def test_the_noise_schedule_is_that_of_diffusers(changes: dict[str, Any]) -> None:
    config = {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        **changes,
    }
    stock = DDIMScheduler.from_config(config).alphas_cumprod.numpy()
    # diffusers multiplies 1000 factors in float32: up to 1000 roundings of 2^-24 each.
    np.testing.assert_allclose(noise_schedule(config, Path()), stock, rtol=6e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_token_rows_are_read_exactly_in_every_float_type(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = find_model(str(make_tiny_model(tmp_path, dtype=dtype)))
    table = load_file(tmp_path / "text_encoder" / "model.safetensors")
    whole = table["embeddings.token_embedding.weight"].float().numpy()
    rows = model.embedding_rows("text_encoder", [7, 0, 524, 7])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, whole[[7, 0, 524, 7]])


def test_a_token_id_outside_the_vocabulary_is_refused(good: Path) -> None:
    with pytest.raises(ModelError, match="token id 525 is outside the vocabulary of 525"):
        open_model(good).embedding_rows("text_encoder", [1, 525])


def test_the_hash_changes_with_any_weight_and_with_nothing_else(folder: Path) -> None:
    before = open_model(folder).sha256()
    edit(folder / "unet" / "config.json", _name_or_path="elsewhere")
    assert open_model(folder).sha256() == before
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert open_model(folder).sha256() != before


def test_plain_weights_go_before_float16_ones(folder: Path) -> None:
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(folder / WEIGHTS, half)
    assert open_model(folder).weight_files("unet") == (folder / WEIGHTS,)
    (folder / WEIGHTS).unlink()
    assert open_model(folder).weight_files("unet") == (half,)


def test_sharded_weights_are_found_through_their_index(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    count = open_model(folder).parameter_count("unet")
    (folder / WEIGHTS).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="2MB")
    model = open_model(folder)
    assert len(model.weight_files("unet")) == 3
    assert model.parameter_count("unet") == count
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    edit(index, weight_map={"conv_in.weight": "../elsewhere.safetensors"})
    assert "lists no files of this folder" in refused(folder)


def test_an_unknown_name_is_refused_with_a_model_that_exists() -> None:
    assert "no model './nowhere'" in refused("./nowhere")
    assert "name one, or tiny-sd, the embedded model" in refused("no such thing")


def test_a_single_file_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    for name, sentence in {"a.ckpt": "is a pickle file", "a.safetensors": "--for folder"}.items():
        (tmp_path / name).write_bytes(b"\x80\x02")
        assert sentence in refused(tmp_path / name)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    assert "no model_index.json" in refused(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt"])
def test_pickle_weights_are_never_loaded(folder: Path, suffix: str) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / f"diffusion_pytorch_model{suffix}")
    message = refused(folder)
    assert f"only diffusion_pytorch_model{suffix}, a pickle file" in message
    assert "safe_serialization=True" in message


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert f"{folder / 'unet'}: no .safetensors file" in refused(folder)


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _cut_header(content: bytes) -> bytes:
    return content[:100]


def _scramble(content: bytes) -> bytes:
    return content[:8] + b"#" + content[9:]


@pytest.mark.parametrize("spoil", [_cut, _cut_header, _scramble, lambda _: b"", lambda _: b"no"])
def test_a_damaged_weight_file_is_refused_at_once(
    folder: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = folder / WEIGHTS
    path.write_bytes(spoil(path.read_bytes()))
    assert "not a whole safetensors file" in refused(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": "two", "data_offsets": [0, 8]},
        7,
    ],
)
def test_a_header_that_lies_is_refused(entry: Any, tmp_path: Path) -> None:
    header = json.dumps({"weight": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        TensorFile(path)


def test_a_file_cut_while_open_is_refused(folder: Path) -> None:
    model = open_model(folder)
    (file,) = model.tensor_files("text_encoder")
    file.path.write_bytes(file.path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="became shorter"):
        file.rows("embeddings.token_embedding.weight", [500])


@pytest.mark.parametrize("part", ["model_index.json", "unet/config.json"])
def test_broken_json_is_refused_by_name(folder: Path, part: str) -> None:
    (folder / part).write_text('{"a": 1')
    assert f"{folder / part}: not valid JSON" in refused(folder)
    (folder / part).write_text("[1]")
    assert "expected a JSON object" in refused(folder)


def test_a_missing_config_is_refused_by_name(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    assert "No such file" in refused(folder)


@pytest.mark.parametrize("kind", ["FluxPipeline", "StableDiffusion3Pipeline", ["x", "Mine"], None])
def test_other_pipelines_are_refused_by_name(folder: Path, kind: Any) -> None:
    edit(folder / "model_index.json", _class_name=kind)
    assert f"pipeline {kind!r} is not supported" in refused(folder)


@pytest.mark.parametrize("found", [["my_unet", "MyUNet"], ["unet.py", "X"], [None, None], "x"])
def test_parts_of_custom_code_are_refused(folder: Path, found: Any) -> None:
    edit(folder / "model_index.json", unet=found)
    assert "code from a model folder is never run" in refused(folder)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("vae/config.json", "latent_channels"),
        ("text_encoder/config.json", "hidden_size"),
        ("scheduler/scheduler_config.json", "num_train_timesteps"),
        ("scheduler/scheduler_config.json", "beta_end"),
    ],
)
def test_a_missing_value_is_refused_by_name(folder: Path, part: str, key: str) -> None:
    edit(folder / part, **{key: None})
    assert f"has no {key!r}" in refused(folder)


@pytest.mark.parametrize(
    ("found", "pixels"), [(8, 32), ([8, 8], 32), ([16, 8], 32), (None, 4 * 64)], ids=str
)
def test_the_resolution_is_read_in_every_spelling(folder: Path, found: Any, pixels: int) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": found}))
    assert find_model(str(folder)).resolution == pixels


@pytest.mark.parametrize("found", ["64", [], [64, "x"], 0, -8, 8.5, True], ids=str)
def test_a_resolution_that_is_no_number_is_refused(folder: Path, found: Any) -> None:
    edit(folder / "unet" / "config.json", sample_size=found)
    assert "sample_size is" in refused(folder)


def test_values_we_cannot_train_with_are_refused(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "prediction_type 'sample'" in refused(folder)
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    edit(folder / "scheduler" / "scheduler_config.json", beta_schedule="laplace")
    assert "unknown beta_schedule 'laplace'" in refused(folder)
    edit(folder / "scheduler" / "scheduler_config.json", beta_schedule="linear")
    edit(folder / "unet" / "config.json", in_channels=9)
    assert "takes 9 channels" in refused(folder)


def test_a_missing_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "vocab.json").unlink()
    assert "no vocab.json" in refused(folder)


def test_a_text_encoder_of_another_kind_is_refused(folder: Path) -> None:
    save_file({"shared.weight": torch.zeros(2, 2)}, folder / "text_encoder" / "model.safetensors")
    with pytest.raises(ModelError, match="not a CLIP text encoder"):
        open_model(folder).embedding_rows("text_encoder", [0])


def test_the_embedded_model_needs_no_network(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_train.formats.hub.MODEL_FOLDER", good)
    assert find_model("tiny-sd").path == good
    monkeypatch.setattr("edge_train.formats.hub.MODEL_FOLDER", tmp_path / "gone")
    assert "not part of this installation" in refused("tiny-sd")


class Hub:
    """Stands in for the hub: a repository on disk, a cache, and a record of what was fetched."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self.asked: list[list[str]] = []
        self.online = True

    def list_repo_files(self, name: str) -> list[str]:
        return [
            path.relative_to(self.repository).as_posix()
            for path in self.repository.rglob("*")
            if path.is_file()
        ]

    def snapshot_download(
        self,
        name: str,
        local_files_only: bool = False,
        allow_patterns: list[str] | None = None,
    ) -> str:
        if local_files_only:
            if not self.cache.is_dir():
                raise FileNotFoundError("not cached")
            return str(self.cache)
        if not self.online:
            raise RuntimeError("no route to host\nsecond line")
        self.asked.append(allow_patterns or [])
        for path in self.list_repo_files(name):
            if any(Path(path).match(pattern) for pattern in allow_patterns or []):
                (self.cache / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.repository / path, self.cache / path)
        return str(self.cache)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(folder, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", hub.list_repo_files)
    return hub


def test_a_hub_model_is_fetched_once_without_pickles_or_code(hub: Hub) -> None:
    for name in ("unet/diffusion_pytorch_model.bin", "unet/code.py", "all-in-one.safetensors"):
        (hub.repository / name).write_bytes(b"x" * 10)
    shutil.copy(hub.repository / WEIGHTS, hub.repository / WEIGHTS.replace(".safe", ".fp16.safe"))
    model = find_model("owner/name")
    assert len(hub.asked) == 2
    fetched = {path.name for path in hub.cache.rglob("*")}
    assert "diffusion_pytorch_model.safetensors" in fetched
    assert not any("fp16" in name or name.endswith((".bin", ".py")) for name in fetched)
    assert "all-in-one.safetensors" not in fetched
    hub.online = False
    assert find_model("owner/name").sha256() == model.sha256()


def test_only_the_float16_weights_of_a_hub_model_will_do(hub: Hub) -> None:
    (hub.repository / WEIGHTS).rename(hub.repository / WEIGHTS.replace(".safe", ".fp16.safe"))
    assert find_model("owner/name").weight_files("unet")[0].name.endswith(".fp16.safetensors")


def test_an_unsupported_hub_model_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    edit(hub.repository / "model_index.json", _class_name="FluxPipeline")
    assert "FluxPipeline" in refused("owner/name")
    assert not list(hub.cache.rglob("*.safetensors"))


def test_a_hub_model_of_pickles_is_refused_before_they_are_fetched(hub: Hub) -> None:
    (hub.repository / WEIGHTS).rename(hub.repository / "unet" / "diffusion_pytorch_model.bin")
    assert "a pickle file" in refused("owner/name")
    assert not list(hub.cache.rglob("*.bin"))


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Hub) -> None:
    hub.online = False
    message = refused("owner/name")
    assert "no route to host" in message and "second line" not in message


def test_the_schedule_starts_clean_and_ends_in_noise(good: Path) -> None:
    kept = open_model(good).alphas_cumprod
    assert kept.dtype == np.float32 and len(kept) == 1000
    assert math.isclose(kept[0], 1 - 0.00085, rel_tol=1e-6) and (np.diff(kept) < 0).all()


def test_packed_weights_of_a_part_are_refused_by_name(folder: Path) -> None:
    """They were read as floats only when a run began."""
    path = folder / WEIGHTS
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if name.endswith("to_q.weight"))
    packed = {name: torch.zeros(8, 1, dtype=torch.uint8)}
    packed[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(9, dtype=torch.uint8)
    save_file(tensors | packed, path)
    message = refused(folder)
    assert message.startswith(str(path)) and "U8 weights packed by bitsandbytes" in message
