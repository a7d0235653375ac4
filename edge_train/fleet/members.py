"""The devices of a fleet as its server knows them: who they say they are, and who is refused."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_train.fleet.rounds import START
from edge_train.fleet.wire import Answer

_MUST = (
    *("edge-train", "rules", "exchange", "recipe", "start_sha256"),
    *("model_sha256", "runtime", "dtype", "quant"),
)
_MIXED = ("model_sha256", "runtime", "dtype", "quant")  # in which devices of a mixed fleet differ
_PLAN = ("steps", "evaluate_every", "patience", "best_margin", "task", "method", "seed")
_WHY = {
    "edge-train": "install that version on it",
    "rules": "install the same edge-train on it",
    "exchange": "give it a new folder, so that it takes the fleet's",
    "recipe": "give it a new folder, so that it takes the fleet's recipe",
    "model_sha256": "put the fleet's model there",
    "runtime": "use the fleet's engine",
    "dtype": "use the fleet's engine and --dtype",
    "quant": "use the fleet's quantisation",
    "start_sha256": "its start differs: other classes, another start file or another seed",
}


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


class Members:
    """Devices by their nodes, and what all of them have in common.

    Args:
      reference: identity of the fleet; None before its first quorum.
      mixed: devices of other engines and quantisations take part; their models are not compared.
      say: takes a sentence for people.
    """

    def __init__(
        self, reference: Mapping[str, Any] | None, mixed: bool, say: Callable[[str], None]
    ) -> None:
        self.reference, self._say = reference, say
        self.devices: dict[int, Device] = {}
        self._must = tuple(name for name in _MUST if not (mixed and name in _MIXED))

    def device(self, node: int) -> Device:
        """Return the device of a node, new or not."""
        return self.devices.setdefault(node, Device(len(self.devices)))

    def introduced(self, device: Device, answer: Answer) -> None:
        """Read who a device is; refuse one that is not like the others."""
        if device.status != "new":
            return
        try:
            found = json.loads(answer.text)
            must, about = found["must"], found["about"]
            missing = [name for name in _MUST if name not in must]
            if missing:
                raise ValueError(f"no {missing[0]}")
            for name in ("steps", "evaluate_every", "patience", "state_bytes"):
                if type(about[name]) is not int or not 0 <= about[name] < 1 << 40:
                    raise ValueError(f"{name} is {about[name]!r:.40}")
            if not about["steps"] or not about["evaluate_every"]:
                raise ValueError("no steps")
            json.dumps(
                [words_of(found), [about[name] for name in _PLAN], float(about["best_margin"])]
            )
            device.weight = min(1.0, max(0.0, float(about["weight"])))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            device.status = "refusing"
            device.why = f"it does not say who it is ({plain(str(error))[:100]})"
            return
        device.identity, device.known = found, answer.number
        device.status = "in"
        if self.reference is not None:
            self._compare(device)

    def _compare(self, device: Device) -> None:
        """Refuse a device that is not like the others."""
        assert self.reference is not None
        ours, its = self.reference["must"], device.identity["must"]
        for name in self._must:
            if ours.get(name) != its[name]:
                device.status = "refusing"
                device.why = (
                    f"{name} is {_short(its[name])} on it and {_short(ours.get(name))} in the "
                    f"fleet; {_WHY[name]}"
                )
                self._say(f"device {device.number} is refused: {device.why}")
                return
        self._say(f"device {device.number} joined: {words_of(device.identity)}")

    def choose(self, quorum: int) -> None:
        """Take what most of a quorum of devices have in common for the fleet's."""
        here = [device for device in self.devices.values() if device.status == "in"]
        if len(here) < quorum or self.reference is not None:
            return
        of = {self._common(device): device for device in reversed(here)}
        common = Counter(map(self._common, here)).most_common(1)[0][0]
        self.reference = of[common].identity
        for device in here:
            self._compare(device)

    def _common(self, device: Device) -> str:
        must, about = device.identity["must"], device.identity["about"]
        return json.dumps([[must[name] for name in self._must], [about[name] for name in _PLAN]])


def plain(text: str) -> str:
    """Return what a device says as it can be shown.

    >>> plain("a\\x1b[2Jb")
    'a?[2Jb'
    """
    return "".join(one if one.isprintable() else "?" for one in text[:300])


def _short(value: object) -> str:
    text = plain(str(value))
    return f"{text[:12]}..." if len(text) > 24 else text


def words_of(identity: Mapping[str, Any]) -> str:
    """Return the engine of a device, for people."""
    must, about = identity["must"], identity["about"]
    return plain(f"{must['runtime']} on {about.get('device')}, weights {must['quant']}")


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
