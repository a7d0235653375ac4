"""`edge-train bench plan`: what plans cost, in processor seconds and resident bytes.

Each is the real command in a fresh process. The language model has the shapes of a Qwen3 of 0.6
billion weights; its file is sparse, since a plan reads the header alone.
"""

import json
import os
import statistics
import struct
import subprocess
from pathlib import Path

from edge_train import bench
from edge_train.bench.small_llama import write_folder
from edge_train.errors import TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.units import format_bytes

_WIDTH, _LAYERS, _VOCABULARY, _INNER, _HEAD = 1024, 28, 151_936, 3072, 128
_QUERIES, _KEYS = 16, 8
_COLUMNS = ("plan", "processor seconds", "resident at most", "answer")


def main(out: Path, seeds: int) -> str:
    """Plan each recipe `seeds` times; return a Markdown table of medians."""
    model, text = large_model(out)
    language = ("--task", "language-model", "--model", str(model), "--data", str(text))
    recipes: dict[str, tuple[str, ...]] = {
        "the demo": ("--mem", "8GB"),
        "the demo, --all": ("--mem", "8GB", "--all"),
        "a language model of 0.6 billion weights": (*language, "--mem", "8GB"),
        "the same, --all": (*language, "--mem", "8GB", "--all"),
    }
    rows = []
    for name, words in recipes.items():
        found = [_planned(words) for _ in range(seeds)]
        seconds = statistics.median(cost[0] for cost in found)
        held = statistics.median(cost[1] for cost in found)
        rows.append([name, f"{seconds:.1f}", format_bytes(int(held)), found[-1][2]])
    return bench.table(_COLUMNS, rows)


def _planned(words: tuple[str, ...]) -> tuple[float, int, str]:
    """Return processor seconds, resident bytes and the first line of a plan.

    Raises:
      TrainingStopped: it ended with an error.
    """
    process = subprocess.Popen(
        command_of(["plan", *words]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    said, wrong = process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise TrainingStopped(f"plan {' '.join(words)}: {wrong.strip()[-500:]}")
    return used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss, said.partition("\n")[0]


def large_model(out: Path) -> tuple[Path, Path]:
    """Return a folder with the shapes of a large model, and a text."""
    folder, text = out / "qwen3-600m", out / "words.txt"
    if (folder / "model.safetensors").is_file():
        return folder, text
    out.mkdir(parents=True, exist_ok=True)
    text.write_text(" ".join(f"w{number % 997}" for number in range(20_000)))
    write_folder(
        folder,
        text,
        600,
        model_type="qwen3",
        architectures=["Qwen3ForCausalLM"],
        vocab_size=_VOCABULARY,
        hidden_size=_WIDTH,
        intermediate_size=_INNER,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_QUERIES,
        num_key_value_heads=_KEYS,
        head_dim=_HEAD,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )
    entries, at = {}, 0
    for name, shape in _shapes().items():
        end = at + 2 * (shape[0] * shape[1] if len(shape) == 2 else shape[0])
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    return folder, text


def _shapes() -> dict[str, list[int]]:
    """Return the shape of every tensor in the file."""
    shapes = {"model.embed_tokens.weight": [_VOCABULARY, _WIDTH], "model.norm.weight": [_WIDTH]}
    for layer in range(_LAYERS):
        own = {
            "input_layernorm": [_WIDTH],
            "post_attention_layernorm": [_WIDTH],
            "self_attn.q_proj": [_QUERIES * _HEAD, _WIDTH],
            "self_attn.k_proj": [_KEYS * _HEAD, _WIDTH],
            "self_attn.v_proj": [_KEYS * _HEAD, _WIDTH],
            "self_attn.o_proj": [_WIDTH, _QUERIES * _HEAD],
            "self_attn.q_norm": [_HEAD],
            "self_attn.k_norm": [_HEAD],
            "mlp.gate_proj": [_INNER, _WIDTH],
            "mlp.up_proj": [_INNER, _WIDTH],
            "mlp.down_proj": [_WIDTH, _INNER],
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return shapes
