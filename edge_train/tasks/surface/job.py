"""The job of learning a surface: one cloud of points in; field, mesh, more points, normals out."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.nearest import neighbors
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import (
    Frame,
    clouds_in,
    frame_of,
    read_clouds,
    surface_points,
)
from edge_train.formats.clouds.ply import write_ply
from edge_train.memory.footprint import Footprint
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.protocols import Estimator, Objective, Transform
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.tasks.cloud_pictures import draw_row
from edge_train.tasks.from_scratch import check_no_model, check_shape, start_hash
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.on_numpy import check_on_numpy
from edge_train.tasks.surface import TASK
from edge_train.tasks.surface.denser import denser, normals_of
from edge_train.tasks.surface.engine import FieldEngine
from edge_train.tasks.surface.field import Shape, start_of
from edge_train.tasks.surface.footprint import footprint_of
from edge_train.tasks.surface.mesh import border_loops, mesh_of
from edge_train.tasks.surface.model_file import FIELD, Model, load_model
from edge_train.tasks.surface.objective import Queries
from edge_train.tasks.surface.recipe import SurfaceRecipe

_FEWEST = 16  # points
_EVALUATED = 2000  # queries, where the recipe names no number
_DRAWN = 20_000  # points of a mesh in a picture
MESH, DENSE, NORMALS = "mesh.ply", "dense.ply", "normals.ply"


class SurfaceJob:
    """A `Job`: words are checked here, the cloud is read by `load`.

    Raises:
      InputError: a word that cannot be used.
    """

    def __init__(self, recipe: SurfaceRecipe) -> None:
        if recipe.data is None:
            raise InputError(
                "task 'surface' needs --data, a cloud of points (.ply, .pcd, .xyz, .obj or .npz)."
            )
        check_on_numpy(recipe)
        check_no_model(recipe)
        engine = "numpy" if recipe.runtime == "auto" else recipe.runtime
        self.recipe = replace(TASK.resolve(recipe, engine, {}), device="cpu")
        self.name = f"surface-{Path(recipe.data).stem}"
        self.notes: tuple[str, ...] = ()
        self._points: Array
        self._frame: Frame
        self._near: NDArray[np.int32]
        self._spread: Array

    @property
    def _shape(self) -> Shape:
        return Shape(self.recipe.width, self.recipe.layers)

    @property
    def _path(self) -> Path:
        return Path(required(self.recipe.data)).expanduser()

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
        recipe, path = self.recipe, self._path
        if not path.is_file():
            is_there = "it is a folder" if path.is_dir() else "there is no such file"
            raise InputError(f"data {path}: {is_there}; name one cloud, such as scan.ply.")
        cloud = next(iter(read_clouds(path, recipe.points, Key(0, 0))))
        points = np.unique(cloud.points, axis=0)
        if len(points) < _FEWEST:
            count = len(points)
            raise InputError(
                f"data {path}: has {count} point{'s' * (count != 1)} at places of their own, at "
                f"least {_FEWEST} are needed to learn a surface."
            )
        self._frame = frame_of(points)
        if not self._frame.radius > 0:  # their squares are below the smallest number
            raise InputError(
                f"data {path}: its points are all nearer than 1e-160 to each other; write them in "
                "smaller units."
            )
        self._points = self._frame.inward(points)
        lines = [
            f"the cloud is moved to the middle of its box and divided by its radius, "
            f"{self._frame.radius:.4g} in the units of the file; results are in those units"
        ]
        if (count := clouds_in(path)) > 1:
            lines.append(f"{path.name} holds {count} clouds; its first one is learned")
        if cloud.sampled:
            lines.append(f"{path.name} is a mesh; {len(points)} points of its surface are used")
        elif path.suffix.lower() == ".obj":
            lines.append(f"{path.name} has no faces; its corners are the points")
        if cloud.thinned:
            lines.append(
                f"{len(points)} of {cloud.found - cloud.not_finite} points are used; --points "
                "takes more"
            )
        if cloud.not_finite:
            lines.append(f"{cloud.not_finite} points are not finite and are left out")
        self.notes = tuple(lines)

    def prepare(self, folder: Path, say: Say) -> None:
        self._measure()
        weights = sum(int(np.prod(shape)) for shape in self._shape.shapes.values())
        say(f"{len(self._points)} points of a surface; {weights:,} weights")

    def restore(self, folder: Path, say: Say) -> None:
        self.load()
        self._measure()

    def _measure(self) -> None:
        """Find the neighbors of every point, and how far the last of them is."""
        self._near = neighbors(self._points, self.recipe.neighbor + 1)
        spread = np.empty(len(self._points), np.float32)
        for start in range(0, len(spread), 1000):
            some = slice(start, start + 1000)
            apart = self._points[self._near[some]] - self._points[some, None]
            spread[some] = np.sqrt(np.square(apart).sum(axis=2).max(axis=1))
        self._spread = spread

    def data_sha256(self) -> str:
        return hashlib.sha256(self._points.tobytes()).hexdigest()

    def open_runtime(self) -> FieldEngine:
        recipe = self.recipe
        values = start_of(self._shape, recipe.seed)
        if self._started is not None:
            values = dict(self._started.parameters)
        return FieldEngine(self._shape, Parameters(values), recipe.loss, recipe.micro_batch)

    def task(self) -> Objective:
        return self._queries()

    def _queries(self) -> Queries:
        recipe = self.recipe
        samples = required(recipe.samples)
        evaluated = recipe.evaluation_samples or _EVALUATED
        return Queries(self._points, self._near, self._spread, samples, evaluated)

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
            "data": self._path.name,
            "points": len(self._points),
            "loss": recipe.loss,
            "width": recipe.width,
            "layers": recipe.layers,
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
        }

    def preview(self, folder: Path, step: int, runtime: FieldEngine) -> str | None:
        return None

    def finish(
        self, folder: Path, runtime: FieldEngine, best: Point, steps: int, whole: bool
    ) -> Outcome:
        learned = {name: np.array(best[name]) for name in self._shape.shapes}
        model = Model(self._shape, learned, self._frame)
        model.save(folder / FIELD)
        outputs = {"field": FIELD}
        if not whole:
            return Outcome(outputs=outputs)
        metrics: dict[str, Any] = {}
        pictures = [self._points]
        if self.recipe.mesh_cells:
            pictures += self._mesh(folder, model, metrics, outputs)
        if self.recipe.dense_points:
            pictures += self._denser(folder, model, metrics, outputs)
        (folder / "samples").mkdir(exist_ok=True)
        draw_row(folder / "samples" / "surface.png", pictures)
        metrics["picture"] = "samples/surface.png"
        return Outcome(metrics, outputs, _line(metrics))

    def _mesh(
        self, folder: Path, model: Model, metrics: dict[str, Any], outputs: dict[str, str]
    ) -> list[Array]:
        corners, triangles = mesh_of(model.slopes, self._points, self.recipe.mesh_cells)
        write_ply(folder / MESH, self._frame.outward(corners), triangles)
        outputs["mesh"] = MESH
        loops, edges = border_loops(triangles)
        metrics |= {"triangles": len(triangles), "border_loops": loops, "border_edges": edges}
        drawn = surface_points(corners, triangles, _DRAWN, Key(0, 0))
        return [] if drawn is None else [drawn.astype(np.float32)]

    def _denser(
        self, folder: Path, model: Model, metrics: dict[str, Any], outputs: dict[str, str]
    ) -> list[Array]:
        queries = self._queries()
        more, normals = denser(model.slopes, queries.around, self.recipe.dense_points)
        of_points = normals_of(model.slopes, self._points, queries.spread)
        names = ("nx", "ny", "nz")
        for name, points, of in ((DENSE, more, normals), (NORMALS, self._points, of_points)):
            columns = {axis: of[:, number] for number, axis in enumerate(names)}
            write_ply(folder / name, self._frame.outward(points), more=columns)
        outputs |= {"dense": DENSE, "normals": NORMALS}
        metrics["dense_points"] = len(more)
        return [more[:_DRAWN]] if len(more) else []

    def footprint(self) -> Footprint:
        path = self._path
        size = path.stat().st_size if path.is_file() else 0
        _, rule = self.method(1.0, dict.fromkeys(self._shape.shapes, 1.0))
        evaluated = self.recipe.evaluation_samples or _EVALUATED
        return footprint_of(self.recipe, self._shape, rule, evaluated=evaluated, file_bytes=size)


def _line(metrics: Mapping[str, Any]) -> str:
    """Return what came out, for people."""
    words = []
    if "triangles" in metrics:
        loops = metrics["border_loops"]
        words.append(f"a mesh of {metrics['triangles']} triangles with {loops} borders")
    if "dense_points" in metrics:
        words.append(f"{metrics['dense_points']} points with normals")
    return " and ".join(words) or "the field alone"
