"""`edge-train audit` of a search: what rises, what is kept of it, what is refused."""

import json
import shutil
import signal

import pytest
from places import SUPPORT
from running import Command
from tiny_encoder import make_encoder, make_notes

from edge_train import cli
from edge_train.bench.watched import watched_command
from edge_train.rng import Key
from edge_train.tasks.retrieve.audit.audit import COPYING, WAYS
from edge_train.tasks.retrieve.audit.rising import WORDS, risen
from edge_train.tasks.retrieve.audit.words import WordModel

FEW = ("--forwards", "40", "--queries", "4", "--count", "3", "--threads", "1")


def run(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("audit")
    model, notes = make_encoder(place / "model"), make_notes(place / "notes", 40)
    words = ("--task", "retrieve", "--model", model, "--steps", "10", "--threads", "1")
    assert run("run", notes, *words, "--out", place / "run") == 0
    return place


def test_rates_and_costs_are_left_and_no_text(made):
    before = {path: path.read_bytes() for path in (made / "run" / "index").iterdir()}
    names = {path.name for path in (made / "run").rglob("*")}
    assert run("audit", made / "run", *FEW) == 0
    found = json.loads((made / "run" / "audit.json").read_text())
    assert [row["way"] for row in found["rows"]] == list(WAYS)
    for row in found["rows"]:
        defended = [value for name, value in row.items() if name not in ("way", "none")]
        assert all(0 <= value <= row["none"] <= 1 for value in defended)
    rates = {row["way"]: row for row in found["rows"]}
    assert rates["random words"]["none"] <= rates[COPYING]["none"]
    assert rates["the query, repeated"]["none"] > 0
    assert rates["the query, repeated"]["near-duplicate filter"] == 0  # it says what the query says
    assert all(0 < spent <= 40 for spent in found["spent"].values())
    assert all(0 <= value <= 1 for value in found["cost"].values())
    assert {path.name for path in (made / "run").rglob("*")} - names == {"audit.json"}
    assert {path: path.read_bytes() for path in (made / "run" / "index").iterdir()} == before
    assert "Foreign documents" in (made / "run" / "report.html").read_text()
    kept = (made / "run" / "audit.json").read_text()
    assert run("audit", made / "run", *FEW) == 0
    assert (made / "run" / "audit.json").read_text() == kept


@pytest.mark.slow
@pytest.mark.process
def test_an_audit_that_was_killed_ten_times_ends_with_the_same_bits(made, tmp_path):
    notes, whole, cut = tmp_path / "notes", tmp_path / "whole", tmp_path / "cut"
    words = ("--task", "retrieve", "--model", made / "model", "--steps", "10", "--threads", "1")
    assert run("run", make_notes(notes, 160), *words, "--out", whole) == 0
    shutil.copytree(whole, cut)
    words = (*FEW, "--queries", "15")  # a record each, and two before them
    assert run("audit", whole, *words) == 0
    for number in range(10):
        script = (str(SUPPORT / "dying.py"), "2" if number == 0 else "1", "0.002")
        with Command("audit", cut, *words, out=cut, script=script) as command:
            assert command.wait() == -signal.SIGPROF, command.err
    assert not (cut / "audit.json").exists()
    assert run("audit", cut, *words) == 0
    assert (cut / "audit.json").read_bytes() == (whole / "audit.json").read_bytes()


@pytest.mark.slow
@pytest.mark.process
def test_an_audit_holds_its_cap_ten_times_seen_from_outside(made, tmp_path):
    cap = 160_000_000
    for number in range(10):
        audited = shutil.copytree(made / "run", tmp_path / str(number))
        seen = watched_command(audited, "audit", str(audited), *FEW, "--mem", str(cap))
        assert seen.status == 0, seen.said
        assert 0.4 * cap < seen.peak_bytes <= cap


def test_the_search_keeps_its_budget_and_only_gets_better():
    def scores(texts):
        asked.extend(texts)
        return [float(text.split().count("flow")) for text in texts]

    import numpy as np

    asked = []
    words = ["flow", "air", "heat", "wing", "slip", "mach"]
    found = risen(lambda texts: np.array(scores(texts)), words, 1e9, 60, Key(0, 0))
    assert found.forwards == len(asked) == 60
    assert found.score > found.first
    assert len(found.text.split()) == WORDS
    assert found.score == found.text.split().count("flow")


def test_a_word_model_finds_shuffled_words_odder():
    texts = [
        f"the {a} of the {b} is high" for a in ("flow", "heat", "slip") for b in ("air", "wing")
    ]
    model = WordModel(texts)
    assert model.oddness("the flow of the wing") < model.oddness("wing the high of flow")


def test_an_index_of_one_document_and_runs_of_others_are_refused(
    made, tmp_path, capsys, monkeypatch
):
    one = shutil.copytree(made / "run", tmp_path / "one")
    from edge_train.tasks.retrieve.finding import Index

    read = Index.__init__

    def alone(self, folder, texts):
        read(self, folder, texts)
        self.owners = self.owners * 0

    monkeypatch.setattr(Index, "__init__", alone)
    capsys.readouterr()
    assert run("audit", one, *FEW) == 2
    assert "one document" in capsys.readouterr().err
    monkeypatch.undo()
    recipe = tmp_path / "other"
    recipe.mkdir()
    (recipe / "recipe.toml").write_text('task = "network"\n')
    assert run("audit", recipe) == 2
    assert "retrieve" in capsys.readouterr().err
    shutil.rmtree(one / "index")
    assert run("audit", one, *FEW) == 2
