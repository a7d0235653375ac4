"""What a device hears and answers: it waits for each round until that is agreed on."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_train.errors import InputError, Missed, TrainingStopped
from edge_train.fleet.calls import Call, Calls
from edge_train.fleet.wire import (
    ASK,
    DONE,
    END,
    GIVE,
    HELLO,
    IDENTITY,
    JUMP,
    MEASURED,
    NEED,
    REFUSED,
    STATE,
    STOPPED,
    TAG_BYTES,
    WEIGHTS,
    Agreed,
    Answer,
    Values,
)

NO_TAG = bytes(TAG_BYTES)
_LOOK_SECONDS = 0.5  # between two looks at whether the run is to stop


class Talk:
    """A device's side of all messages. A round is measured once, whatever is asked again.

    Attributes:
      known: what was agreed on in rounds that this device has not reached.
      identity: what it says of itself.
      tag: of the fleet; zeros before there is one.
      stopping: whether the run is to stop.
      give: returns all that the run holds, for a device that comes late.
      jump: takes the state with which a round begins, and the round.
      reached: the first round that a jump does not pass over.
    """

    def __init__(self, calls: Calls, idle_seconds: float) -> None:
        self._calls, self._idle = calls, idle_seconds
        self.known: dict[int, Agreed] = {}
        self.tag, self.reached = NO_TAG, 0
        self.identity: Mapping[str, Any] = {}
        self.stopping: Callable[[], bool] = lambda: False
        self.give: Callable[[], bytes] = lambda: b""
        self.jump: Callable[[int, bytes], None] = lambda number, state: None
        self._waiting: Call | None = None  # for its answer
        self._own: tuple[int, Values | bytes] | None = None  # what was measured last

    def agreed(self, number: int, measure: Callable[[], Values | bytes]) -> Agreed:
        """Return what all agree on in a round: measure when asked, wait until it is known.

        Raises:
          Missed: the fleet is past it, and this device is not told about it.
          TrainingStopped: the run is to stop, or nothing was heard for long.
          InputError: the server refused this device.
        """
        while number not in self.known:
            if number < self.reached:
                raise Missed
            call = self._waiting or self._heard(number)
            self._waiting = None
            asked = call.asked
            assert asked is not None  # `_heard` answers what cannot be read
            self.known |= {n: v for n, v in asked.entries.items() if n >= number}
            if asked.kind == JUMP:
                if asked.open > number:
                    self.jump(asked.open, asked.state)
                    self.reached = asked.open
                self._answer(call, NEED, self.reached if asked.open > number else number)
            elif number in self.known:
                self._waiting = call  # to be answered further on
            elif asked.open != number:
                self._answer(call, NEED, number)
            elif asked.kind == GIVE:
                call.answer(Answer(STATE, self.tag, number, content=self.give()).encode())
            else:
                if self._own is None or self._own[0] != number:
                    self._own = number, measure()
                self._answer(call, MEASURED, number, self._own[1])
        if self._waiting is not None and self._waiting.asked and self._waiting.asked.kind == END:
            self._answer(self._waiting, DONE, number)
            self._waiting = None
        return self.known.pop(number)

    def _heard(self, number: int) -> Call:
        """Return the next message that has numbers; answer all others."""
        began = time.monotonic()
        while True:
            call = self._calls.next(_LOOK_SECONDS)
            if self.stopping():
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
            elif self.tag != NO_TAG and asked.tag not in (self.tag, NO_TAG):
                text = "this device's run belongs to another fleet; give it a new folder"
                self._answer(call, STOPPED, number, text=text)
            elif asked.kind == HELLO:
                self._answer(call, IDENTITY, number, text=json.dumps(self.identity))
            elif asked.kind in (ASK, END, JUMP, GIVE):
                self.tag = asked.tag
                return call

    def _answer(
        self, call: Call, kind: int, number: int, values: Values | bytes = (), text: str = ""
    ) -> None:
        if isinstance(values, bytes):
            call.answer(Answer(WEIGHTS, self.tag, number, content=values).encode())
        else:
            call.answer(Answer(kind, self.tag, number, values, text).encode())
