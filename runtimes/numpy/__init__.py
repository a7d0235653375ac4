"""NumPy as an engine: small networks, and adapters of language models, a block at a time."""

from edge_train.runtimes.engine import Engine

ENGINES = (
    Engine(
        name="numpy",
        says="NumPy; small networks, and adapters of language models",
        distributions=("numpy",),
        loads=False,
    ),
)
