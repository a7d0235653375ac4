"""What `--runtime` names: a record of an engine, and of how it serves a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from edge_train.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long an engine takes, on the machine that `run/pace.py` names; others are compared to it.

    Attributes:
      start_seconds: until the first pass: interpreters, libraries, opening a small model.
      product_seconds: of each product of matrices in a call, whatever its size.
      share: of the pace of a large float32 product that its products reach.
      moved_seconds: of each number that goes into a product or comes out, for what is done to it
        between two: norms, activations, copies. Small models take most of their time for that.
      number_seconds: of each number that a step changes: moments, rounding, noise of a direction.
      lean: times as fast in a lean run, where weights are read again or memory is given back.
    """

    start_seconds: float = 2.0
    product_seconds: float = 5e-5
    share: float = 0.5
    moved_seconds: float = 0.0
    number_seconds: float = 1.5e-8
    lean: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Use:
    """How an engine serves a task.

    Attributes:
      offers: what methods may need of it: forward, gradient, matrices, adapters, blocks.
      open: "module:function"; the task calls it with what it has and gets a runtime. Of a task that
        needs more of an engine, "module" with the functions of a protocol that stands beside the
        task, such as `Serving` of personalize. None: the task opens it itself.
      quants: weights that it can hold, the first one by default.
      libraries: modules that a run imports, the heavy ones among them.
      beside: packages that a run needs without importing them itself.
      libraries_bytes: what interpreters and libraries hold, measured once; plans measure it anew.
      first_use_bytes: code and buffers that are touched at the first pass.
      pace: how long its calls take, for plans.
    """

    offers: frozenset[str]
    open: str | None = None
    quants: tuple[str, ...] = ("none",)
    libraries: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    libraries_bytes: int = 65_000_000
    first_use_bytes: int = 5_000_000
    pace: Pace = Pace()

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages of others that it needs and that are not installed."""
        names = (name.partition(".")[0] for name in (*self.libraries, *self.beside))
        return tuple(name for name in dict.fromkeys(names) if find_spec(name) is None)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine that runs forward passes, or more.

    Attributes:
      name: what `--runtime` says.
      says: a line for people.
      distributions: packages that are this engine, one of them installed: the last bits of a run
        are theirs.
      beside: other packages whose versions a run keeps.
      exact_repeats: whether the same call gives the same bits; else a run checks it.
      loads: whether it loads code beside NumPy, during which more memory is kept free.
      gains: times as fast as float32 by weights or type, for plans of large models.
      serves: tasks of other packages or ours that it serves, by name.
      doctor: "module:function" that says what is installed, a line each.
    """

    name: str
    says: str
    distributions: tuple[str, ...]
    beside: tuple[str, ...] = ()
    exact_repeats: bool = True
    loads: bool = True
    gains: Mapping[str, float] = field(default_factory=dict)
    serves: Mapping[str, Use] = field(default_factory=dict)
    doctor: str | None = None


def packages() -> list[str]:
    """Return every package whose version a run keeps."""
    names = [
        n for engine in engines.all().values() for n in (*engine.distributions, *engine.beside)
    ]
    return list(dict.fromkeys(names))


engines: Registry[Engine] = Registry("engine", "edge_train.runtimes", "ENGINES", folders=True)
