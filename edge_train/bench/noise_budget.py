"""`edge-train bench noise-budget`: where the noise of a token's exact gradient comes from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.arrays.types import Array, Batch
from edge_train.bench.noise_parts import (
    UNSEEN,
    Estimated,
    Rows,
    alone,
    antithetic,
    best_timesteps,
    estimated,
    rho,
    squared_mean,
    together,
)
from edge_train.bench.token_steps import TokenSteps
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import DATA, EMBEDDED
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

FACTORS = ("photo", "t", "noise", "caption")
_PHOTOS = ("bag", "sneaker", "three")
# A photo's own caption says its colors; the bare ones leave them to the token.
_BARE = ("a {}", "a photo of a {}", "a picture of a {}")
_WINDOW = (300, 1000)  # of the small models, whose word for anything is `item`
_CLASS_WORD = "item"
_BINS = 8
_POINTS = (0, 25, 100)  # exact steps before gradients are measured
_RATE = 0.2  # of those steps, relative to the token's root mean square
_DRAW_STEP = -7  # the key of draws that no other program makes


@dataclass(frozen=True)
class Draw:
    """The factors of samples; a row each: view, timestep, noises (2, C, h, w), caption."""

    photo: NDArray[np.int64]
    t: NDArray[np.int64]
    noise: Array
    caption: NDArray[np.int64]


class Samples:
    """Draws of single samples, their batches and their gradients, at one point of a token."""

    def __init__(self, steps: TokenSteps) -> None:
        self._steps = steps
        self._bare = np.concatenate([steps.job.ids(text)["ids"] for text in _BARE])

    def draw(self, name: str, count: int) -> Draw:
        """Return `count` samples; each name gives others, and its own again."""
        cache, low_high = self._steps.cache, required(self._steps.job.recipe.window)
        key = Key(self._steps.job.recipe.seed, _DRAW_STEP).generator(name)
        photo = key.integers(cache.photos, size=count)
        # every bin of timesteps equally often: the mean of a bin is needed, too
        t = low_high[0] + ((np.arange(count) + key.random(count)) / count * np.diff(low_high))
        noise = key.standard_normal((count, 2, *cache.mean.shape[1:]), dtype=np.float32)
        caption = key.integers(1 + len(_BARE), size=count)
        return Draw(photo, key.permutation(t.astype(np.int64)), noise, caption)

    def batch(self, draw: Draw) -> Batch:
        """Return the samples as the runtime takes them: the posterior's noise, then the loss's."""
        cache, signal = self._steps.cache, self._steps.task.signal[draw.t][:, None, None, None]
        clean = cache.mean[draw.photo] + cache.deviation[draw.photo] * draw.noise[:, 0]
        root_signal, root_noise = np.sqrt(signal), np.sqrt(1 - signal)
        own = cache.ids["ids"][cache.captions_of[draw.photo, 0]]
        bare = self._bare.reshape(len(_BARE), -1)[np.maximum(draw.caption - 1, 0)]
        return {
            "latents": root_signal * clean + root_noise * draw.noise[:, 1],
            "timesteps": draw.t,
            "target": draw.noise[:, 1],
            "ids": np.where(draw.caption[:, None] == 0, own, bare),
        }

    def gradients(self, draw: Draw) -> Rows:
        """Return the exact gradient of every sample, (draws, numbers of the token)."""
        return np.stack([gradient.ravel() for gradient in self._each(draw)]).astype(np.float64)

    def _each(self, draw: Draw) -> Iterator[Array]:
        batch = self.batch(draw)
        for row in range(len(draw.t)):
            found: list[Array] = []
            one = {name: values[row : row + 1] for name, values in batch.items()}
            self._steps.runtime.backward(one, lambda _, gradient, to=found: to.append(gradient))
            yield found[0]


@dataclass(frozen=True)
class Budget:
    """What was measured at one point; shares are of the variance of one sample's gradient.

    `left` is what the best timesteps leave of E |g|^2; `bins` holds |mean| and root mean square of
    the gradients of each bin of timesteps.
    """

    rho: Estimated
    alone: dict[str, Estimated]
    together: dict[str, Estimated]
    photo_and_t: Estimated
    antithetic: Estimated
    own_rho: Estimated
    bare_rho: Estimated
    left: float
    bins: Rows

    @property
    def stratified_rho(self) -> float:
        """The noise of steps that go through photos and timesteps in turn, their mean alone."""
        kept = 1 - self.alone["photo"].value - self.alone["t"].value
        return self.rho.value * float(np.sqrt(max(kept, 0)))


def measure(samples: Samples, count: int) -> Budget:
    """Return the budget from (5 + 2 factors) x `count` gradients."""
    base, other = samples.draw("base", count), samples.draw("other", count)
    found = {"base": samples.gradients(base)}
    for name in FACTORS:
        found[f"sharing {name}"] = samples.gradients(replace(other, **{name: getattr(base, name)}))
        found[f"without {name}"] = samples.gradients(replace(base, **{name: getattr(other, name)}))
    found["sharing photo and t"] = samples.gradients(replace(other, photo=base.photo, t=base.t))
    found["mirrored"] = samples.gradients(replace(base, noise=base.noise * _mirror(base.noise)))
    own = replace(base, caption=np.zeros_like(base.caption))
    bare = replace(base, caption=1 + other.caption % len(_BARE))
    found["own"], found["bare"] = samples.gradients(own), samples.gradients(bare)
    window = np.ptp(base.t) + 1
    bin_of = np.minimum((base.t - base.t.min()) * _BINS // window, _BINS - 1)
    bins = np.array([_bin(found["base"][bin_of == number]) for number in range(_BINS)])
    return Budget(
        rho=estimated(lambda g: rho(g["base"]), found),
        alone={
            name: estimated(lambda g: alone(g["base"], g["other"]), _pair(found, f"sharing {name}"))
            for name in FACTORS
        },
        together={
            name: estimated(
                lambda g: together(g["base"], g["other"]), _pair(found, f"without {name}")
            )
            for name in FACTORS
        },
        photo_and_t=estimated(lambda g: alone(g["base"], g["sharing photo and t"]), found),
        antithetic=estimated(
            lambda g: antithetic(g["base"], g["mirrored"], g["without noise"]), found
        ),
        own_rho=estimated(lambda g: rho(g["own"]), found),
        bare_rho=estimated(lambda g: rho(g["bare"]), found),
        left=best_timesteps(bins[:, 1] ** 2)[1],
        bins=bins,
    )


def _pair(found: dict[str, Rows], name: str) -> dict[str, Rows]:
    return {"base": found["base"], "other": found[name]}


def _mirror(noise: Array) -> Array:
    """Return what turns the loss's noise around and leaves the posterior's."""
    return np.array([1, -1], np.float32).reshape(1, 2, *[1] * (noise.ndim - 2))


def _bin(gradients: Rows) -> tuple[float, float]:
    squares = float((gradients**2).sum(axis=1).mean())
    return float(np.sqrt(max(squared_mean(gradients), 0))), float(np.sqrt(squares))


def main(out: Path, seeds: int, model: Path | None = None, samples: int = 240) -> str:
    """Measure at the start and along exact training; return Markdown tables.

    Args:
      out: where the tables of a concept are kept; those that are there are read.
      seeds: how many of the concepts bag, sneaker, three, in this order.
      model: another folder of `demos/tiny_sd/pretrain.py` than the embedded model.
      samples: draws; 15 gradients are taken for each.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = []
    for photos in _PHOTOS[:seeds]:
        kept = out / f"noise-budget-{model.name if model else EMBEDDED}-{photos}-{samples}.md"
        if not kept.exists():
            write_bytes(kept, _tables(str(model or EMBEDDED), photos, samples).encode())
        tables.append(kept.read_text("utf-8"))
    return "\n\n".join(tables)


def _tables(model: str, photos: str, samples: int) -> str:
    recipe = PersonalizeRecipe(
        model=model,
        photos=str(DATA / "photos" / photos),
        class_word=_CLASS_WORD,
        window=_WINDOW,
        flips=False,
        threads=1,
        method="backprop",
        steps=max(1, *_POINTS),
        relative_rate=_RATE,
    )
    steps = TokenSteps.open(recipe, _BARE)
    measured: dict[int, Budget] = {}
    for number in range(max(_POINTS) + 1):
        if number in _POINTS:
            measured[number] = measure(Samples(steps), samples)
        if number < max(_POINTS):
            steps.take(number)
    steps.runtime.close()
    said = f"`{photos}`, {samples} draws, +- one standard error."
    return f"{said}\n\n{_parts(measured)}\n\n{_by_timestep(measured)}"


def _parts(measured: dict[int, Budget]) -> str:
    rows: list[tuple[str, list[str]]] = [
        ("rho: noise over mean, one sample", [str(b.rho) for b in measured.values()]),
        *(
            (
                f"{name}: alone / with what it shares",
                [f"{b.alone[name]} / {b.together[name]}" for b in measured.values()],
            )
            for name in FACTORS
        ),
        ("photo and t together, alone", [str(b.photo_and_t) for b in measured.values()]),
        ("correlation of noise and its negative", [str(b.antithetic) for b in measured.values()]),
        ("rho, captions of the photos", [str(b.own_rho) for b in measured.values()]),
        ("rho, bare captions", [str(b.bare_rho) for b in measured.values()]),
        (
            "rho, photos and timesteps in turn",
            [_shown(b.stratified_rho) for b in measured.values()],
        ),
        ("rho, best timesteps", [_shown(_best_rho(b)) for b in measured.values()]),
    ]
    head = ["what", *(f"after {number} exact steps" for number in measured)]
    return bench.table(head, [[name, *cells] for name, cells in rows])


def _shown(rho: float) -> str:
    return f"{rho:.2f}" if np.isfinite(rho) else UNSEEN


def _best_rho(budget: Budget) -> float:
    """Return rho where timesteps are drawn as often as their gradients are long."""
    return float(np.sqrt(max((budget.rho.value**2 + 1) * budget.left - 1, 0)))


def _by_timestep(measured: dict[int, Budget]) -> str:
    edges = np.linspace(*_WINDOW, _BINS + 1)
    head = ["t", *(f"after {number}: mean, root mean square" for number in measured)]
    rows = [
        [
            f"{edges[number]:.0f}-{edges[number + 1]:.0f}",
            *(f"{b.bins[number, 0]:.2g}, {b.bins[number, 1]:.2g}" for b in measured.values()),
        ]
        for number in range(_BINS)
    ]
    return bench.table(head, rows)
