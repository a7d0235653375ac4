"""NumPy as an engine: small networks, a block at a time."""

from edge_train.runtimes.engine import Engine

ENGINES = (
    Engine(
        name="numpy",
        says="NumPy; small networks",
        distributions=("numpy",),
        loads=False,
    ),
)
