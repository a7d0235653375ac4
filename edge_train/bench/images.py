"""Image heads on a frozen backbone, and a classifier of one's own things from thirty photos.

    edge-train bench images --data FOLDER --model efficientnet-lite0.onnx [--python DEVICE_PYTHON]

FOLDER holds cifar10_subset_jpeg.npz and dreambooth/ (a folder for each of six subjects). Rows that
are in --out already are read, not measured again.
"""

import json
import math
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.bench import run, table
from edge_train.bench.images_features import PHOTOS, Set, features_of
from edge_train.bench.images_heads import (
    FEW,
    GRID,
    KINDS,
    Setting,
    judged,
    parameters_of,
    standardized,
    trained,
)
from edge_train.errors import InputError
from edge_train.formats.labeled_pictures import labeled_pictures
from edge_train.rng import Key
from edge_train.tasks.images.answering import Answering
from edge_train.tasks.images.backbone import find_backbone
from edge_train.tasks.images.classifier_file import CLASSIFIER, load_classifier
from edge_train.tasks.images.unknowns import known_pictures

_CIFAR_STEPS, _CIFAR_BATCH, _CIFAR_CLASSES = 600, 128, 10
_PHOTO_STEPS, _PHOTO_BATCH, _PHOTO_SEEDS = 60, 32, 2
_HELD_OUT = 0.2  # of the training part, for the grid
_UNKNOWNS = 200  # pictures of CIFAR's test part that no photo is of
_CAP = "250MB"
# Student's t for 95 %, by degrees of freedom
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
Row = dict[str, Any]


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    python: str = sys.executable,
    samples: int | None = None,
) -> str:
    """Return the tables.

    Args:
      data: the folder with both sets.
      model: the backbone, an .onnx file.
      python: of the device environment, which the personal classifier is trained by.
      samples: of each part of CIFAR at most, for a trial.

    Raises:
      InputError: data or backbone is not named, or cannot be used.
    """
    if data is None or model is None:
        raise InputError(
            "bench images needs --data FOLDER with CIFAR's subset and the photos, and --model with "
            "a backbone; docs/benchmarks/images.md says where they are from."
        )
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = _Rows(folder / "rows.jsonl")
    backbone = find_backbone(str(model), None)
    sets = features_of(data, backbone, folder, samples)
    heads = _of_cifar(rows, sets["train"], sets["test"], seeds, samples)
    photos = _of_photos(rows, sets["photos"], seeds)
    alone = _personal(rows, folder, data / PHOTOS, model, sets, python)
    return "\n\n".join((heads, photos, alone, _strangers(sets)))


class _Rows:
    """What was measured, a line each; what is there is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        found: list[Row] = [json.loads(line) for line in lines]
        self._rows = {json.dumps(one["key"]): one for one in found}

    def get(self, key: Sequence[Any], measure: Callable[[], Row]) -> Row:
        """Return a row by its key."""
        name = json.dumps(list(key))
        if name in self._rows:
            return self._rows[name]
        row: Row = {"key": list(key), **measure()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._rows[name] = row
        return row


def _words(kind: tuple[str, str]) -> str:
    return " ".join(part for part in kind if part)


def _with_interval(shares: Sequence[float]) -> str:
    """Return a mean in percent, with the interval of 95 % over seeds."""
    mean = 100 * statistics.mean(shares)
    if len(shares) < 2:
        return f"{mean:.1f}"
    half = _T.get(len(shares) - 1, 2.0) * 100 * statistics.stdev(shares) / math.sqrt(len(shares))
    return f"{mean:.1f} +- {half:.1f}"


# ----------------------------------------------------------------------------- CIFAR


def _of_cifar(rows: _Rows, train: Set, test: Set, seeds: int, samples: int | None) -> str:
    known, other = standardized(train[0], test[0])
    order = Key(0, 0).generator("held out").permutation(len(known))
    aside = round(_HELD_OUT * len(order))
    held, kept = order[:aside], order[aside:]
    width, lines = known.shape[1], []
    for kind in KINDS:
        words = _words(kind)

        def fit(setting: Setting, which: Any, seed: int, kind: tuple[str, str] = kind) -> Any:
            return trained(
                kind,
                setting,
                known[which],
                train[1][which],
                _CIFAR_CLASSES,
                steps=_CIFAR_STEPS,
                batch=_CIFAR_BATCH,
                seed=seed,
            )

        def tuned(setting: Setting) -> Row:
            loss, right = judged(fit(setting, kept, 0), known[held], train[1][held])
            return {"loss": loss, "right": right}

        def scored(setting: Setting, seed: int) -> Row:
            loss, right = judged(fit(setting, order, seed), other, test[1])
            return {"loss": loss, "right": right}

        grid = [
            (rows.get(("cifar grid", samples, words, s.rate, s.decay), partial(tuned, s)), s)
            for s in GRID
        ]
        best = min(grid, key=lambda pair: float(pair[0]["loss"]))[1]  # as a run picks its step
        found = [
            rows.get(
                ("cifar", samples, words, best.rate, best.decay, seed),
                partial(scored, best, seed),
            )
            for seed in range(1, seeds + 1)
        ]
        lines.append(
            (
                words,
                f"{parameters_of(kind, width, _CIFAR_CLASSES):,}",
                f"{best.rate:g}, {best.decay:g}",
                _with_interval([row["right"] for row in found]),
                f"{statistics.mean(row['loss'] for row in found):.3f}",
            )
        )
    head = ("head", "parameters", "rate, decay", f"right of {len(test[1])}, %", "loss")
    title = f"CIFAR-10 subset, {len(known)} pictures to learn from, {seeds} seeds:"
    return f"{title}\n\n{table(head, lines)}"


# ----------------------------------------------------------------------------- photos


def _of_photos(rows: _Rows, photos: Set, seeds: int) -> str:
    features, labels = photos
    classes, lines = int(labels.max()) + 1, []
    for kind in KINDS:
        found = [
            rows.get(
                ("photos", _words(kind), seed),
                partial(_left_out, kind, features, labels, classes, seed),
            )
            for seed in range(1, min(seeds, _PHOTO_SEEDS) + 1)
        ]
        lines.append(
            (
                _words(kind),
                f"{parameters_of(kind, features.shape[1], classes):,}",
                ", ".join(str(row["wrong"]) for row in found),
                f"{statistics.mean(row['loss'] for row in found):.3f}",
            )
        )
    head = ("head", "parameters", f"wrong of {len(labels)}, by seed", "loss")
    title = f"{len(labels)} photos of {classes} subjects, each left out once:"
    return f"{title}\n\n{table(head, lines)}"


def _left_out(kind: Any, features: Any, labels: Any, classes: int, seed: int) -> Row:
    """Leave each photo out; the grid is asked with one photo of each class held out of the rest."""
    wrong, losses = 0, list[float]()
    numbers = np.arange(len(labels))
    for left in numbers:
        rest = numbers[numbers != left]
        known, other = standardized(features[rest], features[left : left + 1])
        own = labels[rest]
        draw = Key(seed, int(left)).generator("held out")
        held = np.array([draw.choice(np.flatnonzero(own == c)) for c in range(classes)])
        kept = np.setdiff1d(np.arange(len(rest)), held)

        def fit(setting: Setting, which: Any, known: Any = known, own: Any = own) -> Any:
            return trained(
                kind,
                setting,
                known[which],
                own[which],
                classes,
                steps=_PHOTO_STEPS,
                batch=_PHOTO_BATCH,
                seed=seed,
            )

        best = min(FEW, key=lambda s: judged(fit(s, kept), known[held], own[held])[0])
        loss, right = judged(fit(best, np.arange(len(rest))), other, labels[left : left + 1])
        wrong, losses = wrong + (right < 1), [*losses, loss]
    return {"wrong": wrong, "loss": statistics.mean(losses)}


# ----------------------------------------------------------------------------- personal


def _personal(
    rows: _Rows, folder: Path, photos: Path, model: Path, sets: dict[str, Set], python: str
) -> str:
    """Train by the real command with each photo left out; CIFAR's pictures are unknown."""
    listed = labeled_pictures(photos)
    files = listed.parts["train"]
    strangers = sets["test"][0][:_UNKNOWNS]

    def measure(number: int) -> Row:
        file, label = files[number]
        data, out = folder / "fold", folder / f"fold-{number:02d}"
        shutil.rmtree(data, ignore_errors=True)
        for other, name in files:
            if other != file:
                (data / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(other, data / name)
        words = ("--task", "images", "--model", str(model), "--threads", "1", "--mem", _CAP)
        report = run(out, str(data), *words, python=python)
        answering = Answering(load_classifier(out / CLASSIFIER))
        [answer] = answering.answers(sets["photos"][0][number : number + 1])
        refused = sum(not one.is_known for one in answering.answers(strangers))
        shutil.rmtree(data)
        return {
            "photo": f"{label}/{file.name}",
            "answer": answer.label if answer.is_known else "unknown",
            "right": answer.is_known and answer.label == label,
            "refused": refused / len(strangers),
            "peak": report["measured_peak_bytes"],
            "seconds": report["seconds_total"],
        }

    found = [rows.get(("personal", n), partial(measure, n)) for n in range(len(files))]
    wrong = [f"{row['photo']} ({row['answer']})" for row in found if not row["right"]]
    refused = [row["refused"] for row in found]
    lines = (
        (f"wrong of {len(found)}, unknown counts as wrong", f"{len(wrong)} {', '.join(wrong)}"),
        (
            f"of {len(strangers)} CIFAR pictures called unknown",
            f"{100 * statistics.mean(refused):.1f} % (least {100 * min(refused):.1f} %)",
        ),
        (f"most held under --mem {_CAP}", f"{max(row['peak'] for row in found) / 1e6:.0f} MB"),
        ("seconds of a run", f"{statistics.median(row['seconds'] for row in found):.1f}"),
    )
    title = "A classifier of six things, by the real command, each photo left out once:"
    return f"{title}\n\n{table(('', ''), lines)}"


def _strangers(sets: dict[str, Set]) -> str:
    """Return how many photos of a subject that nobody taught are called unknown."""
    features, labels = sets["photos"]
    far = 0
    for label in range(int(labels.max()) + 1):
        own = labels == label
        known, other = standardized(features[~own], features[own])
        seen = known_pictures(known.__getitem__, np.arange(len(known)), labels[~own], 256)
        far += int((seen.nearness(other) < seen.threshold).sum())
    return (
        f"A whole subject left out, harder: {far} of its photos of {len(labels)} are called "
        "unknown."
    )
