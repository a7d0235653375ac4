"""The job of training an image classifier: pictures and a frozen backbone in, a head out."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.labeled_pictures import root_of
from edge_train.formats.pictures import Look
from edge_train.memory.footprint import Footprint
from edge_train.memory.machine import cores
from edge_train.methods import methods
from edge_train.methods.exact import rate_of
from edge_train.methods.method import BLOCKS, Parts
from edge_train.optim.transforms import Chain, Momentum
from edge_train.protocols import Estimator, Objective, Transform
from edge_train.recipe import required, with_absolute_paths
from edge_train.records.folder import RunFolder
from edge_train.tasks import read_recipe
from edge_train.tasks.class_weights import class_weights
from edge_train.tasks.device import FEATURES_ALONE, features_device
from edge_train.tasks.images import TASK
from edge_train.tasks.images.backbone import Backbone, find_backbone
from edge_train.tasks.images.classifier_file import CLASSIFIER, Classifier, load_classifier
from edge_train.tasks.images.engine import HeadEngine, start_of
from edge_train.tasks.images.features import FeatureFile, FeatureWriter, Sample, open_features
from edge_train.tasks.images.footprint import footprint_of
from edge_train.tasks.images.heads import Shape, heads, stages_of
from edge_train.tasks.images.listing import find_pictures, subset
from edge_train.tasks.images.objective import TOGETHER, Pictures, Standard, standard_of
from edge_train.tasks.images.recipe import ImagesRecipe
from edge_train.tasks.images.scoring import Scored, score
from edge_train.tasks.images.shown import shown
from edge_train.tasks.images.splits import Split, split
from edge_train.tasks.images.stage import HeadStage
from edge_train.tasks.images.started import learned_values
from edge_train.tasks.images.tail import tail_of
from edge_train.tasks.images.unknowns import known_pictures
from edge_train.tasks.job import Outcome, Say

FEATURES = "features.safetensors"
_VIEWS, _MOST_ROWS = 8, 500  # views of a picture, while there are so many rows
_FINAL_RATE = 0.02  # share of the rate at the end of a cosine, where momentum is the rule
_REHEARSED = 64  # pictures whose features a rehearsal computes, or one of each class
_REPORTED = 50  # progress of features is said so often at most


class ImagesJob:
    """A `Job`: words and backbone are checked here, pictures are listed by `load`.

    Raises:
      InputError, ModelError: a word, folder or backbone that cannot be used.
    """

    def __init__(self, recipe: ImagesRecipe) -> None:
        if recipe.data is None:
            raise InputError(
                "task 'images' needs --data, a folder with a subfolder of pictures for each class, "
                "or a table of path and label."
            )
        self._backbone: Backbone = find_backbone(
            recipe.model, recipe.resolution, recipe.trained_blocks
        )
        device = features_device(recipe.device, "images", self._backbone.engine)
        if recipe.runtime not in ("auto", self._backbone.engine):
            raise InputError(
                f"runtime is {recipe.runtime!r}, but {recipe.model} is run by "
                f"{self._backbone.engine!r}; leave it out."
            )
        self._head = heads.get(recipe.head)
        for name, useless in (
            ("head_size", not self._head.sized),
            ("tversky_difference", self._head.name != "tversky"),
        ):
            default = type(recipe).declared()[name].default
            if useless and getattr(recipe, name) != default:
                raise InputError(f"{name} is not read by head {self._head.name!r}; leave it out.")
        threads = recipe.threads or cores()
        found = TASK.resolve(recipe, self._backbone.engine, {"threads": threads})
        self.recipe = replace(found, device=device, threads=threads)
        if recipe.trained_blocks and (
            device == "cuda" or BLOCKS in methods.get(self.recipe.method).needs
        ):
            what = "device 'cuda'" if device == "cuda" else f"method {self.recipe.method!r}"
            raise InputError(
                f"trained_blocks is {recipe.trained_blocks}, which {what} does not train; leave "
                "one of them out."
            )
        self.notes: tuple[str, ...] = self._backbone.notes
        if device == "cuda":
            self.notes += (FEATURES_ALONE,)
        self.name = f"images-{Path(required(recipe.data)).stem}"
        self._judges_less = False
        self._classes: tuple[str, ...] = ()
        self._samples: tuple[Sample, ...] = ()
        self._files: dict[str, Path] = {}
        self._largest = Look((1, 1), grey=False)
        self._features: FeatureFile
        self._standard: Standard
        self._split: Split
        self._folder: Path

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the backbone, and of what the head starts from."""
        if self.recipe.start is None:
            return self._backbone.sha256
        start = load_classifier(Path(self.recipe.start))
        parts = [v.tobytes() for _, v in sorted(start.parameters.items())]
        return hashlib.sha256(self._backbone.sha256.encode() + b"".join(parts)).hexdigest()

    # ------------------------------------------------------------------------- data

    def load(self) -> None:
        recipe = self.recipe
        found = find_pictures(Path(required(recipe.data)).expanduser(), recipe.label_column)
        numbers = {name: number for number, name in enumerate(found.names)}
        listed = {
            part: [(file, found.root.name(file), numbers[label]) for file, label in some]
            for part, some in found.parts.items()
        }
        most = max(_REHEARSED, len(found.names)) if self._judges_less else None
        train = subset(listed["train"], most or recipe.train_samples)
        views = recipe.views or max(min(_VIEWS, _MOST_ROWS // len(train)), 1)
        held = split(
            np.array([label for *_, label in train]),
            np.zeros(len(train), bool),
            recipe.evaluation_samples,
        )
        plain = set(held.held_out.tolist())
        samples = [
            Sample(name, label, False, (1 if number in plain else views) + recipe.patch_views)
            for number, (_, name, label) in enumerate(train)
        ]
        test = listed.get("test", [])[:most]
        samples += [Sample(name, label, True, 1) for _, name, label in test]
        self._classes, self._samples = found.names, tuple(samples)
        self._files = {name: file for file, name, _ in (*train, *test)}
        self._largest = max(found.looks.values(), key=lambda look: math.prod(look.size))
        self._held = held
        if views > 1:
            self._say_once(
                f"augmentation: {views} views of each picture to train on, of which one is the "
                "whole; the others are crops, mirrored and brightened by the seed"
            )
        if recipe.patch_views:
            self._say_once(
                f"hardening: {recipe.patch_views} more views of each picture to train on, with a "
                "patch of random colours on a tenth of it"
            )
        if not len(held.held_out):
            self._say_once(
                "no class has four pictures: none is held out, and the best step is chosen by "
                "those that are trained on"
            )
        self._say_once(*found.notices, *found.remarks())

    def _say_once(self, *lines: str) -> None:
        self.notes = tuple(dict.fromkeys((*self.notes, *lines)))

    def judge_less(self) -> None:
        """Compute the features of few pictures, for a rehearsal."""
        self._judges_less = True

    def prepare(self, folder: Path, say: Say) -> None:
        rows = sum(sample.views for sample in self._samples)
        earlier, earlier_patched = self._earlier(say)
        writer = FeatureWriter(
            lambda: self._backbone.opened(required(self.recipe.threads), self.recipe.device),
            side=self._backbone.side,
            width=self._backbone.row,
            seed=self.recipe.seed,
            key=self._features_key(),
            patched=self.recipe.patch_views,
            earlier=earlier,
            earlier_patched=earlier_patched,
        )
        every = max(-(-len(self._samples) // _REPORTED), 200)

        def tick(done: int) -> None:
            if done % every == 0 and done < len(self._samples):
                say(f"features of {done} of {len(self._samples)} pictures")

        writer.write(folder / FEATURES, self._classes, self._samples, self._files, tick)
        reused = f", {writer.taken_over} pictures from the earlier run" if writer.taken_over else ""
        say(
            f"features of {len(self._samples)} pictures of {len(self._classes)} classes: {rows} "
            f"rows of {self._backbone.width} numbers{reused}"
        )
        self._use(folder)

    def _features_key(self) -> str:
        """Return the hash of what features depend on beside the pictures."""
        where: list[Any] = [self.recipe.trained_blocks] if self.recipe.trained_blocks else []
        where += [self.recipe.device] if self.recipe.device != "cpu" else []  # other last bits
        words = repr((self._backbone.sha256, self._backbone.side, self.recipe.seed, *where))
        return hashlib.sha256(words.encode()).hexdigest()

    def _earlier(self, say: Say) -> tuple[FeatureFile | None, int]:
        """Return the features of the run that this one starts from, where it still has them.

        With how many views of a picture have a patch on them there.
        """
        if self.recipe.start is None:
            return None, 0
        run = Path(self.recipe.start).parent
        try:
            before = read_recipe(RunFolder(run).recipe)
            patched = before.patch_views if isinstance(before, ImagesRecipe) else 0
            return open_features(run / FEATURES), patched
        except (InputError, RunFolderError) as error:
            say(f"{error} All features are computed anew.")
            return None, 0

    def restore(self, folder: Path, say: Say) -> None:
        try:
            self._use(folder)
        except RunFolderError as error:
            say(f"{error} Computing the features again.")
            self.load()
            self.prepare(folder, say)

    def _use(self, folder: Path) -> None:
        """Read back what the run folder has."""
        self._folder = folder
        self._features = file = open_features(folder / FEATURES)
        self._classes, self._samples = file.classes, file.samples
        test = np.array([sample.test for sample in file.samples], np.bool_)
        self._split = split(file.labels, test, self.recipe.evaluation_samples)
        self._standard = standard_of(file, self._split.train)
        if not self._standard.scale > 0:
            raise InputError(
                f"{self.recipe.model} gives all pictures the same features, so there is nothing to "
                "tell classes apart by; try another --model."
            )

    def data_sha256(self) -> str:
        return self._features.sha256

    # ------------------------------------------------------------------------- training

    @property
    def _shape(self) -> Shape:
        width, classes = self._backbone.width, len(self._classes)
        return Shape(
            width=width,
            classes=classes,
            size=self.recipe.head_size or self._head.size(width, classes),
            difference=self.recipe.tversky_difference,
        )

    @property
    def _stages(self) -> Sequence[HeadStage]:
        standard = getattr(self, "_standard", None)
        return (*tail_of(self._backbone, standard), *stages_of(self._head, self._shape))

    def open_runtime(self) -> HeadEngine:
        engine = HeadEngine(self._stages, Parameters({}))
        values = start_of(self._stages, self.recipe.seed)
        if self.recipe.start is not None:
            before = load_classifier(Path(self.recipe.start))
            values = learned_values(
                before, values, self._head.name, self._shape, self._classes, self._backbone.trained
            )
        blocks: Iterator[tuple[str, NDArray[Any]]] = iter(values.items())
        method = methods.get(self.recipe.method)
        if method.extra_blocks is not None:
            blocks = chain(blocks, method.extra_blocks(self.recipe, self._parts()).items())
        engine.parameters = Parameters(blocks)
        return engine

    def task(self) -> Objective:
        recipe, found = self.recipe, self._split
        evaluation = found.held_out if len(found.held_out) else found.train
        return Pictures(
            self._features,
            self._standard,
            train=found.train,
            evaluation=evaluation,
            seed=recipe.seed,
            samples=required(recipe.samples),
            smoothing=recipe.label_smoothing,
            weights=self._class_weights(),
            dropout=recipe.view_dropout,
            every_view=recipe.patch_views > 0,
        )

    def _class_weights(self) -> NDArray[np.float32] | None:
        if self.recipe.class_weights is None:
            return None
        labels = self._features.labels[self._split.train]
        return class_weights(self.recipe.class_weights, labels, self._classes)

    def smallest_radius(self) -> float:
        return 0.0

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, replace(self._parts(), epsilon=epsilon, scale=scale))

    def _parts(self) -> Parts:
        """Return what methods are built from; local ones take plain steps with momentum."""
        recipe = self.recipe
        if BLOCKS not in methods.get(recipe.method).needs:
            return Parts(micro_batch=recipe.micro_batch)
        rate = rate_of(recipe, required(recipe.learning_rate), _FINAL_RATE)
        stages = HeadEngine(self._stages, Parameters({})).blocks
        if recipe.mode == "sequential":  # every stage has a whole schedule of its own
            rate = replace(rate, steps=-(-rate.steps // len(stages)))
        task = self.task() if hasattr(self, "_features") else None
        pictures = task if isinstance(task, Pictures) else None
        return Parts(
            update=Chain((Momentum(recipe.momentum), rate)),
            micro_batch=recipe.micro_batch,
            stages=stages,
            classes=len(self._classes),
            folder=getattr(self, "_folder", None),
            count=pictures.count if pictures else 0,
            inputs=pictures.first_rows if pictures else None,
        )

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe = self.recipe
        return {
            "data": Path(required(recipe.data)).name,
            "head": self._head.name,
            **({"head_size": self._shape.size} if self._head.sized else {}),
            "classes": list(self._classes),
            "pictures": {
                "trained on": len(self._split.train),
                "held out": len(self._split.held_out),
                "test": len(self._split.test),
            },
            "backbone": Path(recipe.model).name,
            "resolution": self._backbone.side,
            "features": self._backbone.width,
            **({"trained_blocks": recipe.trained_blocks} if recipe.trained_blocks else {}),
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
        }

    def preview(self, folder: Path, step: int, runtime: HeadEngine) -> str | None:
        return None

    # ------------------------------------------------------------------------- results

    def finish(
        self, folder: Path, runtime: HeadEngine, best: Point, steps: int, whole: bool
    ) -> Outcome:
        names = [f"{s.name}.{name}" for s in runtime.stages for name in s.shapes()]
        learned = {name: np.array(best[name]) for name in names}
        known = self._split.known
        classifier = Classifier(
            head=self._head.name,
            shape=self._shape,
            parameters=learned,
            standard=self._standard,
            known=known_pictures(self._rows, known, self._features.labels[known], TOGETHER),
            classes=self._classes,
            model=with_absolute_paths(self.recipe).model,
            model_sha256=self._backbone.sha256,
            side=self._backbone.side,
            tail=tail_of(self._backbone, self._standard),
            trained_blocks=self._backbone.trained,
        )
        classifier.save(folder / CLASSIFIER)
        outputs = {"classifier": CLASSIFIER}
        if not whole:
            return Outcome(outputs=outputs)
        part, pictures = self._scored_part()
        file, held_out = self._features, part == "held-out"
        found: Scored = score(
            runtime, learned, classifier, self._rows, pictures, file, known=held_out
        )
        metrics = {
            "scored_on": part,
            **found.metrics,
            **shown(folder, runtime, learned, self._rows, self._features, found, self._path),
        }
        share = 100 * metrics["accuracy"]
        line = (
            f"{share:.1f} % of {len(pictures)} {part} pictures are classified correctly; "
            f"{metrics['taken_for_unknown']} of them would be called unknown"
        )
        return Outcome(metrics, outputs, line)

    def _scored_part(self) -> tuple[str, NDArray[np.int64]]:
        """Return which pictures are scored: the test part, else those held out, else all."""
        for part, some in (("test", self._split.test), ("held-out", self._split.held_out)):
            if len(some):
                return part, some
        return "training", self._split.train

    def _rows(self, pictures: NDArray[np.int64]) -> Array:
        """Return pictures as heads read them."""
        return self._standard(self._features.rows(self._features.starts[pictures]))

    def _path(self, name: str) -> Path:
        return root_of(Path(required(self.recipe.data)).expanduser()) / name

    # ------------------------------------------------------------------------- plan

    def footprint(self) -> Footprint:
        job = copy(self)
        job.load()  # gone when this returns: a list of names
        shapes = {
            f"{stage.name}.{name}": sizes
            for stage in job._stages
            for name, sizes in stage.shapes().items()
        }
        _, rule = job.method(1.0, dict.fromkeys(shapes, 1.0))
        return footprint_of(
            self.recipe,
            self._backbone,
            job._shape,
            shapes,
            rule,
            job._samples,
            judged=len(job._held.held_out),
            largest=math.prod(job._largest.size),
        )
