"""What a run on an artifact holds before its first graph is opened: interpreter, engine, photos."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.memory.fresh import fresh
from edge_train.run.scratch import BENCH, scratch

# The whole command, up to the moment when the engine would read the first graph.
_SCRIPT = """
from edge_train import cli
from edge_train.run import observer, session
from edge_train.memory.measure import measure
from edge_train.runtimes.onnx import diffusion, vae
from edge_train.runtimes.onnx.engine import load_engine

def stop(*_, **__):
    heavy = {"torch", "onnx", "diffusers", "transformers"} & set(sys.modules)
    print(measure().resident_bytes, *sorted(heavy))
    sys.exit(0)

load_engine().InferenceSession = stop
print(measure().resident_bytes)
cli.main(["run", "--model", sys.argv[1], "--out", sys.argv[2]])
"""


@dataclass(frozen=True)
class BeforeModel:
    """Resident bytes of a fresh process.

    Attributes:
      imported_bytes: with the engine and every module of a run imported, nothing read yet.
      ready_bytes: with artifact, tokenizer and the embedded photos checked, before any graph.
      heavy: packages that should not be there: torch and its kin.
    """

    imported_bytes: int
    ready_bytes: int
    heavy: tuple[str, ...]


def before_model(artifact: Path) -> BeforeModel:
    """Return what a run on an artifact holds before its weights come.

    Raises:
      ModelError: the run did not come as far as its first graph.
    """
    with scratch(prefix=BENCH) as folder:
        done = subprocess.run(
            [sys.executable, *fresh(_SCRIPT), str(artifact), str(folder / "run")],
            capture_output=True,
            text=True,
            check=False,
        )
    words = done.stdout.split()
    if len(words) < 2:
        raise ModelError(f"{artifact}: no graph was opened ({done.stderr.strip()}).")
    return BeforeModel(int(words[0]), int(words[1]), tuple(words[2:]))
