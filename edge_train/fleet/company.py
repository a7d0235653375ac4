"""The training process of a device: it takes the steps that the fleet agrees on."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Batch
from edge_train.errors import InputError, ModelError, NonFinite
from edge_train.fleet.calls import Calls
from edge_train.fleet.identity import identity_of
from edge_train.fleet.privacy import Ledger, Privacy
from edge_train.fleet.rounds import START, evaluation_after, round_of, slopes_of
from edge_train.fleet.talk import Talk
from edge_train.fleet.wire import Values
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tensor_store import kinds_of, read_tensors, to_safetensors
from edge_train.protocols import Apply, Estimate, Measuring, Objective, Running, StepRecord
from edge_train.rng import Key

IDLE_SECONDS = 600.0
_SKIPPED = "a loss of the step is not finite"
_STATE = "state-*.safetensors"  # what a run went on from when it came late, by the step


class Fleet:
    """The `Company` of a run whose steps are measured by many devices.

    A round that is known already is taken without the model: a device that was away costs what a
    replay costs. A round is measured once, whatever is asked again.

    Args:
      calls: where the server's messages come from.
      privacy: noise on what is sent; None: none.
      idle_seconds: without a message, after which the run is stopped with everything saved.
      say: takes a sentence for people.
      ledger: counts what noise was drawn for twice.
    """

    def __init__(
        self,
        calls: Calls,
        privacy: Privacy | None = None,
        idle_seconds: float = IDLE_SECONDS,
        say: Callable[[str], None] = lambda text: None,
        ledger: Ledger | None = None,
    ) -> None:
        self._privacy, self._say = privacy, say
        self._ledger = ledger or Ledger()
        self._talk = Talk(calls, idle_seconds)
        self._failed: int | None = None  # the step whose evaluation was not finite
        self._run: Running | None = None
        self._landings: frozenset[int] = frozenset()  # steps before which a state was taken

    def start(self, record: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
        """Return the first record with the evaluation and radius that all agree on.

        Raises:
          ModelError: no device's loss is finite.
          InputError: the server refused this device.
        """
        found = {**record, **described(parameters)}
        self._talk.identity = identity_of(found, "slopes")
        check = record.get("slope_check")
        own = (record["eval"], check["epsilon"] if check else 0.0)
        if self._privacy is not None:
            if check:
                raise InputError(
                    "fleet: with clip and noise the recipe names its epsilon; the radius that a "
                    "check finds on private data has no noise."
                )
            own = (self._privacy.loss(own[0]), 0.0)
            self._ledger.count(START, slopes=False)
            self._say(self._promise(self._privacy))
        agreed = self._talk.agreed(START, lambda: own)
        if not isinstance(agreed, tuple) or len(agreed) != len(own):
            raise ModelError("fleet: no device's loss is finite before the first step.")
        found["eval"] = agreed[0]
        if check:
            found["slope_check"] = {**check, "epsilon": agreed[1]}
        return {**found, "fleet": {"tag": self._talk.tag.hex()}}

    def resume(self, record: Mapping[str, Any], run: Running) -> None:
        """Say from the first record of a journal who this is.

        Raises:
          InputError: it is the journal of a run by itself.
        """
        go_on(self._talk, record, run, "slopes")
        self._run = run
        if self._privacy is not None and self._ledger.slopes + self._ledger.losses:
            self._say(self._promise(self._privacy))
        self._talk.give, self._talk.jump = self._state, self._take_state
        names = (path.stem.partition("-")[2] for path in folder_of(run).glob(_STATE))
        self._landings = frozenset(int(name) for name in names if name.isdecimal())

    def redo(self, record: StepRecord, take: Callable[[], None]) -> None:
        """Rebuild a journaled step; first the state from which this run went on, if it did here.

        Raises:
          InputError: the file of that state is missing or damaged.
        """
        if record.step in self._landings:
            self._land(record.step)
        take()

    def _promise(self, privacy: Privacy) -> str:
        """Return what noise promises of the whole run, rounds that were measured again included."""
        about, ledger = self._talk.identity["about"], self._ledger
        evaluations = 1 + -(-about["steps"] // about["evaluate_every"])
        again = ledger.slopes + ledger.losses
        steps = about["steps"] + ledger.slopes
        return privacy.sentence(steps, evaluations + ledger.losses, again)

    def _state(self) -> bytes:
        """Return the parameters and the state of the update rule, as they stand."""
        assert self._run is not None  # who gives it has begun
        return to_safetensors(self._arrays(self._run), {})

    def _arrays(self, run: Running) -> dict[str, np.ndarray]:
        blocks = run.runtime.parameters.stored()
        found = {f"parameters/{name}": block for name, block in blocks.items()}
        for name, parts in run.state.items():
            found |= {f"state/{name}/{part}": value for part, value in parts.items()}
        return found

    def _take_state(self, number: int, content: bytes) -> None:
        """Keep a state that other devices hold, with which a step begins."""
        assert self._run is not None  # nobody jumps over the first round
        step = round_of(number).step
        folder = folder_of(self._run)
        folder.mkdir(exist_ok=True)
        write_bytes(folder / _STATE.replace("*", str(step)), content)
        self._landings |= {step}
        self._say(f"steps before {step} came as a state of {len(content)} bytes")

    def _land(self, step: int) -> None:
        """Go on from a state that was taken.

        Raises:
          InputError: it is missing, damaged, or not one of this run.
        """
        assert self._run is not None
        path = folder_of(self._run) / _STATE.replace("*", str(step))
        own = self._arrays(self._run)
        found, _ = read_tensors(path)
        if kinds_of(found) != kinds_of(own):
            raise InputError(
                f"{path}: the state that the fleet sent has other blocks than this run; give the "
                "device a new folder."
            )
        parameters = self._run.runtime.parameters
        parameters.load({name: found[f"parameters/{name}"] for name in parameters.stored()})
        for name, parts in self._run.state.items():
            for part, value in parts.items():
                np.copyto(value, found[f"state/{name}/{part}"])

    def step(
        self,
        estimator: Any,
        runtime: Any,
        task: Objective,
        batch: Batch,
        key: Key,
        apply: Apply,
    ) -> Estimate:
        """Take the step that all agree on.

        Raises:
          NonFinite: nobody measured anything finite.
          Missed: this device came later.
          InputError: the method's steps cannot be made from scalars.
        """
        if not isinstance(estimator, Measuring):
            raise InputError("a fleet trains by --method zo alone: its steps are a few numbers.")
        forwards, number = 0, slopes_of(key.step)
        if number == self._talk.reached and self._run is not None:
            self._land(key.step)
            self._run.save()  # a step that is not finite goes back to here

        def measure() -> Values:
            nonlocal forwards
            try:
                found = estimator.measure(runtime, task, batch, key)
            except NonFinite:
                return (float("nan"),)
            forwards = found.forwards
            self._ledger.count(number, slopes=True)
            if self._privacy is None:
                return (found.loss, *found.scalars)
            return (self._privacy.loss(found.loss), *self._privacy.slopes(found.scalars))

        agreed = self._talk.agreed(number, measure)
        if not isinstance(agreed, tuple) or not agreed:
            raise NonFinite(_SKIPPED)
        loss, *scalars = agreed
        estimator.replay(scalars, runtime.parameters, key, apply)
        return Estimate(loss, tuple(scalars), forwards)

    def evaluation(self, step: int, measure: Callable[[], float]) -> float:
        """Return the evaluation that all agree on.

        Raises:
          NonFinite: nobody's is finite.
        """
        number = evaluation_after(step, again=self._failed == step)

        def own() -> Values:
            loss = measure()
            self._ledger.count(number, slopes=False)
            return (loss if self._privacy is None else self._privacy.loss(loss),)

        agreed = self._talk.agreed(number, own)
        if not isinstance(agreed, tuple) or not agreed:
            self._failed = step
            raise NonFinite("the evaluation loss is not finite")
        return agreed[0]


def described(parameters: Parameters) -> dict[str, Any]:
    """Return what the first record of a device says of where it begins."""
    digest, size = hashlib.sha256(), 0
    for name, block in sorted(parameters.stored().items()):
        digest.update(f"{name} {block.dtype} {block.shape}".encode())
        digest.update(np.ascontiguousarray(block).data)
        size += block.nbytes
    return {"start_sha256": digest.hexdigest(), "state_bytes": 3 * size}  # with two moments


def go_on(talk: Talk, record: Mapping[str, Any], run: Running, exchange: str) -> None:
    """Say from the first record of a journal who this is.

    Raises:
      InputError: it is the journal of a run by itself.
    """
    if "fleet" not in record:
        raise InputError("this run trained by itself; a device of a fleet begins with a new one.")
    talk.tag = bytes.fromhex(str(record["fleet"]["tag"]))
    talk.identity = identity_of(record, exchange)
    talk.stopping = lambda: run.stop_requested


def folder_of(run: Running) -> Path:
    """Return where a run keeps what it heard of a fleet."""
    return run.checkpoints.parent / "fleet"
