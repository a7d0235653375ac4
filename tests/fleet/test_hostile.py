"""Messages from somebody who means harm: each is left out with a sentence, and rounds go on."""

import json
import struct

import numpy as np
import pytest
from fleets import server

from edge_train.bench.fleet_flower import answer
from edge_train.errors import EdgeTrainError
from edge_train.fleet import wire
from edge_train.fleet.calls import BookCalls
from edge_train.fleet.int8 import unpack
from edge_train.fleet.wire import Answer, Asked, read_answer, read_asked

_HEAD = struct.Struct("<BB4sI")


def _turn(one, hostile):
    """Take a round of two honest devices and a hostile one, which answers as it likes."""
    draw = np.random.default_rng(0)
    messages = one.messages([0, 1, 2])
    for node, content in messages.items():
        if node < 2:
            one.take(node, answer(content, draw))
        else:
            for message in hostile(read_asked(content)):
                one.take(node, message)
    one.close()


def _introduced(tag=bytes(4), **changes):
    asked = Asked(wire.HELLO, tag, 0).encode()
    found = json.loads(read_answer(answer(asked, np.random.default_rng(0))).text)
    found["about"] |= changes
    return Answer(wire.IDENTITY, tag, 0, text=json.dumps(found)).encode()


MESSAGES = {
    "nothing": lambda a: [b""],
    "one byte": lambda a: [b"\x01"],
    "another version": lambda a: [_HEAD.pack(9, wire.MEASURED, a.tag, a.open)],
    "another kind": lambda a: [_HEAD.pack(1, 77, a.tag, a.open)],
    "a question": lambda a: [Asked(wire.ASK, a.tag, a.open).encode()],
    "a huge array": lambda a: [_HEAD.pack(1, wire.MEASURED, a.tag, a.open) + bytes(8 * 10**6)],
    "half a number": lambda a: [_HEAD.pack(1, wire.MEASURED, a.tag, a.open) + bytes(13)],
    "no numbers": lambda a: [Answer(wire.MEASURED, a.tag, a.open).encode()],
    "infinity": lambda a: [Answer(wire.MEASURED, a.tag, a.open, (float("inf"),) * 5).encode()],
    "too many": lambda a: [Answer(wire.MEASURED, a.tag, a.open, (1.0,) * 99).encode()],
    "a round to come": lambda a: [Answer(wire.MEASURED, a.tag, 10**9, (1.0,) * 5).encode()],
    "an old round": lambda a: [Answer(wire.MEASURED, a.tag, 0, (1.0,) * 5).encode()],
    "another fleet": lambda a: [Answer(wire.MEASURED, b"othe", a.open, (1.0,) * 5).encode()],
    "weights": lambda a: [Answer(wire.WEIGHTS, a.tag, a.open, content=b"\xff" * 99).encode()],
    "a state": lambda a: [Answer(wire.STATE, a.tag, a.open, content=b"x" * 10**6).encode()],
    "no text": lambda a: [_HEAD.pack(1, wire.STOPPED, a.tag, 0) + b"\xff\xfe"],
    "a terminal": lambda a: [Answer(wire.STOPPED, a.tag, 0, text="\x1b[2J\n\r" * 900).encode()],
    "done": lambda a: [Answer(wire.DONE, a.tag, 0).encode()],
    "need": lambda a: [Answer(wire.NEED, a.tag, 2**32 - 1).encode()],
    "need a lot": lambda a: [Answer(wire.NEED, a.tag, 0).encode()] * 50,
    "nested": lambda a: [Answer(wire.IDENTITY, a.tag, 0, text="[" * 19_000).encode()],
}
WHO = {
    "no JSON": "nothing",
    "a list": "[]",
    "null": '{"must": null, "about": null}',
    "many steps": {"steps": 10**400},
    "negative steps": {"steps": -4},
    "half a step": {"steps": 1.5},
    "no steps": {"steps": 0},
    "not a number": {"weight": "x"},
    "endless weight": {"weight": float("inf")},
    "a margin of text": {"best_margin": "\x1b[31m"},
    "true": {"patience": True},
    "a state of nothing": {"state_bytes": -1},
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_answer_changes_nothing(tmp_path, name):
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)
    while one.book.steps < 3:
        _turn(one, lambda asked: [_introduced()] if asked.kind == wire.HELLO else [])
    for _ in range(4):
        _turn(one, lambda asked: MESSAGES[name](asked) if asked.kind != wire.HELLO else [])
    assert one.book.steps == 7
    text = (tmp_path / "s" / "journal.jsonl").read_text()
    assert "\x1b" not in text and "\\u001b" not in text
    assert all(line.isprintable() for line in said)
    one.book.close()
    again = server(tmp_path / "s", 2, said)  # what it wrote can be read
    assert again.book.steps == 7
    again.book.close()


@pytest.mark.parametrize("name", WHO)
def test_a_device_that_lies_about_itself_is_refused_or_like_the_others(tmp_path, name):
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)
    who = WHO[name]

    def hostile(asked):
        if asked.kind != wire.HELLO:
            return []
        if isinstance(who, str):
            return [Answer(wire.IDENTITY, bytes(4), 0, text=who).encode()]
        return [_introduced(**who)]

    for _ in range(7):
        _turn(one, hostile)
    assert one.book.steps >= 4
    assert one.book.start["fleet"]["about"]["steps"] == 10**6
    assert all(line.isprintable() for line in said)
    assert one.devices[2].status in ("in", "refused")
    assert 0 <= one.devices[2].weight <= 1
    one.book.close()


def test_names_of_a_hostile_engine_are_shown_as_text(tmp_path):
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)

    def hostile(asked):
        if asked.kind != wire.HELLO:
            return []
        found = json.loads(read_answer(_introduced()).text)
        found["must"]["runtime"] = "<script>\x1b]0;x\x07\u202e" * 400
        return [Answer(wire.IDENTITY, bytes(4), 0, text=json.dumps(found)).encode()]

    for _ in range(6):
        _turn(one, hostile)
    assert one.devices[2].status == "refused"
    assert "runtime is <script>?]0;" in one.devices[2].why
    assert all(line.isprintable() for line in said)
    one.book.close()


def test_random_bytes_are_read_or_refused():
    draw = np.random.default_rng(0)
    good = [
        Asked(wire.ASK, b"abcd", 7, {1: (1.0, 2.0), 2: None, 3: b"weights"}).encode(),
        Asked(wire.JUMP, b"abcd", 7, {5: (1.0,)}, state=b"state").encode(),
        Answer(wire.MEASURED, b"abcd", 7, (1.0, 2.0)).encode(),
        Answer(wire.WEIGHTS, b"abcd", 7, content=b"\x01\x00\x01\x00\x00\x00").encode(),
    ]
    for _ in range(4000):
        content = bytearray(good[draw.integers(len(good))])
        for _ in range(draw.integers(1, 6)):
            content[draw.integers(len(content))] = draw.integers(256)
        content = bytes(content[: draw.integers(len(content) + 1)])
        for read in (read_asked, read_answer, unpack):
            try:
                read(content)
            except ValueError as error:
                assert 0 < len(str(error)) < 200


def test_a_message_of_claimed_gigabytes_takes_no_memory():
    head = struct.pack("<HII", 1, 2**31, 2**31)
    with pytest.raises(ValueError, match="weights of"):
        unpack(head + bytes(100))
    entries = struct.pack("<BB4sIH", 1, wire.ASK, b"abcd", 1, 1) + struct.pack(
        "<IBI", 1, 254, 2**32 - 1
    )
    with pytest.raises(ValueError, match="ends early"):
        read_asked(entries)


@pytest.mark.parametrize(
    "text", ["", "{}\n", "\x00" * 100, '{"kind":"start","fleet":{"tag":"zz"}}\n']
)
def test_a_file_that_is_no_journal_is_named(tmp_path, text):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(EdgeTrainError, match="not the journal of a fleet's server"):
        BookCalls(path)


def test_a_state_that_nobody_asked_for_is_not_sent_on(tmp_path):
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)
    draw = np.random.default_rng(0)
    while one.book.steps < 6:
        messages = one.messages([0, 1, 2, 3])
        for node, content in messages.items():
            asked = read_asked(content)
            if node < 2 or asked.kind == wire.HELLO:
                one.take(node, answer(content, draw))
            else:  # two that agree on a lie
                one.take(node, Answer(wire.STATE, asked.tag, asked.open, content=b"lie").encode())
        one.close()
    assert not any("in place of older rounds" in text for text in said)
    one.book.close()


def test_devices_that_come_one_by_one_make_a_quorum(tmp_path):
    one = server(tmp_path / "s", 3, [])
    draw = np.random.default_rng(0)
    for here in (1, 2, 3, 3, 3, 3):
        for node, content in one.messages(list(range(here))).items():
            one.take(node, answer(content, draw))
        one.close()
    assert one.book.steps >= 1
    one.book.close()
