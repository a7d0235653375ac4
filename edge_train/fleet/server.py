"""The server of a fleet: which round is open, what devices are asked, whose numbers count.

It knows neither the model nor Flower: messages go out and answers come in as bytes (`turns`). A
device that is late, gone, killed or lying changes who is averaged, and nothing else.
"""

import secrets
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from edge_train.errors import TrainingStopped
from edge_train.fleet.averaging import Average, MeanOfWeights
from edge_train.fleet.book import Book
from edge_train.fleet.int8 import layout_of, pack, unpack
from edge_train.fleet.late import Late
from edge_train.fleet.members import Device, Members, plain, ranges, words_of
from edge_train.fleet.rounds import NONE, START, evaluation_after, round_of, slopes_of
from edge_train.fleet.wire import (
    DONE,
    GIVE,
    HELLO,
    IDENTITY,
    MEASURED,
    NEED,
    REFUSED,
    STATE,
    STOPPED,
    TAG_BYTES,
    WEIGHTS,
    Answer,
    Asked,
    Values,
    read_answer,
)
from edge_train.loop import settled

_BAD_STEPS = 5  # in a row, after which every device stops by itself (`loop.py`)
Answered = Values | bytes


class Server:
    """Rounds of a fleet, from its journal on.

    Args:
      folder: of the journal.
      average: how the numbers of devices become one of each.
      quorum: how many devices make a round.
      say: takes a sentence for people.
      mixed: devices of other engines and quantisations take part; their models are not compared.
      exchange: "slopes" or "adapters".
      weights: how the weights of devices become one of each; None: as `average` says.
    """

    def __init__(
        self,
        folder: Path,
        average: Average,
        quorum: int,
        say: Callable[[str], None],
        *,
        mixed: bool = False,
        exchange: str = "slopes",
        weights: MeanOfWeights | None = None,
    ) -> None:
        self._average, self._quorum, self._say = average, quorum, say
        self._exchange, self._weights = exchange, weights or average.of_weights
        self.book = Book(folder, say)
        self.bytes_up = self.bytes_down = 0
        start = self.book.start
        self._tag = (
            bytes.fromhex(start["fleet"]["tag"]) if start else secrets.token_bytes(TAG_BYTES)
        )
        self._members = Members(start["fleet"] if start else None, mixed, self._tell)
        self.devices = self._members.devices
        self._late = Late(self.book, self._tag)
        self._said: set[str] = set()
        self._bad = 0
        self.open = self._first_open()
        self._answers: dict[int, Answered] = {}
        self._left: dict[int, str] = {}  # device -> why it is not averaged in this round

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.open == NONE

    def _tell(self, text: str) -> None:
        self.book.said(text)
        self._say(text)

    @property
    def _takes_weights(self) -> bool:
        """Whether weights are wanted in the open round."""
        return self._exchange == "adapters" and round_of(self.open).what == "slopes"

    def messages(self, nodes: list[int]) -> dict[int, bytes]:
        """Return what to send to each device."""
        found: dict[int, bytes] = {}
        made: dict[int, bytes] = {}  # by what a device knows: most know the same
        for node in nodes:
            device = self._members.device(node)
            if device.status == "new":
                tag = self._tag if self.book.start else bytes(TAG_BYTES)
                found[node] = Asked(HELLO, tag, self.open).encode()
            elif device.status == "refusing":
                found[node] = Asked(REFUSED, self._tag, self.open, text=device.why).encode()
                device.status = "refused"
            elif device.status == "in":
                if device.known not in made:
                    made[device.known] = self._asked(device.known)
                found[node] = made[device.known]
        for node in self._givers(found):
            asked = self._late.asked(self.devices[node].known, self.open, False, _NOTHING)
            found[node] = replace(asked, kind=GIVE).encode()
        self.bytes_down += sum(map(len, found.values()))
        return found

    def _givers(self, found: Mapping[int, bytes]) -> list[int]:
        """Return who is asked for its state: only at the beginning of a step is it the same."""
        if self.is_over or self.open == START or round_of(self.open).what != "slopes":
            return []
        last = next(reversed(self.book.entries))
        here = [
            n for n in found if self.devices[n].status == "in" and self.devices[n].known >= last
        ]
        return self._late.chosen(here)

    def _asked(self, known: int) -> bytes:
        about = self._reference["about"] if self._members.reference else _NOTHING
        return self._late.asked(known, self.open, self.is_over, about).encode()

    @property
    def _reference(self) -> Mapping[str, Any]:
        assert self._members.reference is not None  # nothing is agreed on before
        return self._members.reference

    def take(self, node: int, content: bytes) -> None:
        """Count an answer; whatever is wrong with it is kept as the reason why it is left out."""
        device = self._members.device(node)
        self.bytes_up += len(content)
        try:
            answer = read_answer(content)
        except ValueError as error:
            self._leave(node, f"an answer that cannot be read ({error})")
            return
        if answer.kind == IDENTITY:
            self._members.introduced(device, answer)
        elif answer.kind == STOPPED:
            self._leave(node, plain(answer.text))
        elif answer.tag != self._tag:
            self._leave(node, "an answer of another fleet")
        elif answer.kind == NEED:
            self._needs(node, device, answer.number)
        elif answer.kind == DONE:
            device.known = NONE
        elif answer.kind == STATE:
            if answer.number == self.open and device.status == "in":
                self._late.given(node, answer.content)
            self._leave(node, "it gives its state")
        elif answer.kind in (MEASURED, WEIGHTS):
            self._measured(node, device, answer)

    def _needs(self, node: int, device: Device, number: int) -> None:
        if number > self.open:
            device.status = "refusing"
            device.why = (
                f"it has taken step {round_of(number).step}, the server's journal ends at step "
                f"{round_of(self.open).step}: that was cut or edited. Put the whole journal back, "
                "or give the device a new folder"
            )
            self._say(f"device {device.number} is refused: {device.why}")
        device.known = number
        self._leave(node, "it catches up")

    def _measured(self, node: int, device: Device, answer: Answer) -> None:
        if answer.number != self.open or device.status != "in":
            self._leave(node, "an old message, of a round that is over")
            return
        device.known = max(device.known, answer.number)
        if node in self._answers or node in self._left:
            return  # it answered twice; the first answer counts
        if (answer.kind == WEIGHTS) != self._takes_weights:
            self._leave(node, "numbers where weights are asked for, or weights for numbers")
        elif answer.kind == WEIGHTS:
            self._weighed(node, answer.content)
        elif not answer.values or not all(map(isfinite, answer.values)):
            self._leave(node, _NO_NUMBER)
        else:
            self._answers[node] = answer.values

    def _weighed(self, node: int, content: bytes) -> None:
        try:
            _, loss = layout_of(content)
            if isfinite(loss):
                unpack(content)
                self._answers[node] = content
            else:
                self._leave(node, _NO_NUMBER)
        except ValueError as error:
            self._leave(node, f"weights that cannot be read ({error})")

    def _leave(self, node: int, why: str) -> None:
        self._left.setdefault(node, why)

    def close(self) -> bool:
        """Agree on the open round if enough devices answered; return whether that was so."""
        if said := self._late.close(self.open, self._quorum):
            self._tell(said)
        if self._members.reference is None:  # devices may come one by one before there is a quorum
            self._members.choose(self._quorum)
            self._answers.clear()
            self._left.clear()
            return False
        kinds = Counter(map(_kind, self._answers.values()))
        if len(kinds) > 1:
            usual = kinds.most_common(1)[0][0]
            for node in [n for n, v in self._answers.items() if _kind(v) != usual]:
                self._leave(
                    node, f"{_said(_kind(self._answers.pop(node)))}, others: {_said(usual)}"
                )
        broken = [node for node, why in self._left.items() if why == _NO_NUMBER]
        if len(self._answers) + len(broken) < self._quorum:
            for node, why in self._left.items():
                self._say_once(f"device {self.devices[node].number} does not measure: {why}")
            self._answers.clear()
            self._left.clear()
            return False
        self._agree()
        return True

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _averaged(self) -> tuple[Values | None, bytes | None]:
        """Return the numbers that all go on from, or the weights and the mean loss."""
        weights = [one for one in self._answers.values() if isinstance(one, bytes)]
        rows = [one for one in self._answers.values() if isinstance(one, tuple)]
        if weights:
            mean = self._weights([unpack(one) for one in weights])
            losses = [layout_of(one)[1] for one in weights]
            loss = statistics.fmean(losses)
            try:
                return (loss,), pack(mean, loss)
            except ValueError:
                return None, None
        if not rows:
            return None, None
        counts = [self.devices[node].weight for node in self._answers]
        return tuple(self._average.of(rows, counts)), None

    def _agree(self) -> None:
        """Write what all agree on, then open the next round."""
        values, content = self._averaged()
        names = [self.devices[node].number for node in self._answers]
        left = {str(self.devices[node].number): why for node, why in self._left.items()}
        for number, why in left.items():
            if why != "it catches up":
                self._say(f"round {self.open}: device {number} is left out: {why}")
        took = {
            "devices": ranges(names),
            "count": len(names),
            "left": dict(sorted(left.items())[:50]),
            "up_bytes": self.bytes_up,
            "down_bytes": self.bytes_down,
        }
        self.bytes_up = self.bytes_down = 0
        self._answers, self._left = {}, {}
        if self.open == START:
            if values is None:
                raise TrainingStopped("no device's loss is finite before the first step.")
            must, about = self._reference["must"], self._reference["about"]
            self.book.begin(must, about, self._tag.hex(), values, took)
            for device in self.devices.values():
                if device.status == "in":
                    self.book.said(f"device {device.number} joined: {words_of(device.identity)}")
        else:
            step, what = round_of(self.open)
            if self._takes_weights:
                self.book.agree_on_weights(self.open, content, values[0] if values else 0.0, took)
            else:
                self.book.agree(self.open, values, self._is_evaluated(step), took)
            if what == "evaluation":  # for whoever watches
                sent = f"{took['up_bytes']} bytes up, {took['down_bytes']} down"
                self.book.said(f"{len(names)} devices in this round ({took['devices']}), {sent}")
            if what == "slopes":
                self._bad = 0 if values else self._bad + 1
        self.open = self._next(self.open, values)

    def _is_evaluated(self, step: int) -> bool:
        about = self._reference["about"]
        after = step + 1
        return bool(after % about["evaluate_every"] == 0 or after == about["steps"])

    def _next(self, number: int, values: Values | None) -> int:
        """Return the round after one that was agreed on; `NONE` after the last."""
        about = self._reference["about"]
        step, what = round_of(number)
        if self._bad >= _BAD_STEPS:
            return self._end("stopped", f"{_BAD_STEPS} steps in a row were not finite")
        if what == "start":
            return slopes_of(0)
        if values is None and self._exchange == "adapters":
            return self._end("stopped", "the weights, or the loss of their mean, are not finite")
        if what == "slopes" and self._is_evaluated(step):
            return evaluation_after(step)
        if what == "evaluation" and values is None:
            if number == evaluation_after(step):
                return evaluation_after(step, again=True)
            return self._end("stopped", "the evaluation before the step is not finite either")
        if step + 1 >= about["steps"]:
            return self._end("done", "")
        if what == "evaluation" and settled(self.book.evals, about["patience"]):
            return self._end("settled", "")
        return slopes_of(step + 1)

    def _end(self, status: str, why: str) -> int:
        if why:
            self._say(f"training stopped: {why}")
            self.book.said(why)
        self.book.end(status)
        return NONE

    def _first_open(self) -> int:
        if self.book.start is None:
            return START
        if self.book.over:
            return NONE
        number = next(reversed(self.book.entries))
        for known in reversed(self.book.entries):
            if round_of(known).what == "slopes":
                if self.book.entries[known]:
                    break
                self._bad += 1
        entry = self.book.entries[number]
        return self._next(number, () if entry is not None else None)


_NO_NUMBER = "not a number"
_NOTHING = {"state_bytes": 1 << 40, "patience": 0}


def _kind(answer: Answered) -> object:
    """Return what answers of one round have in common: how many numbers, or shapes of weights."""
    return layout_of(answer)[0] if isinstance(answer, bytes) else len(answer)


def _said(kind: object) -> str:
    return f"{kind} numbers" if isinstance(kind, int) else f"weights in {len(kind)} blocks"  # type: ignore[arg-type]
