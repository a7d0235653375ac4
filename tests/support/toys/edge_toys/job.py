"""What a run of task mean needs."""

import hashlib
from pathlib import Path

import numpy as np

from edge_toys.task import TASK
from edge_train.arrays.parameters import Parameters
from edge_train.formats.atomic import write_bytes
from edge_train.memory.footprint import PREPARE, SAVE, TRAIN, Footprint, PlanLine
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.tasks.job import Outcome


class Runtime:
    """Loss of a sample: half the squared distance of one number to it."""

    device, dtype, batch_limit, pages = "cpu", "float32", None, None

    def __init__(self, count):
        self.parameters = Parameters({"mean": np.zeros((1, 1), np.float32)})

    def forward(self, batch, points):
        at = np.array([point["mean"].item() for point in points], np.float32)
        return np.square(at[:, None] - batch["values"][None]) / 2

    def backward(self, batch, apply):
        losses = self.forward(batch, [self.parameters])[0]
        apply("mean", np.full((1, 1), (self.parameters["mean"] - batch["values"]).mean()))
        return losses

    def device_bytes(self):
        return 0

    def close(self):
        pass


class Objective:
    """Samples of the file, with noise."""

    def __init__(self, values, recipe):
        self.values, self.recipe = values, recipe

    def batch(self, key):
        draw = key.generator("batch")
        chosen = draw.choice(self.values, self.recipe.samples)
        return {"values": (chosen + self.recipe.noise * draw.standard_normal()).astype(np.float32)}

    def evaluation(self):
        return {"values": self.values}

    def loss(self, runtime, batch, points):
        return runtime.forward(batch, points)


class MeanJob:
    """A `Job`."""

    notes, name = (), "mean"

    def __init__(self, recipe):
        self.recipe = TASK.resolve(recipe, "numpy", {})
        self.model_sha256 = hashlib.sha256(b"one number").hexdigest()

    def footprint(self):
        use, line = TASK.use("numpy"), (PlanLine("numbers", 1000),)
        known = {PREPARE: line, TRAIN: line, SAVE: line}
        return Footprint(use.libraries, 4, known, {}, use.first_use_bytes, use.libraries_bytes)

    def load(self):
        text = Path(self.recipe.data).read_text()
        self.values = np.array(text.split(), np.float32)

    def prepare(self, folder, say):
        say(f"{len(self.values)} numbers")

    def restore(self, folder, say):
        self.load()

    def data_sha256(self):
        return hashlib.sha256(repr(list(self.values)).encode()).hexdigest()

    def open_runtime(self):
        return Runtime(len(self.values))

    def task(self):
        return Objective(self.values, self.recipe)

    def smallest_radius(self):
        return 0.0

    def method(self, epsilon, scale):
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, Parts(epsilon=epsilon, scale=scale))

    def facts(self, folder):
        return {"numbers": len(self.values)}

    def preview(self, folder, step, runtime):
        return None

    def finish(self, folder, runtime, best, steps, whole):
        write_bytes(folder / "mean.txt", f"{best['mean'].item()!r}\n".encode())
        return Outcome({}, {"mean": "mean.txt"})
