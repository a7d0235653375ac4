"""Low-rank adapters of a Stable Diffusion: beside which layers, and the two files others load.

diffusers finds a layer by its path in the U-Net or text encoder and knows no scale, so that the
scale is multiplied into the second matrix. kohya's trainer writes paths with underscores and an
`alpha` beside each pair; A1111, Forge, ComfyUI and stable-diffusion.cpp read those. Of SDXL they
expect the names that the U-Net has in the original code, of the others those of diffusers.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats.adapter import Adapter, Target, names_of, scale_of
from edge_train.formats.adapter_scales import KEY, alphas_of
from edge_train.formats.atomic import write_parts
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.inside import wrong_place
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.tensor_store import read_tensors, safetensors_parts
from edge_train.units import shown

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_LAYERS = re.compile(r"unet\..*\.attentions\..*|text_encoder(_2)?\.encoder\.layers\..*")
# What the attention's own projections end with; U-Net and text encoder name them differently.
_ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj", ".out_proj")
_OLD_PREFIX = ".text_model."  # in published files and in adapters; newer code has none
_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.|mid_block\.attentions\.0\.")
# diffusers' spelling of the two matrices, in the U-Net and in a text encoder.
_PARTS = {"unet": (".lora.down.weight", ".lora.up.weight")}
_TEXT_PARTS = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
_PEFT_PARTS = (".lora_A.weight", ".lora_B.weight")  # others write these; they are read
_OTHERS = (".lora_down.weight", ".lora_up.weight", ".alpha", ".hada_w1_a", ".lokr_w1", ".lokr_w2")
_DORA = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".dora_scale")
_MOST_RANK = 1 << 16


def linear_layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Target, ...]:
    """Return the linear layers of transformer blocks, by the shapes of a model's weights.

    Args:
      shapes: by name in a diffusers folder, the component first: `unet.down_blocks.0...weight`.

    >>> found = linear_layers({"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight":
    ...     (8, 4), "unet.conv_in.weight": (8, 4, 3, 3)})
    >>> [(target.path[-6:], target.outputs, target.inputs) for target in found]
    [('1.to_q', 8, 4)]
    """
    found = []
    for name, shape in shapes.items():
        path = name.removesuffix(".weight").replace(_OLD_PREFIX, ".", 1)
        if len(shape) == 2 and path != name and _LAYERS.fullmatch(path):
            found.append(Target(path, *shape))
    return tuple(sorted(found, key=lambda target: _in_order(target.path)))


def attention_layers(known: Iterable[Target], components: Iterable[str]) -> tuple[Target, ...]:
    """Return the projections of attentions among layers of some components."""
    wanted = set(components)
    return tuple(
        target
        for target in known
        if target.path.endswith(_ATTENTION) and target.path.partition(".")[0] in wanted
    )


def for_diffusers(adapter: Adapter, blocks: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """Return the tensors that diffusers loads: scale 1, so that every version of it agrees."""
    found: dict[str, Array] = {}
    for target in adapter.targets:
        first, second, _ = names_of(target.path)
        down, up = _PARTS.get(target.path.partition(".")[0], _TEXT_PARTS)
        path = _published(target.path)
        found[path + down] = np.asarray(blocks[first], np.float32)
        found[path + up] = np.asarray(blocks[second] * np.float32(adapter.scale), np.float32)
    return found


def for_kohya(
    adapter: Adapter, blocks: Mapping[str, NDArray[Any]], *, family: str, layers_per_block: int
) -> dict[str, Array]:
    """Return the tensors that A1111, Forge, ComfyUI and stable-diffusion.cpp load.

    They multiply by alpha / rank, so that alpha is rank times our scale, however that came about.

    Args:
      family: `sd1`, `sd2` or `sdxl`.
      layers_per_block: of the U-Net's configuration; the numbers of SDXL's names follow from it.
    """
    found: dict[str, Array] = {}
    alpha = np.array(adapter.scale * adapter.rank, np.float32)
    for target in adapter.targets:
        first, second, _ = names_of(target.path)
        path = kohya_name(target.path, family=family, layers_per_block=layers_per_block)
        found[f"{path}.lora_down.weight"] = np.asarray(blocks[first], np.float32)
        found[f"{path}.lora_up.weight"] = np.asarray(blocks[second], np.float32)
        found[f"{path}.alpha"] = alpha
    return found


def kohya_name(path: str, *, family: str, layers_per_block: int) -> str:
    """Return the name of a layer in kohya's files.

    >>> kohya_name("unet.up_blocks.1.attentions.2.proj_in", family="sd1", layers_per_block=2)
    'lora_unet_up_blocks_1_attentions_2_proj_in'
    >>> kohya_name("unet.up_blocks.1.attentions.2.proj_in", family="sdxl", layers_per_block=2)
    'lora_unet_output_blocks_5_1_proj_in'
    >>> kohya_name("text_encoder.encoder.layers.0.mlp.fc1", family="sd1", layers_per_block=2)
    'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    component, _, inner = path.partition(".")
    if component == "unet":
        start = "lora_unet_"
        if family == "sdxl":
            inner = _PLACE.sub(lambda place: _original_place(place, layers_per_block), inner)
    else:
        number = "" if family != "sdxl" else "1" if component == TEXT_ENCODERS[0] else "2"
        start, inner = f"lora_te{number}_", f"text_model.{inner}"
    return start + inner.replace(".", "_")


def write_lora(
    folder: Path,
    name: str,
    adapter: Adapter,
    blocks: Mapping[str, NDArray[Any]],
    facts: Mapping[str, str],
    model: ModelFolder,
) -> list[Path]:
    """Write the file of diffusers and `<name>.safetensors` with kohya's names; return them.

    Equal blocks always give equal bytes. That of diffusers comes last: with it the folder is whole.

    Args:
      facts: metadata strings (base model and its hash, steps, class word, version).
      model: whose layers they are.

    Raises:
      RunFolderError: the folder cannot be written.
      ModelError: the model is of an unknown shape.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    layers = layers_per_block(model)
    others = for_kohya(adapter, blocks, family=model.family, layers_per_block=layers)
    alpha = f"{adapter.scale * adapter.rank:g}"
    said = {
        "format": "pt",
        **facts,
        "ss_network_module": "networks.lora",  # by these two A1111 shows and sorts a file
        "ss_network_dim": str(adapter.rank),
        "ss_network_alpha": alpha,
    }
    own = {"format": "pt", **facts, "rank": str(adapter.rank), "alpha": f"{adapter.alpha:g}"}
    own["rslora"] = str(adapter.rslora).lower()
    paths = [folder / f"{name}.safetensors", folder / DIFFUSERS_FILE]
    contents = ((others, said), (for_diffusers(adapter, blocks), own))
    for path, (tensors, metadata) in zip(paths, contents, strict=True):
        write_parts(path, safetensors_parts(tensors, metadata))
    return paths


def held_in(path: Path) -> str:
    """Return what a file or folder to start from holds, by the names of its tensors.

    That is `lora` in diffusers' names, `kohya` for a LoRA in other ones, `dora`, `word` for the
    vectors of one, or nothing that these names tell.
    """
    file = path / DIFFUSERS_FILE if path.is_dir() else path
    if path.is_dir() and wrong_place(file, path):
        return ""
    try:
        names = list(TensorFile(file).entries)
    except ModelError:
        return ""
    kinds = {
        "dora": _DORA,
        "lora": (*(part for own in (*_PARTS.values(), _TEXT_PARTS, _PEFT_PARTS) for part in own),),
        "kohya": _OTHERS,
    }
    for kind, ends in kinds.items():
        if any(name.endswith(ends) for name in names):
            return kind
    return "word" if len(names) == 1 or {*names} == {"clip_l", "clip_g"} else ""


def layers_per_block(model: ModelFolder) -> int:
    """Return the layers in a block of the U-Net, which names of the original code count.

    Raises:
      ModelError: blocks differ, which no published Stable Diffusion has.
    """
    found = model.configs["unet"].get("layers_per_block", 2)
    if type(found) is not int or found < 1:
        raise ModelError(
            f"{model.path / 'unet'}: layers_per_block is {shown(found)}, expected a whole number; "
            "copy or download the model again."
        )
    return found


def read_lora(
    path: Path,
    known: Iterable[Target],
    check: Callable[[Mapping[str, str]], None] = lambda metadata: None,
) -> tuple[dict[str, tuple[Array, Array]], dict[str, str]]:
    """Return the two matrices of every layer of a file in diffusers' names, and its metadata.

    Their product is the change of the layer: the scale is in the second one. Where the file says
    it in diffusers' own metadata, those that are returned have it as `alpha` and `rslora`, too.

    Args:
      known: the layers that the model has.
      check: told the metadata before the layers are compared, to raise for another base.

    Raises:
      InputError: it is no such file, of another model, of something else than linear layers, or
        its layers have different alphas.
    """
    file = path / DIFFUSERS_FILE if path.is_dir() else path
    if path.is_dir() and (reason := wrong_place(file, path)):
        raise InputError(f"{file}: cannot be read ({reason}).")
    try:
        tensors, metadata = read_tensors(file)
    except RunFolderError as error:
        raise InputError(f"{file}: no LoRA in safetensors ({error}).") from error
    check(metadata)
    targets = {target.path: target for target in known}
    pairs: dict[str, dict[int, Array]] = {}
    for name, value in tensors.items():
        layer, part = _split(name)
        if part is None or layer not in targets:
            raise InputError(
                f"{file}: has tensor {name[:120]!r}, which is no LoRA of a layer of this model in "
                f"diffusers' names; name a {DIFFUSERS_FILE} of the same model."
            )
        if not np.isfinite(value).all():
            raise InputError(f"{file}: tensor {name[:120]!r} has numbers that are not finite.")
        pairs.setdefault(layer, {})[part] = np.asarray(value, np.float32)
    if not pairs:
        raise InputError(f"{file}: holds no tensors; copy the LoRA again.")
    found: dict[str, tuple[Array, Array]] = {}
    for layer in sorted(pairs, key=_in_order):
        target, pair = targets[layer], pairs[layer]
        shapes = [pair[part].shape if part in pair else None for part in (0, 1)]
        rank = pair[0].shape[0] if 0 in pair and pair[0].ndim == 2 else 0
        fits = shapes == [(rank, target.inputs), (target.outputs, rank)]
        if not fits or not 1 <= rank <= _MOST_RANK:
            raise InputError(
                f"{file}: layer {layer!r} has matrices {shapes}, this model's has {target.inputs} "
                f"inputs and {target.outputs} outputs; name the model that the LoRA belongs to."
            )
        found[layer] = pair[0], pair[1]
    return _with_scale(file, found, metadata) if KEY in metadata else (found, metadata)


def _with_scale(
    file: Path, pairs: Mapping[str, tuple[Array, Array]], metadata: Mapping[str, str]
) -> tuple[dict[str, tuple[Array, Array]], dict[str, str]]:
    """Return pairs with the scale that metadata of diffusers say, and metadata as ours say it.

    Raises:
      InputError: they are damaged, or say more than one.
    """
    alphas = alphas_of(file, metadata, {layer: len(first) for layer, (first, _) in pairs.items()})
    if len(set(alphas.values())) > 1:
        said = sorted({f"{alpha:g}{' / root' * rslora}" for alpha, rslora in alphas.values()})
        raise InputError(
            f"{file}: its layers have alphas {', '.join(said)}, and one for all is trained; save "
            "it with one, or start without it."
        )
    alpha, rslora = next(iter(alphas.values()))
    scaled = {
        layer: (first, second * np.float32(scale_of(alpha, len(first), rslora=rslora)))
        for layer, (first, second) in pairs.items()
    }
    return scaled, {**metadata, "alpha": f"{alpha!r}", "rslora": str(rslora).lower()}


def _split(name: str) -> tuple[str, int | None]:
    """Return the layer of a tensor in diffusers' names, and which of its two matrices it is."""
    for parts in (*_PARTS.values(), _TEXT_PARTS, _PEFT_PARTS):
        for number, part in enumerate(parts):
            if name.endswith(part):
                return name.removesuffix(part).replace(_OLD_PREFIX, ".", 1), number
    return name, None


def _published(path: str) -> str:
    """Return a path as published files have it: those of text encoders with one part more."""
    component, _, inner = path.partition(".")
    return f"{component}{_OLD_PREFIX}{inner}" if component in TEXT_ENCODERS else path


def _original_place(place: re.Match[str], layers_per_block: int) -> str:
    """Return where the original code has a transformer of a U-Net of diffusers."""
    if place[1] is None:
        return "middle_block.1."
    block, layer = int(place[2]), int(place[3])
    each = layers_per_block + 1
    if place[1] == "down":  # the first block is the input's filter; each ends with a downsampler
        return f"input_blocks.{1 + block * each + layer}.1."
    return f"output_blocks.{block * each + layer}.1."


def _in_order(path: str) -> list[tuple[bool, str]]:
    """Return a key that sorts layer 10 after layer 9."""
    return [(part.isdecimal(), part.zfill(9)) for part in path.split(".")]
