"""A fleet in one process: whatever becomes of a device, those left hold the server's bits."""

from dataclasses import replace

import pytest
from fleets import bits, device, finish, recipe, server, steps, write_data
from safetensors.numpy import load_file

from edge_train.errors import EdgeTrainError, InputError
from edge_train.fleet import wire
from edge_train.fleet.calls import BookCalls, Call
from edge_train.fleet.company import Fleet
from edge_train.fleet.grid import LocalDevice, LocalGrid, Silent
from edge_train.fleet.privacy import Ledger, Privacy
from edge_train.fleet.rounds import slopes_of
from edge_train.fleet.wire import Answer, read_answer
from edge_train.records import journal
from edge_train.run import session
from edge_train.run.ending import write_report
from edge_train.watch.live import Live


@pytest.fixture
def data(tmp_path):
    """Return three devices' data, a class each."""
    return [write_data(tmp_path / f"{c}.npz", (c,), seed=c) for c in range(3)]


def test_one_device_is_the_plain_run(tmp_path, data):
    session.run(replace(recipe(data[0]), out=str(tmp_path / "plain")), Silent())
    finish(server(tmp_path / "s", 1, []), LocalGrid({7: device(tmp_path / "d", data[0])}))
    assert steps(tmp_path / "d") == steps(tmp_path / "plain") == steps(tmp_path / "s")
    plain, own = (tmp_path / n / "network.safetensors" for n in ("plain", "d"))
    assert plain.read_bytes() == own.read_bytes()


def test_journal_of_the_server_is_the_model(tmp_path, data):
    devices = {n: device(tmp_path / f"d{n}", data[n]) for n in range(3)}
    finish(server(tmp_path / "s", 3, []), LocalGrid(devices))
    ends = {bits(tmp_path / f"d{n}") for n in range(3)}
    assert len(ends) == 1
    alone = replace(recipe(data[1]), out=str(tmp_path / "again"))
    session.run(alone, Silent(), company=Fleet(BookCalls(tmp_path / "s" / "journal.jsonl")))
    assert bits(tmp_path / "again") in ends
    # each saw one class; together they tell all three apart better than at the beginning
    first, last = (float(steps(tmp_path / "s")[n][3]) for n in (4, -1))
    assert last < first


def test_a_killed_device_catches_up(tmp_path, data):
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(3)})
    while one.book.steps < 3:
        _one_round(one, grid)
    grid.devices[0].kill()
    while one.book.steps < 8:
        _one_round(one, grid)
    grid.devices[9] = device(tmp_path / "d0", data[0])  # Flower gives it another number
    finish(one, grid)
    assert grid.devices[9].error == ""
    assert len({bits(tmp_path / f"d{n}") for n in range(3)}) == 1
    took = [r["fleet"]["count"] for r in _journal(tmp_path / "s") if r["kind"] == "step"]
    assert 2 in took and took[-1] == 3


def test_a_new_server_goes_on_from_its_journal(tmp_path, data):
    one = server(tmp_path / "s", 3, [])
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(3)})
    while len(one.book.entries) < 7:  # the slopes of step 4 are agreed on, their evaluation is not
        _one_round(one, grid)
    one.book.close()
    finish(server(tmp_path / "s", 3, []), grid)
    assert len({bits(tmp_path / f"d{n}") for n in range(3)}) == 1
    finish(
        server(tmp_path / "s2", 3, []),
        LocalGrid({n: device(tmp_path / f"e{n}", data[n]) for n in range(3)}),
    )
    assert steps(tmp_path / "s") == steps(tmp_path / "s2") == steps(tmp_path / "d1")


def test_lost_doubled_old_and_broken_answers_change_who_is_averaged(tmp_path, data):
    old: list[bytes] = []

    def change(node: int, content: bytes) -> list[bytes]:
        answer = read_answer(content)
        if answer.kind != wire.MEASURED or answer.number == 0:
            return [content]
        if node == 1:  # twice, the second time with other numbers
            return [content, replace(answer, values=tuple(v + 1 for v in answer.values)).encode()]
        if node == 2:
            step = answer.number // 3
            old.append(content)
            if step % 4 == 0:
                return []  # lost
            if step % 4 == 1:
                return [old[-2]]  # of an earlier round
            if step % 4 == 2:
                return [replace(answer, values=(float("nan"),) * len(answer.values)).encode()]
            return [b"\x01\x02nonsense"]
        return [content]

    said: list[str] = []
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(3)}, change)
    finish(server(tmp_path / "s", 2, said), grid, wait=1.5)
    assert len({bits(tmp_path / f"d{n}") for n in range(3)}) == 1
    left = [
        r["fleet"]["left"].get("2", "") for r in _journal(tmp_path / "s") if r["kind"] == "step"
    ]
    assert {"an old message, of a round that is over", "not a number"} <= set(left)
    assert any("cannot be read" in why for why in left)
    assert any("device 2 is left out: not a number" in text for text in said)


def test_another_recipe_is_refused_on_the_device(tmp_path, data):
    said: list[str] = []
    others = {n: device(tmp_path / f"d{n}", data[n]) for n in range(2)}
    odd = device(tmp_path / "odd", data[2], seed=7)
    finish(server(tmp_path / "s", 2, said), LocalGrid({**others, 5: odd}))
    assert "the fleet's server refused this device: " in odd.error
    assert "give it a new folder" in odd.error
    assert any("device 2 is refused: recipe is" in text for text in said)
    assert all(one.error == "" for one in others.values())


def test_an_edited_journal_is_named(tmp_path, data):
    one = server(tmp_path / "s", 2, [])
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(2)})
    while one.book.steps < 4:
        _one_round(one, grid)
    one.book.close()
    path = tmp_path / "s" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"step":2,"loss"' in line)
    lines[place] = lines[place].replace(b'"step":2,"loss":', b'"step":2,"loss":9')
    path.write_bytes(b"".join(lines))
    said: list[str] = []
    two = server(tmp_path / "s", 2, said)
    assert two.book.steps == 2
    assert f"line {place + 1} is torn, edited" in said[0]
    assert (tmp_path / "s" / "journal.damaged.jsonl").exists()
    for _ in range(4):  # the devices have taken more steps than it has
        _one_round(two, grid)
    for one_device in grid.devices.values():
        one_device.thread.join(10)
        assert "that was cut or edited. Put the whole journal back" in one_device.error
    two.book.close()


def test_a_device_of_another_fleet_keeps_its_run(tmp_path, data):
    finish(server(tmp_path / "s", 1, []), LocalGrid({1: device(tmp_path / "d", data[0], steps=4)}))
    said: list[str] = []
    other = server(tmp_path / "other", 1, said)
    grid = LocalGrid({1: device(tmp_path / "e", data[1], steps=4)})
    while other.book.steps < 2:
        _one_round(other, grid)
    (tmp_path / "d" / "journal.jsonl").write_bytes(
        b"".join((tmp_path / "d" / "journal.jsonl").read_bytes().splitlines(keepends=True)[:3])
    )
    grid.devices[2] = device(tmp_path / "d", data[0], steps=4)
    finish_soon = 0
    while not said or "another fleet" not in said[-1]:
        _one_round(other, grid)
        finish_soon += 1
        if finish_soon > 20 or other.is_over:
            break
    grid.devices[2].kill()
    grid.devices[1].kill()
    left = [r["fleet"]["left"] for r in _journal(tmp_path / "other") if r["kind"] == "step"]
    assert any("belongs to another fleet" in str(one) for one in left)
    other.book.close()


def test_noise_leaves_the_devices_with_the_same_bits(tmp_path, data):
    devices = {
        n: LocalDevice(recipe(data[n]), tmp_path / f"d{n}", Privacy(1.0, 1.0)) for n in range(2)
    }
    finish(server(tmp_path / "s", 2, []), LocalGrid(devices))
    plain = {n: device(tmp_path / f"e{n}", data[n]) for n in range(2)}
    finish(server(tmp_path / "t", 2, []), LocalGrid(plain))
    assert bits(tmp_path / "d0") == bits(tmp_path / "d1") != bits(tmp_path / "e0")


def test_a_round_that_is_measured_again_is_counted(tmp_path, data):
    privacy = Privacy(1.0, 20.0)
    one = server(tmp_path / "s", 1, [])
    grid = LocalGrid({1: LocalDevice(recipe(data[0]), tmp_path / "d", privacy)})
    while one.book.steps < 2:
        _one_round(one, grid)
    asked = one.messages([1])
    grid.exchange(asked, 20)  # it measures, and its answer is lost
    grid.devices[1].kill()
    grid.devices[2] = LocalDevice(recipe(data[0]), tmp_path / "d", privacy)
    finish(one, grid)
    ledger = Ledger(tmp_path / "d-released.json")
    assert (ledger.slopes, ledger.losses) == (1, 0)
    said = privacy.sentence(13, 4, 1)
    assert "13 steps and 4 evaluations (1 of them measured again) are (" in said
    assert privacy.epsilon(13, 4) > privacy.epsilon(12, 4)
    (tmp_path / "d-released.json").write_text("{}")
    with pytest.raises(InputError, match="it counts what this device sent"):
        Ledger(tmp_path / "d-released.json")


def test_noise_and_a_radius_from_data_do_not_go_together(tmp_path, data):
    one = LocalDevice(recipe(data[0], epsilon=None), tmp_path / "d", Privacy(1.0, 1.0))
    one.thread.join(20)
    assert "the recipe names its epsilon" in one.error


def test_a_plain_run_does_not_become_a_device(tmp_path, data):
    session.run(replace(recipe(data[0], steps=3), out=str(tmp_path / "plain")), Silent())
    lines = (tmp_path / "plain" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "plain" / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    one = device(tmp_path / "plain", data[0], steps=3)
    one.thread.join(20)
    assert "this run trained by itself" in one.error


def test_a_server_that_is_done_tells_a_latecomer_everything(tmp_path, data):
    finish(server(tmp_path / "s", 1, []), LocalGrid({1: device(tmp_path / "d", data[0])}))
    late = device(tmp_path / "late", data[1])
    finish(server(tmp_path / "s", 1, []), LocalGrid({4: late}))
    assert late.error == ""
    assert bits(tmp_path / "late") == bits(tmp_path / "d")


def test_a_journal_that_ends_early_stops_its_replay(tmp_path, data):
    one = server(tmp_path / "s", 1, [])
    grid = LocalGrid({1: device(tmp_path / "d", data[0])})
    while one.book.steps < 3:
        _one_round(one, grid)
    one.book.close()
    grid.devices[1].kill()
    again = replace(recipe(data[1]), out=str(tmp_path / "again"))
    with pytest.raises(EdgeTrainError, match="it ends here"):
        session.run(again, Silent(), company=Fleet(BookCalls(tmp_path / "s" / "journal.jsonl")))
    assert len(steps(tmp_path / "again")) == 3


def test_the_report_and_the_page_say_who_took_part(tmp_path, data):
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(2)})
    finish(server(tmp_path / "s", 2, []), grid)
    page = write_report(tmp_path / "s").read_text()
    assert "Who took part" in page
    assert "12 of 12 steps" in page
    assert "Who took part" not in write_report(tmp_path / "d0").read_text()
    live = Live()
    live.look(str(tmp_path / "s"), "journal.jsonl")
    assert not live.damaged
    assert live.steps == 12
    seen = live.curves()
    assert "2 devices in this round (0-1)" in str(seen["events"])
    assert "the evaluation follows" not in str(seen["events"])
    assert seen["memory"] == []  # its server holds no model
    count, up, down = live.summary()["devices"]
    assert count == 2
    assert up > 0 and down > 0
    assert "A fleet: a small network" in page
    assert "Memory held" not in page


def _one_round(one, grid):
    for node, content in grid.exchange(one.messages(grid.nodes()), 20):
        one.take(node, content)
    one.close()


def _journal(folder):
    return list(journal.read(folder / "journal.jsonl")[0])


def test_messages_that_cannot_be_read_are_answered():
    asked: list[bytes] = []

    class Calls:
        def next(self, seconds):
            if not asked:
                return Call(None, asked.append, "a message of 3 bytes")
            raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        Fleet(Calls()).evaluation(0, lambda: 1.0)
    assert read_answer(asked[0]) == Answer(wire.STOPPED, bytes(4), 2, text="a message of 3 bytes")


def test_who_comes_late_is_sent_a_state_where_that_is_less(tmp_path, data):
    """A late device goes on from what the others hold; a kill after that changes nothing."""
    many = {"steps": 120, "evaluate_every": 60, "patience": 0}
    said: list[str] = []
    one = server(tmp_path / "s", 2, said)
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n], **many) for n in range(2)})
    while one.book.steps < 80:
        _one_round(one, grid)
    grid.devices[5] = device(tmp_path / "late", data[2], **many)
    while one.devices.get(5) is None or one.devices[5].known < slopes_of(80):
        _one_round(one, grid)
    assert any("in place of older rounds" in text for text in said)
    _one_round(one, grid)
    grid.devices[5].kill()
    for path in (tmp_path / "late" / "checkpoints").glob("step-*"):
        path.unlink()  # it begins again from the state
    _one_round(one, grid)
    grid.devices[6] = device(tmp_path / "late", data[2], **many)
    finish(one, grid)
    assert grid.devices[6].error == ""
    # the best of all evaluations was before it came, so what it hands out is another
    assert _last(tmp_path / "late") == _last(tmp_path / "d0") == _last(tmp_path / "d1")
    skipped = [line for line in steps(tmp_path / "late") if "without this device" in line[4]]
    assert 70 < len(skipped) < 90


def _last(run):
    found = load_file(run / "checkpoints" / "step-00000120.safetensors")
    return {name: (value.shape, value.tobytes()) for name, value in found.items()}


def test_states_that_differ_are_not_sent(tmp_path, data):
    many = {"steps": 120, "evaluate_every": 60, "patience": 0}
    said: list[str] = []

    def change(node, content):
        answer = read_answer(content)
        if node == 1 and answer.kind == wire.STATE:
            return [replace(answer, content=answer.content[:-4] + b"lie!").encode()]
        return [content]

    one = server(tmp_path / "s", 2, said)
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n], **many) for n in range(2)}, change)
    while one.book.steps < 80:
        _one_round(one, grid)
    grid.devices[5] = device(tmp_path / "late", data[2], **many)
    finish(one, grid)
    assert any("devices differ in their state" in text for text in said)
    assert bits(tmp_path / "late") == bits(tmp_path / "d0")
