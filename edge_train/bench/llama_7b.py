"""`edge-train bench llama-7b`: full-parameter steps of a model with LLaMA-7B's shape under 8 GB.

The weights are random: one block of normals, repeated, in bfloat16 and in shards as such models
are published. What is measured is memory and time, not learning. Takes 45 GB of disk for a while.
What one method showed is kept beside the model and read by the same command given again, until both
are through.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.small_llama import write_folder
from edge_train.bench.watched import watched
from edge_train.errors import InputError, TrainingStopped
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_store import safetensors_header
from edge_train.memory.processor import multiplies_bfloat16
from edge_train.records import checkpoint
from edge_train.records.folder import RunFolder
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.units import format_bytes


@dataclass(frozen=True)
class Shape:
    """How large a model of the Llama family is."""

    width: int
    inner: int
    layers: int
    heads: int
    vocabulary: int


SEVEN_B = Shape(4096, 11008, 32, 32, 32000)
_CAP_BYTES, _RANK, _LENGTH, _STEPS = 8_000_000_000, 32, 256, 2
_TEXT_CHARACTERS = 12_000  # enough for some steps, with one sequence held out
_TOKENS = 1000  # of a tokenizer made of that text; the model's table has more rows
_BLOCK = 1 << 22  # random numbers that are repeated
_NORM = "model.norm.weight"
# What the output layer of q-galore would hold by Adam does not fit beside the weights. Even so it
# was stopped under 8 GB, so it is given more: it is there for the time of its step.
_MORE = {"q-galore": 1.25}
_METHODS: dict[str, dict[str, Any]] = {
    "scale-sgd": {"method": "scale-sgd"},
    "q-galore": {"method": "q-galore", "rank": _RANK, "scale": 1.0, "project_head": True},
}


def main(out: Path, seeds: int, data: Path | None = None, limit: int = _CAP_BYTES) -> str:
    """Write the model, train it with the real command, delete it; return a Markdown table.

    Args:
      seeds: ignored: memory does not depend on it.
      data: a text.
      limit: the cap in bytes; a method that does not fit has a larger one, which is said.

    Raises:
      InputError: no text was named.
      TrainingStopped: the run did not end well.
    """
    del seeds
    if data is None or not data.is_file():
        raise InputError("bench llama-7b needs a text: --data FILE.")
    folder, run = out / "llama-7b", out / "llama-7b-run"
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text(data.read_text()[:_TEXT_CHARACTERS])
    if not (folder / "model.safetensors.index.json").is_file():
        write_model(folder, text)
    dtype = "bfloat16" if multiplies_bfloat16() else "float32"
    found: dict[str, dict[str, str]] = {}
    for name, own in _METHODS.items():
        kept = folder / f"{name}.json"
        if not kept.is_file():
            cap = round(limit * _MORE.get(name, 1))
            shown = _run(run, folder, text, cap, {**own, "dtype": dtype})
            kept.write_text(json.dumps(shown))
        found[name] = json.loads(kept.read_text())
    shutil.rmtree(folder)
    rows = [
        [what, *(found[name][what] for name in _METHODS), wanted]
        for what, wanted in (
            ("cap", format_bytes(limit)),
            ("most held by the process tree", format_bytes(limit)),
            ("planned", ""),
            ("a step, median", "at most that of q-galore"),
            ("loss before and after", ""),
            ("state of layers", ""),
            ("state of output layer and token table", ""),
        )
    ]
    return "\n\n".join(
        [
            f"LLaMA-7B's shape ({SEVEN_B.layers} layers, width {SEVEN_B.width}), random "
            f"weights, {_STEPS} steps "
            f"at sequence {_LENGTH}, batch 1, INT8 weights, all of them trained, products of "
            f"{dtype}. The update of scale-sgd has full rank, that of q-galore rank {_RANK}, "
            "of the output layer too.",
            bench.table(("what", *_METHODS, "wanted"), rows),
        ]
    )


def _run(run: Path, folder: Path, text: Path, limit: int, own: Mapping[str, Any]) -> dict[str, str]:
    """Train with one method in a run folder that is deleted again; return cells by their names.

    Raises:
      TrainingStopped: the run did not end well.
    """
    recipe = LanguageModelRecipe(
        model=str(folder),
        data=str(text),
        quant="int8",
        lean=True,
        length=_LENGTH,
        samples=1,
        steps=_STEPS,
        learning_rate=1e-4,
        evaluation_samples=1,
        evaluate_every=_STEPS,
        cap_bytes=limit,
        **own,
    )
    done = watched(run, recipe)
    if done.status != 0:
        raise TrainingStopped(done.said[-2000:])
    [*_, newest] = sorted(RunFolder(run).checkpoints.glob("step-*.safetensors"))
    layers, ends = _state_bytes(checkpoint.load(newest).state)
    shutil.rmtree(run)
    losses = done.report["eval"]
    return {
        "cap": format_bytes(limit),
        "most held by the process tree": format_bytes(done.peak_bytes),
        "planned": format_bytes(done.report["plan_peak_bytes"]),
        "a step, median": f"{done.report['seconds_per_step']:.0f} s",
        "loss before and after": f"{losses['first']:.3f}, {losses['last']:.3f}",
        "state of layers": format_bytes(layers),
        "state of output layer and token table": format_bytes(ends),
    }


def _state_bytes(state: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Return the bytes of the state of layers, and of the two tables at their ends."""
    bytes_of = {name: sum(value.nbytes for value in of.values()) for name, of in state.items()}
    ends = sum(size for name, size in bytes_of.items() if name in _ends() and name != _NORM)
    return sum(bytes_of.values()) - ends, ends


def write_model(folder: Path, text: Path, shape: Shape = SEVEN_B) -> None:
    """Write configuration, tokenizer and weights in shards, the index last."""
    write_folder(
        folder,
        text,
        min(_TOKENS, shape.vocabulary),
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=2048,
        dtype="bfloat16",
    )
    values = np.random.default_rng(0).standard_normal(_BLOCK, np.float32) * np.float32(0.02)
    block = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    shards = [_layer(number, shape) for number in range(shape.layers)] + [_ends(shape)]
    names: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_parts(folder / name, _shard(shapes, block))
        names |= dict.fromkeys(shapes, name)
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _layer(number: int, shape: Shape) -> dict[str, tuple[int, ...]]:
    own, width, inner = f"model.layers.{number}", shape.width, shape.inner
    square, wide = (width, width), (inner, width)
    return {
        **{f"{own}.self_attn.{part}_proj.weight": square for part in "qkvo"},
        **{f"{own}.mlp.{part}_proj.weight": wide for part in ("gate", "up")},
        f"{own}.mlp.down_proj.weight": (width, inner),
        f"{own}.input_layernorm.weight": (width,),
        f"{own}.post_attention_layernorm.weight": (width,),
    }


def _ends(shape: Shape = SEVEN_B) -> dict[str, tuple[int, ...]]:
    table = (shape.vocabulary, shape.width)
    return {
        "model.embed_tokens.weight": table,
        "lm_head.weight": table,
        _NORM: (shape.width,),
    }


def _shard(shapes: dict[str, tuple[int, ...]], block: bytes) -> Iterator[bytes | memoryview]:
    kinds = {name: ("BF16", shape) for name, shape in shapes.items()}
    yield safetensors_header(kinds, {"format": "pt"})
    view, one = memoryview(block), np.full(1, 0x3F80, "<u2").tobytes()  # 1.0 in bfloat16
    for name in sorted(shapes):
        left = 2 * int(np.prod(shapes[name]))
        if len(shapes[name]) == 1:
            yield one * shapes[name][0]
            continue
        while left:
            part = view[: min(left, len(block))]
            yield part
            left -= len(part)
