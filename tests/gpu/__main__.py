"""`make test-gpu`: what only a CUDA card can say, in parts that end in under eight minutes.

Installs nothing and needs no pytest: `PYTHON tests/gpu`, with a torch of 2.8 or newer that sees a
card. What this Python lacks is named, and what needs it is left out by name. `--device cpu` runs
the same code on a processor, which tests these checks and not the card.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from given import about, unusable

ROOT = Path(__file__).resolve().parents[2]
BUDGET_SECONDS = 450  # under eight minutes, with what ends a part that is late
_BASE = ("torch", "numpy", "safetensors", "tokenizers", "transformers", "accelerate")
_RUNS = (*_BASE, "jinja2", "tqdm", "PIL")
# Function, modules it needs, the least seconds for it; the most telling first.
CHECKS = (
    ("runs:allocator", ("torch", "numpy"), 10),
    ("passes:language_model", _BASE, 30),
    ("passes:classifier", _BASE, 15),
    ("passes:pictures", (*_BASE, "diffusers", "optimum.quanto"), 30),
    ("passes:gguf_blocks", _BASE, 15),
    ("runs:cap", _RUNS, 60),
    ("runs:resume_all", _RUNS, 45),
    ("runs:resume_adapter", _RUNS, 45),
    ("runs:resume_classifier", _RUNS, 45),
    ("runs:resume_word", (*_RUNS, "diffusers"), 60),
    ("runs:resume_zo", _RUNS, 45),
    ("runs:rules", _RUNS, 60),
    ("passes:features", _BASE, 15),
    ("passes:own_module", ("torch", "numpy"), 10),
    ("passes:artifact", ("numpy", "onnxruntime", "tokenizers"), 10),
)


def main(words: list[str] | None = None) -> int:
    """Run the checks; return 0 where all that could run went well."""
    parser = argparse.ArgumentParser(prog="tests/gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--limit", type=int, default=BUDGET_SECONDS, help="seconds for all")
    parser.add_argument("--only", help="checks whose name contains this")
    parser.add_argument("--json", type=Path, help="where results are written")
    parser.add_argument("--check", help=argparse.SUPPRESS)  # one of them, in a process of its own
    asked = parser.parse_args(words)
    if asked.check:
        return _check(asked.check, asked.device)
    if reason := unusable(asked.device, "make test-gpu"):
        print(f"test-gpu: {reason}", file=sys.stderr)
        return 2
    print("\n".join(about(asked.device)), flush=True)
    from edge_train.bench.parts import FAILED, OK, Part, run_parts

    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    parts = [
        Part(
            name,
            [sys.executable, str(Path(__file__).parent), "--check", name, "--device", asked.device],
            needs,
            seconds,
        )
        for name, needs, seconds in CHECKS
        if asked.only is None or asked.only in name
    ]
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    results = run_parts(parts, asked.limit, lambda line: print(line, flush=True), environment)
    for result in results:
        if result.found and result.state == OK:
            print(f"{result.name}: {json.dumps(result.found)}")
    counts = {state: sum(r.state == state for r in results) for state in (OK, FAILED, "skipped")}
    print(f"{asked.device}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if asked.json is not None:
        asked.json.write_text(json.dumps([vars(result) for result in results], indent=2) + "\n")
    return 1 if counts[FAILED] else 0


def _check(name: str, device: str) -> int:
    """Run one check in this process; print what it found as the last line."""
    from importlib import import_module

    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)]
    module, _, function = name.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        found = getattr(import_module(module), function)(Path(folder), device)
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
