"""The job of training somebody's own module: a module and a loss in, trained parameters out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tensor_store import StoredTensors, save_tensors
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    state_line,
)
from edge_train.methods import held_at_once, methods
from edge_train.methods.method import FORWARD, Parts
from edge_train.protocols import Estimator, Objective, Runtime, Transform
from edge_train.recipe import required
from edge_train.registry import load as load_name
from edge_train.rng import Key
from edge_train.tasks.device import settle
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.module import TASK
from edge_train.tasks.module.brought import Brought, found
from edge_train.tasks.module.content import hash_of
from edge_train.tasks.module.recipe import ModuleRecipe

_GRADIENT_COPIES = 2  # the gradients of all blocks are there at once; one block's update beside
_FORWARD_COPIES = 2  # a perturbed copy of the weights, and the estimate of a block
_LEARNED = "learned.safetensors"
_START = "start.tensors"  # what the module began with; a run that is resumed needs it


class OwnBatches:
    """An `Objective` over the user's batches: what goes around is their numbers."""

    def __init__(self, brought: Brought) -> None:
        self._count = len(brought.evaluated())

    def batch(self, key: Key) -> Batch:
        """Return the number of a step."""
        return {"step": np.array([key.step], np.int64)}

    def evaluation(self) -> Batch:
        """Return the numbers of the evaluation batches."""
        return {"evaluation": np.arange(self._count, dtype=np.int64)}

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the user's loss (points, batches)."""
        return runtime.forward(batch, points)


class ModuleJob:
    """A `Job`; what it trains was lent by the caller of `fit`, or a function returns it.

    Raises:
      InputError: a word, or what was brought, cannot be used.
      CallersError: code of the user's raised something.
    """

    name = "module"

    def __init__(self, recipe: ModuleRecipe) -> None:
        if recipe.runtime not in ("auto", "torch"):
            raise InputError(
                f"task module runs on torch, not on {recipe.runtime}; leave runtime out."
            )
        if recipe.device != "auto":
            settle(recipe.device, self.name, 0)
        for key in ("model", "start"):
            if getattr(recipe, key):
                raise InputError(f"{key} is not for task module: the module is it; leave it out.")
        self.recipe = TASK.resolve(recipe, "torch", {})
        self._brought = found(recipe.module)
        self._blocks, self._frozen = load_name("edge_train.runtimes.torch.own_module:blocks_of")(
            self._brought.module
        )
        self._is_here = recipe.module is None
        self.notes: tuple[str, ...] = ()
        if self._is_here:
            self.notes += (
                "no wall stands: this trains in the process of its caller, which the run itself "
                'keeps under the cap; module="package:function" trains behind a wall',
                "the plan leaves activations out: what a pass of this module holds is not known "
                "before its first step",
            )
        if self._brought.evaluation is None:
            count = len(self._brought.evaluated())
            self.notes += (
                f"no evaluation batches are given: the first {count} of training are evaluated",
            )

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the shapes that are trained, and of the values that are not."""
        shapes = {name: block.shape for name, block in self._blocks.items()}
        return hash_of([shapes, self._frozen])

    def footprint(self) -> Footprint:
        recipe, use = self.recipe, TASK.use("torch")
        shapes = {name: block.shape for name, block in self._blocks.items()}
        trained = sum(block.nbytes for block in self._blocks.values())
        # in the caller's process the weights are held already, and counted with its libraries
        weights = PlanLine("weights", 0 if self._is_here else trained)
        _, transform = self.method(1.0, dict.fromkeys(shapes, 1.0))
        forward = methods.get(recipe.method).needs == {FORWARD}
        copies = _FORWARD_COPIES if forward else _GRADIENT_COPIES
        state = state_line(transform, shapes, copies, held_at_once(recipe))
        return Footprint(
            use.libraries,
            trained,
            {PREPARE: (weights,), TRAIN: (weights, state), SAVE: (weights,)},
            {},
            use.first_use_bytes,
            use.libraries_bytes,
            folder=folder_lines(
                len(shapes),
                trained,
                state_line(transform, shapes, 0, held_at_once(recipe)).bytes,
                trained,
                trained,
            ),
        )

    def load(self) -> None:
        """Do nothing: what was brought is there."""

    def prepare(self, folder: Path, say: Say) -> None:
        count = sum(block.size for block in self._blocks.values())
        say(f"{len(self._blocks)} blocks with {count:,} weights to train")
        save_tensors(folder / _START, self._runtime.parameters.stored(), {})

    def restore(self, folder: Path, say: Say) -> None:
        """Give the module the values that it began with: it was made anew, by whatever chance."""
        self._runtime.parameters.load(StoredTensors(folder / _START))

    def data_sha256(self) -> str:
        """Return the hash of the evaluation batches, and of how many there are to train on."""
        batches = self._brought.batches
        count = None if callable(batches) else len(batches)
        return hash_of([count, list(self._brought.evaluated())])

    @cached_property
    def _runtime(self) -> Any:
        """The module as a runtime: there is one of it, whose values are those of the module."""
        brought, seed = self._brought, self.recipe.seed
        opened = load_name(required(TASK.use("torch").open))
        given = (brought.module, brought.loss, brought.batch, brought.evaluated(), seed)
        if self.recipe.device != "cuda":  # auto is the host: a loss may know no card
            return opened(*given)
        # the allocator's wall is one of the process, which is the caller's here
        cap_bytes = None if self._is_here else self.recipe.cap_bytes
        return opened(*given, device="cuda", cap_bytes=cap_bytes)

    def open_runtime(self) -> Any:
        return self._runtime

    def task(self) -> Objective:
        return OwnBatches(self._brought)

    def smallest_radius(self) -> float:
        return 0.0  # float weights and activations

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, Parts(epsilon=epsilon, scale=scale))

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe, loss = self.recipe, self._brought.loss
        return {
            "module": type(self._brought.module).__name__,
            "loss": getattr(loss, "__qualname__", type(loss).__name__),
            "weights_trained": sum(block.size for block in self._blocks.values()),
            "learning_rate": recipe.learning_rate,
            **({"function": recipe.module} if recipe.module else {}),
        }

    def preview(self, folder: Path, step: int, runtime: Any) -> str | None:
        return None

    def finish(self, folder: Path, runtime: Any, best: Point, steps: int, whole: bool) -> Outcome:
        """Leave the module with its best parameters; save those, and its buffers, by name."""
        runtime.parameters.load(best)
        learned = runtime.learned()
        write_bytes(folder / _LEARNED, save(learned))
        return Outcome(outputs={"learned": _LEARNED})
