"""The server of a fleet: which round is open, what devices are asked, whose numbers count.

It knows neither the model nor Flower: messages go out and answers come in as bytes, through a
`Grid`. A device that is late, gone, killed or lying changes who is averaged, and nothing else.
"""

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from edge_train.errors import TrainingStopped
from edge_train.fleet.averaging import Average
from edge_train.fleet.book import Book
from edge_train.fleet.rounds import NONE, START, evaluation_after, round_of, slopes_of
from edge_train.fleet.wire import (
    ASK,
    DONE,
    END,
    HELLO,
    IDENTITY,
    MEASURED,
    MOST_ENTRIES,
    NEED,
    REFUSED,
    STOPPED,
    TAG_BYTES,
    Answer,
    Asked,
    Values,
    read_answer,
)
from edge_train.loop import settled

_BAD_STEPS = 5  # in a row, after which every device stops by itself (`loop.py`)
_MUST = (
    *("edge-train", "rules", "recipe", "model_sha256", "runtime", "dtype", "quant"),
    "start_sha256",
)
_WHY = {
    "edge-train": "install that version on it",
    "rules": "install the same edge-train on it",
    "recipe": "give it a new folder, so that it takes the fleet's recipe",
    "model_sha256": "put the fleet's model there",
    "runtime": "use the fleet's engine",
    "dtype": "use the fleet's engine and --dtype",
    "quant": "use the fleet's quantisation",
    "start_sha256": "its start differs: other classes, another start file or another seed",
}


class Grid(Protocol):
    """The devices that can be reached."""

    def nodes(self) -> list[int]:
        """Return their numbers."""
        ...

    def exchange(self, messages: Mapping[int, bytes], seconds: float) -> list[tuple[int, bytes]]:
        """Return what was answered within some seconds, or by all, in the order of arrival."""
        ...


@dataclass
class Device:
    """What the server remembers of a device.

    Attributes:
      number: in the order in which devices came; the journal names them by it.
      status: "new" (it has not said who it is), "in", "refusing" (it is to be told), "refused".
      known: the first round that it does not know.
      weight: of its numbers in a mean.
      why: it is refused.
    """

    number: int
    status: str = "new"
    known: int = START
    weight: float = 1.0
    why: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)


class Server:
    """Rounds of a fleet, from its journal on.

    Args:
      folder: of the journal.
      average: how the numbers of devices become one of each.
      quorum: how many devices make a round.
      say: takes a sentence for people.
      mixed: devices of other engines and quantisations take part; their models are not compared.
    """

    def __init__(
        self,
        folder: Path,
        average: Average,
        quorum: int,
        say: Callable[[str], None],
        *,
        mixed: bool = False,
    ) -> None:
        self._average, self._quorum, self._say = average, quorum, say
        self.book = Book(folder, say)
        self.devices: dict[int, Device] = {}
        self.bytes_up = self.bytes_down = 0
        self._must = tuple(
            n for n in _MUST if not (mixed and n in ("model_sha256", "runtime", "dtype", "quant"))
        )
        start = self.book.start
        self._tag = (
            bytes.fromhex(start["fleet"]["tag"]) if start else secrets.token_bytes(TAG_BYTES)
        )
        self._reference: Mapping[str, Any] | None = start["fleet"] if start else None
        self._said: set[str] = set()
        self._bad = 0
        self.open = self._first_open()
        self._answers: dict[int, Values] = {}
        self._left: dict[int, str] = {}  # device -> why it is not averaged in this round

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.open == NONE

    def messages(self, nodes: list[int]) -> dict[int, bytes]:
        """Return what to send to each device."""
        found: dict[int, bytes] = {}
        made: dict[int, bytes] = {}  # by what a device knows: most know the same
        for node in nodes:
            device = self.devices.setdefault(node, Device(len(self.devices)))
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
        self.bytes_down += sum(map(len, found.values()))
        return found

    def _asked(self, known: int) -> bytes:
        entries: dict[int, Values | None] = {}
        for number in self._after(known):
            entries[number] = self.book.entries[number]
            if len(entries) == MOST_ENTRIES:
                break
        return Asked(END if self.is_over else ASK, self._tag, self.open, entries).encode()

    def _after(self, number: int) -> list[int]:
        """Return the rounds from a number on; the newest are looked at first."""
        found = []
        for known in reversed(self.book.entries):  # in their order
            if known < number:
                break
            found.append(known)
        return found[::-1]

    def take(self, node: int, content: bytes) -> None:
        """Count an answer; whatever is wrong with it is kept as the reason why it is left out."""
        device = self.devices[node]
        self.bytes_up += len(content)
        try:
            answer = read_answer(content)
        except ValueError as error:
            self._leave(node, f"an answer that cannot be read ({error})")
            return
        if answer.kind == IDENTITY:
            self._introduced(device, answer)
        elif answer.kind == STOPPED:
            self._leave(node, answer.text[:300])
        elif answer.tag != self._tag:
            self._leave(node, "an answer of another fleet")
        elif answer.kind == NEED:
            self._needs(node, device, answer.number)
        elif answer.kind == DONE:
            device.known = NONE
        elif answer.kind == MEASURED:
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
        if not answer.values or not all(map(isfinite, answer.values)):
            self._leave(node, "not a number")
            return
        self._answers[node] = answer.values

    def _leave(self, node: int, why: str) -> None:
        self._left.setdefault(node, why)

    def _introduced(self, device: Device, answer: Answer) -> None:
        """Read who a device is."""
        if device.status != "new":
            return
        try:
            found = json.loads(answer.text)
            must, about = found["must"], found["about"]
            missing = [name for name in _MUST if name not in must]
            if (
                missing
                or type(about["steps"]) is not int
                or type(about["evaluate_every"]) is not int
            ):
                raise ValueError(f"no {missing[0]}" if missing else "no steps")
            device.weight = min(1.0, max(0.0, float(about["weight"])))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            device.status, device.why = "refusing", f"it does not say who it is ({error})"
            return
        device.identity, device.known = found, answer.number
        device.status = "in"
        if self._reference is not None:
            self._compare(device)

    def _compare(self, device: Device) -> None:
        """Refuse a device that is not like the others."""
        assert self._reference is not None
        ours, its = self._reference["must"], device.identity["must"]
        for name in self._must:
            if ours[name] != its[name]:
                device.status = "refusing"
                device.why = (
                    f"{name} is {_short(its[name])} on it and {_short(ours[name])} in the fleet; "
                    f"{_WHY[name]}"
                )
                self._say(f"device {device.number} is refused: {device.why}")
                return
        self.book.said(f"device {device.number} joined: {_words(device.identity)}")
        self._say(f"device {device.number} joined: {_words(device.identity)}")

    def close(self) -> bool:
        """Agree on the open round if enough devices answered; return whether that was so."""
        if self.book.start is None and not self._answers:
            self._choose_reference()
            self._left.clear()
            return False
        lengths = Counter(len(values) for values in self._answers.values())
        if len(lengths) > 1:
            usual = lengths.most_common(1)[0][0]
            for node in [n for n, v in self._answers.items() if len(v) != usual]:
                self._leave(node, f"{len(self._answers.pop(node))} numbers, others have {usual}")
        broken = [node for node, why in self._left.items() if why == "not a number"]
        if len(self._answers) + len(broken) < self._quorum:
            for node, why in self._left.items():
                self._say_once(f"device {self.devices[node].number} does not measure: {why}")
            self._answers.clear()
            self._left.clear()
            return False
        rows = list(self._answers.values())
        weights = [self.devices[node].weight for node in self._answers]
        self._agree(tuple(self._average.of(rows, weights)) if rows else None)
        return True

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _choose_reference(self) -> None:
        """Take what most of a quorum of devices have in common for the fleet's."""
        here = [device for device in self.devices.values() if device.status == "in"]
        if len(here) < self._quorum or self._reference is not None:
            return
        of = {json.dumps([d.identity["must"][n] for n in self._must]): d for d in reversed(here)}
        common = Counter(json.dumps([d.identity["must"][n] for n in self._must]) for d in here)
        self._reference = of[common.most_common(1)[0][0]].identity
        for device in here:
            self._compare(device)

    def _agree(self, values: Values | None) -> None:
        """Write what was agreed on, then open the next round."""
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
            assert self._reference is not None  # nobody is asked before
            must, about = self._reference["must"], self._reference["about"]
            self.book.begin(must, about, self._tag.hex(), values, took)
            for device in self.devices.values():
                if device.status == "in":
                    text = f"device {device.number} joined: {_words(device.identity)}"
                    self.book.said(text)
        else:
            step, what = round_of(self.open)
            self.book.agree(self.open, values, self._is_evaluated(step), took)
            if what == "evaluation":  # for whoever watches
                sent = f"{took['up_bytes']} bytes up, {took['down_bytes']} down"
                self.book.said(f"{len(names)} devices in this round ({took['devices']}), {sent}")
            if what == "slopes":
                self._bad = 0 if values else self._bad + 1
        self.open = self._next(self.open, values)

    def _is_evaluated(self, step: int) -> bool:
        assert self._reference is not None
        about = self._reference["about"]
        after = step + 1
        return bool(after % about["evaluate_every"] == 0 or after == about["steps"])

    def _next(self, number: int, values: Values | None) -> int:
        """Return the round after one that was agreed on; `NONE` after the last."""
        assert self._reference is not None
        about = self._reference["about"]
        step, what = round_of(number)
        if self._bad >= _BAD_STEPS:
            return self._end("stopped", f"{_BAD_STEPS} steps in a row were not finite")
        if what == "start":
            return slopes_of(0)
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
        return self._next(number, self.book.entries[number])


def train(
    server: Server, grid: Grid, deadline: float, wait: Callable[[], None], tries: int = 20
) -> None:
    """Take rounds until training is over, then tell the devices that it is.

    Args:
      deadline: seconds for the answers of a round.
      wait: called while no device is there.
      tries: exchanges in which devices that have to catch up are told the end.
    """
    while not server.is_over or tries:
        nodes = grid.nodes()
        messages = server.messages(nodes)
        if server.is_over:
            tries -= 1
            messages = {n: m for n, m in messages.items() if server.devices[n].known != NONE}
            if not messages:
                return
        elif not messages:
            wait()
            continue
        for node, content in grid.exchange(messages, deadline):
            server.take(node, content)
        if not server.is_over and not server.close():
            wait()


def ranges(numbers: list[int]) -> str:
    """Return whole numbers in few words.

    >>> ranges([4, 0, 1, 2])
    '0-2 4'
    """
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 24 else text


def _words(identity: Mapping[str, Any]) -> str:
    must, about = identity["must"], identity["about"]
    return f"{must['runtime']} on {about.get('device')}, weights {must['quant']}"
