"""Low-rank adapters beside the attention projections of a classifier, made and read by peft."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.errors import ModelError, RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.tensor_store import safetensors_parts
from edge_train.rng import Key
from edge_train.runtimes.torch.card import HOST, limit_memory, on_host, pick_device
from edge_train.runtimes.torch.card_copies import move_network
from edge_train.runtimes.torch.classifier import TorchClassifier
from edge_train.runtimes.torch.classifier_network import head_names, load_classifier, new_heads

_SAVED_BY_PEFT = ("classifier", "score")  # heads that it keeps whole by itself
_ADAPTER = -5  # the step of the key that adapters are drawn from


class TorchLora(TorchClassifier):
    """A classifier whose projections W compute with W + scale * B A, and train B, A and the head.

    Which projections of a network they are, peft knows: query and value for most kinds. For a kind
    that it does not know (DistilBERT, ModernBERT), they are all linear layers of the encoder. B
    starts from zeros, A from draws of the seed, uniform within sqrt(1 / inputs), so that every
    process of a run starts from the same numbers. What stands on top is trained as a copy beside
    the stored one, and so is a pooler that was made new.

    Source: LoRA (arXiv:2106.09685), without dropout; peft for the layers and the file format.
    """

    def __init__(
        self,
        network: Any,
        adapted: Any,
        parameters: Parameters,
        blocks: dict[str, Array],
        device: torch.device = HOST,
        dtype: str = "float32",
    ) -> None:
        super().__init__(network, parameters, device, dtype)
        self._adapted = adapted  # the same network, as peft sees it
        self._blocks = blocks

    @classmethod
    def open_adapted(
        cls,
        folder: ClassifierFolder,
        *,
        rank: int,
        scale: float,
        threads: int,
        seed: int = 0,
        attention: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        cap_bytes: int | None = None,
    ) -> "TorchLora":
        """Load a folder and put adapters into it.

        Args:
          rank: columns of B and rows of A.
          scale: what their product is multiplied by; LoRA's alpha / rank.
          seed: of A, and of a head that the folder lacks.
          attention, device, dtype, cap_bytes: as of `TorchClassifier.open`.

        Raises:
          ModelError: a weight file does not fit, or there is no layer that an adapter fits.
        """
        from peft import LoraConfig, get_peft_model

        torch.set_num_threads(threads)
        where = pick_device(device)
        limit_memory(where, cap_bytes)
        network: Any
        network, blocks = load_classifier(folder, attention, seed=seed)
        network.name_or_path = folder.base  # what the adapter says it belongs to
        settings = LoraConfig(
            task_type="SEQ_CLS",
            r=rank,
            lora_alpha=scale * rank,
            lora_dropout=0.0,
            target_modules=_targets(network, folder),
            modules_to_save=_kept_whole(network, new_heads(folder, network)),
        )
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # between peft and transformers, and on GPT-2
            adapted: Any = get_peft_model(network, settings)
        trained = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
        for name, values in trained.items():
            if ".lora_A." in name:
                draw = Key(seed, _ADAPTER).generator("adapter", name)
                bound = values.shape[1] ** -0.5
                values.copy_(
                    torch.from_numpy(draw.uniform(-bound, bound, values.shape).astype(np.float32))
                )
        parameters = Parameters.sharing({name: value.numpy() for name, value in trained.items()})
        if where != HOST:
            move_network(network, where)
        return cls(network.eval(), adapted, parameters, blocks, where, dtype)

    def weights(self, point: Point) -> dict[str, Array]:
        """Return every parameter of the plain network by name, adapters of `point` merged in.

        Memory: a copy of the matrices that have an adapter. The live parameters become `point`.
        """
        from peft.tuners.lora import LoraLayer

        self.parameters.load(point)
        self._refresh()
        merged = dict(self._blocks)
        for name, module in self._network.named_modules():
            if isinstance(module, LoraLayer):
                with torch.no_grad():
                    change: Any = module.get_delta_weight("default")
                merged[f"{name}.weight"] = merged[f"{name}.weight"] + on_host(change)
        for name, value in self.parameters.items():
            if ".modules_to_save.default." in name:
                merged[name.replace(".modules_to_save.default.", ".")] = value
        return merged

    def save_adapter(self, folder: Path, point: Point) -> None:
        """Write the adapter of `point`, and the head, as `PeftModel.from_pretrained` reads them.

        Raises:
          RunFolderError: it cannot be written.
        """
        from peft import get_peft_model_state_dict

        self.parameters.load(point)
        self._refresh()
        found = get_peft_model_state_dict(self._adapted, save_embedding_layers=False)
        tensors = {name: on_host(value) for name, value in found.items()}
        try:
            folder.mkdir(exist_ok=True)
            self._adapted.peft_config["default"].save_pretrained(str(folder))
        except OSError as error:
            raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
        parts = safetensors_parts(tensors, {"format": "pt"})
        write_parts(folder / "adapter_model.safetensors", parts)

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        self._adapted = None
        super().close()


def _targets(network: Any, folder: ClassifierFolder) -> list[str] | None:
    """Return the layers beside which adapters stand; None where peft has its own.

    Raises:
      ModelError: there is no linear layer below the head.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    if network.config.model_type in KNOWN:
        return None
    encoder = f"{network.base_model_prefix}."
    paths = [path for path, module in network.named_modules() if _is_linear(module)]
    below = [path for path in paths if path.startswith(encoder)]
    if not below:
        raise ModelError(
            f"{folder.path}: a {type(network).__name__} has no linear layers below its head, which "
            "adapters could stand beside; use --method adamw."
        )
    names = sorted({path.rpartition(".")[2] for path in below})
    on_top = [path for path in paths if path not in below]
    # short names, as people write them, where they name no layer of the head
    clash = any(path.rpartition(".")[2] in names for path in on_top)
    return below if clash else names


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _kept_whole(network: Any, new: Sequence[str]) -> list[str] | None:
    """Return the modules that are trained as they are, beside those that peft knows."""
    tops = {name.partition(".")[0] for name in head_names(network)}
    encoder = f"{network.base_model_prefix}."
    poolers = {name.split(".")[1] for name in new if name.startswith(encoder)}
    return sorted((tops | poolers) - set(_SAVED_BY_PEFT)) or None
