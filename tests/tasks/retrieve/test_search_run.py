"""A search without torch: from notes to hits through the command; what is refused, and how."""

import json
from itertools import combinations, islice

import numpy as np
import pytest
from tiny_encoder import WORDS, make_encoder, make_judged, make_notes

from edge_train import cli
from edge_train.formats.tensor_store import read_tensors
from edge_train.runtimes.onnx.engine import call, load_graph, session_settings

STEPS = ("--steps", "40", "--samples", "8", "--threads", "1", "--learning-rate", "0.02")


def run(*words):
    return cli.main([str(word) for word in words])


def ask(capsys, *words):
    """Return what a search writes: its rows of JSON."""
    capsys.readouterr()
    assert run("search", *words, "--json") == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, notes, and a finished run."""
    place = tmp_path_factory.mktemp("search")
    model, notes = make_encoder(place / "model"), make_notes(place / "notes", 40)
    words = ("--task", "retrieve", "--model", model, "--projection", "upscaled", *STEPS)
    assert run("run", notes, *words, "--out", place / "run") == 0
    return place


def test_a_run_learns_and_says_what_it_is_judged_by(made):
    report = json.loads((made / "run" / "report.json").read_text())
    assert report["status"] == "done"
    assert report["runtime"] == "onnx"
    assert report["eval"]["best"] < report["eval"]["first"]
    metrics = report["metrics"]
    for name in ("ndcg_at_10", "ndcg_at_10_before", "ndcg_at_10_bm25", "mrr_at_10"):
        assert 0 <= metrics[name] <= 1
    assert metrics["scored_on"] == "dev"
    assert metrics["index_bytes"] > 0
    page = (made / "run" / "report.html").read_text()
    assert "Queries before and after" in page
    assert metrics["examples"][0]["query"] in page


def test_a_title_that_was_held_out_is_not_judged_by_finding_itself(tmp_path):
    """No word of a title stands in any text, so nothing but the title itself could be found."""
    notes = tmp_path / "notes"
    notes.mkdir()
    draw = np.random.default_rng(1)
    for number, words in enumerate(islice(combinations(WORDS[:10], 3), 60)):
        text = " ".join(draw.choice(WORDS[10:], 8))
        (notes / f"{number}.md").write_text(f"# {' '.join(words)}\n{text}.\n")
    words = ("--task", "retrieve", "--model", make_encoder(tmp_path / "model"), *STEPS)
    assert run("run", notes, *words, "--out", tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "report.json").read_text())["metrics"]
    for way in ("", "_before", "_bm25"):
        assert metrics[f"ndcg_at_10{way}"] < 0.5


def test_hits_name_title_passage_and_matching_words(made, capsys):
    (row,) = ask(capsys, made / "run", "good bread and flour", "--count", "3", "--threads", "1")
    assert [hit["rank"] for hit in row["hits"]] == [1, 2, 3]
    scores = [hit["score"] for hit in row["hits"]]
    assert scores == sorted(scores, reverse=True)
    first = row["hits"][0]
    assert "bread" in first["title"] + first["passage"]
    assert set(first["matches"]) & {"bread", "flour", "good"}
    assert run("search", made / "run", "bread flour", "--threads", "1") == 0
    out = capsys.readouterr().out
    assert out.startswith("1. ")
    assert "[bread]" in out or "[flour]" in out


def test_queries_nobody_can_answer_are_one_sentence_or_said(made, capsys):
    for query, words in (("", "is empty"), ("Ωμέγα", "knows no word of")):
        assert run("search", made / "run", query, "--threads", "1") == 2
        error = capsys.readouterr().err
        assert words in error
        assert len(error.strip().splitlines()) == 1
    rows = ask(capsys, made / "run", "Ωμέγα", "old bike Ωμέγα", "--threads", "1")
    assert rows[0]["hits"] == []
    assert "knows no word" in rows[0]["notice"]
    assert rows[1]["hits"]
    assert "1 tokens of the query are unknown" in rows[1]["notice"]


def test_an_index_of_another_model_and_a_damaged_one_are_refused(made, capsys, tmp_path):
    graph = made / "model" / "model.onnx"
    own = graph.read_bytes()
    other = make_encoder(tmp_path / "other", seed=1) / "model.onnx"
    graph.write_bytes(other.read_bytes())
    assert run("search", made / "run", "bread", "--threads", "1") == 2
    assert "was made with another model" in capsys.readouterr().err
    graph.write_bytes(own)
    codes = made / "run" / "index" / "tokens.bin"
    whole = codes.read_bytes()
    codes.write_bytes(whole[:-3])
    assert run("search", made / "run", "bread", "--threads", "1") == 2
    assert "tokens.bin" in capsys.readouterr().err
    codes.write_bytes(whole)


@pytest.mark.parametrize("kind", ["linear", "ffn", "glu", "residual", "upscaled"])
def test_files_of_a_head_compute_what_the_index_holds(made, tmp_path, kind):
    out = tmp_path / "run"
    words = ("--task", "retrieve", "--model", made / "model", "--projection", kind)
    assert run("run", made / "notes", *words, *STEPS[:1], "3", *STEPS[2:], "--out", out) == 0
    x = np.random.default_rng(0).standard_normal((7, 16)).astype(np.float32)
    session = load_graph(out / "head" / "head.onnx", session_settings(1), ["CPUExecutionProvider"])
    (found,) = call(session, None, {"tokens": x})
    y = x
    for module in json.loads((out / "head" / "modules.json").read_text()):
        place = out / "head" / module["path"]
        config = json.loads((place / "config.json").read_text())
        weights = read_tensors(place / "model.safetensors")[0]
        y = as_pylate(config, weights, y) if "Dense" in module["type"] else as_glu(weights, y)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(found, y, atol=1e-5)  # float32, products in another order


def as_pylate(config, weights, x):
    """`pylate.models.Dense`: activation(x W^T), plus x or its product where it is residual."""
    y = x @ weights["linear.weight"].T
    if config["activation_function"].endswith("SiLU"):
        y = y / (1 + np.exp(-y))
    if config.get("use_residual"):
        skip = weights.get("residual.weight")
        y = y + (x if skip is None else x @ skip.T)
    assert y.shape[1] == config["out_features"]
    return y


def as_glu(weights, x):
    gate = x @ weights["gate.weight"].T
    return ((x @ weights["up.weight"].T) * gate / (1 + np.exp(-gate))) @ weights["out.weight"].T


def test_queries_that_came_with_documents_are_trained_and_the_test_part_is_scored(made, tmp_path):
    folder = make_judged(tmp_path / "judged")
    out = tmp_path / "run"
    assert run("run", folder, "--model", made / "model", *STEPS, "--out", out) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["task"] == "retrieve"
    assert report["metrics"]["scored_on"] == "test"
    assert report["metrics"]["scored_queries"] == 1


def test_too_little_to_learn_from_is_one_sentence(made, capsys, tmp_path):
    (tmp_path / "one.md").write_text("# Old bike\nThe tyre and the chain.\n")
    words = ("--task", "retrieve", "--model", made / "model", "--out", tmp_path / "run")
    assert run("run", tmp_path / "one.md", *words) == 2
    error = capsys.readouterr().err
    assert "1 document and 1 queries to learn from, at least 2 are needed" in error
    assert not (tmp_path / "run").exists()
    for name, value, said in (("quant", "int8", "quant 'int8'"), ("length", "999", "positions")):
        assert run("run", made / "notes", *words, f"--{name}", value) == 2
        assert said in capsys.readouterr().err


def test_the_exact_and_the_forward_only_method_both_lower_the_loss(made, tmp_path):
    out = tmp_path / "zo"
    words = ("--task", "retrieve", "--model", made / "model", "--method", "zo", "--steps", "200")
    more = ("--projection", "linear", "--samples", "8", "--threads", "1", "--learning-rate", "0.03")
    assert run("run", made / "notes", *words, *more, "--out", out) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["backwards"] == 0
    assert report["eval"]["best"] < report["eval"]["first"]
