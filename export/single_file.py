"""From a single-file Stable Diffusion checkpoint to a folder in the diffusers layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_train.errors import InputError, ModelError
from edge_train.export.quiet import quiet
from edge_train.formats.atomic import check_free, whole_folder
from edge_train.formats.diffusion_folder import open_model
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile
from edge_train.units import format_bytes

_TRAINED = ("v1", "v2", "xl_base")  # what diffusers calls the kinds that are trained here
_DENOISER = "model.diffusion_model."  # what the tensors of the original layout begin with


def unpack_checkpoint(
    file: Path, out: Path, config: str | None, say: Callable[[str], None]
) -> None:
    """Write the model in `file` as a folder, with diffusers' own conversion, or nothing.

    Nothing is downloaded: what the file does not hold (sizes, schedule, tokenizer) comes from a
    folder, or from what the hub's cache has of the model that the file was made from.

    Args:
      file: safetensors in the layout of the original Stable Diffusion.
      config: a diffusers folder of the same kind, of which the texts are read; None asks the cache.
      say: told what happens, a line at a time.

    Raises:
      InputError: `out` is taken, or there is no configuration.
      ModelError: the file cannot be read, or is not of a kind that is trained.

    Memory: the model once, in the types of the file.
    """
    check_free(out)
    known = _made_from(file)
    folder = _config_folder(file, config, known)
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    kind: Any = StableDiffusionPipeline
    if (folder / "text_encoder_2").is_dir():
        kind = StableDiffusionXLPipeline
    with whole_folder(out) as partial:
        say(f"converting {file} with the configuration in {folder}")
        with quiet():
            try:
                more = {} if kind is StableDiffusionXLPipeline else {"safety_checker": None}
                pipeline = kind.from_single_file(
                    str(file), config=str(folder), local_files_only=True, torch_dtype=None, **more
                )
            except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ModelError(
                    f"{file}: diffusers cannot convert it with the configuration in {folder} "
                    f"({reason}); name another with --config."
                ) from error
            pipeline.save_pretrained(partial, safe_serialization=True)
        # no file says it, and of two models of version 2 one predicts noise and one velocities
        say(f"it predicts {open_model(partial).prediction_type}, as that configuration says")
    written = sum(one.stat().st_size for one in out.rglob("*") if one.is_file())
    say(f"{out}: {format_bytes(written)}")


def _made_from(file: Path) -> str:
    """Return the hub id of the model that diffusers takes for the origin of a file.

    Raises:
      ModelError: it is no whole model, of another kind, or its weights are packed.
    """
    import torch
    from diffusers.loaders.single_file_utils import (
        fetch_diffusers_config,
        infer_diffusers_model_type,
    )

    opened = TensorFile(file)
    entries = opened.entries
    if not any(name.startswith(_DENOISER) for name in entries):
        raise ModelError(
            f"{file}: no tensor of it begins with {_DENOISER!r}, so it is no single-file Stable "
            "Diffusion checkpoint; name the file of a whole model, not of an adapter or a part."
        )
    refuse_packed(file.parent, {}, [opened])
    shapes = {name: torch.empty(entry.shape, device="meta") for name, entry in entries.items()}
    if (kind := infer_diffusers_model_type(shapes)) not in _TRAINED:
        raise ModelError(
            f"{file}: diffusers takes it for a model of kind {kind!r}, which is not trained; name "
            "the checkpoint of a Stable Diffusion 1.x, 2.x or XL base model."
        )
    return str(fetch_diffusers_config(shapes)["pretrained_model_name_or_path"])


def _config_folder(file: Path, config: str | None, known: str) -> Path:
    """Return the folder with sizes, schedule and tokenizer.

    Raises:
      InputError: there is none.
    """
    if config is not None:
        folder = Path(config).expanduser()
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"{config}: no model_index.json; name a Stable Diffusion folder in the diffusers "
                "layout with --config."
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(known, local_files_only=True))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} holds weights alone, and the configuration of {known} is not in the hub's "
            f"cache; download its texts once (`hf download {known} --include '*.json' '*.txt'`), "
            "or name the folder of a model of the same kind with --config DIR."
        ) from error
