"""A run on prompts and completions is asked as it was trained: with the same new line between."""

import io
import json

import pytest
from gguf_models import plain_llama
from tables import write_table

from edge_train import cli
from edge_train.tasks import open_job, read_recipe
from edge_train.tasks.language_model import generate as generating
from edge_train.tasks.language_model import naming, speaking
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.tasks.language_model.speaking import open_its_base, open_speaker

BEST = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"


def pairs(prompt="an inn {}", before=""):
    words = ("tin", "hat")
    return [{"prompt": prompt.format(n), "completion": before + words[n % 2]} for n in range(20)]


def prepared(folder, rows, template=None):
    """Return what is kept of rows."""
    changes = {"llama__context_length": 64, "tokenizer__chat_template": template}
    (folder / "model.gguf").write_bytes(plain_llama(**changes))
    data = write_table(folder / "t.jsonl", rows)
    own = {"length": 24, "samples": 2, "runtime": "numpy"}
    job = open_job(LanguageModelRecipe(model=str(folder / "model.gguf"), data=str(data), **own))
    job.load()
    (out := folder / "run").mkdir()
    job.prepare(out, [].append)
    return json.loads((out / "tokens.json").read_text())


@pytest.mark.parametrize(
    ("rows", "put"),
    [
        (pairs(), True),
        (pairs(before=" "), False),
        (pairs("an inn {}\n"), False),
        (pairs("an inn {}\n")[:15] + pairs()[:5], True),  # wherever the data leave it open
        (pairs(before=" ")[:15] + pairs()[:5], False),
    ],
    ids=["bare", "answers after a space", "prompts with a line", "some", "few"],
)
def test_a_run_keeps_whether_a_new_line_stands_between_prompt_and_completion(tmp_path, rows, put):
    assert prepared(tmp_path, rows)["new_line"] is put


def test_a_template_needs_no_new_line(tmp_path):
    assert prepared(tmp_path, pairs(), TEMPLATE)["new_line"] is False


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of a model without a template."""
    monkeypatch.setattr(speaking, "find_spec", lambda name: None)
    changes = {"llama__context_length": 64, "tokenizer__chat_template": None}
    (tmp_path / "model.gguf").write_bytes(plain_llama(random=True, **changes))
    data = write_table(tmp_path / "t.jsonl", pairs())
    words = ["run", str(data), "--task", "language-model", "--runtime", "numpy", "--json"]
    words += ["--model", str(tmp_path / "model.gguf"), "--threads", "1", "--length", "24"]
    words += ["--steps", "1", "--samples", "2", "--loss-on", "labels"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


@pytest.fixture
def ask(run, monkeypatch):
    """Return what the model is asked by `infer` and by `generate`, as texts."""
    asked = []

    def opened(*_, **__):
        speaker = open_speaker(run, 1)
        logits = speaker.engine.next_logits

        def next_logits(ids):
            asked.append(speaker.tokenizer.decode(list(ids), skip_special_tokens=False))
            return logits(ids)

        speaker.engine.next_logits = next_logits
        return speaker

    def of(text, raw=False):
        asked.clear()
        monkeypatch.setattr(naming, "open_speaker", opened)
        monkeypatch.setattr(generating, "open_speaker", opened)
        if not raw:
            list(naming.infer(run, [text], as_json=True))
        keys = {"sampling": BEST, "most": 1, "seed": 0, "threads": 1}
        generating.generate(run, [text], io.StringIO(), **keys, raw=raw, base=False)
        return asked

    return of


def test_infer_and_generate_ask_with_the_new_line_of_training(run, ask):
    assert ask("an inn 3") == ["an inn 3\n"] * 2
    assert ask("an inn 3\n") == ["an inn 3\n"] * 2
    assert ask("an inn 3 ") == ["an inn 3 "] * 2
    assert ask("an inn 3", raw=True) == ["an inn 3"]
    base = open_its_base(run, 1)
    assert base.tokenizer.decode(base.ids_of_prompt("an inn 3")) == "an inn 3\n"


def test_what_is_asked_is_what_training_had_before_an_answer(run):
    speaker, job = open_speaker(run, 1), open_job(read_recipe(run / "recipe.toml"))
    job.restore(run, [].append)
    task = job.task()
    ids, counts = task.ids[: task.starts[1]], task.counts_of(0)
    assert speaker.ids_of_prompt("an inn 0") == ids[: counts.argmax()].tolist()


def test_a_run_that_began_before_this_was_kept_is_asked_as_before(run, ask):
    about = json.loads((run / "tokens.json").read_text())
    del about["new_line"]
    (run / "tokens.json").write_text(json.dumps(about))
    assert ask("an inn 3") == ["an inn 3"] * 2
    (run / "tokens.json").write_text(json.dumps({**about, "new_line": "yes"}))
    assert ask("an inn 3") == ["an inn 3"] * 2
