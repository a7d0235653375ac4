"""Model folders on disk: find one, check it, read its numbers; no engine and no remote code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.weight_files import Config, hash_of, open_weights, read_json
from edge_train.units import shown

# What each pipeline is made of: component -> the class that we build ourselves.
_PARTS = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_PARTS_XL = {**_PARTS, "text_encoder_2": "CLIPTextModelWithProjection"}
_PIPELINES = {"StableDiffusionPipeline": _PARTS, "StableDiffusionXLPipeline": _PARTS_XL}
# Config keys of UNets that want class labels, pictures or anything else beside the prompt.
_OTHER_CONDITIONS = (
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
)
# Latent cells a side where a UNet's configuration names none, as diffusers has it.
_LATENT_SIDES = {"sd1": 64, "sd2": 64, "sdxl": 128}
_MOST_COUNT, _MOST_LEVELS = 1 << 20, 16  # of widths, channels and ids; of a VAE
_MOST_TIMESTEPS = 100_000
_TINY = np.finfo(np.float64).tiny  # of a schedule of one step
SPACINGS = ("leading", "trailing", "linspace")  # of the timesteps that pictures visit
_TOKEN_TABLES = (
    "text_model.embeddings.token_embedding.weight",  # as published
    "embeddings.token_embedding.weight",  # as transformers 5 saves it
)


@dataclass(frozen=True)
class ModelFolder:
    """A checked Stable Diffusion folder in the diffusers layout.

    Attributes:
      path: the folder.
      family: `sd1`, `sd2` (linear projections in the UNet) or `sdxl` (two text encoders).
      components: the parts that hold weights, in alphabetical order.
      configs: component, `scheduler` or `model_index` -> its JSON.
    """

    path: Path
    family: Literal["sd1", "sd2", "sdxl"]
    components: tuple[str, ...]
    configs: Mapping[str, Config]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoders in the order of their features."""
        return tuple(name for name in self.components if name.startswith("text_encoder"))

    @property
    def tokenizers(self) -> tuple[Path, ...]:
        """The tokenizer folder of each text encoder."""
        return tuple(
            self.path / name.replace("text_encoder", "tokenizer") for name in self.text_encoders
        )

    @property
    def text_widths(self) -> tuple[int, ...]:
        """The width of a token vector, for each text encoder."""
        return tuple(self._count(name, "hidden_size") for name in self.text_encoders)

    @property
    def prompt_tokens(self) -> int:
        """The length of a padded prompt."""
        return self._count("text_encoder", "max_position_embeddings")

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: `epsilon` or `v_prediction`."""
        return str(self.configs["scheduler"].get("prediction_type", "epsilon"))

    @property
    def spacing(self) -> str:
        """Which timesteps pictures visit: `leading`, `trailing` or `linspace`, as diffusers has it.

        Where the scheduler is silent, `leading`, but `trailing` of a schedule that was rescaled to
        end in nothing but noise: only that begins there.
        """
        scheduler = self.configs["scheduler"]
        rescaled = scheduler.get("rescale_betas_zero_snr")
        return str(scheduler.get("timestep_spacing") or ("trailing" if rescaled else "leading"))

    @property
    def zeroes_empty(self) -> bool:
        """Whether guidance leads away from zeros, not from what the empty prompt says.

        So do XL pipelines unless `force_zeros_for_empty_prompt` is false.
        """
        asked = self.configs["model_index"].get("force_zeros_for_empty_prompt", True)
        return self.family == "sdxl" and bool(asked)

    @property
    def latent_channels(self) -> int:
        return self._count("vae", "latent_channels")

    @property
    def latent_scale(self) -> int:
        """Pixels a side of one latent cell."""
        levels = self._value("vae", "block_out_channels")
        if not isinstance(levels, list) or not 0 < len(levels) <= _MOST_LEVELS:
            raise self._no_value("vae", "block_out_channels", "a list of widths, one a level")
        return int(2 ** (len(levels) - 1))

    @property
    def scaling_factor(self) -> float:
        """What a VAE latent is multiplied by; Stable Diffusion's own where the config is silent."""
        return self._factor("scaling_factor", 0.18215)

    @property
    def shift_factor(self) -> float:
        """What is subtracted from a VAE latent before it is scaled."""
        return self._factor("shift_factor", 0.0)

    @property
    def resolution(self) -> int:
        """The picture side, in pixels, that the model was trained for.

        That of its family where the configuration has null, the shorter one of two sides.

        Raises:
          ModelError: it is none of these.
        """
        found = self.configs["unet"].get("sample_size")
        sides = found if isinstance(found, list) else [found]
        if found is None:
            sides = [_LATENT_SIDES[self.family]]
        if not sides or not all(type(side) is int and 0 < side <= _MOST_COUNT for side in sides):
            raise ModelError(
                f"{self.path / 'unet'}: sample_size is {found!r}, expected a number of latent "
                "cells a side, such as 64; copy or download the model again."
            )
        return int(min(sides)) * self.latent_scale

    @cached_property
    def alphas_cumprod(self) -> NDArray[np.float32]:
        """Share of signal that is left at each training timestep, computed in float64."""
        return noise_schedule(self.configs["scheduler"], self.path / "scheduler")

    def weight_files(self, component: str) -> tuple[Path, ...]:
        """Return the safetensors files of one component.

        Raises:
          ModelError: there is none, or only pickle files, which are never loaded.
        """
        return tuple(file.path for file in self.tensor_files(component))

    def tensor_files(self, component: str) -> tuple[TensorFile, ...]:
        """Return the opened weight files of one component."""
        return open_weights(self.path / component, self.path)

    def parameter_count(self, component: str) -> int:
        """Return how many numbers the weight files of one component hold."""
        return sum(
            math.prod(entry.shape)
            for file in self.tensor_files(component)
            for entry in file.entries.values()
        )

    def sha256(self) -> str:
        """Return one hash over the names and contents of all weight files."""
        paths = (path for name in self.components for path in self.weight_files(name))
        return hash_of((path.relative_to(self.path).as_posix(), path) for path in paths)

    def embedding_rows(self, component: str, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return token vectors (len(ids), width) of a text encoder; only these are read.

        Raises:
          ModelError: an id lies outside the vocabulary.
        """
        file, name = self.token_table(component)
        size = file.entries[name].shape[0]
        for index in ids:
            if not 0 <= index < size:
                raise ModelError(
                    f"{self.path / component}: token id {index} is outside the vocabulary of "
                    f"{size}; tokenizer and text encoder do not belong together."
                )
        return file.rows(name, ids)

    def token_table(self, component: str) -> tuple[TensorFile, str]:
        """Return the file and the name of a text encoder's token table."""
        for file in self.tensor_files(component):
            for name in _TOKEN_TABLES:
                if name in file.entries:
                    return file, name
        raise ModelError(
            f"{self.path / component}: no tensor {_TOKEN_TABLES[0]}; this is not a CLIP text "
            "encoder."
        )

    def _count(self, component: str, key: str) -> int:
        found = self._value(component, key)
        if type(found) is not int or not 0 < found <= _MOST_COUNT:
            raise self._no_value(component, key, f"a whole number up to {_MOST_COUNT}")
        return found

    def _factor(self, key: str, usual: float) -> float:
        found = self.configs["vae"].get(key)
        if found is None:
            return usual
        if type(found) not in (int, float) or not math.isfinite(found):
            raise self._no_value("vae", key, "a number")
        return float(found)

    def _no_value(self, component: str, key: str, expected: str) -> ModelError:
        return ModelError(
            f"{self.path / component}: {key} is {shown(self.configs[component][key])}, expected "
            f"{expected}; copy or download the model again."
        )

    def _value(self, component: str, key: str) -> Any:
        try:
            return self.configs[component][key]
        except KeyError:
            raise ModelError(
                f"{self.path / component}: its config has no {key!r}; copy or download the model "
                "again."
            ) from None


def noise_schedule(config: Config, folder: Path) -> NDArray[np.float32]:
    """Return alphas_cumprod (num_train_timesteps,) of a diffusers scheduler config.

    Computed in float64 and rounded once; diffusers computes in float32, so the last bits differ.

    Raises:
      ModelError: a value is missing or the schedule is of an unknown kind.
    """
    try:
        steps, kind = config["num_train_timesteps"], config["beta_schedule"]
        if type(steps) is not int or not 0 < steps <= _MOST_TIMESTEPS:
            raise ValueError(f"num_train_timesteps is {shown(steps)}")
        if config.get("trained_betas") is not None:
            betas = np.asarray(config["trained_betas"], np.float64)
        elif kind == "linear":
            betas = np.linspace(*_ends(config), steps)
        elif kind == "scaled_linear":
            first, last = _ends(config)
            betas = np.linspace(math.sqrt(first), math.sqrt(last), steps) ** 2
        elif kind == "squaredcos_cap_v2":
            time = np.arange(steps + 1) / steps
            kept = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
        else:
            raise ModelError(
                f"{folder}: unknown beta_schedule {kind!r}; known are linear, scaled_linear and "
                "squaredcos_cap_v2."
            )
    except KeyError as error:
        raise ModelError(
            f"{folder}: its config has no {error.args[0]!r}; copy or download the model again."
        ) from None
    except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
        raise ModelError(
            f"{folder}: a number of the schedule cannot be ({error}); copy or download the model "
            "again."
        ) from error
    if betas.ndim != 1 or not ((betas > 0) & (betas <= 1)).all() or not len(betas):
        raise ModelError(
            f"{folder}: the betas of the schedule must lie between 0 and 1; copy or download the "
            "model again."
        )
    kept = np.cumprod(1 - betas)
    if config.get("rescale_betas_zero_snr"):  # arXiv:2305.08891, algorithm 1
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * root[0] / max(root[0] - root[-1], _TINY)) ** 2
    return kept.astype(np.float32)


def _ends(config: Config) -> tuple[float, float]:
    """Return the first and the last beta.

    Raises:
      ValueError: one is no number between 0 and 1.
    """
    ends = config["beta_start"], config["beta_end"]
    for name, value in zip(("beta_start", "beta_end"), ends, strict=True):
        if type(value) not in (int, float) or not 0 < value <= 1:
            raise ValueError(f"{name} is {shown(value)}, expected a number between 0 and 1")
    return ends


def open_model(path: Path) -> ModelFolder:
    """Return a checked model folder.

    Raises:
      ModelError: one sentence saying what is wrong with it.
    """
    configs = _read_configs(path)
    components = tuple(sorted(_PARTS_XL.keys() & configs.keys()))
    family: Literal["sd1", "sd2", "sdxl"] = "sd1"
    if "text_encoder_2" in configs:
        family = "sdxl"
    elif configs["unet"].get("use_linear_projection"):
        family = "sd2"
    model = ModelFolder(path, family, components, configs)
    _check(model)
    return model


def _read_configs(path: Path) -> dict[str, Config]:
    """Return the JSON of every part of a pipeline that is made of the standard parts."""
    if not (path / "model_index.json").is_file():
        raise ModelError(
            f"{path}: no model_index.json and no manifest.json; expected a Stable Diffusion folder "
            f"in the diffusers layout, an artifact of `edge-train export`, or {EMBEDDED}, the "
            "embedded model."
        )
    index = read_json(path / "model_index.json")
    kind = index.get("_class_name")
    parts = _PIPELINES.get(kind) if isinstance(kind, str) else None
    if parts is None:
        raise ModelError(
            f"{path}: pipeline {kind!r} is not supported; use a Stable Diffusion 1.x, 2.x or XL "
            "base model (StableDiffusionPipeline or StableDiffusionXLPipeline)."
        )
    configs: dict[str, Config] = {"model_index": index}
    for part, kind in parts.items():
        found = index.get(part)
        if not isinstance(found, list) or len(found) != 2 or found[1] != kind:
            raise ModelError(
                f"{path / 'model_index.json'}: {part} is {found!r}, expected {kind}; code from a "
                "model folder is never run, so use a model with the standard parts."
            )
        configs[part] = read_json(path / part / "config.json", path)
    configs["scheduler"] = read_json(path / "scheduler" / "scheduler_config.json", path)
    return configs


def _check(model: ModelFolder) -> None:
    """Read every value and every file header once, so that nothing is missing later."""
    if model.prediction_type not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{model.path / 'scheduler'}: prediction_type {model.prediction_type!r} is not "
            "supported; expected epsilon or v_prediction."
        )
    if model.spacing not in SPACINGS:
        raise ModelError(
            f"{model.path / 'scheduler'}: timestep_spacing {model.spacing[:40]!r} is not known; "
            f"expected {', '.join(SPACINGS)}."
        )
    channels = model.configs["unet"].get("in_channels")
    if channels != model.latent_channels:
        raise ModelError(
            f"{model.path / 'unet'}: takes {channels} channels, latents have "
            f"{model.latent_channels}; inpainting and editing models are not supported."
        )
    unet = model.configs["unet"]
    added = unet.get("addition_embed_type")
    if added != ("text_time" if model.family == "sdxl" else None):
        raise ModelError(
            f"{model.path / 'unet'}: addition_embed_type {added!r} is not supported; use a Stable "
            "Diffusion 1.x, 2.x or XL base model."
        )
    for key in _OTHER_CONDITIONS:
        if unet.get(key) is not None:
            raise ModelError(
                f"{model.path / 'unet'}: {key} is {unet[key]!r}; a UNet that is told more than "
                "timestep and prompt is not supported."
            )
    model.text_widths, model.prompt_tokens, model.resolution, model.alphas_cumprod  # noqa: B018
    for component in model.components:
        files = model.tensor_files(component)
        refuse_packed(model.path / component, model.configs[component], files)
    for folder in model.tokenizers:
        if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise ModelError(f"{folder}: no vocab.json; copy or download the model again.")
