"""The job of training a small network: labeled samples in; the network and its scores out."""

import hashlib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
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
from edge_train.formats import network as networks
from edge_train.formats import network_file
from edge_train.formats.network_file import SavedNetwork
from edge_train.memory.footprint import Footprint
from edge_train.methods import methods
from edge_train.methods.exact import rate_of
from edge_train.methods.method import BLOCKS, Method, Parts
from edge_train.optim.transforms import Chain, Momentum
from edge_train.protocols import Estimator, Objective, Transform
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load as load_name
from edge_train.runtimes.backbones import Backbone, NumpyBackbone, OnnxBackbone
from edge_train.runtimes.numpy.network import NumpyNetwork
from edge_train.tasks.class_weights import class_weights
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.mistakes import Mistake
from edge_train.tasks.network import TASK
from edge_train.tasks.network.continual import Next, folder_of, opened
from edge_train.tasks.network.datasets import Dataset, Samples, load
from edge_train.tasks.network.footprint import footprint_of
from edge_train.tasks.network.kept import Ended, kept_of, makes_bases
from edge_train.tasks.network.learned import learned_blocks, order_of, readable_file
from edge_train.tasks.network.mistakes import shown
from edge_train.tasks.network.objective import Labeled, Prepare, judged, scores
from edge_train.tasks.network.recipe import NetworkRecipe
from edge_train.tasks.network.tables import is_table
from edge_train.tasks.on_numpy import check_on_numpy

_FINAL_RATE = 0.02  # share of the rate at the end of the cosine
# Of 100 samples alone, the noise of their statistics adds 3 to 4 % to the loss of every evaluation.
_CALIBRATION = 400  # samples whose statistics batch normalization uses outside of training
# Of tpsgd where outputs can grow, as those of ReLU: at its usual rate all units end at zero.
_GROWING_RATE = 0.1
_HELD_OUT_SHARE = 0.1  # of the training samples, unless `evaluation_samples` is given
_MOST_HELD_OUT = 1000
_USE = {
    "backbone_blocks": "there is no backbone",
    "series": "only a table can be a time series",
    "resolution": "only a folder of pictures can be resized",
    "label_column": "arrays have no columns",
}
_HASH_FILE = "data.sha256"  # of older versions, whose journals do not have that hash
_HASH = re.compile(rb"[0-9a-f]{64}")


class NetworkJob:
    """A `Job`: words are checked here; data, network and backbone when `load` reads them.

    Raises:
      InputError: a word or size that cannot be used.
    """

    name = "network"
    notes: tuple[str, ...] = ()

    def __init__(self, recipe: NetworkRecipe) -> None:
        self.recipe = _checked(recipe)
        self._rate_is_ours = recipe.learning_rate is None
        self._data: Dataset
        self._next: Next | None = None
        self._network: networks.Network
        self._prepare: Prepare
        self._backbone: Backbone | None = None
        self._task: Labeled
        self._folder: Path

    @cached_property
    def model_sha256(self) -> str:
        """The hash of what the weights start from: the network's words, and the backbone's file."""
        digest = hashlib.sha256(repr((self.recipe.network, self.recipe.seed)).encode())
        files = [readable_file(path) for path in (self.recipe.backbone, self.recipe.start) if path]
        if self.recipe.next:
            files += opened(self.recipe.next, self.recipe.continual).files
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def footprint(self) -> Footprint:
        job = copy(self)
        job.load()  # the network's shapes depend on the data's; gone when this returns
        rule = job._protecting(self._chain(job._network.blocks))
        divisible = any(block.divisible for block in job._network.blocks)
        return footprint_of(
            self.recipe,
            job._network,
            job._data,
            rule,
            trained_on=job._task.count,
            together=(self._together() if divisible else None) or required(self.recipe.samples),
            calibrated=_CALIBRATION if _has_norms(job._network) else 0,
            following=job._next,
        )

    def load(self) -> None:
        recipe = self.recipe
        self._data = load(
            Path(required(recipe.data)).expanduser(),
            train_samples=recipe.train_samples,
            test_samples=recipe.test_samples,
            resolution=recipe.resolution,
            window=recipe.series,
            label_column=recipe.label_column,
            standardization=recipe.standardization,
        )
        if recipe.next:
            before = opened(recipe.next, recipe.continual)
            self._next = before.followed_by(self._data)
            self._data = self._next.data
        self.notes = self._data.notices
        self._prepare, shape = self._data.standardized, self._data.shape
        self._source: SavedNetwork | None = None
        if recipe.backbone:
            self._backbone = self._opened_backbone(readable_file(recipe.backbone))
            self._prepare, shape = self._backbone, self._backbone.feature_shape
        classes = len(self._data.class_names)
        self._network = networks.parse(required(recipe.network), shape, classes)
        self._start = None
        if recipe.start:
            names = self._data.class_names
            self._start = learned_blocks(recipe.start, self._network, names)
        if self._next is not None:
            self._start = self._next.start(self._network, recipe.seed)
        if self._rate_is_ours and recipe.method == "tpsgd" and _grows(self._network):
            recipe = replace(recipe, learning_rate=_GROWING_RATE)
            self.recipe = recipe
        count = len(self._data.train.labels)
        aside = recipe.evaluation_samples or min(_MOST_HELD_OUT, round(_HELD_OUT_SHARE * count))
        aside = max(1, aside)
        if aside > count // 2:
            raise InputError(
                f"evaluation_samples is {aside}, more than half of {count} training samples."
            )
        self._task = Labeled(
            self._data.train,
            self._prepare,
            recipe.seed,
            required(recipe.samples),
            aside,
            recipe.label_smoothing,
            self._class_weights(),
        )

    def _class_weights(self) -> NDArray[np.float32] | None:
        """Return what samples of each class count; None: all the same."""
        text, data = self.recipe.class_weights, self._data
        if text is None:
            return None
        return class_weights(text, data.train.labels, data.class_names)

    def _opened_backbone(self, path: Path) -> Backbone:
        if path.suffix == ".onnx":
            if self.recipe.backbone_blocks:
                raise InputError(
                    "backbone_blocks is for networks that edge-train saved; an ONNX graph is used "
                    "whole. Cut it before it is exported."
                )
            return OnnxBackbone(path, self._data.shape)
        self._source = source = network_file.load(path)
        if source.network.input_shape != self._data.shape:
            raise InputError(
                f"backbone {path}: it reads samples of shape {source.network.input_shape}, data "
                f"has {self._data.shape}."
            )
        blocks = self.recipe.backbone_blocks or len(source.network.blocks) - 1
        if not 1 <= blocks <= len(source.network.blocks):
            raise InputError(
                f"backbone_blocks is {blocks}, {path} has {len(source.network.blocks)} blocks."
            )
        return NumpyBackbone(source, blocks)

    def prepare(self, folder: Path, say: Say) -> None:
        self._folder = folder
        data, blocks = self._data, self._network.blocks
        weights = sum(
            int(np.prod(shape))
            for block in blocks
            for shape in networks.parameter_shapes(block).values()
        )
        say(
            f"{self._task.count} samples to train on, {len(data.train.labels) - self._task.count} "
            f"held out, {len(data.test.labels)} for the test, {len(data.class_names)} classes; "
            f"{len(blocks)} blocks with {weights:,} weights"
        )
        if self._next is not None:
            self.notes += self._remarks(self._next)

    def _remarks(self, following: Next) -> tuple[str, ...]:
        """Return what is odd about the next task, by what the network answers before it."""
        start = NumpyNetwork(self._network, Parameters(required(self._start)))
        some = kept_of(self._data.test, _MOST_HELD_OUT)
        answers, _ = self._judged(
            some, lambda stored: start.outputs(self._prepare(stored), start.parameters, {})
        )
        return tuple(following.remarks(answers))

    def restore(self, folder: Path, say: Say) -> None:
        self._folder = folder
        self.load()
        kept = folder / _HASH_FILE
        try:
            found = kept.read_bytes() if kept.exists() else None
        except OSError as error:
            raise RunFolderError(f"{kept}: cannot be read ({error.strerror}).") from error
        if found is None:
            return
        if not _HASH.fullmatch(found):  # journals of newer runs have it too
            say(f"{kept.name} is damaged and left out: it does not say which samples there were")
        elif found != self.data_sha256().encode():
            raise RunFolderError(
                f"{folder}: the samples in {self.recipe.data} are not those that this run began "
                "with; put them back, or start a new run."
            )

    def data_sha256(self) -> str:
        digest = hashlib.sha256()
        for part in (self._data.train, self._data.test):
            digest.update(np.ascontiguousarray(part.inputs).data)
            digest.update(part.labels.data)
        return digest.hexdigest()

    def open_runtime(self) -> NumpyNetwork:
        recipe, network = self.recipe, self._network
        blocks = self._start or networks.initial_parameters(network, recipe.seed)
        if self._method.extra_blocks is not None:
            blocks = chain(blocks, self._method.extra_blocks(recipe, self._parts()).items())
        parameters: Parameters = load_name(required(quants.get(recipe.quant).trained))(blocks)
        calibration = None
        if _has_norms(network):
            calibration = self._task.inputs(np.arange(min(_CALIBRATION, self._task.count)))
        opened: NumpyNetwork = load_name(required(TASK.use(recipe.runtime).open))(
            network,
            parameters,
            calibration,
            together=required(recipe.samples),
            micro_batch=recipe.micro_batch,
        )
        return opened

    def task(self) -> Objective:
        return self._task

    def smallest_radius(self) -> float:
        return 0.0

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        parts = replace(self._parts(), epsilon=epsilon, scale=scale)
        estimator, rule = self._method.builder(self.recipe.preset)(self.recipe, parts)
        return estimator, self._protecting(rule)

    def _protecting(self, rule: Transform) -> Transform:
        """Return a rule that keeps the tasks before this one, where there are any."""
        if self._next is None or self.recipe.continual == "none":
            return rule
        return self._next.protecting(rule, self._network, regimes=self.recipe.continual == "cuber")

    @property
    def _method(self) -> Method:
        return methods.get(self.recipe.method)

    def _parts(self) -> Parts:
        network, task = self._network, self._task
        return Parts(
            update=self._chain(network.blocks),
            micro_batch=self._together() if BLOCKS in self._method.needs else None,
            stages=network.blocks,
            classes=network.classes,
            pictures=any(isinstance(layer, networks.Convolution) for layer in network.layers),
            folder=getattr(self, "_folder", None),
            count=task.count,
            inputs=task.inputs,
        )

    def _chain(self, blocks: Sequence[networks.Block]) -> Transform:
        recipe = self.recipe
        rate = rate_of(recipe, required(recipe.learning_rate), _FINAL_RATE)
        if recipe.mode == "sequential":  # every block has a whole schedule of its own
            rate = replace(rate, steps=-(-rate.steps // len(blocks)))
        return Chain((Momentum(recipe.momentum), rate))

    def _together(self) -> int | None:
        """Return how many samples' inner activations may exist at once, None for the batch's."""
        limits = (self.recipe.micro_batch, self.recipe.batch_limit)
        return min((limit for limit in limits if limit), default=None)

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe, data = self.recipe, self._data
        return {
            "network": recipe.network,
            "blocks": [_words(block) for block in self._network.blocks],
            "data": Path(required(recipe.data)).name,
            "train_samples": self._task.count,
            "held_out_samples": len(data.train.labels) - self._task.count,
            "test_samples": len(data.test.labels),
            "batch": recipe.samples,
            "learning_rate": recipe.learning_rate,
            "momentum": recipe.momentum,
            "mode": recipe.mode,
            **({"loss": recipe.loss} if recipe.method == "tpsgd" else {}),
            **({"backbone": Path(recipe.backbone).name} if recipe.backbone else {}),
            **({"continual": recipe.continual} if recipe.next else {}),
        }

    def preview(self, folder: Path, step: int, runtime: NumpyNetwork) -> str | None:
        every = self.recipe.preview_every
        if not every or not step or step % every:
            return None
        return f"step {step}: there is nothing to show but the curves"

    def finish(
        self, folder: Path, runtime: NumpyNetwork, best: Point, steps: int, whole: bool
    ) -> Outcome:
        parameters = runtime.parameters
        parameters.load(best)
        statistics = runtime.calibrated(parameters)
        data, mean, deviation = self._data, self._data.mean, self._data.deviation
        if self._backbone is not None:  # which standardizes samples itself; features go in as is
            channels = self._network.input_shape[-1]
            mean, deviation = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        saved = SavedNetwork(
            self._network, parameters, statistics, mean, deviation, data.class_names
        )
        if self._next is not None:
            saved = self._next.whole(saved)
        outputs = {}
        if self._backbone is None:  # an adapter alone cannot read samples
            network_file.save(folder / "network.safetensors", saved)
            outputs["network"] = "network.safetensors"
        else:
            network_file.save(folder / "adapter.safetensors", saved)
            outputs["adapter"] = "adapter.safetensors"
        if not whole:
            return Outcome(outputs=outputs)
        shutil.rmtree(folder / "outputs", ignore_errors=True)

        def logits(stored: NDArray[Any]) -> Array:
            return runtime.outputs(self._prepare(stored), parameters, statistics)

        table, mistakes = self._judged(data.test, logits)
        metrics = dict(scores(table, data.class_names))
        metrics["mistakes"] = shown(mistakes, data.test, data.class_names, folder)
        metrics |= self._old_scores(logits)
        line = f"test accuracy {100 * metrics['test_accuracy']:.2f} % of {metrics['test_samples']}"
        if "backbone_accuracy" in metrics:
            line += f" (the backbone's own: {100 * metrics['backbone_accuracy']:.2f} %)"
        tasks, more = self._kept(folder, runtime, saved, metrics["test_accuracy"])
        return Outcome({**metrics, **tasks}, outputs, line + more)

    def _kept(
        self, folder: Path, runtime: NumpyNetwork, saved: SavedNetwork, accuracy: float
    ) -> tuple[dict[str, Any], str]:
        """Write what the next task will need; return scores of all tasks, and words for people."""
        recipe, estimator = self.recipe, None
        differentiates = not self._method.perturbs  # else what it sees of a gradient is noise
        if makes_bases(recipe, self._network) and recipe.mode == "online" and differentiates:
            estimator, _ = self.method(0.0, {})
        ended = Ended(recipe, self._data, self._next, runtime, self._task, saved, self._prepare)
        return ended.kept(folder, estimator, accuracy)

    def _old_scores(self, logits: Prepare) -> dict[str, float]:
        """Return what the backbone reaches alone, and what is left of it where it came from."""
        found: dict[str, float] = {}
        source, names = self._source, self._data.class_names
        if source and len(source.class_names) == len(names):
            whole = NumpyBackbone(source, len(source.network.blocks))
            own = _in_order(whole, source.class_names, names)
            found["backbone_accuracy"] = self._accuracy(self._data.test, own)
        if self.recipe.old_data:
            old = load(
                Path(self.recipe.old_data).expanduser(),
                train_samples=self.recipe.train_samples,
                test_samples=self.recipe.test_samples,
                resolution=self.recipe.resolution,
                window=self.recipe.series,
                label_column=self.recipe.label_column,
            )
            if old.shape != self._data.shape or len(old.class_names) != self._network.classes:
                raise InputError(
                    f"old_data {self.recipe.old_data}: samples of shape {old.shape} and "
                    f"{len(old.class_names)} classes do not fit data of shape {self._data.shape} "
                    f"and {self._network.classes} classes."
                )
            now = _in_order(logits, names, old.class_names)
            found["old_accuracy"] = self._accuracy(old.test, now)
            if source and "backbone_accuracy" in found:
                then = _in_order(whole, source.class_names, old.class_names)
                found["old_backbone_accuracy"] = self._accuracy(old.test, then)
        return found

    def _judged(self, samples: Samples, logits: Prepare) -> tuple[NDArray[np.int64], list[Mistake]]:
        return judged(samples, logits, self._network.classes, required(self.recipe.samples))

    def _accuracy(self, samples: Samples, logits: Prepare) -> float:
        table, _ = self._judged(samples, logits)
        return float(np.trace(table) / table.sum())


def _in_order(logits: Prepare, names: Sequence[str], wanted: Sequence[str]) -> Prepare:
    """Return what answers in another order of the same classes."""
    order = order_of(names, wanted)
    return lambda stored: logits(stored)[:, order]


def _checked(recipe: NetworkRecipe) -> NetworkRecipe:
    """Return the recipe with every default filled in."""
    if recipe.next is not None:
        folder_of(recipe.next)
    for key, example in (("data", "fashion.npz"), ("network", "mlp 500 500")):
        if getattr(recipe, key) is None:
            raise InputError(f'task "network" needs {key} in its recipe, such as "{example}".')
    check_on_numpy(recipe)
    if recipe.next is not None and recipe.start is not None:
        raise InputError(
            f"--next {recipe.next} begins with what that run learned; leave --from "
            f"{recipe.start} out."
        )
    data = Path(required(recipe.data))
    arrays = data.suffix.lower() == ".npz"
    for key, useless in (
        ("backbone_blocks", recipe.backbone is None),
        ("series", not is_table(data)),
        ("label_column", arrays),
        ("resolution", arrays or is_table(data)),
    ):
        if useless and getattr(recipe, key) is not None:
            raise InputError(f"{key} is set, but {_USE[key]}; leave it out.")
    engine = "numpy" if recipe.runtime == "auto" else recipe.runtime
    found = TASK.resolve(recipe, engine, {})
    return replace(found, device="cpu", model=required(recipe.network))


def _grows(network: networks.Network) -> bool:
    """Return whether outputs of a hidden block can grow without end: no bound, and no norm."""
    for block in network.blocks[:-1]:
        normed = any(isinstance(layer, networks.Normalization) for layer in block.layers)
        if not normed and not all(map(math.isfinite, block.bounds)):
            return True
    return False


def _has_norms(network: networks.Network) -> bool:
    """Return whether a network judges by statistics that must be measured."""
    return networks.Normalization("batch") in network.layers


def _words(block: networks.Block) -> str:
    """Return what a block is made of, for people."""
    kinds = [
        getattr(layer, "kind", type(layer).__name__.lower())
        for layer in block.layers
        if not isinstance(layer, networks.Reshape)
    ]
    shape = " x ".join(map(str, block.output_shape))
    return f"{' + '.join(kinds)} -> {shape}"
