"""Low-rank adapters of linear layers: names, shapes, start values, and the folder peft reads."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats.atomic import write_bytes, write_parts
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.tensor_store import load_metadata, safetensors_parts
from edge_train.formats.weight_files import check_place, read_json
from edge_train.rng import Key

Kind = Literal["lora", "dora"]
ALL_LINEAR = "all-linear"  # as peft calls targets that are every linear layer

CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"
_DRAWN = -5  # the step of the key that A is drawn from
_BEFORE = "base_model.model."  # what peft puts before the path of every layer
_FIRST, _SECOND, _LENGTHS = ".lora_A", ".lora_B", ".lora_magnitude"
_IN_PEFT = {_FIRST: ".lora_A.weight", _SECOND: ".lora_B.weight", _LENGTHS: ".lora_magnitude_vector"}
_BASE_HASH = "base_sha256"  # in the metadata of the tensors
_MOST_RANK = 1 << 16
# What a configuration may say of things that the layers of such an adapter do not have.
_WITHOUT: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    # The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) stand beside a base that they have changed.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}


@dataclass(frozen=True)
class Target:
    """A linear layer of the base, beside which an adapter stands.

    Attributes:
      path: in the network of transformers: `model.layers.0.self_attn.q_proj`.
      transposed: the base stores it (inputs, outputs), as GPT-2's Conv1D does.
    """

    path: str
    outputs: int
    inputs: int
    transposed: bool = False


@dataclass(frozen=True)
class Adapter:
    """Matrices A and B of every target: its layer computes W x + scale * B (A x).

    With DoRA every row of W + scale * B A is brought to a trained length, `lora_magnitude`.

    Blocks are named `<path>.lora_A` (rank, inputs), `<path>.lora_B` (outputs, rank) and, of DoRA,
    `<path>.lora_magnitude` (outputs,); all in float32.

    Attributes:
      alpha: what scales grow with; see `scale`.
      rslora: scale by alpha / sqrt(rank), which keeps large ranks from learning less.
      base: what others find the base by: a hub id or a whole path.
      base_sha256: of its configuration and weights, as a run has it; empty where nobody knows.

    Source: LoRA (arXiv:2106.09685), DoRA (arXiv:2402.09353), rsLoRA (arXiv:2312.03732); names,
    shapes and start values as in peft. We differ in drawing A from a key, block by block.
    """

    kind: Kind
    rank: int
    alpha: float
    targets: tuple[Target, ...]
    rslora: bool = False
    base: str = ""
    base_sha256: str = ""

    @property
    def scale(self) -> float:
        """What B (A x) is multiplied by.

        >>> Adapter("lora", 16, 32.0, ()).scale, Adapter("lora", 16, 32.0, (), rslora=True).scale
        (2.0, 8.0)
        """
        return scale_of(self.alpha, self.rank, rslora=self.rslora)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every block by name, target after target."""
        found: dict[str, tuple[int, ...]] = {}
        for target in self.targets:
            found[target.path + _FIRST] = (self.rank, target.inputs)
            found[target.path + _SECOND] = (target.outputs, self.rank)
            if self.kind == "dora":
                found[target.path + _LENGTHS] = (target.outputs,)
        return found

    def drawn(self, seed: int, lengths: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return start values: the layers compute what the base does.

        A is uniform within sqrt(1 / inputs), B zero.

        Args:
          seed: of the run.
          lengths: of DoRA, the lengths of the rows of W, by the path of its target.

        Raises:
          InputError: one of them is zero, which divides.
        """
        blocks: dict[str, Array] = {}
        for name, shape in self.shapes().items():
            path, _, part = name.rpartition(".")
            if part == _FIRST[1:]:
                draw = Key(seed, _DRAWN).generator("adapter", name)
                bound = shape[1] ** -0.5
                blocks[name] = draw.uniform(-bound, bound, shape).astype(np.float32)
            elif part == _SECOND[1:]:
                blocks[name] = np.zeros(shape, np.float32)
            else:
                assert lengths is not None, "DoRA starts from the lengths of the rows of W"
                blocks[name] = np.array(lengths[path], np.float32)
                if zero := int(np.sum(blocks[name] == 0)):
                    raise InputError(
                        f"{zero} of {len(blocks[name])} rows of layer {path!r} are zero, and DoRA "
                        "divides by the length of a row; use --trainable lora, or name other "
                        "layers with --targets."
                    )
        return blocks


def scale_of(alpha: float, rank: int, *, rslora: bool) -> float:
    """Return alpha / rank, with rsLoRA alpha / sqrt(rank)."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def names_of(path: str) -> tuple[str, str, str]:
    """Return the names of a target's blocks: A, B, and the lengths of DoRA.

    >>> names_of("model.layers.0.mlp.up_proj")[1]
    'model.layers.0.mlp.up_proj.lora_B'
    """
    return path + _FIRST, path + _SECOND, path + _LENGTHS


def write_adapter(folder: Path, adapter: Adapter, blocks: Mapping[str, NDArray[Any]]) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, as peft reads them.

    Equal blocks always give equal bytes. The configuration comes last: with it the folder is whole.

    Args:
      folder: made if it is missing.
      blocks: of `adapter.shapes()`.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    tensors = {_in_peft(name): np.asarray(blocks[name], np.float32) for name in adapter.shapes()}
    metadata = {"format": "pt"}
    if adapter.base_sha256:
        metadata[_BASE_HASH] = adapter.base_sha256
    write_parts(folder / TENSORS_FILE, safetensors_parts(tensors, metadata))
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha,
        "lora_dropout": 0.0,
        "use_rslora": adapter.rslora,
        "use_dora": adapter.kind == "dora",
        "target_modules": [target.path for target in adapter.targets],
        "modules_to_save": None,
        "fan_in_fan_out": any(target.transposed for target in adapter.targets),
        "bias": "none",
    }
    write_bytes(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def read_adapter(folder: Path) -> tuple[Adapter, dict[str, Array]]:
    """Return an adapter and its blocks from a folder that we, or peft, wrote.

    Targets are those that have tensors: what `target_modules` says may be a pattern.

    Raises:
      ModelError: it is missing or damaged, no LoRA or DoRA of linear layers, or one of several
        ranks, or with other trained tensors.
    """
    path, config = folder / CONFIG_FILE, _config_of(folder)
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if not _is_count(rank) or not _is_positive(alpha):
        raise ModelError(
            f"{path}: r is {str(rank)[:40]} and lora_alpha {str(alpha)[:40]}, expected a rank of "
            f"1 to {_MOST_RANK} and a finite alpha above 0; copy the adapter again."
        )
    kind, transposed = _kind_in(config), config.get("fan_in_fan_out") is True
    file = TensorFile(folder / TENSORS_FILE)
    sides = _sides(file)
    blocks: dict[str, Array] = {}
    targets = []
    for layer in _in_order(sides):
        outputs, inputs = _checked_sides(file.path, layer, sides[layer], rank, dora=kind == "dora")
        targets.append(Target(layer, outputs, inputs, transposed))
        for part in sides[layer]:
            value = file.read(_in_peft(layer + part))
            if not np.isfinite(value).all():
                raise ModelError(
                    f"{file.path}: tensor {_in_peft(layer + part)!r} holds values that are not "
                    "finite (NaN or infinity); take a copy from before it was damaged."
                )
            blocks[layer + part] = value
    adapter = Adapter(
        kind=kind,
        rank=rank,
        alpha=float(alpha),
        targets=tuple(targets),
        rslora=config.get("use_rslora") is True,
        base=str(config.get("base_model_name_or_path") or ""),
        base_sha256=_stored_hash(file.path),
    )
    return adapter, {name: blocks[name] for name in adapter.shapes()}


def kind_of(folder: Path) -> Kind:
    """Return what an adapter in a folder is, by its configuration alone.

    Raises:
      ModelError: that is missing, damaged or of something else.
    """
    return _kind_in(_config_of(folder))


def _kind_in(config: Mapping[str, Any]) -> Kind:
    return "dora" if config.get("use_dora") is True else "lora"


def _config_of(folder: Path) -> Mapping[str, Any]:
    """Return the configuration of an adapter of one rank.

    Raises:
      ModelError: it is missing, damaged or of something else.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder}: holds no {CONFIG_FILE}; name the folder of an adapter that peft reads."
        )
    for one in (path, folder / TENSORS_FILE):
        check_place(one, folder)
    config = read_json(path)
    _check_plain(path, config)
    return config


def _in_peft(name: str) -> str:
    """Return what peft calls a block.

    >>> _in_peft("lm.q_proj.lora_A")
    'base_model.model.lm.q_proj.lora_A.weight'
    """
    path, _, part = name.rpartition(".")
    return f"{_BEFORE}{path}{_IN_PEFT['.' + part]}"


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is more than matrices A and B of one rank.

    Raises:
      ModelError: it is.
    """
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{path}: peft_type is {str(config.get('peft_type'))[:40]!r}, and 'LORA' is read."
        )
    for name, allowed in _WITHOUT.items():
        if name in config and config[name] not in allowed:
            raise ModelError(
                f"{path}: {name} is {str(config[name])[:60]}, which is not read; merge this "
                "adapter into its base with peft (`merge_and_unload`) and train from there."
            )


def _sides(file: TensorFile) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of the tensors of every layer.

    Raises:
      ModelError: there is none, or a tensor of something else.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, entry in file.entries.items():
        known = [part for part, ending in _IN_PEFT.items() if name.endswith(ending)]
        if not known or not name.startswith(_BEFORE) or not entry.is_float:
            raise ModelError(
                f"{file.path}: holds tensor {name[:120]!r}, which is no part of a LoRA of linear "
                "layers; merge this adapter into its base with peft (`merge_and_unload`)."
            )
        layer = name[len(_BEFORE) : -len(_IN_PEFT[known[0]])]
        found.setdefault(layer, {})[known[0]] = entry.shape
    if not found:
        raise ModelError(f"{file.path}: holds no tensors; copy the adapter again.")
    return found


def _in_order(paths: Iterable[str]) -> list[str]:
    """Return paths as a network has them: layer 10 after layer 9.

    >>> _in_order(["h.10.c", "h.9.c"])
    ['h.9.c', 'h.10.c']
    """
    return sorted(
        paths,
        key=lambda path: [(part.isdecimal(), part.zfill(9)) for part in path.split(".")],
    )


def _checked_sides(
    path: Path, layer: str, shapes: Mapping[str, tuple[int, ...]], rank: int, *, dora: bool
) -> tuple[int, int]:
    """Return outputs and inputs of a layer.

    Raises:
      ModelError: a matrix is missing, or of another shape.
    """
    first, second = shapes.get(_FIRST, ()), shapes.get(_SECOND, ())
    fits = len(first) == len(second) == 2 and first[0] == second[1] == rank
    if not fits or shapes.get(_LENGTHS) != ((second[0],) if dora else None):
        said = {_IN_PEFT[part][1:]: list(shape) for part, shape in sorted(shapes.items())}
        raise ModelError(
            f"{path}: layer {layer[:120]!r} has {said}, which is no {'DoRA' if dora else 'LoRA'} "
            f"of rank {rank}; copy the adapter again."
        )
    return second[0], first[1]


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST_RANK


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _stored_hash(path: Path) -> str:
    try:
        return load_metadata(path).get(_BASE_HASH, "")
    except RunFolderError as error:
        raise ModelError(str(error)) from error
