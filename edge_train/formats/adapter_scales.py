"""What the layers of a LoRA are scaled by, as diffusers writes it into the metadata of its file.

Since 0.34 `save_lora_weights` takes the configurations of peft and keeps them as one JSON text,
in which the names of each begin with those of its component: `unet.lora_alpha`. Its loader then
multiplies by alpha / rank; where the text is missing, by 1.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.json_text import read_text

KEY = "lora_adapter_metadata"
_PEFT_ALPHA = 8  # where a configuration is silent
_LOW, _HIGH = 1e-6, 1e6  # of an alpha that is trained
_PUBLISHED = "text_model."  # before the layers of a text encoder, in files and older code
_NAME = re.compile(r"[\w.]+")


def alphas_of(
    file: Path, metadata: Mapping[str, str], ranks: Mapping[str, int]
) -> dict[str, tuple[float, bool]]:
    """Return alpha of every layer, and whether it is divided by the root of the rank.

    Args:
      file: what an error names.
      metadata: of the file.
      ranks: of every layer, by its path, the component first.

    Raises:
      InputError: the text is damaged, or says what is not read.

    >>> path = "unet.mid_block.attentions.0.proj_in"
    >>> alphas_of(Path("a"), {KEY: '{"unet.lora_alpha": 8, "unet.use_rslora": true}'}, {path: 4})
    {'unet.mid_block.attentions.0.proj_in': (8.0, True)}
    """
    config = _config(file, metadata[KEY]) if KEY in metadata else {}
    found: dict[str, tuple[float, bool]] = {}
    for path, rank in ranks.items():
        component, _, layer = path.partition(".")
        start = f"{component}."
        own = {n.removeprefix(start): v for n, v in config.items() if n.startswith(start)}
        alpha = _alpha(own, layer) if own else rank
        rslora = own.get("use_rslora") or False
        is_number = type(alpha) in (int, float) and _LOW <= alpha <= _HIGH
        if not is_number or type(rslora) is not bool:
            raise InputError(
                f"{file}: {KEY} says alpha {str(alpha)[:40]} and use_rslora {str(rslora)[:40]} of "
                f"{path!r}, expected a number from {_LOW:g} to {_HIGH:g} and true or false; copy "
                "the LoRA again."
            )
        found[path] = float(alpha), rslora
    return found


def _config(file: Path, text: str) -> dict[str, Any]:
    """Return what the text says, by name.

    Raises:
      InputError: it is no JSON object, or names layers by more than their ends.
    """
    try:
        config = read_text(text)
    except ValueError:
        config = None
    patterns = {}
    if isinstance(config, dict):
        patterns = {n: value for n, value in config.items() if n.endswith(".alpha_pattern")}
    if not isinstance(config, dict) or not all(isinstance(p, dict) for p in patterns.values()):
        raise InputError(f"{file}: {KEY} in its metadata is damaged; copy the LoRA again.")
    for name, pattern in patterns.items():
        if unknown := [end for end in pattern if not _NAME.fullmatch(end)]:
            raise InputError(
                f"{file}: {name} in its {KEY} names layers by {unknown[0][:60]!r}, and ends of "
                "names are read; save it with one alpha for all layers, or start without it."
            )
    return config


def _alpha(config: Mapping[str, Any], layer: str) -> Any:
    """Return alpha of a layer: of the first end in `alpha_pattern` that is its, or of all."""
    names = (f".{layer}", f".{_PUBLISHED}{layer}")
    for end, alpha in config.get("alpha_pattern", {}).items():
        if any(name.endswith(f".{end}") for name in names):
            return alpha
    return config.get("lora_alpha", _PEFT_ALPHA)
