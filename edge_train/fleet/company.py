"""The training process of a device: it takes the steps that the fleet agrees on."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Batch
from edge_train.errors import InputError, ModelError, NonFinite, TrainingStopped
from edge_train.fleet.averaging import weight_of
from edge_train.fleet.calls import Call, Calls
from edge_train.fleet.privacy import Privacy
from edge_train.fleet.rounds import START, evaluation_after, slopes_of
from edge_train.fleet.wire import (
    ASK,
    DONE,
    END,
    HELLO,
    IDENTITY,
    MEASURED,
    NEED,
    REFUSED,
    STOPPED,
    TAG_BYTES,
    Answer,
    Values,
)
from edge_train.protocols import Apply, Estimate, Measuring, Objective
from edge_train.rng import Key

IDLE_SECONDS = 600.0
_NO_TAG = bytes(TAG_BYTES)
_LOOK_SECONDS = 0.5  # between two looks at whether the run is to stop
_SKIPPED = "a loss of the step is not finite"
# Keys of a recipe in which devices may differ: where things lie, and what computes no number.
PRIVATE = (
    *("data", "photos", "out", "model", "start", "caption", "captions"),
    *("threads", "batch_limit", "lean", "preview_every"),
    *("cap_bytes", "host_cap_bytes", "device", "when"),
)


class Fleet:
    """The `Company` of a run whose steps are measured by many devices.

    A round that is known already is taken without the model: a device that was away costs what a
    replay costs. A round is measured once, whatever is asked again.

    Args:
      calls: where the server's messages come from.
      privacy: noise on what is sent; None: none.
      idle_seconds: without a message, after which the run is stopped with everything saved.
      say: takes a sentence for people.
    """

    def __init__(
        self,
        calls: Calls,
        privacy: Privacy | None = None,
        idle_seconds: float = IDLE_SECONDS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._calls, self._privacy, self._idle, self._say = calls, privacy, idle_seconds, say
        self._known: dict[int, Values | None] = {}
        self._waiting: Call | None = None  # for its answer
        self._own: tuple[int, Values] | None = None  # what was measured last
        self._tag = _NO_TAG
        self._identity: dict[str, Any] = {}
        self._failed: int | None = None  # the step whose evaluation was not finite
        self._stopping: Callable[[], bool] = lambda: False

    def start(self, record: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
        """Return the first record with the evaluation and radius that all agree on.

        Raises:
          ModelError: no device's loss is finite.
          InputError: the server refused this device.
        """
        digest = hashlib.sha256()
        for name, block in sorted(parameters.stored().items()):
            digest.update(f"{name} {block.dtype} {block.shape}".encode())
            digest.update(np.ascontiguousarray(block).data)
        found = {**record, "start_sha256": digest.hexdigest()}
        self._identity = identity_of(found)
        check = record.get("slope_check")
        own = (record["eval"], check["epsilon"] if check else 0.0)
        if self._privacy is not None:
            if check:
                raise InputError(
                    "fleet: with clip and noise the recipe names its epsilon; the radius that a "
                    "check finds on private data has no noise."
                )
            own = (self._privacy.loss(own[0]), 0.0)
            about = self._identity["about"]
            evaluations = 1 + -(-about["steps"] // about["evaluate_every"])
            self._say(self._privacy.sentence(about["steps"], evaluations))
        agreed = self._agreed(START, lambda: own)
        if agreed is None or len(agreed) != len(own):
            raise ModelError("fleet: no device's loss is finite before the first step.")
        found["eval"] = agreed[0]
        if check:
            found["slope_check"] = {**check, "epsilon": agreed[1]}
        return {**found, "fleet": {"tag": self._tag.hex()}}

    def resume(self, record: Mapping[str, Any], stopping: Callable[[], bool]) -> None:
        """Say from the first record of a journal who this is.

        Raises:
          InputError: it is the journal of a run by itself.
        """
        if "fleet" not in record:
            raise InputError(
                "this run trained by itself; a device of a fleet begins with a new one."
            )
        self._tag = bytes.fromhex(str(record["fleet"]["tag"]))
        self._identity, self._stopping = identity_of(record), stopping

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
          InputError: the method's steps cannot be made from scalars.
        """
        if not isinstance(estimator, Measuring):
            raise InputError("a fleet trains by --method zo alone: its steps are a few numbers.")
        forwards = 0

        def measure() -> Values:
            nonlocal forwards
            try:
                found = estimator.measure(runtime, task, batch, key)
            except NonFinite:
                return (float("nan"),)
            forwards = found.forwards
            if self._privacy is None:
                return (found.loss, *found.scalars)
            return (self._privacy.loss(found.loss), *self._privacy.slopes(found.scalars))

        agreed = self._agreed(slopes_of(key.step), measure)
        if not agreed:
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
            return (loss if self._privacy is None else self._privacy.loss(loss),)

        agreed = self._agreed(number, own)
        if not agreed:
            self._failed = step
            raise NonFinite("the evaluation loss is not finite")
        return agreed[0]

    def _agreed(self, number: int, measure: Callable[[], Values]) -> Values | None:
        """Return what all agree on in a round: measure when asked, wait until it is known.

        Raises:
          TrainingStopped: the run is to stop, or nothing was heard for long.
        """
        while number not in self._known:
            call = self._waiting or self._heard(number)
            self._waiting = None
            asked = call.asked
            assert asked is not None  # `_heard` answers what cannot be read
            self._known |= {n: v for n, v in asked.entries.items() if n >= number}
            if number in self._known:
                self._waiting = call  # to be answered further on
            elif asked.open != number:
                self._answer(call, NEED, number)
            else:
                if self._own is None or self._own[0] != number:
                    self._own = number, measure()
                self._answer(call, MEASURED, number, self._own[1])
        if self._waiting is not None and self._waiting.asked and self._waiting.asked.kind == END:
            self._answer(self._waiting, DONE, number)
            self._waiting = None
        return self._known.pop(number)

    def _heard(self, number: int) -> Call:
        """Return the next message that has numbers; answer all others."""
        began = time.monotonic()
        while True:
            call = self._calls.next(_LOOK_SECONDS)
            if self._stopping():
                raise TrainingStopped("it was told to stop.")
            if call is None:
                if time.monotonic() - began > self._idle:
                    raise TrainingStopped(
                        f"nothing was heard of the fleet for {self._idle:g} s; the device goes on "
                        "by itself when it is asked again."
                    )
                continue
            asked = call.asked
            if asked is None:
                self._answer(call, STOPPED, number, text=call.wrong)
            elif asked.kind == REFUSED:
                self._answer(call, DONE, number)
                raise InputError(f"the fleet's server refused this device: {asked.text}")
            elif self._tag != _NO_TAG and asked.tag not in (self._tag, _NO_TAG):
                text = "this device's run belongs to another fleet; give it a new folder"
                self._answer(call, STOPPED, number, text=text)
            elif asked.kind == HELLO:
                self._answer(call, IDENTITY, number, text=json.dumps(self._identity))
            elif asked.kind in (ASK, END):
                self._tag = asked.tag
                return call

    def _answer(
        self, call: Call, kind: int, number: int, values: Values = (), text: str = ""
    ) -> None:
        call.answer(Answer(kind, self._tag, number, values, text).encode())


def identity_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a device says of itself: in `must` it is like all others, `about` is its own.

    Args:
      record: the first of its journal.
    """
    facts, recipe = record["facts"], record["recipe"]["values"]
    shared = {name: value for name, value in recipe.items() if name not in PRIVATE}
    text = json.dumps(shared, sort_keys=True, separators=(",", ":"))
    return {
        "must": {
            "edge-train": facts["versions"]["edge-train"],
            "rules": record["rules"],
            "recipe": hashlib.sha256(text.encode()).hexdigest(),
            "model_sha256": facts["model_sha256"],
            "runtime": facts["runtime"],
            "dtype": facts["dtype"],
            "quant": facts["quant"],
            "start_sha256": record["start_sha256"],
        },
        "about": {
            "task": facts["task"],
            "method": facts["method"],
            "seed": facts["seed"],
            "steps": recipe["steps"],
            "evaluate_every": recipe["evaluate_every"],
            "patience": recipe.get("patience") or 0,
            "best_margin": record.get("best_margin", 0.0),
            "weight": weight_of(record.get("slope_check")),
            "device": facts["device"],
            "versions": facts["versions"],
        },
    }
