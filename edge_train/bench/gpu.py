"""`edge-train bench gpu`: seconds and memory on a CUDA card, against diffusers' own loop.

Stable Diffusion 1.5 at 512 and XL at 1024 pixels, and full-parameter steps of a 7B's widths, all of
random weights. Nothing is installed; what this Python lacks is named and left out. It ends in the
time it is given: parts are timed, and one that no longer fits is left out by name. With `--device
cpu --size tiny` the same code runs in a minute or two on a processor, which says nothing of speed.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.parts import FAILED, OK, Part, Result, run_parts
from edge_train.errors import InputError, TrainingStopped
from edge_train.memory.fresh import fresh
from edge_train.units import format_bytes

BUDGET_SECONDS = 450  # under eight minutes, with what ends a part that is late
SIZES = ("full", "tiny")
DEVICES = ("cuda", "cpu")
_RUN = ("numpy", "safetensors", "tokenizers", "PIL", "jinja2", "tqdm", "torch", "transformers")
_DIFFUSION = (*_RUN, "accelerate", "diffusers")
_SIDE = {"sd15": 512, "sdxl": 1024}
_STEPS = {"full": 10, "tiny": 2}
_HEAD = ("model", "what", "weights", "seconds per step", "peak", "products", "state")
_NAMES = {
    "sd15": "Stable Diffusion 1.5, 512 px",
    "sdxl": "Stable Diffusion XL, 1024 px",
    "llama": "7B's widths, 4 of 32 layers",
}
# As little as can be beside the steps that are measured.
_RECIPE = """
class_word = "thing"
samples = 1
flips = false
evaluation_samples = 1
preview_steps = 1
"""
_SCRIPT = "diffusers' textual inversion"
_DIFFUSION_RUNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "token, zo": ("int8", ("--method", "zo", "--quant", "int8", "--epsilon", "0.1")),
    "token, exact": ("int8", ("--method", "adamw", "--quant", "int8")),
    "token, exact, bf16": ("none", ("--method", "adamw", "--quant", "none", "--dtype", "bfloat16")),
    "LoRA of rank 8": ("int8", ("--trainable", "lora", "--rank", "8", "--quant", "int8")),
}
_LLAMA_RUNS: Mapping[str, tuple[str, ...]] = {
    "scale-sgd": (),
    "q-galore": ("--rank", "32", "--scale", "1.0", "--project-head"),
}


def main(
    out: Path, seeds: int = 1, device: str = "cuda", size: str = "full", limit: int = BUDGET_SECONDS
) -> str:
    """Run every part that fits into the time; write gpu.json; return a Markdown table.

    Args:
      out: models, runs and gpu.json; models of an earlier call are used again.
      seeds: ignored: time and memory do not depend on it.
      device: `cuda` or `cpu`.
      size: `full` or `tiny`.
      limit: seconds for all of it.

    Raises:
      InputError: an unknown device or size.
      TrainingStopped: a part failed; gpu.json says which, and the others.
    """
    del seeds
    for name, value, known in (("device", device, DEVICES), ("size", size, SIZES)):
        if value not in known:
            raise InputError(f"--{name} is {value!r}, must be {' or '.join(known)}.")
    out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(out, device, size)
    one = {**os.environ, "HF_HUB_OFFLINE": "1"}
    results = run_parts(
        parts, limit, lambda line: print(line, file=sys.stderr, flush=True), environment=one
    )
    rows = [row_of(result, out) for result in results if "/" in result.name]
    machine = results[0].found
    content = {
        "machine": machine,
        "device": device,
        "size": size,
        "rows": rows,
        "parts": [vars(result) for result in results],
    }
    (out / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
    text = markdown(machine, rows, size)
    if failed := [result.name for result in results if result.state == FAILED]:
        print(text)
        raise TrainingStopped(
            f"{len(failed)} of {len(results)} parts failed, first {failed[0]!r}; "
            f"{out / 'gpu.json'} has what each of them said."
        )
    return text


def parts_of(out: Path, device: str, size: str) -> list[Part]:
    """Return what is measured, the most wanted first; names of rows are `model/what`."""
    full = size == "full"
    parts = [Part("machine", _module("gpu_script", "machine", device), ("torch", "numpy"), 5)]

    def make(kind: str, needs: Sequence[str], seconds: float) -> None:
        words = _module("gpu_models", kind, str(out / f"{kind}-{size}"), size, device)
        parts.append(Part(f"make {kind}", words, needs, seconds if full else 5, ("machine",)))

    def diffusion(kind: str, seconds: float) -> None:
        recipe = out / f"{kind}.toml"
        steps = _STEPS[size]
        recipe.write_text(f"{_RECIPE}steps = {steps}\nevaluate_every = {steps}\n")
        side = _SIDE[kind] if full else 32
        model, photos = out / f"{kind}-{size}", _photos()
        script = _module(
            "gpu_script", "script", str(model), str(_STEPS[size]), "bfloat16", device, str(side)
        )
        for what, (weights, options) in _DIFFUSION_RUNS.items():
            needs = [*_DIFFUSION, *(["optimum.quanto"] if weights == "int8" else [])]
            words = [photos, "--recipe", str(recipe), "--model", str(model)]
            words += ["--resolution", str(side), *options]
            parts.append(_training(out, kind, what, device, words, needs, seconds if full else 5))
        if kind == "sd15":  # the loop of XL has two encoders and another script
            least = seconds if full else 5
            parts.append(
                Part(f"{kind}/{_SCRIPT}", script, _DIFFUSION, least, ("machine", f"make {kind}"))
            )

    make("sd15", _DIFFUSION, 20)
    diffusion("sd15", 25)
    make("llama", _RUN, 20)
    model = out / f"llama-{size}"
    for method, options in _LLAMA_RUNS.items():
        words = ["--task", "language-model", "--data", str(model / "text.txt")]
        words += ["--model", str(model), "--method", method, "--quant", "int8", "--samples", "1"]
        words += ["--length", "256" if full else "16", "--steps", "2", "--evaluation-samples", "1"]
        words += options if full else [one if one != "32" else "4" for one in options]
        needs = (*_RUN, "accelerate")
        parts.append(_training(out, "llama", method, device, words, needs, 60 if full else 5))
    make("sdxl", _DIFFUSION, 40)
    diffusion("sdxl", 50)
    return parts


def _training(
    out: Path,
    kind: str,
    what: str,
    device: str,
    words: Sequence[str],
    needs: Sequence[str],
    seconds: float,
) -> Part:
    """Return a run of the real command; its folder is named after the part."""
    folder = _folder(out, f"{kind}/{what}")
    code = (
        "import shutil; from edge_train.__main__ import main; "
        "shutil.rmtree(sys.argv[sys.argv.index('--out') + 1], ignore_errors=True); sys.exit(main())"
    )
    command = [sys.executable, *fresh(code), "run", *words, "--device", device, "--json"]
    before = ("machine", f"make {kind}")
    return Part(f"{kind}/{what}", [*command, "--out", str(folder)], needs, seconds, before)


def row_of(result: Result, out: Path) -> dict[str, Any]:
    """Return what a part showed: keys of `report.json` where it was a run of ours."""
    kind, _, what = result.name.partition("/")
    report = result.found
    file = _folder(out, result.name) / "report.json"
    if what != _SCRIPT:
        report = json.loads(file.read_text()) if result.state == OK and file.is_file() else {}
    weights = _DIFFUSION_RUNS[what][0] if what in _DIFFUSION_RUNS else "none"
    kept = ("seconds_per_step", "measured_peak_bytes", "dtype", "device", "status")
    return {
        "model": kind,
        "what": what,
        "weights": "int8" if kind == "llama" else weights,
        **{name: report.get(name) for name in kept},
        "seconds_total": result.seconds,
        "state": result.state,
        "why": result.why[-300:],
    }


def markdown(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], size: str) -> str:
    """Return the table of rows under a line that says what they were measured on."""
    card = machine.get("card", machine.get("processor", "unknown"))
    about = f"{card}, torch {machine.get('torch')}, CUDA {machine.get('cuda')}. Peak: "
    about += "of the card, as the driver counts" if "card" in machine else "of the process tree"
    if size != "full":
        about += f". Size **{size}**: these numbers show the shape of the table and nothing else"
    lines = []
    for row in rows:
        seconds, peak = row["seconds_per_step"], row["measured_peak_bytes"]
        lines.append(
            [
                _NAMES[row["model"]] if size == "full" else str(row["model"]),
                str(row["what"]),
                str(row["weights"]),
                "" if seconds is None else f"{seconds:.3f}",
                "" if peak is None else format_bytes(peak),
                row["dtype"] or "",
                row["state"] if row["state"] == OK else f"{row['state']}: {_cell(row['why'])}",
            ]
        )
    return f"{about}.\n\n{bench.table(_HEAD, lines)}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[-120:]


def _module(name: str, *words: str) -> list[str]:
    function = {"gpu_models": "made", "gpu_script": "measured"}[name]
    code = f"from edge_train.bench.{name} import {function}; {function}(sys.argv[1:])"
    return [sys.executable, *fresh(code), *words]


def _folder(out: Path, name: str) -> Path:
    return out / "runs" / "".join(one if one.isalnum() else "-" for one in name)


def _photos() -> str:
    from edge_train.formats.embedded import DATA

    return str(DATA / "photos" / "bag")
