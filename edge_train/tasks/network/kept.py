"""What a run leaves for the next task: bases of what layers read, and how well each task is known.

A basis is made from training samples, and holds none of them. The test samples that are kept are
read for measuring alone: no step, no regime and no basis sees them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import dense
from edge_train.arrays.types import Array
from edge_train.formats import learned_tasks
from edge_train.formats import network as networks
from edge_train.formats.learned_tasks import Directions, LearnedTask, LearnedTasks
from edge_train.formats.network_file import SavedNetwork
from edge_train.optim.input_space import InputSketch, orthonormal, quantized, sketch_bytes
from edge_train.protocols import Estimator, Share
from edge_train.rng import Key
from edge_train.runtimes.numpy.network import NumpyNetwork
from edge_train.tasks.network.continual import Next, samples_sha256
from edge_train.tasks.network.datasets import Dataset, Samples
from edge_train.tasks.network.objective import Labeled, Prepare
from edge_train.tasks.network.recipe import NetworkRecipe

_SAMPLES = 1000  # whose inputs and gradients stand for a task
_ROWS = 20_000  # of inputs of a matrix: a convolution reads many of each sample
_GROWTH = 0.003  # of the protected share of the energy, with each task (GPM)


@dataclass(frozen=True)
class Ended:
    """A run whose last step was taken, with its best parameters.

    Attributes:
      following: what made it the next task of another; None for a first one.
      task: where its batches come from.
      saved: the network of all classes, as it is written.
      prepare: from stored samples to inputs of the network.
    """

    recipe: NetworkRecipe
    data: Dataset
    following: Next | None
    runtime: NumpyNetwork
    task: Labeled
    saved: SavedNetwork
    prepare: Prepare

    def kept(
        self, folder: Path, estimator: Estimator[Any] | None, accuracy: float
    ) -> tuple[dict[str, Any], str]:
        """Write what the next task will need; return the scores of several tasks, and a line.

        Args:
          estimator: whose gradients are kept; None keeps zeros, which agree with nothing.
          accuracy: of this task, where no samples are kept to measure it by.
        """
        recipe, following = self.recipe, self.following
        if following is None and not makes_bases(recipe, self.runtime.network):
            return {}, ""
        old = following.before.learned if following else LearnedTasks((), {})
        tasks = (*old.tasks, self._task())
        own, among_all = measured(tasks, self._logits(), recipe.samples or 1)
        if own[-1] is None:
            own = (*own[:-1], accuracy)
        directions, missing = dict[str, Directions](), 0.0
        if makes_bases(recipe, self.runtime.network):
            gradients = dict[str, Array]()
            if estimator is not None:
                gradients = gradients_of(estimator, self.runtime, self.task, recipe)
            directions, missing = bases_of(self.runtime, self.task, recipe, gradients, old)
        learned = LearnedTasks((*old.tasks, replace(tasks[-1], scores=own)), directions)
        learned_tasks.save(folder / learned_tasks.FILE, learned)
        line = ""
        if missing:
            line = (
                f"; {100 * missing:.1f} % of what a layer reads is more than "
                f"{recipe.most_directions} directions hold, and will not be protected: more "
                "--most-directions would"
            )
        if not old.tasks:
            return {}, line
        found = summary(learned, among_all)
        return {"tasks": found}, f"; {_in_words(found)}{line}"

    def _task(self) -> LearnedTask:
        """Return this task, without its scores."""
        data, recipe = self.data, self.recipe
        present = np.unique(data.train.labels)
        classes = np.array(self.following.classes) if self.following else present
        test = data.test.taken(np.flatnonzero(np.isin(data.test.labels, present)))
        test = kept_of(test, recipe.kept_examples)
        return LearnedTask(
            Path(recipe.data or "").name,
            tuple(classes.tolist()),
            samples_sha256(data),
            (),
            test.inputs,
            classes[np.searchsorted(present, test.labels)],
        )

    def _logits(self) -> Prepare:
        """Return what answers stored samples among the classes of all tasks."""
        saved = self.saved
        whole, statistics = NumpyNetwork(saved.network, saved.parameters), dict(saved.statistics)
        return lambda stored: whole.outputs(self.prepare(stored), saved.parameters, statistics)


def makes_bases(recipe: NetworkRecipe, network: networks.Network) -> bool:
    """Return whether a run leaves what protects its task."""
    return recipe.continual != "none" and networks.Normalization("batch") not in network.layers


def matrices(network: networks.Network) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is multiplied with inputs, by name."""
    return {
        name: shape
        for block in network.blocks
        for name, shape in networks.parameter_shapes(block).items()
        if len(shape) == 2
    }


def bases_of(
    runtime: NumpyNetwork,
    task: Labeled,
    recipe: NetworkRecipe,
    gradients: Mapping[str, Array],
    old: LearnedTasks,
) -> tuple[dict[str, Directions], float]:
    """Return the directions of every matrix, with those that the task of `runtime` adds.

    One matrix after the other, so that one sketch exists at a time.

    Returns:
      directions: by matrix.
      missing: by how much the share of the energy that they hold is less than it should be, in the
        matrix with the least; 0 where all directions that it takes may be added.
    """
    numbers = _draw("samples of bases", recipe.seed, task.count, _SAMPLES)
    share = min(recipe.protected_energy + _GROWTH * len(old.tasks), 1.0)
    found, missing = {}, 0.0
    for name, (outputs, inputs) in matrices(runtime.network).items():
        before = old.directions.get(name, _none(inputs))
        known = orthonormal(before.codes, before.scale)
        sketch = InputSketch(known, min(inputs - known.shape[1], recipe.most_directions))
        for rows in _rows(runtime, task, name, numbers, recipe.samples or 1):
            sketch.add(rows)
        new, owned, held = sketch.chosen(share)
        if new.shape[1] == recipe.most_directions:
            missing = max(missing, share - held)
        codes, scale = quantized(new)
        codes = np.concatenate((before.codes, codes), axis=1)
        scale = np.concatenate((before.scale, scale))
        earlier = np.pad(before.owned, ((0, 0), (0, new.shape[1])))
        own = np.concatenate((owned, np.ones(new.shape[1], np.bool_)))
        gradient = gradients.get(name, np.zeros((outputs, inputs), np.float32))
        along = gradient @ orthonormal(codes, scale)[:, own]
        found[name] = Directions(
            codes, scale, np.vstack((earlier, own)), (*before.gradients, along)
        )
    return found, missing


def bases_bytes(network: networks.Network, recipe: NetworkRecipe, old: LearnedTasks) -> int:
    """Return what making the bases holds at most, beside gradients.

    The directions of one matrix are made orthonormal at a time: their numbers, a copy, and the
    known ones. In INT8 those of all are there.
    """
    most, kept = 0, 0
    for name, (outputs, inputs) in matrices(network).items():
        known = old.directions[name].codes.shape[1] if name in old.directions else 0
        limit = min(inputs - known, recipe.most_directions)
        kept += (inputs + 4 * outputs) * (known + limit)
        at_once = max(sketch_bytes(inputs, limit), 12 * inputs * (known + limit))
        most = max(most, at_once + 4 * inputs * known)
    return most + kept


def _none(inputs: int) -> Directions:
    return Directions(
        np.zeros((inputs, 0), np.int8), np.zeros(0, np.float32), np.zeros((0, 0), np.bool_), ()
    )


def _rows(
    runtime: NumpyNetwork, task: Labeled, name: str, numbers: NDArray[Any], together: int
) -> Iterator[Array]:
    left = _ROWS
    for start in range(0, len(numbers), together):
        inputs = task.inputs(numbers[start : start + together])
        for rows in runtime.matrix_inputs(name, inputs, runtime.parameters):
            yield rows[:left]
            left -= len(rows)
            if left <= 0:
                return


def gradients_of(
    estimator: Estimator[Any], runtime: NumpyNetwork, task: Labeled, recipe: NetworkRecipe
) -> dict[str, Array]:
    """Return the mean gradient of every matrix as the method of the run sees it, over 1000 samples.

    A method that trains one block at a time gives that of one block; the others count as unknown.
    """
    size = min(recipe.samples or 1, task.count)
    count = -(-_SAMPLES // size)
    total: dict[str, Array] = {}

    def add(name: str, gradient: Any) -> None:
        share = gradient.share if isinstance(gradient, Share) else 1.0
        part = dense(gradient.gradient if isinstance(gradient, Share) else gradient)
        if part.ndim == 2:
            part = part * np.float32(share / count)
            total[name] = np.add(total[name], part, out=part) if name in total else part

    for number in range(count):
        key = Key(recipe.seed, (recipe.steps or 0) + number)
        estimator.estimate(runtime, task, task.batch(key), key, add)
    return total


def kept_of(test: Samples, count: int) -> Samples:
    """Return the test samples that a run keeps."""
    return test.taken(_draw("kept examples", 0, len(test.labels), count))


def _draw(purpose: str, seed: int, count: int, most: int) -> NDArray[Any]:
    return np.sort(Key(seed, 0).generator(purpose).permutation(count)[:most])


def accuracy(
    inputs: NDArray[Any],
    labels: NDArray[Any],
    logits: Callable[[NDArray[Any]], Array],
    classes: Sequence[int],
    together: int,
) -> float | None:
    """Return the share of samples that are answered right among some classes; None of no samples.

    Args:
      labels: outputs of the network.
      logits: of all classes, from stored inputs.
    """
    if not len(labels):
        return None
    among, right = np.array(classes), 0
    for start in range(0, len(labels), together):
        some = slice(start, start + together)
        answers = among[logits(inputs[some])[:, among].argmax(axis=1)]
        right += int((answers == labels[some]).sum())
    return right / len(labels)


def measured(
    tasks: Sequence[LearnedTask], logits: Prepare, together: int
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return how well each task is answered now: among its own classes, and among those of all."""
    every = sorted({one for task in tasks for one in task.classes})
    own, among_all = [], []
    for task in tasks:
        own.append(accuracy(task.inputs, task.labels, logits, task.classes, together))
        among_all.append(accuracy(task.inputs, task.labels, logits, every, together))
    return tuple(own), tuple(among_all)


def summary(learned: LearnedTasks, among_all: Sequence[float | None]) -> dict[str, Any]:
    """Return the matrix of scores and what follows from it, for a report.

    Backward transfer is the mean change of an old task's score since it had been learned, and
    forgetting the mean loss since it was best.
    """
    rows = [list(task.scores) for task in learned.tasks]
    last = rows[-1]
    ends = []  # of tasks that could be measured: the score now, when learned, and the best before
    for old, now in enumerate(last[:-1]):
        then = [score for row in rows[old:-1] if (score := row[old]) is not None]
        if now is not None and then:
            ends.append((now, then[0], max(then)))
    found: dict[str, Any] = {
        "names": [task.name for task in learned.tasks],
        "scores": rows,
        "among_all_classes": list(among_all),
        "bases_bytes": learned.nbytes,
    }
    if all(score is not None for score in last):
        found["accuracy"] = float(np.mean([score for score in last if score is not None]))
    if ends:
        found["backward_transfer"] = float(np.mean([now - first for now, first, _ in ends]))
        found["forgetting"] = float(np.mean([best - now for now, _, best in ends]))
    return found


def _in_words(tasks: Mapping[str, Any]) -> str:
    """Return a line about all tasks."""
    shown = ["?" if one is None else f"{100 * one:.1f}" for one in tasks["scores"][-1]]
    line = f"tasks {', '.join(shown)} %"
    if "backward_transfer" in tasks:
        line += f", backward transfer {100 * tasks['backward_transfer']:+.1f} points"
    return line
