"""`edge-train bench cap`: does the cap hold, is the plan right, and how small may the cap be?

Every run is the real command, watched from outside: the resident bytes of its process tree, read
a thousand times a second. Runs are of the embedded model, as a folder on torch where that is
installed and as exported artifacts; these are made where torch is and kept, so that the same
command works in the device environment too.
"""

import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.watched import watched
from edge_train.errors import InputError
from edge_train.models import EMBEDDED
from edge_train.recipe import Recipe
from edge_train.rehearsal import rehearse_apart
from edge_train.units import format_bytes

_QUANTS, _SIDES = ("none", "int8", "int8-fast", "int4"), (32, 64)
_SHARES = (0.8, 1.1, 1.25, 1.6)  # of what the plan needs without a cap
_STEPS = 3
_SMALLEST: dict[str, Any] = {"batch_limit": 1, "lean": True, "previews": False}
_SAME = 1.02  # times the best evaluation of a run without a cap: smaller calls round otherwise
_HEAD = ("what", "found", "wanted")


def main(out: Path, seeds: int, limit: int = 96) -> str:
    """Run the grid, or `limit` runs spread over it; return Markdown tables.

    Args:
      seeds: ignored: memory does not depend on it.
      limit: runs at most.

    Raises:
      InputError: there is nothing to run here.
    """
    del seeds
    ways = _ways(out)
    if not ways:
        raise InputError(
            f"{out}: no artifacts in it, and without torch none can be made; run this where torch "
            "is and copy the folder, or `edge-train export tiny-sd "
            f"{_folder(out, 'int8', 32)} --quant int8`."
        )
    cells = [(way, share) for way in ways for share in _SHARES]
    random.Random(0).shuffle(cells)
    plans: dict[Recipe, int] = {}
    over, errors, refused, wrong, ended = 0, [], 0, [], 0
    for way, share in cells[:limit]:
        if way not in plans:
            plans[way] = rehearse_apart(way).peak_bytes
        cap_bytes = int(plans[way] * share)
        done = watched(out / "run", replace(way, cap_bytes=cap_bytes))
        over += done.peak_bytes > cap_bytes
        if done.status == 0:
            ended += 1
            if done.report["resumed"] == 0 and done.report["plan_peak_bytes"]:
                errors.append(done.peak_bytes / done.report["plan_peak_bytes"] - 1)
        elif done.status == 2:
            refused += 1
            free = watched(out / "run", replace(way, **_smallest(way)))
            if free.status == 0 and free.peak_bytes <= cap_bytes:
                wrong.append(f"{_name(way)} at {format_bytes(cap_bytes)}")
        line = f"{_name(way)} --mem {format_bytes(cap_bytes)}: status {done.status}, "
        print(line + f"held {format_bytes(done.peak_bytes)}", file=sys.stderr, flush=True)
    sizes = sorted(abs(error) for error in errors)
    rows = [
        ["runs", f"{min(limit, len(cells))} of {len(cells)}, {ended} done, {refused} refused", ""],
        ["runs that held more than their cap", str(over), "0"],
        ["plan error, median", _percent(statistics.median(sizes)) if sizes else "-", "3 %"],
        ["plan error, worst", _percent(sizes[-1]) if sizes else "-", "10 %"],
        ["caps refused that a run fits in", ", ".join(wrong) or "0", "0"],
    ]
    return bench.table(_HEAD, [*rows, *_smallest_cap(out)])


def _ways(out: Path) -> list[Recipe]:
    """Return every recipe of the grid that this environment can run."""
    recipe = Recipe(
        steps=_STEPS,
        preview_steps=1,
        evaluation_samples=8,
        epsilon=0.1,  # the check could find that a profile does not learn, which is no matter here
        evaluate_every=_STEPS,
        threads=1,
    )
    found = []
    torch = find_spec("torch") is not None
    for quant in _QUANTS:
        for side in _SIDES:
            folder = _folder(out, quant, side)
            if torch and not folder.is_dir():
                _export(folder, quant, side)
            if folder.is_dir():
                found += [
                    replace(recipe, model=str(folder), lean=lean, batch_limit=batch, method="zo")
                    for lean in (False, True)
                    for batch in (None, 1)
                ]
    if torch:
        found += [
            replace(recipe, method=method, quant=quant, resolution=side, batch_limit=batch)
            for method in ("zo", "backprop")
            for quant in ("none", "int8")
            for side in _SIDES
            for batch in (None, 1)
        ]
    return found


def _folder(out: Path, quant: str, side: int) -> Path:
    return out / f"{EMBEDDED}-{quant}-{side}"


def _export(folder: Path, quant: str, side: int) -> None:
    words = ("export", EMBEDDED, str(folder), "--quant", quant, "--resolution", str(side))
    subprocess.run([sys.executable, "-m", "edge_train", *words, "--threads", "1"], check=True)


def _smallest(way: Recipe) -> dict[str, Any]:
    lean = way.model != EMBEDDED
    return {**_SMALLEST, "lean": lean, "cap_bytes": None}


def _name(way: Recipe) -> str:
    words = [Path(way.model).name, way.method, way.quant, str(way.resolution or "")]
    words += ["lean"] * way.lean + ["one sample a call"] * (way.batch_limit == 1)
    return " ".join(word for word in words if word and word != "auto")


def _smallest_cap(out: Path) -> Sequence[Sequence[str]]:
    """Return a row: the smallest cap, in steps of 10 MB, under which `bag` is learned.

    Learned is: the evaluation falls as far as in a run without a cap, whose pictures are judged.
    """
    folder = _folder(out, "int8", 32)
    if not folder.is_dir():
        return []
    recipe = Recipe(model=str(folder), method="zo", threads=1)
    free = watched(out / "smallest", recipe).report
    wanted, shown = free["eval"]["best"] * _SAME, free["metrics"]["class_accuracy"]
    cap_bytes = rehearse_apart(replace(recipe, **_SMALLEST)).peak_bytes // 10**7 * 10**7
    while True:
        done = watched(out / "smallest", replace(recipe, cap_bytes=cap_bytes, previews=False))
        if done.status == 0 and done.report["eval"]["best"] <= wanted:
            losses = f"{done.report['eval']['best']:.4f}, without a cap {free['eval']['best']:.4f}"
            found = f"{format_bytes(cap_bytes)} (loss {losses} and {_percent(shown)} of pictures)"
            return [["smallest cap under which `bag` is learned, int8", found, "150 MB"]]
        cap_bytes += 10**7


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
