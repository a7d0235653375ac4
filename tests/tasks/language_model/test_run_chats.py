"""Chats through the command line: what is said before step 0, resuming, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from chat_templates import CHATML, TEMPLATES
from gguf_models import plain_llama
from safetensors.numpy import load_file
from tables import write_table

from edge_train import cli
from edge_train.tasks import open_job
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

pytest.importorskip("torch")
pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.process

_CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_WORDS = ("cat", "dog", "sun", "sea")


def rows(count=40):
    found = []
    for number in range(count):
        word = _WORDS[number % 4]
        asked = {"role": "user", "content": f"say {word} {number}"}
        found.append({"messages": [asked, {"role": "assistant", "content": f"{word} {word}"}]})
    return found


def asked_at_length(count):
    """Rows whose questions have some 60 tokens."""
    answered = {"role": "assistant", "content": "cat"}
    return [{"messages": [{"role": "user", "content": "a " * 60}, answered]}] * count


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder without weights, with a template and its tokens."""
    folder = tmp_path_factory.mktemp("chats") / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    texts = [f"user assistant system\nsay {' '.join(_WORDS)} Be of help." for _ in range(20)]
    bpe.train_from_iterator(texts, trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def run(model, data, out, *options):
    words = ["run", str(data), "--model", str(model), "--threads", "1", "--json"]
    words += ["--length", "62", "--samples", "4", "--steps", "20", "--lr", "1e-2"]
    return cli.main([*words, "--evaluate-every", "10", "--out", str(out), *options])


def prepared(model, data, folder):
    folder.mkdir()
    recipe = LanguageModelRecipe(model=str(model), data=str(data), length=62, samples=4)
    job = open_job(recipe)
    job.load()
    job.prepare(folder, print)
    return job


def damage(path):
    content = bytearray(path.read_bytes())
    content[16] ^= 1
    path.write_bytes(content)


def messages_of(capsys):
    events = map(json.loads, capsys.readouterr().out.splitlines())
    return [str(value) for event in events for value in event.values()]


def test_answers_are_learned_and_what_is_learned_is_shown_before_the_first_step(
    model, tmp_path, capsys
):
    data = write_table(tmp_path / "chats.jsonl", [*rows(), {"messages": []}])
    out = tmp_path / "run"
    assert run(model, data, out) == 0
    said = "\n".join(messages_of(capsys))
    assert "40 chats of" in said and "36 to train on, 2 to choose the best weights by, 2" in said
    assert "say cat 0<|im_end|>\\n<|im_start|>assistant\\n[[cat cat<|im_end|>]]\\n" in said
    assert "1 of 41 rows of chats.jsonl is left out: line 41 has no messages" in said
    report = json.loads((out / "report.json").read_text())
    assert report["eval"]["best"] < 0.7 * report["eval"]["first"]
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    answer = tokenizer.encode("sea sea<|im_end|>").ids  # of chats 15 and 35, of 5, 15, 25 and 35
    assert report["metrics"]["scored_tokens"] == 2 * len(answer)
    page = (out / "report.html").read_text()
    assert "<mark>cat cat&lt;|im_end|&gt;</mark>" in page
    assert "left out: line 41 has no messages" in page


def test_a_run_on_chats_goes_on_with_the_same_bits_though_a_file_is_damaged(
    model, tmp_path, capsys
):
    data = write_table(tmp_path / "chats.jsonl", rows())
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(model, data, whole, "--quant", "int8") == 0
    shutil.copytree(whole, again)
    shutil.rmtree(again / "model")
    for path in (again / "checkpoints").iterdir():
        path.unlink()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:8]))
    damage(again / "tokens-counted.bin")
    capsys.readouterr()
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    said = "\n".join(messages_of(capsys))
    assert "the checksum of tokens-counted.bin does not match" in said
    expected = load_file(whole / "model" / "model.safetensors")
    for name, value in load_file(again / "model" / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ("template", "chats", "options", "sentence"),
    [
        (None, rows(8), (), "has no chat template, so that nobody knows how it reads chats"),
        ("{{ oh", rows(8), (), "its chat template cannot be read"),
        (
            TEMPLATES["gemma"],
            [
                {"messages": [{"role": "system", "content": "a"}, *one["messages"]]}
                for one in rows(8)
            ],
            (),
            "the chat template says 'System role not supported' (8 of 8",
        ),
        (
            CHATML,
            rows(8),
            ("--length", "12"),
            "no answer begins within 13 tokens in any of 8",
        ),
        (
            CHATML,
            [*rows(2), *asked_at_length(8)],
            ("--length", "40"),
            "no answer begins within 41 tokens in 8 of 10 chats, and the 2 that are left are too",
        ),
        (CHATML, rows(2), (), "the data have 2 documents that can be used; at least 3"),
        (
            CHATML,
            [{"messages": one["messages"][:1]} for one in rows(8)],
            (),
            "line 1 has no turn of the assistant that counts (8 of 8 rows)",
        ),
        (CHATML, [{"messages": "hello"}] * 8, (), "line 1 has no list of messages (8 of 8 rows)"),
    ],
    ids=["none", "broken", "refuses", "long", "most long", "few", "unanswered", "types"],
)
def test_chats_that_cannot_be_learned_from_are_one_sentence(
    model, tmp_path, capsys, template, chats, options, sentence
):
    own = shutil.copytree(model, tmp_path / "model")
    (own / "chat_template.jinja").unlink()
    if template is not None:
        (own / "chat_template.jinja").write_text(template)
    data = write_table(tmp_path / "chats.jsonl", chats)
    assert run(own, data, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert len(message.strip().splitlines()) == 1


def test_chats_for_a_gguf_without_a_template_name_what_gives_it_one(tmp_path, capsys):
    file = tmp_path / "model.gguf"
    file.write_bytes(plain_llama(tokenizer__chat_template=None))
    data = write_table(tmp_path / "chats.jsonl", rows(8))
    assert run(file, data, tmp_path / "run") == 2
    assert (
        "`gguf-new-metadata --chat-template-file chat_template.jinja model.gguf OUT.gguf`"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "name", [None, "tokens-documents.bin", "tokens-counted.bin", "tokens.json", "day"]
)
def test_what_is_kept_of_chats_is_read_or_made_again_to_the_same(model, tmp_path, name, capsys):
    job = prepared(model, write_table(tmp_path / "chats.jsonl", rows()), tmp_path / "run")
    sha256, expected = job.data_sha256(), job.task().held_out()
    if name == "day":
        damage(tmp_path / "run" / "tokens.bin")
        about = tmp_path / "run" / "tokens.json"
        about.write_text(about.read_text().replace('"day"', '"dye"'))
    elif name:
        damage(tmp_path / "run" / name)
    again = open_job(job.recipe)
    capsys.readouterr()
    again.restore(tmp_path / "run", print)
    assert ("Reading the data again" in capsys.readouterr().out) == bool(name)
    assert again.data_sha256() == sha256
    for key, value in expected.items():
        np.testing.assert_array_equal(again.task().held_out()[key], value)


def test_a_model_that_cannot_keep_documents_apart_gets_one_in_a_sequence(model, tmp_path):
    data = write_table(tmp_path / "chats.jsonl", rows())
    batches = []
    for kind in ("llama", "bloom"):
        own = shutil.copytree(model, tmp_path / kind)
        config = {**_CONFIG, "model_type": kind}
        if kind == "bloom":
            config |= {"n_layer": 1, "n_head": 2, "seq_length": 64}
        (own / "config.json").write_text(json.dumps(config))
        job = prepared(own, data, tmp_path / f"run-{kind}")
        batches.append(job.task().evaluation())
    together, alone = batches
    assert together.keys() - alone.keys() == {"document"}
    assert len(alone["ids"]) == 2 and len(together["ids"]) == 1
    assert any("not packed" in note and "'bloom'" in note for note in job.notes)
