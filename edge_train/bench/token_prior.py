"""`edge-train bench token-prior`: how many of a token's numbers count, where earlier ones went.

And whether training with forward passes gains by directions from either.
"""

import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.bench.items import CLASSES, choose, read_items, write_photos
from edge_train.bench.likeness import CLASSES as SCORED
from edge_train.bench.likeness import gallery_of, recipe_for
from edge_train.bench.token_concepts import Concepts, Items, Rows
from edge_train.bench.token_steps import TokenSteps
from edge_train.bench.token_trials import Trial, Trials, Way, paired
from edge_train.export.token_metric import (
    Metric,
    effective_dimension,
    metric_of,
    roots,
    share_inside,
)
from edge_train.export.token_prior import linear_start, prior_of, shares_left_out
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.token_directions import DIRECTIONS, write_directions
from edge_train.tasks.personalize.export_directions import rank_of
from edge_train.tasks.personalize.recipe import ISOTROPIC, METRIC, PRIOR

_RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
_PICTURES = ("items", "one bag", "noise")
_FORWARDS = (600, 1500)
_EXACT_STEPS = 100  # the default
WITHOUT = "prior without its class"

Found: TypeAlias = dict[tuple[str, int], Trial]


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    samples: int = 1000,
    limit: int = 4,
) -> str:
    """Measure metric, prior and what they are worth; return Markdown tables.

    Args:
      out: where everything is kept, the file of directions among it; what is there is not measured
        again.
      seeds: of the paired runs, for every item; 0: the tables before them alone.
      data: the folder of `fashion_mnist.npz`.
      model: a folder of `demos/tiny_sd/pretrain.py`; the embedded model without it.
      samples: draws of the metric.
      limit: rounds of six training items a class, whose tokens are learned.

    Raises:
      InputError: a folder is missing.
    """
    gallery, labels = gallery_of(out, data, None)
    assert data is not None  # or the gallery had said so
    name = model.name if model else EMBEDDED
    items, of_training = read_items(data, "train")
    photos = write_photos(items[0], out / "items" / "first")
    steps = TokenSteps.open(recipe_for(model, photos, 0), method="backprop")
    own = Items(steps, items, of_training, out, name)
    drawn = {kind: own.draws(kind, samples) for kind in _PICTURES}
    concepts = own.concepts(limit)
    metric = metric_of(drawn["items"])
    rank = rank_of(metric)
    assert isinstance(steps.job.model, ModelFolder), "it is trained by exact gradients"
    matrices = {
        METRIC: metric.vectors[:rank],
        PRIOR: prior_of(concepts.moves, metric.matrix, rank).rows,
    }
    facts = {"draws": samples, "tokens": len(concepts.tokens), "rank": rank}
    write_directions(
        out / DIRECTIONS,
        {kind: {"token": rows.astype(np.float32)} for kind, rows in matrices.items()},
        steps.job.model.sha256(),
        json.dumps(facts),
    )
    steps.runtime.close()
    size = (out / DIRECTIONS).stat().st_size
    parts = [
        f"`{name}`: tokens of {len(metric.values)} numbers, {samples} draws of the metric, "
        f"{len(concepts.tokens)} tokens of training items; {rank} directions are kept, "
        f"{DIRECTIONS} has {size:,} bytes.",
        _dimensions(drawn, metric),
        _captures(drawn["items"], concepts),
        _guesses(metric, concepts),
    ]
    if seeds:
        found: dict[tuple[str, int, str, int], Trial] = {}
        of_items = {
            item: Trials(gallery, row, out, f"{name}-{item}", model)
            for item, row in choose(labels, SCORED).items()
        }
        for seed in range(seeds):
            for item, trials in of_items.items():
                ways = _ways(concepts, metric, matrices, item)
                for (way, forwards), trial in _trials(trials, ways, seed).items():
                    found[item, seed, way, forwards] = trial
        parts.append(_table(found))
    return "\n\n".join(parts)


def _dimensions(drawn: dict[str, Rows], metric: Metric) -> str:
    """Return d_eff on every kind of picture, and what directions of one feel of another."""
    rows = []
    for kind, draws in drawn.items():
        dimension, error = effective_dimension(draws)
        own = metric_of(draws)
        cells = []
        for rank in (4, 8, 16, 32):
            first = own.vectors[:rank]
            inside = np.trace(first @ metric.matrix @ first.T) / np.trace(metric.matrix)
            cells.append(f"{inside:.3f}")
        rows.append([kind, f"{dimension:.1f} +- {error:.1f}", *cells])
    head = ["draws on", "effective dimensions", *(f"{r} directions" for r in (4, 8, 16, 32))]
    return bench.table(head, rows)


def _captures(draws: Rows, concepts: Concepts) -> str:
    """Return shares of moves inside directions, by the metric of draws that did not make them."""
    first, second = metric_of(draws[0::2]), metric_of(draws[1::2])
    moves, width = concepts.moves, len(first.values)
    each = np.arange(len(moves))
    rows = []
    for rank in [rank for rank in _RANKS if rank <= width]:
        inside = share_inside(second.matrix, first.vectors[:rank], moves)
        token = shares_left_out(moves, first.matrix, each, rank)
        without = shares_left_out(moves, first.matrix, concepts.classes, rank)
        random = share_inside(second.matrix, _random(rank, width), moves)
        rows.append(
            [
                str(rank),
                _share(random, concepts.classes),
                _share(inside, concepts.classes),
                _share(token, concepts.classes),
                _share(without, concepts.classes),
            ]
        )
    head = ["rank", "random", "metric", "prior, token left out", "prior, class left out"]
    return bench.table(head, rows)


def _guesses(metric: Metric, concepts: Concepts) -> str:
    """Return how much of moves is guessed from photos by what never saw the class."""
    cells = []
    for learned, seen in (("looks", "looks"), ("looks", "others"), ("others", "others")):
        shares = _guessed(metric, concepts, getattr(concepts, learned), getattr(concepts, seen))
        cells.append(f"{_share(shares, concepts.classes)}, median {np.median(shares):.2f}")
    head = ["photos of both in the same five looks", "guess from those, photos in other looks"]
    return bench.table([*head, "both in other looks"], [cells])


def _guessed(metric: Metric, concepts: Concepts, learned: Rows, seen: Rows) -> Rows:
    """Return the share of each move's square, by the metric, that a guess takes away.

    Args:
      learned, seen: features of the photos that guesses are learned from, and made from.
    """
    root, _ = roots(metric.matrix)
    moves, shares = concepts.moves, np.empty(len(concepts.moves))
    for number in np.unique(concepts.classes):
        own = concepts.classes == number
        rest = moves[own] - linear_start(moves[~own], learned[~own]).moves(seen[own])
        whole = np.square(moves[own] @ root).sum(axis=1)
        shares[own] = 1 - np.square(rest @ root).sum(axis=1) / whole
    return shares


def _random(rank: int, width: int) -> Rows:
    return np.random.default_rng(0).standard_normal((rank, width))


def _share(shares: Rows, classes: NDArray[np.int64]) -> str:
    """Return mean and standard error over classes: tokens of one class are no independent ones."""
    means = np.array([shares[classes == number].mean() for number in np.unique(classes)])
    return f"{means.mean():.3f} +- {means.std(ddof=1) / np.sqrt(len(means)):.3f}"


def _ways(concepts: Concepts, metric: Metric, matrices: dict[str, Rows], item: str) -> list[Way]:
    others = concepts.moves[concepts.classes != CLASSES.index(item)]
    without = prior_of(others, metric.matrix, len(matrices[PRIOR])).rows
    return [
        Way(ISOTROPIC),
        Way(WITHOUT, without),
        *(Way(kind, rows) for kind, rows in matrices.items()),
    ]


def _trials(trials: Trials, ways: list[Way], seed: int) -> Found:
    found = {("before training", 0): trials.exact(0, 0)}
    for forwards in _FORWARDS:
        for way in ways:
            found[way.name, forwards] = trials.zo(way, forwards, seed)
    found["exact gradient", 4 * 4 * _EXACT_STEPS] = trials.exact(_EXACT_STEPS, seed)
    return found


def _table(found: dict[tuple[str, int, str, int], Trial]) -> str:
    runs: dict[tuple[str, int], list[Trial]] = {}
    for (_, _, way, forwards), trial in found.items():
        runs.setdefault((way, forwards), []).append(trial)
    rows = []
    for (way, forwards), own in runs.items():
        cells = [way, f"{forwards:,}"]
        cells += [
            f"{np.mean([t.loss for t in own]):.4f}",
            f"{np.mean([t.cosine for t in own]):.3f}",
            f"{np.median([t.rank for t in own]):,.0f}",
        ]
        base = runs.get((ISOTROPIC, forwards))
        if base is None or way == ISOTROPIC:
            cells += ["-", "-"]
        else:
            cells += [
                _difference([t.loss for t in base], [t.loss for t in own], 4),
                _difference([t.cosine for t in base], [t.cosine for t in own], 3),
            ]
        rows.append(cells)
    items = len({item for item, _, _, _ in found})
    seeds = len({seed for _, seed, _, _ in found})
    head = ["directions", "forwards", "loss", "cosine", "rank"]
    head += ["loss less isotropic", "cosine less isotropic"]
    return f"{items} test items x {seeds} seeds.\n\n{bench.table(head, rows)}"


def _difference(base: list[float], own: list[float], digits: int) -> str:
    mean, error = paired(base, own)
    return f"{mean:+.{digits}f} +- {error:.{digits}f}"
