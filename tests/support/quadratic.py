"""A runtime and task of a few numbers, for tests of everything that is not a model."""

import numpy as np

from edge_train.arrays.parameters import Parameters

_EVALUATION_NOISE = np.random.default_rng(5).standard_normal((8, 12)).astype(np.float32)


class QuadraticRuntime:
    """Loss of a sample: mean squared distance of all blocks to a target plus the sample's noise."""

    device = "cpu"
    dtype = "float32"

    def __init__(self, blocks=None, poison=()):
        self.parameters = Parameters(blocks or {"token": np.ones((2, 6), np.float32)})
        self.poison = set(poison)  # steps whose losses are not finite
        self.points_seen = []

    def forward(self, batch, points):
        self.points_seen.append(points)
        flat = np.stack([np.concatenate([b.ravel() for b in p.values()]) for p in points])
        distance = flat[:, None, :] - 0.1 * batch["noise"][None, :, : flat.shape[1]]
        losses = np.square(distance).mean(axis=2).astype(np.float32)
        if int(batch.get("step", np.array(-9))) in self.poison:
            losses[:] = np.nan
        return losses

    def residuals(self, batch, points):
        """Distances whose squares add up to the losses."""
        losses = self.forward(batch, points)
        flat = np.stack([np.concatenate([b.ravel() for b in p.values()]) for p in points])
        size = flat.shape[1]
        found = (flat[:, None, :] - 0.1 * batch["noise"][None, :, :size]) / np.sqrt(size)
        return np.where(np.isfinite(losses)[..., None], found, np.nan).astype(np.float32)

    def backward(self, batch, apply):
        losses = self.forward(batch, [self.parameters])[0]
        size = sum(block.size for block in self.parameters.values())
        noise, start = 0.1 * batch["noise"].mean(axis=0), 0
        for name, block in self.parameters.items():
            own = noise[start : start + block.size].reshape(block.shape)
            start += block.size
            gradient = (2 * (block - own) / size).astype(np.float32)
            if not np.isfinite(losses).all():
                gradient = gradient * np.float32(np.nan)
            apply(name, gradient)
        return losses


class QuadraticTask:
    """Noise drawn from the key."""

    def batch(self, key):
        noise = key.generator("batch").standard_normal((4, 12), dtype=np.float32)
        return {"noise": noise, "step": np.array(key.step)}

    def evaluation(self):
        return {"noise": _EVALUATION_NOISE}

    def loss(self, runtime, batch, points):
        return runtime.forward(batch, points)

    def residuals(self, runtime, batch, points):
        return runtime.residuals(batch, points)
