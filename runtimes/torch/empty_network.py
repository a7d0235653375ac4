"""A network of transformers as a configuration describes it; its parameters take no memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from edge_train.errors import ModelError
from edge_train.formats.architectures import REFUSED
from edge_train.formats.weight_files import read_json


class _EmptyOnMeta(TorchFunctionMode):
    """Tensors without values have no memory either, not even for a moment.

    accelerate makes a parameter first and moves it to the meta device then: a table of 128,256
    words of 2,048 numbers would ask for 1 GB, which a cap refuses although nobody writes to it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.empty and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


def configuration(folder: Path, what: str, known: Mapping[str, Any] | None = None) -> Any:
    """Return the configuration of a folder, for a network in float32.

    Args:
      what: a network that the folder should be of, for messages.
      known: the configuration of a model that is no folder.

    Raises:
      ModelError: transformers does not know this kind of network; code of a folder is never run.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    written = read_json(folder / "config.json") if known is None else known
    if "auto_map" in written and written.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            f"{folder}: its config.json names code of its own (auto_map), and code from a model "
            "folder is never run; use a model of a kind that transformers knows."
        )
    if (why := REFUSED.get(kind := str(written.get("model_type")))) is not None:
        raise ModelError(f"{folder}: a {kind!r} {why}; use a model of another kind.")
    try:
        if known is None:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        else:
            config = CONFIG_MAPPING[str(known["model_type"])].from_dict(dict(known))
    except MemoryError:
        raise
    except Exception as error:  # what is in a configuration raises what it likes
        raise _cannot(folder, what, error) from error
    config.dtype = "float32"
    return config


def empty_network(kind: Any, config: Any, folder: Path, what: str, attention: str | None) -> Any:
    """Return a network whose parameters are on the meta device; buffers have their numbers.

    Args:
      kind: one of transformers' auto classes.
      attention: how to compute it; None is what transformers itself takes: its fused product
        where a network can, and matrices of probabilities in all others.

    Raises:
      ModelError: transformers does not know this kind of network, or not for this task.
    """
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False), _EmptyOnMeta():
            network = kind.from_config(config, attn_implementation=attention)
    except MemoryError:
        raise
    except Exception as error:
        raise _cannot(folder, what, error) from error
    return network.eval()


def _cannot(folder: Path, what: str, error: Exception) -> ModelError:
    if isinstance(error, ImportError):
        reason = next(line for line in str(error).splitlines() if line.strip())
        return ModelError(f"{folder}: this {what} needs a package that is missing ({reason}).")
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return ModelError(f"{folder}: transformers cannot build a {what} of it ({reason}).")
