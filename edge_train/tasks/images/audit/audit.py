"""`edge-train audit RUN` of task images: accuracy under a patch, before and after hardening."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, TrainingStopped
from edge_train.formats.labeled_pictures import root_of
from edge_train.formats.weight_files import hash_of
from edge_train.memory.footprint import PlanLine
from edge_train.memory.machine import cores
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.tasks.auditing import VERSION, Audit, Parts
from edge_train.tasks.images.audit.conditions import GREY, RULES, VIEWS, accuracies, noise
from edge_train.tasks.images.audit.fitting import cost_of, fitted, start_of
from edge_train.tasks.images.audit.patches import (
    Differentiable,
    HeadLogits,
    PatchEngine,
    PatchTask,
    Photos,
    placed,
)
from edge_train.tasks.images.audit.warps import AREA
from edge_train.tasks.images.backbone import Features, find_backbone
from edge_train.tasks.images.classifier_file import CLASSIFIER, Classifier, load_classifier
from edge_train.tasks.images.features import FeatureFile, open_features
from edge_train.tasks.images.job import FEATURES, ImagesJob
from edge_train.tasks.images.recipe import ImagesRecipe
from edge_train.tasks.images.splits import Split, split
from edge_train.tasks.images.views import whole

_MOST_PHOTOS = 100
_LEAST_SAMPLES = 60  # scored: a run with few photos has each in several places
_SAMPLES = 6  # photos of a step
_HARDENED = "-hardened"  # behind the name of the run
_PATCH_VIEWS, _DROPOUT = 4, 0.5
# Of a run and the hardened one beside it: what each may hold and take, and what computes nothing.
_MAY_DIFFER = {"cap_bytes", "host_cap_bytes", "time_seconds", "when", "out", "threads"}
# Activations of a view that is differentiated, in the size of those of a call.
_DIFFERENTIATED = 12
_CALL_BYTES = 600  # a pixel, as in `footprint.py`


def audit(one: Audit) -> tuple[dict[str, Any], str]:
    """Return the accuracies, and a line for people.

    Raises:
      InputError, ModelError, RunFolderError: the run, its photos or its backbone cannot be used.
    """
    subject = _Subject(one)
    subject.say_plan()
    if one.options.harden:
        hardened: Classifier | None = _hardened(one, subject.file)
    else:
        hardened = None
    key = (VERSION, subject.key, subject.forwards, one.recipe.seed)
    with Parts(one.run, key) as parts:
        work = _Work(one, subject, parts)
        rows = [{"head": "before", **row} for row in work.of(subject.classifier, "before")]
        if hardened is not None:
            rows += [{"head": "hardened", **row} for row in work.of(hardened, "hardened")]
    numbers: dict[str, Any] = {
        "area": AREA,
        "views": VIEWS,
        "photos": len(subject.photos.labels),
        "part": subject.part,
        "samples": work.samples,
        "forwards": subject.forwards,
        "slopes": "exact" if subject.exact else "forward passes",
        "rows": rows,
    }
    if hardened is not None:
        numbers["hardened"] = str(_folder_of(one.run))
        numbers["won_back"] = _won_back(rows)
    return numbers, _line(numbers)


class _Subject:
    """What is audited: photos, classifier and backbone of a run."""

    def __init__(self, one: Audit) -> None:
        assert isinstance(one.recipe, ImagesRecipe)
        run, recipe = one.run, one.recipe
        if not (run / CLASSIFIER).is_file():
            raise InputError(
                f"{run}: there is no {CLASSIFIER}; go on with `edge-train run --resume {run}`, "
                "then audit it."
            )
        self.one, self.recipe = one, recipe
        self.classifier = load_classifier(run / CLASSIFIER)
        if self.classifier.trained_blocks:
            raise InputError(
                f"{run}: its backbone was trained with it, and an audit knows frozen ones only; "
                "train one without --trained-blocks."
            )
        self.file = open_features(run / FEATURES)
        self.forwards: int = one.options.forwards
        found = split_of(self.file, recipe)
        self.part, numbers = (
            ("test", found.test) if len(found.test) else ("held-out", found.held_out)
        )
        if not len(numbers):
            raise InputError(
                f"{run}: no picture of it is held out, and those that it learned by heart say "
                "nothing; an audit needs a class of four pictures at least, or a test part."
            )
        self.numbers = _spread(numbers)
        self.backbone = find_backbone(self.classifier.model, recipe.resolution)
        if self.backbone.sha256 != self.classifier.model_sha256:
            raise ModelError(
                f"{self.classifier.model} is not the backbone that {run} was trained on; put that "
                "one back."
            )
        self.exact = self.backbone.engine == "torch"
        self.key = (_hash(run), self.classifier.model_sha256, self.file.sha256)

    @property
    def photos(self) -> Photos:
        """The scored photos, read when they are first asked for."""
        if not hasattr(self, "_photos"):
            data = root_of(Path(required(self.recipe.data)).expanduser())
            pixels = [
                whole(data / self.file.samples[number].name, self.classifier.side)
                for number in self.numbers.tolist()
            ]
            self._photos = Photos(np.stack(pixels), self.file.labels[self.numbers])
        return self._photos

    def say_plan(self) -> None:
        """Say what the audit holds.

        Raises:
          InputError: that is more than the cap, or the photos are gone.
        """
        footprint = ImagesJob(self.recipe).footprint()
        call = self.classifier.side**2 * _CALL_BYTES * (_DIFFERENTIATED if self.exact else 1)
        lines = (
            PlanLine("backbone", 2 * self.backbone.weight_bytes),
            PlanLine("photos", len(self.numbers) * self.classifier.side**2 * 3),
            PlanLine("a view in the backbone", call + 40 * self.classifier.side**2 * 4),
        )
        self.one.plan(footprint, lines)


def split_of(file: FeatureFile, recipe: ImagesRecipe) -> Split:
    """Return the split of a run's pictures, as it had it."""
    test = np.array([sample.test for sample in file.samples], np.bool_)
    return split(file.labels, test, recipe.evaluation_samples)


@dataclass
class _Work:
    one: Audit
    subject: _Subject
    parts: Parts

    def __post_init__(self) -> None:
        threads = self.one.options.threads or cores()
        link = self.one.options.link
        if link is None:
            self.network: Features = self.subject.backbone.opened(threads)
        else:
            with link.watch.loading():
                self.network = self.subject.backbone.opened(threads)
        assert not self.subject.exact or isinstance(self.network, Differentiable)
        count = len(self.subject.photos.labels)
        self._which = np.repeat(np.arange(count), max(1, -(-_LEAST_SAMPLES // count)))
        self._batch = placed(self.subject.photos, Key(self.one.recipe.seed, -9), self._which, VIEWS)
        self.samples = len(self._which)

    def of(self, classifier: Classifier, name: str) -> list[dict[str, Any]]:
        """Return a row for each patch: what it is, and the accuracy by each rule."""
        head, found = HeadLogits(classifier), []
        plain: Mapping[str, Array | None] = {
            "none": None,
            "grey": GREY,
            "random": noise(self.one.recipe.seed),
        }
        for words, patch in plain.items():
            row = self.parts.part(f"{name}, {words}", partial(self._scored, head, patch))
            found.append({"patch": words, **row})
            self._say(name, found[-1])
        for views in (1, VIEWS):
            row = self.parts.part(f"{name}, {views} views", partial(self._fit, head, views, name))
            found.append({"patch": f"fitted through {views} view{'s' * (views > 1)}", **row})
            self._say(name, found[-1])
        return found

    def _fit(self, head: HeadLogits, views: int, name: str) -> dict[str, float]:
        subject, seed = self.subject, self.one.recipe.seed
        engine = PatchEngine(self.network, head, subject.photos, start_of(subject.exact, seed))
        task = PatchTask(subject.photos, _SAMPLES, views, seed)
        steps = max(subject.forwards // cost_of(subject.exact, task), 1)
        patch = fitted(
            engine,
            task,
            exact=subject.exact,
            steps=steps,
            guard=self.one.guard(),
            parts=self.parts,
            name=f"{name}, {views} views, steps",
        )
        return self._scored(head, patch)

    def _scored(self, head: HeadLogits, patch: Array | None) -> dict[str, float]:
        start = np.zeros((1, 1, 3), np.float32)
        engine = PatchEngine(self.network, head, self.subject.photos, start)
        features = engine.seen(self._batch, patch)
        return accuracies(features, head, self.subject.photos.labels[self._which])

    def _say(self, name: str, row: Mapping[str, Any]) -> None:
        shares = ", ".join(f"{rule} {100 * row[rule]:.1f} %" for rule in RULES)
        self.one.say(f"{name}, patch {row['patch']}: {shares}")


def _hardened(one: Audit, pictures: FeatureFile) -> Classifier:
    """Return the head that was trained with patched views, in a run folder of its own.

    Args:
      pictures: of the run that is audited.

    Raises:
      InputError: a folder of that name is of something else: another recipe, or other pictures.
      TrainingStopped: the training stopped.
    """
    assert isinstance(one.recipe, ImagesRecipe)
    folder = _folder_of(one.run)
    wanted = replace(
        one.recipe,
        patch_views=_PATCH_VIEWS,
        view_dropout=_DROPOUT,
        cap_bytes=None,
        time_seconds=None,
        when=None,
        out=None,
    )
    if (folder / "recipe.toml").is_file():
        from edge_train.tasks import read_recipe

        there, alike = read_recipe(folder / "recipe.toml"), wanted.declared().keys() - _MAY_DIFFER
        same = all(getattr(there, name, None) == getattr(wanted, name) for name in alike)
        if (folder / FEATURES).is_file():
            same = same and _content(open_features(folder / FEATURES)) == _content(pictures)
        if not same:
            raise InputError(
                f"{folder} is another run; remove it, or move it, then type the command again."
            )
    one.say(f"hardening: a run with {_PATCH_VIEWS} patched views of each picture, in {folder}")
    if status := one.house.train(wanted, folder):
        raise TrainingStopped(
            f"the hardened run stopped with status {status}; type the command again to go on."
        )
    return load_classifier(folder / CLASSIFIER)


def _content(file: FeatureFile) -> dict[bytes, tuple[str, bool]]:
    """Return the class and part of each picture, by the hash of its file."""
    some = ((digest, file.samples[number]) for digest, number in file.by_content().items())
    return {digest: (file.classes[one.label], one.test) for digest, one in some}


def _folder_of(run: Path) -> Path:
    return run.resolve().with_name(run.resolve().name + _HARDENED)


def _hash(run: Path) -> str:
    return hash_of([(CLASSIFIER, run / CLASSIFIER)])


def _spread(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most so many of the pictures, from all over the list."""
    if len(numbers) <= _MOST_PHOTOS:
        return numbers
    places = np.linspace(0, len(numbers) - 1, _MOST_PHOTOS).round().astype(np.int64)
    return numbers[places]


def _row(rows: list[dict[str, Any]], head: str, patch: str) -> dict[str, Any]:
    return next(row for row in rows if (row["head"], row["patch"]) == (head, patch))


def _won_back(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the share of what the fitted patch cost that the hardened head does not lose.

    None where it cost nothing.
    """
    found: dict[str, float | None] = {}
    for patch, rule in (
        ("fitted through 1 view", "one view"),
        (f"fitted through {VIEWS} views", "mean of three"),
    ):
        clean = _row(rows, "before", "none")[rule]
        lost = clean - _row(rows, "before", patch)[rule]
        left = clean - _row(rows, "hardened", patch)[rule]
        found[rule] = None if lost <= 0 else 1 - left / lost
    return found


def _line(numbers: Mapping[str, Any]) -> str:
    rows = numbers["rows"]
    clean = _row(rows, "before", "none")["one view"]
    under = _row(rows, "before", "fitted through 1 view")["one view"]
    return (
        f"{100 * clean:.1f} % of {numbers['samples']} {numbers['part']} samples are classified "
        f"correctly, {100 * under:.1f} % under a fitted patch of {100 * AREA:.0f} % of the area"
    )
