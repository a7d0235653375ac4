"""`edge-train bench sd15-lora`: a LoRA and a new word of Stable Diffusion 1.5, beside diffusers.

512 pixels, one photo a step, one thread, random weights; each contestant in a fresh process, one
after the other. Then the cap that the plan of a lean LoRA advises, and a run under it.
What was measured is kept in the folder, so that a bench that was stopped goes on.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench import engine, sd15_scripts
from edge_train.bench.sd15 import make_model
from edge_train.bench.step_cost import open_loop, seconds_of
from edge_train.errors import TrainingStopped
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import DATA
from edge_train.memory.fresh import module
from edge_train.memory.measure import measure
from edge_train.memory.plan import estimate
from edge_train.tasks import open_job
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.units import advised_bytes, format_bytes

_STEPS, _RANK = 3, 8
_ROUNDED_BYTES = 10_000_000  # caps are tried in steps of it
_LORA: dict[str, dict[str, Any]] = {
    "edge-train, float32": {"dtype": "float32"},
    "edge-train, bfloat16": {"dtype": "bfloat16"},
    "edge-train, int8": {"quant": "int8"},
}
_TOKEN: dict[str, dict[str, Any]] = {"edge-train, exact, int8": {"quant": "int8"}}
_ZO = "edge-train, zo, int8-fast"
_SCRIPTS = {"diffusers, float32": "float32", "diffusers, bfloat16": "bfloat16"}
LORA = (*_SCRIPTS, *_LORA)
TOKEN = (*_SCRIPTS, *_TOKEN, _ZO)
_HEAD = ("", "peak", "of diffusers in float32", "processor s a step", "times", "activations")
_SMALL = """
class_word = "thing"
steps = 1
samples = 1
threads = 1
flips = false
evaluation_samples = 1
evaluate_every = 1
previews = false
trainable = "lora"
quant = "int8"
lean = true
"""


def main(out: Path, _: int, limit: int = _STEPS) -> str:
    """Return the tables.

    Args:
      out: where the model, its artifact and what was measured are kept.
      limit: steps of each contestant; the fastest counts, as other work on a machine slows all.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "sd15-random" / "model_index.json").is_file():
        make_model(out / "sd15-random")
    parts = [f"A LoRA of rank {_RANK}, {limit} steps:", _table(out, "lora", LORA, limit)]
    parts.append(_smallest(out))
    if exported := engine.export(out, "int8-fast"):
        parts.append(exported)
    parts += ["A new word:", _table(out, "token", TOKEN, limit)]
    return "\n\n".join(parts)


def _table(out: Path, kind: str, names: tuple[str, ...], steps: int) -> str:
    found = {name: _measured(out, kind, name, steps) for name in names}
    base = found["diffusers, float32"]
    rows = [
        [
            name,
            format_bytes(own["peak_bytes"]),
            f"{own['peak_bytes'] / base['peak_bytes']:.2f}",
            f"{own['step_seconds']:.1f}",
            f"{own['step_seconds'] / base['step_seconds']:.2f}",
            own["activations"],
        ]
        for name, own in found.items()
    ]
    return bench.table(_HEAD, rows)


def _measured(out: Path, kind: str, name: str, steps: int) -> dict[str, Any]:
    """Return what a contestant holds and takes, from the folder or from a fresh process."""
    kept = out / "sd15-lora.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    key = f"{kind}: {name}"
    if key not in known:
        words = module(__spec__.name, [kind, name, str(out), str(steps)])
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TrainingStopped(f"{key}: {done.stderr.strip()[-800:]}")
        known[key] = json.loads(done.stdout.splitlines()[-1])
        write_bytes(kept, json.dumps(known, indent=1).encode())
    own: dict[str, Any] = known[key]
    return own


def _smallest(out: Path) -> str:
    """Return a sentence: the smallest cap that a plan advises, and what a run under it held."""
    recipe = out / "sd15-lora-small.toml"
    recipe.write_text(_SMALL)
    keys = {"trainable": "lora", "rank": _RANK, "quant": "int8", "lean": True, "previews": False}
    footprint = open_job(_recipe(out / "sd15-random", keys)).footprint()
    planned = estimate(footprint, footprint.libraries_bytes).peak_bytes
    cap = -(-advised_bytes(planned) // _ROUNDED_BYTES) * _ROUNDED_BYTES
    words = ["--recipe", str(recipe), "--model", str(out / "sd15-random"), "--rank", str(_RANK)]
    megabytes = f"{cap // 1_000_000}MB"
    report = bench.run(
        out / f"sd15-lora-{megabytes}",
        *(str(_photo(out)), *words, "--mem", megabytes),
    )
    return (
        f"`--mem {megabytes}` is what the plan of a lean int8 LoRA advises, which needs "
        f"{format_bytes(planned)}: the run ended "
        f"{report['status']} and held {format_bytes(report['measured_peak_bytes'])}, "
        f"{report['seconds_per_step']:.0f} s a step."
    )


def _recipe(model: Path, keys: dict[str, Any]) -> PersonalizeRecipe:
    return PersonalizeRecipe(
        model=str(model),
        photos=str(_photo(model.parent)),
        class_word="thing",
        samples=1,
        threads=1,
        flips=False,
        **keys,
    )


def _photo(out: Path) -> Path:
    """Return a folder of one photo: encoding more costs time and is not what is compared."""
    folder = out / "photo"
    folder.mkdir(exist_ok=True)
    shutil.copy(min((DATA / "photos" / "bag").glob("*.png")), folder)
    return folder


def _ours(out: Path, kind: str, name: str, steps: int) -> dict[str, Any]:
    """Take steps of a run, without evaluations and checkpoints."""
    keys = {"trainable": "lora", "rank": _RANK, **_LORA[name]} if kind == "lora" else _TOKEN[name]
    job: Any = open_job(_recipe(out / "sd15-random", keys))
    folder = out / f"sd15-lora-{kind}-{name.replace(', ', '-')}"
    folder.mkdir(exist_ok=True)
    job.load()
    job.prepare(folder, lambda line: None)
    loop = open_loop(job, folder)
    return _found(seconds_of(loop.step, steps), loop.runtime.dtype)


def _zo(out: Path, steps: int) -> dict[str, Any]:
    """Take default steps of forward passes on the artifact: five each."""
    step = engine.make_step(out / "sd15-int8-fast", lean=False)
    return _found(seconds_of(step.take, steps), "int8")


def _found(seconds: list[float], activations: str) -> dict[str, Any]:
    return {
        "peak_bytes": measure().peak_bytes,
        "step_seconds": min(seconds),
        "activations": activations,
    }


def _contestant(kind: str, name: str, out: Path, steps: int) -> dict[str, Any]:
    model = out / "sd15-random"
    if name in _SCRIPTS and kind == "lora":
        return sd15_scripts.lora(model, steps, _SCRIPTS[name], _RANK)
    if name in _SCRIPTS:
        return sd15_scripts.textual_inversion(model, steps, _SCRIPTS[name])
    return _zo(out, steps) if name == _ZO else _ours(out, kind, name, steps)


if __name__ == "__main__":
    _, kind, name, place, count = sys.argv
    print(json.dumps(_contestant(kind, name, Path(place), int(count))))
