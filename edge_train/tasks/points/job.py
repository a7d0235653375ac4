"""The job of training an autoencoder of clouds: a folder of scans in, the network out."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.errors import InputError
from edge_train.memory.footprint import Footprint
from edge_train.methods import methods
from edge_train.methods.method import FORWARD, Parts
from edge_train.protocols import Estimator, Objective, Transform
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.tasks.cloud_pictures import draw_row
from edge_train.tasks.from_scratch import check_no_model, check_shape, start_hash
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.on_numpy import check_on_numpy
from edge_train.tasks.points import TASK
from edge_train.tasks.points.data import Clouds, counted, load
from edge_train.tasks.points.distances import sliced, uniform
from edge_train.tasks.points.engine import CloudEngine, of_network
from edge_train.tasks.points.footprint import footprint_of
from edge_train.tasks.points.model_file import AUTOENCODER, Model, load_model
from edge_train.tasks.points.network import Shape, start_of
from edge_train.tasks.points.objective import FEW_HELD_OUT, MORE_SCORED, Reconstruction
from edge_train.tasks.points.recipe import PointsRecipe
from edge_train.tasks.points.slicer import SHAPES
from edge_train.tasks.points.slicer import start_of as start_of_slicer

_SHOWN = 6  # clouds in the report
_SCORED_SLICES = 128  # directions of the distance in the metrics


class PointsJob:
    """A `Job`: words are checked here, clouds are read by `load`.

    Raises:
      InputError: a word that cannot be used.
    """

    def __init__(self, recipe: PointsRecipe) -> None:
        if recipe.data is None:
            raise InputError(
                "task 'points' needs --data, a folder of clouds (.ply, .pcd, .xyz, .obj or .npz)."
            )
        check_on_numpy(recipe)
        check_no_model(recipe)
        engine = "numpy" if recipe.runtime == "auto" else recipe.runtime
        found = TASK.resolve(recipe, engine, {})
        if methods.get(found.method).needs == {FORWARD} and found.loss != "sliced":
            raise InputError(
                f"method {found.method!r} trains the plain sliced distance only; use --loss sliced "
                "(the default), or a method with gradients such as adamw."
            )
        for name in ("slices", "kappa"):
            default = type(recipe).declared()[name].default
            read = found.loss == "v-dsw" or (name == "slices" and found.loss == "sliced")
            if not read and getattr(recipe, name) != default:
                raise InputError(f"{name} is not read by loss {found.loss!r}; leave it out.")
        self.recipe = replace(found, device="cpu")
        self.name = f"points-{Path(recipe.data).stem}"
        self.notes: tuple[str, ...] = ()
        if found.loss == "v-dsw":
            self.notes += (
                "v-dsw: directions are constants for the network; only their middle has a gradient",
            )
        self._clouds: Clouds

    @property
    def _shape(self) -> Shape:
        recipe = self.recipe
        return Shape(recipe.points, recipe.code, recipe.width, recipe.decoder)

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        more: Mapping[str, tuple[int, ...]] = SHAPES if self.recipe.loss == "v-dsw" else {}
        return {**self._shape.shapes, **more}

    @cached_property
    def model_sha256(self) -> str:
        """The hash of what the weights start from."""
        learned = None if self._started is None else self._started.parameters
        return start_hash(self._shape, self.recipe.seed, learned)

    @cached_property
    def _started(self) -> Model | None:
        """What an earlier run learned, where this one goes on from it."""
        if self.recipe.start is None:
            return None
        found = load_model(Path(self.recipe.start).expanduser())
        check_shape(self.recipe.start, found.shape, self._shape)
        return found

    def load(self) -> None:
        recipe = self.recipe
        path = Path(required(recipe.data)).expanduser()
        self._clouds = load(path, recipe.points, recipe.train_samples)
        few: tuple[str, ...] = ()
        if (count := len(self._task().held_out)) < FEW_HELD_OUT:
            clouds = "1 cloud is" if count == 1 else f"{count} clouds are"
            few = (
                f"only {clouds} held out, so the score from which on a scan is called unusual is "
                "a rough one; give it more clouds, or a larger --evaluation-samples",
            )
        self.notes = tuple(dict.fromkeys((*self.notes, *self._clouds.notices, *few)))

    def prepare(self, folder: Path, say: Say) -> None:
        task = self._task()
        weights = sum(int(np.prod(shape)) for shape in self._shapes.values())
        say(
            f"{len(task.trained)} clouds of {self.recipe.points} points to train on, "
            f"{len(task.held_out)} held out; {weights:,} weights"
        )

    def restore(self, folder: Path, say: Say) -> None:
        self.load()

    def data_sha256(self) -> str:
        return hashlib.sha256(self._clouds.points.tobytes()).hexdigest()

    def open_runtime(self) -> CloudEngine:
        recipe = self.recipe
        values = start_of(self._shape, recipe.seed)
        if self._started is not None:
            values = dict(self._started.parameters)
        if recipe.loss == "v-dsw":
            values |= start_of_slicer(recipe.seed)
        return CloudEngine(
            self._shape,
            Parameters(values),
            recipe.loss,
            recipe.slices,
            recipe.kappa,
            recipe.micro_batch,
        )

    def task(self) -> Objective:
        return self._task()

    def _task(self) -> Reconstruction:
        recipe = self.recipe
        samples = required(recipe.samples)
        return Reconstruction(self._clouds.points, recipe.seed, samples, recipe.evaluation_samples)

    def smallest_radius(self) -> float:
        return 0.0

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, Parts(epsilon=epsilon, scale=scale))

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe = self.recipe
        return {
            "data": Path(required(recipe.data)).name,
            "clouds": len(self._clouds.points),
            "points": recipe.points,
            "loss": recipe.loss,
            "code": recipe.code,
            "decoder": recipe.decoder,
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
            **({"kappa": recipe.kappa} if recipe.loss == "v-dsw" else {}),
        }

    def preview(self, folder: Path, step: int, runtime: CloudEngine) -> str | None:
        return None

    def finish(
        self, folder: Path, runtime: CloudEngine, best: Point, steps: int, whole: bool
    ) -> Outcome:
        learned = {n: np.array(v) for n, v in of_network(best, self._shape)}
        task = self._task()
        model = Model(self._shape, learned, 0.0, 0.0)
        scores, back = self._scored(model, task.held_out)
        usual = scores
        if len(usual) < FEW_HELD_OUT:
            usual = np.concatenate([usual, self._scored(model, task.trained[:MORE_SCORED])[0]])
        model = replace(model, mean=float(scores.mean()), deviation=float(usual.std()))
        model.save(folder / AUTOENCODER)
        outputs = {"autoencoder": AUTOENCODER}
        if not whole:
            return Outcome(outputs=outputs)
        held = self._clouds.points[task.held_out]
        draw = Key(0, 0).generator("scored slices")
        directions = uniform(draw, _SCORED_SLICES)
        apart = [
            float(np.sqrt(sliced(x, y, directions)[0].mean()))
            for x, y in zip(held, back, strict=True)
        ]
        metrics = {
            "chamfer": model.mean,
            "sliced_wasserstein": float(np.mean(apart)),
            "unusual_from": model.threshold,
            "code_bytes": model.code_bytes,
            "cloud_bytes": 12 * self.recipe.points,
            "scored_clouds": len(held),
            "shown": self._shown(folder, task, held, back, scores),
        }
        line = (
            f"held-out clouds come back with a Chamfer distance of {model.mean:.4g} squared radii, "
            f"from {model.code_bytes} bytes instead of {metrics['cloud_bytes']}"
        )
        return Outcome(metrics, outputs, line)

    def _scored(self, model: Model, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return scores and reconstructions of some clouds, a few at a time."""
        some, step = self._clouds.points[numbers], required(self.recipe.samples)
        parts = [model.score(some[start : start + step]) for start in range(0, len(some), step)]
        scores, back = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(back)

    def _shown(
        self, folder: Path, task: Reconstruction, held: Array, back: Array, scores: Array
    ) -> list[dict[str, Any]]:
        """Draw some clouds beside their reconstructions: the best, the worst, those between."""
        order = scores.argsort(kind="stable")
        places = np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(np.int64)
        found = []
        (folder / "samples").mkdir(exist_ok=True)
        for number in order[np.unique(places)]:
            name = f"samples/cloud-{number:04d}.png"
            draw_row(folder / name, [held[number], back[number]])
            title = self._clouds.names[task.held_out[number]]
            found.append({"name": title, "score": float(scores[number]), "picture": name})
        return found

    def footprint(self) -> Footprint:
        recipe = self.recipe
        path = Path(required(recipe.data)).expanduser()
        clouds, largest = counted(path, recipe.train_samples)
        _, rule = self.method(1.0, dict.fromkeys(self._shapes, 1.0))
        return footprint_of(
            recipe, self._shape, self._shapes, rule, clouds=clouds, largest_bytes=largest
        )
