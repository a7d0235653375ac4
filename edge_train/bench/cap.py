"""`edge-train bench cap`: does the cap hold, is the plan right, and how small may the cap be?

Every run is the real command, watched from outside: the resident bytes of its process tree, read
a thousand times a second, and the kernel's own peak counters that the run reports, whichever is
more. A way to run (`cap_grid.py`) is rehearsed once without a cap; then it runs under caps below,
just above, near and far from what that rehearsal found.
"""

import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_train import bench
from edge_train.bench.cap_grid import folder, name, ways
from edge_train.bench.watched import watched
from edge_train.errors import InputError
from edge_train.recipe import Recipe
from edge_train.run.rehearsal import rehearse_apart
from edge_train.run.savings import smallest
from edge_train.tasks import open_job
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.units import format_bytes, parse_bytes

_SHARES = (0.75, 1.05, 1.4, 4.0)  # of what the plan needs without a cap; the last is estimated
_TRIED = 1.1  # a refusal is checked at this share of the cap that it names
_ADVICE = re.compile(r"Try --mem (\w+)")
_SAME = 1.02  # times the best evaluation of a run without a cap: smaller calls round otherwise
_HEAD = ("what", "found", "wanted")


@dataclass
class _Found:
    """What the runs of a grid came to; errors of plans by how they were made."""

    ended: int = 0
    stopped: int = 0
    refused: int = 0
    smaller: int = 0
    over: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    misadvised: list[str] = field(default_factory=list)
    errors: dict[str, list[float]] = field(
        default_factory=lambda: {"rehearsal": [], "estimate": []}
    )


def main(out: Path, seeds: int, limit: int = 64) -> str:
    """Run a grid of about `limit` runs; return a Markdown table.

    Args:
      seeds: ignored: memory does not depend on it.
      limit: runs at most; every way is run under each of the four caps.

    Raises:
      InputError: there is nothing to run here.
    """
    del seeds
    every = ways(out)
    grid = every[: max(1, limit // len(_SHARES))]
    if not any(way.task == "personalize" for way in every):
        raise InputError(
            f"{out}: no artifacts in it, and without torch none can be made; run this where torch "
            "is and copy the folder, or `edge-train export tiny-sd "
            f"{folder(out, 'int8', 32)} --quant int8`."
        )
    found = _Found()
    for way in grid:
        needed_bytes = rehearse_apart(way).peak_bytes
        for share in _SHARES:
            _try(out, way, int(needed_bytes * share), found)
    rows = [
        [
            "runs",
            f"{len(grid) * len(_SHARES)} of {len(every) * len(_SHARES)}: {_outcomes(found)}",
            "",
        ],
        ["runs that held more than their cap", _listed(found.over), "0"],
        *_errors("plan error, near the cap", found.errors["rehearsal"], ("3 %", "10 %")),
        *_errors("plan error, far from the cap (an estimate)", found.errors["estimate"], ("", "")),
        ["caps refused that a run fits in", _listed(found.wrongly_refused), "0"],
        ["caps named by a refusal in which it does not run", _listed(found.misadvised), "0"],
    ]
    return bench.table(_HEAD, [*rows, *_smallest_cap(out)])


def _try(out: Path, way: Recipe, cap_bytes: int, found: _Found) -> None:
    """Run a way under a cap, and what a refusal says would run; add to what was found."""
    done = watched(out / "run", replace(way, cap_bytes=cap_bytes))
    what = f"{name(way)} at {format_bytes(cap_bytes)}"
    line = f"{what}: status {done.status}, held {format_bytes(done.peak_bytes)}"
    if done.peak_bytes > cap_bytes:
        found.over.append(what)
    if done.status == 0:
        found.ended += 1
        plan = json.loads((out / "run" / "plan.json").read_text())
        # the kernel's counter of the process that the plan is about, not of rehearsals before it
        error = done.report["measured_peak_bytes"] / plan["peak_bytes"] - 1
        found.errors[plan["source"]].append(error)
        smaller = "going on with" in done.said
        found.smaller += smaller
        line += f", {plan['source']} off by {_percent(error)}" + ", in a smaller way" * smaller
    elif done.status == 2 and (advice := _ADVICE.search(done.said)):
        found.refused += 1
        tried_bytes = int(parse_bytes(advice[1]) * _TRIED)
        least = replace(smallest(open_job(way).recipe), cap_bytes=tried_bytes)
        again = watched(out / "run", least)
        if again.peak_bytes > tried_bytes:
            found.over.append(f"{name(least)} at {format_bytes(tried_bytes)}")
        line += f"; under {format_bytes(tried_bytes)}: status {again.status}, held "
        line += format_bytes(again.peak_bytes)
        if again.status != 0:
            found.misadvised.append(f"{what}: {advice[1]}")
            line += f" {again.said[-400:]}"
        elif again.peak_bytes <= cap_bytes:
            found.wrongly_refused.append(f"{what}, {format_bytes(again.peak_bytes)}")
    else:
        found.stopped += 1
        line += f" {done.said[-800:]}"
    print(line, file=sys.stderr, flush=True)


def _outcomes(found: _Found) -> str:
    words = f"{found.ended} done, {found.refused} refused, {found.stopped} stopped"
    return f"{words}; {found.smaller} of the done in a smaller way than asked"


def _listed(what: Sequence[str]) -> str:
    return f"{len(what)} ({'; '.join(what)})" if what else "0"


def _errors(what: str, errors: Sequence[float], wanted: tuple[str, str]) -> list[list[str]]:
    if not errors:
        return []
    worst = max(errors, key=abs)
    median = statistics.median(map(abs, errors))
    return [
        [f"{what}, median of {len(errors)}", _percent(median), wanted[0]],
        [f"{what}, worst", f"{100 * worst:+.2g} %", wanted[1]],
    ]


def _smallest_cap(out: Path) -> Sequence[Sequence[str]]:
    """Return a row: the smallest cap, in steps of 10 MB, under which `bag` is learned.

    Learned is: the evaluation falls as far as in a run without a cap, whose pictures are judged.
    """
    model = folder(out, "int8", 32)
    if not model.is_dir():
        return []
    recipe = PersonalizeRecipe(model=str(model), method="zo", threads=1)
    free = watched(out / "smallest", recipe).report
    wanted, shown = free["eval"]["best"] * _SAME, free["metrics"]["class_accuracy"]
    least = rehearse_apart(smallest(open_job(recipe).recipe))
    cap_bytes = least.peak_bytes // 10**7 * 10**7
    while True:
        done = watched(out / "smallest", replace(recipe, cap_bytes=cap_bytes, previews=False))
        if done.status == 0 and done.report["eval"]["best"] <= wanted:
            losses = f"{done.report['eval']['best']:.4f}, without a cap {free['eval']['best']:.4f}"
            found = f"{format_bytes(cap_bytes)} (loss {losses} and {_percent(shown)} of pictures)"
            return [["smallest cap under which `bag` is learned, int8", found, "150 MB"]]
        cap_bytes += 10**7


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
