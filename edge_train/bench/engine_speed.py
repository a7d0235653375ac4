"""`edge-train bench engine-speed`: a whole zo step on `int8-fast` against torch float32, in turns.

Every contestant is a process of its own that holds its model and takes one step when it is told,
one after another, so that what else a machine does meets all of them. Where that is much, the clock
tells of waiting; the processor time of one thread says what a step costs. A second engine version
is that of the interpreter that `--python` names. Without `--model` the model is Stable Diffusion
1.5 of random weights, as `bench engine` makes and exports it.

As a program, `python -m edge_train.bench.engine_speed MODEL` is such a process.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.engine import export, make_step
from edge_train.errors import TrainingStopped
from edge_train.formats.artifact import is_artifact
from edge_train.memory import processor
from edge_train.memory.fresh import command as command_of
from edge_train.memory.fresh import module

_REPEATS = 3  # for one seed
_QUERIES = 4  # of both: five forwards a step
_HEAD = (
    "whole zo step, 5 forwards, one thread",
    "times as fast as torch float32",
    "seconds",
    "times as fast by processor time",
    "processor seconds",
)


def main(out: Path, seeds: int, python: str = sys.executable, model: Path | None = None) -> str:
    """Export what is missing, take steps in turn; return a Markdown table.

    Args:
      seeds: threefold the steps that each takes.
      python: interpreter of the second engine.
      model: what is exported and trained, such as `tiny-sd`.
    """
    if model is None:
        export(out, "int8-fast")
        source, artifact = out / "sd15-random", out / "sd15-int8-fast"
    else:
        source, artifact = model, out / f"speed-{model.name}"
        if not is_artifact(artifact):
            _export(source, artifact)
    interpreters = list(dict.fromkeys((sys.executable, python)))
    contestants = [_Contestant(sys.executable, source)]
    contestants += [_Contestant(interpreter, artifact) for interpreter in interpreters]
    times: list[list[tuple[float, float]]] = [[] for _ in contestants]
    for _ in range(_REPEATS * seeds):
        for own, contestant in zip(times, contestants, strict=True):
            own.append(contestant.step())
    for contestant in contestants:
        contestant.close()
    medians = [[statistics.median(kind) for kind in zip(*own, strict=True)] for own in times]
    rows = [
        [
            contestant.name,
            *(cell for pair in zip(medians[0], own, strict=True) for cell in _cells(*pair)),
        ]
        for contestant, own in zip(contestants, medians, strict=True)
    ]
    return "\n\n".join((f"{processor_words()}. {source}:", bench.table(_HEAD, rows)))


def _cells(torch: float, own: float) -> tuple[str, str]:
    """Return how many times as fast as torch, and the seconds."""
    return f"{torch / own:.2f}", f"{own:.3g}"


def _export(model: Path, artifact: Path) -> None:
    words = ["export", str(model), str(artifact), "--quant", "int8-fast", "--threads", "1"]
    done = subprocess.run(command_of(words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")


def processor_words() -> str:
    """Return the processor's name, and whether it adds products of bytes in 32 bits (VNNI)."""
    if not processor.flags():
        return f"{processor.name()}, nothing more is known of it"
    found = sorted(flag for flag in processor.flags() if "vnni" in flag)
    return f"{processor.name()}, {'with ' + ', '.join(found) if found else 'without VNNI'}"


class _Contestant:
    """A process that takes a step when it is told.

    Attributes:
      name: engine and version.
    """

    def __init__(self, python: str, model: Path) -> None:
        self._process = subprocess.Popen(
            module("edge_train.bench.engine_speed", [str(model)], python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = self._line()

    def step(self) -> tuple[float, float]:
        """Return the seconds of one step, by the clock and of the processor."""
        if self._process.stdin is not None:
            print("step", file=self._process.stdin, flush=True)
        clock, processor = self._line().split()
        return float(clock), float(processor)

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()

    def _line(self) -> str:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise TrainingStopped(f"{self._process.args!r} ended with {self._process.wait()}.")
        return line.strip()


def serve(model: str) -> None:
    """Take a step for every line that arrives; print its seconds, and those of the processor."""
    keys: dict[str, Any] = {"queries": _QUERIES, "samples": 1, "device": "cpu", "method": "zo"}
    if is_artifact(Path(model)):
        from edge_train.runtimes.onnx.engine import load_engine

        name = f"onnx int8-fast, ONNX Runtime {load_engine().__version__}"
    else:
        import torch

        torch.set_num_threads(1)
        keys |= {"runtime": "torch", "dtype": "float32", "quant": "none"}
        name = f"torch {torch.__version__} float32"
    step = make_step(Path(model), False, **keys)
    step.take(0)
    print(name, flush=True)
    for number, _ in enumerate(sys.stdin, 1):
        start, busy = time.perf_counter(), time.process_time()
        step.take(number)
        print(time.perf_counter() - start, time.process_time() - busy, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
