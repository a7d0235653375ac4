"""About how long a step takes, from the shapes of weights and one timed product of matrices.

A run that was rehearsed knows its seconds. A large model is not loaded just to plan, so its
multiplications are counted from the shapes in its files, and divided by how fast this machine
multiplies float32 matrices of middling size (a third of a second, in a process of its own).
Attention counts its two products; norms, activation functions, updates and loading count nothing.
What an engine makes of narrow weights differs from machine to machine; the gains below are those
of BENCHMARKS.md. Expect a factor of two either way.
"""

from functools import cache

from edge_train.memory.apart import run_apart
from edge_train.memory.link import ENVIRONMENT
from edge_train.methods import methods
from edge_train.recipe import Recipe, required
from edge_train.runtimes.engine import engines
from edge_train.tasks import task_of

_LEAN = 0.5  # of that pace where weights are read again from their file, same table
_SIDE, _REPEATS = 768, 5
_PROBE = (
    "import time, numpy as np\n"
    f"a = np.ones(({_SIDE}, {_SIDE}), np.float32); out = np.empty_like(a); best = 1e9\n"
    f"for _ in range({_REPEATS}):\n"
    "    began = time.perf_counter(); np.dot(a, a, out)\n"
    "    best = min(best, time.perf_counter() - began)\n"
    "print(best)\n"
)


def passes(recipe: Recipe) -> float:
    """Return forward passes of one sample that a step is worth."""
    found = methods.get(recipe.method).passes(recipe)
    return found.forwards + found.backwards * task_of(recipe).backward


def about_seconds(recipe: Recipe, operations: float) -> float | None:
    """Return about how long a step takes here; None where operations were not counted.

    Args:
      operations: of one sample's forward pass.
    """
    if not operations:
        return None
    gains = engines.get(recipe.runtime).gains
    gain = gains.get(recipe.quant, 1.0) * gains.get(recipe.dtype, 1.0)
    gain *= _LEAN if recipe.lean else 1.0
    return passes(recipe) * operations / (gain * _rate(required(recipe.threads)))


@cache
def _rate(threads: int) -> float:
    """Return float32 operations a second of a product of matrices on so many threads."""
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": str(threads)}
    done = run_apart(_PROBE, environment=environment)
    done.check_returncode()
    return 2 * _SIDE**3 / float(done.stdout)
