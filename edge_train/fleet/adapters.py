"""A device that takes steps by itself and sends what they changed: `exchange = "adapters"`.

A round is all steps up to an evaluation. Then the change of every trained weight since the round
began goes out in INT8 (`fleet.int8`), the mean of all devices comes back, and all go on from the
same weights: where they began plus the sum of all means, added in float32 in their order. Moments
of the update rule stay on the device. Source: FedAvg (arXiv:1602.05629); ours sends INT8, and
keeps moments.
"""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch
from edge_train.errors import (
    InputError,
    Missed,
    ModelError,
    NonFinite,
    RunFolderError,
    TrainingStopped,
)
from edge_train.fleet.calls import Calls
from edge_train.fleet.company import IDLE_SECONDS, described, folder_of, go_on
from edge_train.fleet.identity import identity_of
from edge_train.fleet.int8 import from_whole, pack, rows_of, unpack
from edge_train.fleet.rounds import START, evaluation_after, round_of, slopes_of
from edge_train.fleet.talk import Talk
from edge_train.fleet.wire import Values
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tensor_store import StoredTensors, save_tensors
from edge_train.protocols import Apply, Estimate, Objective, Running, StepRecord
from edge_train.rng import Key


class Local:
    """The `Company` of a run that trains by itself between two rounds of a fleet.

    Memory: the sum of all means in float32, 4 bytes a trained weight, and while a round is sent
    1 byte more.

    Args:
      calls: where the server's messages come from.
      idle_seconds: without a message, after which the run is stopped with everything saved.
    """

    def __init__(self, calls: Calls, idle_seconds: float = IDLE_SECONDS) -> None:
        self._talk = Talk(calls, idle_seconds)
        self._every = self._steps = 1
        self._weights: Weights | None = None
        self._parameters: Parameters | None = None
        self._active: int | None = None  # the round in which this device takes steps
        self._losses: list[float] = []  # of its steps
        self._redoing = False

    def start(self, record: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
        """Return the first record with the evaluation that all agree on.

        Raises:
          ModelError: no device's loss is finite.
          InputError: the trained weights are in few bits, or the server refused this device.
        """
        for name, block in parameters.stored().items():
            if block.dtype != np.float32:
                raise InputError(
                    f"fleet: block {name!r} is trained in {block.dtype}; with adapters the trained "
                    "weights are in float32: train low-rank adapters, or --quant none."
                )
        found = {**record, **described(parameters)}
        self._talk.identity = identity_of(found, "adapters")
        own = (record["eval"], 0.0)
        agreed = self._talk.agreed(START, lambda: own)
        if not isinstance(agreed, tuple) or len(agreed) != len(own):
            raise ModelError("fleet: no device's loss is finite before the first step.")
        return {**found, "eval": agreed[0], "fleet": {"tag": self._talk.tag.hex()}}

    def resume(self, record: Mapping[str, Any], run: Running) -> None:
        """Say from the first record of a journal who this is; keep where the weights began.

        Raises:
          InputError: it is the journal of a run by itself.
        """
        go_on(self._talk, record, run, "adapters")
        values = record["recipe"]["values"]
        self._every, self._steps = int(values["evaluate_every"]), int(values["steps"])
        self._parameters = run.runtime.parameters
        self._weights = Weights(folder_of(run), run.runtime.parameters)
        self._talk.jump = self._weights.jump

    def redo(self, record: StepRecord, take: Callable[[], None]) -> None:
        """Rebuild a journaled step, and the weights that were agreed on after it.

        Raises:
          RunFolderError: a file of them is missing or damaged.
        """
        self._redoing = True
        try:
            take()
        finally:
            self._redoing = False
        if record.eval is not None:
            self._go_to(self._round(record.step))

    def step(
        self, estimator: Any, runtime: Any, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Take a step alone.

        Raises:
          NonFinite: as of `Estimator.estimate`; then this device skips it.
          Missed: the fleet is past this round.
        """
        number = self._round(key.step)
        if not self._redoing and self._active != number and self._is_past(number):
            raise Missed
        if self._active != number:
            self._active, self._losses = number, []
        found: Estimate = estimator.estimate(runtime, task, batch, key, apply)
        self._losses.append(found.loss)
        return found

    def evaluation(self, step: int, measure: Callable[[], float]) -> float:
        """Send what the steps of a round changed, go on from the mean; return its evaluation.

        Raises:
          Missed: the fleet is past this round, and its mean is not sent any more.
          TrainingStopped: the mean's loss is finite on no device.
        """
        number = self._round(step)
        if self._talk.reached != evaluation_after(number):
            agreed = self._talk.agreed(slopes_of(number), lambda: self._changed(number))
            if not isinstance(agreed, bytes):
                raise TrainingStopped("the fleet: no device's weights are finite.")
            self._kept.take(number, agreed)
        self._go_to(number)

        def own() -> Values:
            try:
                return (measure(),)
            except NonFinite:
                return (float("nan"),)

        found = self._talk.agreed(evaluation_after(number), own)
        if not isinstance(found, tuple) or not found:
            raise TrainingStopped(
                "the fleet: the loss of the mean of all weights is not finite. Try a smaller "
                "learning_rate."
            )
        return found[0]

    @property
    def _kept(self) -> "Weights":
        assert self._weights is not None  # `resume` comes first
        return self._weights

    def _round(self, step: int) -> int:
        return step // self._every

    def _is_past(self, number: int) -> bool:
        return slopes_of(number) in self._talk.known or slopes_of(number) < self._talk.reached

    def _go_to(self, number: int) -> None:
        assert self._parameters is not None
        self._parameters.load(self._kept.after(number))

    def _changed(self, number: int) -> bytes:
        """Return by how much the steps of a round changed the weights.

        Where a change is no number, the message's loss is none, and the server leaves it out.
        """
        assert self._parameters is not None
        before = self._kept.after(number - 1)
        loss = statistics.fmean(self._losses) if self._losses else float("nan")
        changes = (
            (self._parameters[name] - before[name]).reshape(rows_of(before[name].shape))
            for name in sorted(before)
        )
        try:
            return pack(changes, loss)
        except ValueError:
            shapes = [rows_of(block.shape) for _, block in sorted(before.items())]
            return pack([np.zeros(shape, np.float32) for shape in shapes], float("nan"))


class Weights:
    """The weights that a fleet agreed on after each round, from files of a run's folder.

    `start.safetensors`: where they began; `N.int8`: the mean of round N; `N.sum`: the sum of all
    means up to it, in float32, where that came in place of them.
    """

    def __init__(self, folder: Path, parameters: Parameters) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        path = folder / "start.safetensors"
        if not path.exists():  # before the first step the parameters are where they began
            save_tensors(path, parameters.stored(), {})
        self._start: Mapping[str, Array] = StoredTensors(path)
        self._shapes = {name: block.shape for name, block in parameters.stored().items()}
        self._sum: dict[str, NDArray[np.float32]] = {}
        self._at = -1
        self._forget()

    def _forget(self) -> None:
        self._sum = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}
        self._at = -1

    def take(self, number: int, content: bytes) -> None:
        """Keep the mean of a round."""
        write_bytes(self._path(number, "int8"), content)

    def jump(self, number: int, content: bytes) -> None:
        """Keep the sum of all means up to a round."""
        write_bytes(self._path(round_of(number).step, "sum"), content)

    def after(self, number: int) -> dict[str, NDArray[np.float32]]:
        """Return the weights after a round, in fresh arrays.

        Raises:
          RunFolderError: a file is missing or is not one of these.
        """
        if number < self._at:
            self._forget()
        sums = [n for n in range(number, self._at, -1) if self._path(n, "sum").exists()]
        if sums:
            content = self._read(sums[0], "sum")
            try:
                whole = from_whole(content, self._shapes)
            except ValueError as error:
                raise RunFolderError(f"{self._path(sums[0], 'sum')}: {error}.") from error
            self._sum = {name: block.copy() for name, block in whole.items()}
            self._at = sums[0]
        for one in range(self._at + 1, number + 1):
            try:
                mean = unpack(self._read(one, "int8"))
                for name, block in zip(sorted(self._shapes), mean, strict=True):
                    self._sum[name] += block.reshape(self._shapes[name])
            except ValueError as error:
                raise RunFolderError(f"{self._path(one, 'int8')}: {error}.") from error
            self._at = one
        return {name: self._start[name] + self._sum[name] for name in self._shapes}

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number}.{kind}"

    def _read(self, number: int, kind: str) -> bytes:
        path = self._path(number, kind)
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunFolderError(
                f"{path}: what the fleet agreed on cannot be read ({error.strerror}); give the "
                "device a new folder."
            ) from error
