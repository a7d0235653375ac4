"""`edge-train bench forwards`: likeness, composition and loss against forwards, way by way.

Every way learns the same items with the same seeds. A curve is trained in a process of its own and
scored afterwards; what is there is read, so the whole can be done in sittings.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.forwards_cell import Cell, Mark, read, recipe_of
from edge_train.bench.forwards_curves import Curve, forwards_to, interval, wanted_of
from edge_train.bench.forwards_picture import Way, drawn
from edge_train.bench.item_likeness import Items, Scores, Subjects
from edge_train.bench.items import choose
from edge_train.bench.likeness import CLASSES, gallery_of, read_scores, write_scores
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import TrainingStopped
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import EMBEDDED, MODEL_FOLDER
from edge_train.formats.token_directions import DIRECTIONS
from edge_train.memory.fresh import module

EXACT = "exact gradient"
WINNER = "zo, today's default"
ISOTROPIC = "zo, isotropic directions"  # where the default has others first
# Options of a recipe; "steps" is the length that a schedule ends at.
WAYS: Mapping[str, dict[str, Any]] = {
    EXACT: {"method": "backprop", "steps": 400},
    "exact gradient, today's default": {"method": "backprop"},
    # what that was before
    "exact gradient with a rate": {"method": "backprop", "relative_rate": 0.2, "steps": 100},
    WINNER: {"method": "zo"},
    # what that was before: Adam at half the word's size, at the radius before
    "zo with a rate": {
        "method": "zo",
        "relative_rate": 0.5,
        "schedule": "cosine",
        "steps": 250,
    },
    # its ingredients: the radius alone, and all but the radius
    "zo with a rate, wide radius": {
        "method": "zo",
        "relative_rate": 0.5,
        "schedule": "cosine",
        "epsilon": 0.4,
        "steps": 250,
    },
    "zo, narrow radius": {"method": "zo", "epsilon": 0.1, "directions": "isotropic"},
    ISOTROPIC: {"method": "zo", "directions": "isotropic"},
}
# What is measured of other models, beside the preset: all ways would take hours more.
HEADLINE = (EXACT, "exact gradient, today's default", WINNER, ISOTROPIC)
PRESET = "zo, preset zoodip at its best rate"
# of that preset; the second is its own. The best is searched on the first item and seed.
_RATES = (1e-3, 5e-3, 2.5e-2, 1.25e-1)
_TIMES = 20  # the winner's forwards, after which the preset is stopped
SHARE = 0.95  # of the exact gradient's gain
FORWARDS = 6_400  # the most of a curve: what 400 exact steps of four samples cost


@dataclass(frozen=True)
class Measured:
    """A curve with what each of its points scores."""

    marks: list[Mark]
    scores: list[Scores]

    def curve(self, space: str) -> Curve:
        """Return likeness against forwards in a space."""
        return Curve(
            tuple(mark.forwards for mark in self.marks),
            tuple(found.spaces[space].cosine for found in self.scores),
        )

    def seconds_to(self, space: str, wanted: float) -> float:
        """Return the processor seconds at which a likeness is first reached, or infinity."""
        own = self.curve(space)
        taken = Curve(tuple(mark.seconds for mark in self.marks), own.likeness)
        return forwards_to(taken, wanted)

    def bytes_to(self, space: str, wanted: float) -> int:
        """Return the most that was held until a likeness is first reached, or in the whole run."""
        there = zip(self.marks, self.scores, strict=True)
        reached = (m.peak_bytes for m, found in there if found.spaces[space].cosine >= wanted)
        return next(reached, self.marks[-1].peak_bytes)


Found = dict[tuple[str, str, int], Measured]  # by way, item and seed


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    features: Path | None = None,
    limit: int = FORWARDS,
    samples: int = len(CLASSES),
) -> str:
    """Measure every way, item and seed; return Markdown tables.

    Args:
      out: where tokens and scores are kept.
      data: the folder of `fashion_mnist.npz`.
      model: a folder of `demos/tiny_sd/pretrain.py`, or the name of the embedded model, of which
        the ways of `HEADLINE` are measured, isotropic directions where the default has others;
        without, all ways of the embedded model.
      features: a folder of feature networks; see `feature_spaces.spaces`.
      limit: forwards after which a curve ends.
      samples: how many of the items, in the order of `CLASSES`.

    Raises:
      InputError: a folder is missing.
      TrainingStopped: a curve's process failed; what is done stays.
    """
    gallery, labels = gallery_of(out, data, features)
    name = model.name if model else EMBEDDED
    items = choose(labels, CLASSES[:samples])
    trials = Trials(out, Items(gallery, items), name, str(model or EMBEDDED))
    return "\n\n".join(compared(trials, ways_of(model), list(items), seeds, limit))


def compared(
    trials: "Trials", ways: Iterable[str], items: list[str], seeds: int, limit: int
) -> list[str]:
    """Measure ways, and the preset at its best rate, on every item and seed; return Markdown.

    Args:
      ways: of `WAYS`; the first is the exact gradient.
      limit: forwards after which a curve ends.

    Raises:
      TrainingStopped: a curve's process failed; what is done stays.
    """
    found: Found = {}
    for item in items:
        for seed in range(seeds):
            for way in ways:
                found[way, item, seed] = trials.measured(way, WAYS[way], item, seed, limit)
    spaces = [space.name for space in trials.subjects.spaces]
    rate, searched = _best_rate(trials, items[0], limit, spaces[0])
    longest = _preset_limit(found, items, seeds, spaces[0], limit)
    for item in items:
        for seed in range(seeds):
            options = _preset(rate)
            own = trials.measured(_preset_at(rate), options, item, seed, longest)
            found[PRESET, item, seed] = own
    count = f"{len(items)} items x {seeds} seeds"
    parts = [f"{trials.name}: {count}; at most {limit:,} forwards a curve."]
    for space in spaces:
        parts.append(f"Space `{space}`: forwards to {100 * SHARE:.0f} % of the exact gain.")
        parts.append(_headline(found, items, seeds, space))
    parts.append(searched)
    shown = [_way(found, way, items, seeds, spaces[0]) for way in _names(found)]
    quality = f"{100 * SHARE:.0f} % of the exact gain"
    picture = trials.out / "forwards.svg"
    write_bytes(picture, drawn(shown, parts[0], quality).encode())
    parts.append(f"Curves, and memory against time: {picture}")
    return parts + [curves_table(found, way, spaces) for way in _names(found)]


def ways_of(model: Path | None) -> list[str]:
    """Return the ways that are measured of a model; see `main`.

    >>> len(ways_of(Path(EMBEDDED))), len(ways_of(Path("another")))
    (4, 3)
    """
    if model is None:
        return list(WAYS)
    folder = MODEL_FOLDER if str(model) == EMBEDDED else model
    return [way for way in HEADLINE if way != ISOTROPIC or (folder / DIRECTIONS).is_file()]


@dataclass(frozen=True)
class Trials:
    """Where curves are measured and kept, of some subjects and a model, which draws their pictures.

    Attributes:
      composed: whether composition is scored at the end of each curve.
    """

    out: Path
    subjects: Subjects
    name: str
    model: str
    composed: bool = True

    def measured(
        self, way: str, options: Mapping[str, Any], item: str, seed: int, limit: int
    ) -> Measured:
        """Return a curve: trained and scored where it is not there yet.

        Args:
          way: names its files; for other options it is another one.
          options: of the recipe; with a `model` among them, that one trains.
        """
        cell = Cell(self.model, str(self.subjects.write(item)), seed, dict(options), limit)
        stem = f"{self.name}-{item}-{way}-{limit}-seed{seed}".replace(", ", "-")
        path = self.out / f"forwards-{stem.replace(' ', '-')}"
        return _measured(path, cell, self.subjects, item, composed=self.composed)


def _preset(rate: float) -> dict[str, Any]:
    """Return the options of the preset, in the paper's own window."""
    return {"method": "zo", "preset": "zoodip", "window": (500, 900), "learning_rate": rate}


def _preset_at(rate: float) -> str:
    return f"zo, preset zoodip at {rate:g}"


def _best_rate(trials: Trials, item: str, limit: int, space: str) -> tuple[float, str]:
    """Return the rate of the preset that ends nearest to the first item, and a line that says so.

    Every rate gets the forwards that other curves get.
    """
    ends = {
        rate: trials.measured(_preset_at(rate), _preset(rate), item, 0, limit)
        .curve(space)
        .likeness[-1]
        for rate in _RATES
    }
    best = max(ends, key=lambda rate: ends[rate])
    said = ", ".join(f"{rate:g}: {end:.3f}" for rate, end in ends.items())
    line = f"Rates of the preset, `{item}`, seed 0, cosine after {limit:,} forwards: {said}."
    return best, f"{line} Its own is 0.005."


def _preset_limit(found: Found, items: list[str], seeds: int, space: str, limit: int) -> int:
    """Return after how many forwards the preset is stopped: never before the others are."""
    middle = interval(forwards_of(found, WINNER, items, seeds, space))[0]
    return max(limit, int(_TIMES * middle)) if np.isfinite(middle) else limit


def _names(found: Found) -> list[str]:
    """Return the ways that were measured, in their order."""
    return list(dict.fromkeys(way for way, _, _ in found))


def forwards_of(found: Found, way: str, items: list[str], seeds: int, space: str) -> list[float]:
    """Return the forwards of every curve of a way to the share of the exact gain."""
    return [
        forwards_to(found[way, item, seed].curve(space), likeness_wanted(found, item, seeds, space))
        for item in items
        for seed in range(seeds)
    ]


def seconds_of(found: Found, way: str, items: list[str], seeds: int, space: str) -> list[float]:
    """Return the processor seconds of every curve of a way to the share of the exact gain."""
    return [
        found[way, item, seed].seconds_to(space, likeness_wanted(found, item, seeds, space))
        for item in items
        for seed in range(seeds)
    ]


def likeness_wanted(found: Found, item: str, seeds: int, space: str, share: float = SHARE) -> float:
    """Return the likeness to an item at a share of what the exact gradient gains."""
    return wanted_of([found[EXACT, item, seed].curve(space) for seed in range(seeds)], share)


def files_of(curve: Path) -> tuple[Path, Path]:
    """Return the files of a curve's tokens and of its cell; a rate in its name has a point, too.

    >>> [file.name for file in files_of(Path("preset-at-0.005-seed0"))]
    ['preset-at-0.005-seed0.safetensors', 'preset-at-0.005-seed0.cell']
    """
    return curve.with_name(f"{curve.name}.safetensors"), curve.with_name(f"{curve.name}.cell")


def _measured(path: Path, cell: Cell, subjects: Subjects, item: str, *, composed: bool) -> Measured:
    """Return a cell's curve: trained and scored where it is not there yet."""
    tokens, written = files_of(path)
    if not tokens.exists():
        write_bytes(written, json.dumps(asdict(cell)).encode())
        command = module("edge_train.bench.forwards_cell", [str(written), str(tokens)])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TrainingStopped(f"{' '.join(command[3:])}: {done.stderr.strip()[-500:]}")
    marks, points = read(tokens)
    kept = [path.with_name(f"{path.name}-{number}.json") for number in range(len(marks))]
    if not all(file.exists() for file in kept):
        drawing = replace(cell, options={})
        steps = TokenSteps.open(recipe_of(drawing), subjects.prompts, method="backprop")
        for file, point in zip(kept, points, strict=True):
            if not file.exists():
                last = composed and file == kept[-1]  # as many pictures again
                write_scores(file, subjects.score(steps, point, item, composed=last))
        steps.runtime.close()
    return Measured(marks, [read_scores(file) for file in kept])


def _headline(found: Found, items: list[str], seeds: int, space: str) -> str:
    rows = []
    for way in _names(found):
        own = [found[way, item, seed] for item in items for seed in range(seeds)]
        reached = forwards_of(found, way, items, seeds, space)
        most = max(measured.marks[-1].forwards for measured in own)
        middle, low, high = (count(value, most) for value in interval(reached))
        seconds, peak = _whole(own)
        never = sum(np.isinf(reached))
        taken = interval(seconds_of(found, way, items, seeds, space))[0]
        rows.append(
            [
                way,
                f"{middle} ({low} to {high})",
                f"{never} of {len(reached)}",
                f"{taken:.1f}" if np.isfinite(taken) else "-",
                gained(found, way, items, seeds, space),
                f"{most:,}",
                f"{seconds:.0f}",
                f"{peak / 1e6:.0f}",
            ]
        )
    head = ["way", "median (90 %)", "never", "processor seconds to it"]
    more = ["gain at the end (range)", "forwards of the run", "its seconds", "peak MB"]
    return bench.table([*head, *more], rows)


def gained(found: Found, way: str, items: list[str], seeds: int, space: str) -> str:
    """Return which share of the exact gradient's gain the runs of a way end at."""
    shares = []
    for item in items:
        whole = likeness_wanted(found, item, seeds, space, share=1)
        for seed in range(seeds):
            first, *_, last = found[way, item, seed].curve(space).likeness
            shares.append((last - first) / (whole - first))
    return bench.percent(shares)


def _whole(own: list[Measured]) -> tuple[float, int]:
    """Return the median of the seconds of whole runs, and the most that one held."""
    peak = max(mark.peak_bytes for measured in own for mark in measured.marks)
    return float(np.median([measured.marks[-1].seconds for measured in own])), peak


def _way(found: Found, way: str, items: list[str], seeds: int, space: str) -> Way:
    """Return what a way is drawn by."""
    own = [found[way, item, seed] for item in items for seed in range(seeds)]
    taken = interval(seconds_of(found, way, items, seeds, space))[0]
    means = [
        (
            float(np.mean([measured.marks[number].forwards for measured in own])),
            float(np.mean([measured.scores[number].spaces[space].cosine for measured in own])),
        )
        for number in range(min(len(measured.marks) for measured in own))
    ]
    whole, peak = _whole(own)
    reached = bool(np.isfinite(taken))
    return Way(way, means, taken if reached else whole, reached, peak)


def _composed(shares: list[float]) -> str:
    return "-" if np.isnan(shares).any() else f"{100 * np.mean(shares):.0f} %"


def count(value: float, most: int) -> str:
    """Return forwards as words; infinity is more than the most that ran."""
    return f"{value:,.0f}" if np.isfinite(value) else f"more than {most:,}"


def curves_table(found: Found, way: str, spaces: list[str]) -> str:
    """Return a way's means over items and seeds, mark by mark."""
    own = [measured for (name, _, _), measured in found.items() if name == way]
    rows = []
    for number in range(min(len(measured.marks) for measured in own)):
        scores = [measured.scores[number] for measured in own]
        marks = [measured.marks[number] for measured in own]
        rows.append(
            [
                f"{np.mean([mark.forwards for mark in marks]):,.0f}",
                *(
                    f"{np.mean([s.spaces[space].cosine for s in scores]):.3f}, "
                    f"{np.median([s.spaces[space].rank for s in scores]):,.0f}"
                    for space in spaces
                ),
                _composed([s.composition for s in scores]),
                f"{np.mean([mark.loss for mark in marks]):.4f}",
                f"{np.mean([mark.seconds for mark in marks]):.1f}",
                f"{max(mark.peak_bytes for mark in marks) / 1e6:.0f}",
            ]
        )
    heads = [f"{space}: cosine, rank" for space in spaces]
    head = ["forwards", *heads, "color and background", "fixed loss", "seconds", "peak MB"]
    return f"{way}\n\n{bench.table(head, rows)}"
