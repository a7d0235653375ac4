"""PyLate, where it is installed, makes the vectors of a search from the lines of its report."""

import html
import re

import numpy as np
import pytest

from edge_train import cli
from edge_train.tasks.retrieve.search import open_searcher

pytestmark = pytest.mark.slow
pytest.importorskip("torch")
pytest.importorskip("pylate")

from tiny_encoder import WORDS, make_notes  # noqa: E402

from edge_train.bench.small_classifier import make_classifier  # noqa: E402


@pytest.mark.parametrize("projection", ["linear", "ffn", "residual", "upscaled"])
def test_the_lines_of_a_report_load_the_head(projection, tmp_path, monkeypatch):
    model = make_classifier(
        tmp_path / "bert", list(WORDS), layers=1, width=32, vocabulary=80, positions=48
    )
    notes, run = make_notes(tmp_path / "notes", 24), tmp_path / "run"
    words = ("run", notes, "--task", "retrieve", "--model", model, "--projection", projection)
    more = ("--steps", 4, "--samples", 4, "--threads", 1, "--out", run)
    assert cli.main([str(word) for word in (*words, *more)]) == 0
    page = (run / "report.html").read_text()
    (code,) = [
        html.unescape(found)
        for found in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.S)
        if "pylate" in found
    ]
    monkeypatch.chdir(run)
    names: dict = {}
    exec(code, names)  # what a reader of the report would type
    text = "old bread, and good flour."
    found = np.asarray(names["model"].encode([text], is_query=False)[0])
    searcher = open_searcher(run, 1)
    wanted = searcher.vectors(text)
    searcher.encoder.close()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # the same products
    (query,) = names["model"].encode([text], is_query=True)
    assert len(query) == len(wanted) + 4  # with [CLS], [SEP], the comma and the point
