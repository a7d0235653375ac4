"""An engine for a task of edge-train: its own, with a note of every open."""

from edge_train.methods.method import BLOCKS, GRADIENT
from edge_train.runtimes.engine import Engine, Use


def open_network(*arguments, **options):
    from edge_train.runtimes.numpy.network import NumpyNetwork

    class Slow(NumpyNetwork):
        device = "abacus"

    return Slow(*arguments, **options)


ENGINE = Engine(
    name="slow-numpy",
    says="NumPy, but slower",
    distributions=("numpy",),
    loads=False,
    serves={
        "network": Use(
            offers=frozenset({GRADIENT, BLOCKS}),
            open="edge_toys.engine:open_network",
            libraries=("edge_train.runtimes.numpy.network",),
        )
    },
)
