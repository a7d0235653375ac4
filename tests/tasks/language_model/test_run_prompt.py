"""Prompts through the command line: searched and soft, resumed, used afterwards, refused."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dying
import numpy as np
import pytest
from chat_templates import CHATML
from running import kill, steps_in
from safetensors.numpy import load_file
from tables import write_table

from edge_train import cli
from edge_train.bench.watched import watched_command
from edge_train.formats.tensor_store import save_tensors
from edge_train.records import journal
from edge_train.tasks import open_job
from edge_train.tasks.language_model.labels import judge
from edge_train.tasks.language_model.prompting import begin
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.process

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 340,
    "max_position_embeddings": 96,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.3,
}
_WORDS = ("cat", "dog", "sun", "sea", "ice", "fig", "owl", "yes", "no")


def rows(count=160):
    """Questions whose answer is mostly no, which random weights do not know."""
    words, found = _WORDS[:7], []
    for number in range(count):
        asked = f"{words[number % 7]} or {words[number // 7 % 7]}?"
        found.append({"prompt": asked, "completion": "no" if number % 6 else "yes"})
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with chats, and a model of random weights whose words are tokens."""
    root = tmp_path_factory.mktemp("prompts")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))
    network.save_pretrained(root / "model")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    texts = [f"user\nassistant\nsystem\n{w} {' '.join(_WORDS)}" for w in _WORDS]
    bpe.train_from_iterator(texts * 5, trainer)
    bpe.save(str(root / "model" / "tokenizer.json"))
    (root / "model" / "chat_template.jinja").write_text(CHATML)
    write_table(root / "chats.jsonl", rows())
    return root


def words(place, out, *options):
    found = ["run", "--task", "language-model", "--data", str(place / "chats.jsonl"), "--json"]
    found += ["--model", str(place / "model"), "--threads", "1", "--length", "64"]
    found += ["--samples", "8", "--evaluation-samples", "16", "--loss-on", "labels"]
    return [*found, "--out", str(out), *options]


SEARCH = ("--method", "discrete", "--prompt-tokens", "3", "--tries", "6")
SEARCH += ("--steps", "12", "--evaluate-every", "3")
SOFT = ("--trainable", "prompt", "--prompt-start", "cat dog", "--steps", "12")
SOFT += ("--evaluate-every", "3")


def report_of(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_search_lowers_the_loss_and_what_it_finds_reads_back(place, tmp_path, engine):
    out = tmp_path / "run"
    assert cli.main(words(place, out, *SEARCH, "--runtime", engine)) == 0
    report = report_of(out)
    assert report["runtime"] == engine and report["method"] == "discrete"
    assert report["eval"]["best"] < report["eval"]["first"]
    assert report["backwards"] == 0
    found = json.loads((out / "prompt.json").read_text())
    assert (
        (out / "prompt.txt").read_text()
        == found["text"] + "\n"
        == report["metrics"]["prompt"] + "\n"
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(place / "model" / "tokenizer.json"))
    whole = tokenizer.encode(f"<|im_start|>system\n{found['text']}<|im_end|>\n").ids
    assert whole[found["at"] : found["at"] + 3] == found["ids"]
    assert 0 <= report["metrics"]["accuracy"] <= 1
    # the accuracy is of the prompt as a text, asked as an app would
    recipe = LanguageModelRecipe(
        model=str(place / "model"),
        data=str(place / "chats.jsonl"),
        method="discrete",
        loss_on="labels",
        prompt_start=found["text"],
        length=64,
        threads=1,
    )
    job = open_job(recipe)
    job.load()
    (tmp_path / "again").mkdir()
    job.prepare(tmp_path / "again", print)
    runtime = job.open_runtime()
    assert judge(runtime, job.task().held_out(512)).accuracy == report["metrics"]["accuracy"]
    runtime.close()


def test_both_engines_find_the_same_prompt(place, tmp_path):
    """Losses that decide differ by 1e-4 or more here, and those of the two engines by 2e-6."""
    chosen = []
    for engine in ("torch", "numpy"):
        assert cli.main(words(place, tmp_path / engine, *SEARCH, "--runtime", engine)) == 0
        records, _ = journal.read(tmp_path / engine / "journal.jsonl")
        chosen.append([record["scalars"] for record in records if record.get("kind") == "step"])
    assert chosen[0] == chosen[1]
    first, second = ((tmp_path / e / "prompt.txt").read_text() for e in ("torch", "numpy"))
    assert first == second


@pytest.mark.parametrize(
    "options", [SEARCH, (*SOFT, "--method", "zo"), (*SOFT, "--method", "adamw")]
)
def test_a_run_goes_on_with_the_same_bits(place, tmp_path, options, capsys):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert cli.main(words(place, whole, *options)) == 0
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints")
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:7]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    for name in ("prompt.json", "prompt.txt", "prompt.safetensors"):
        assert (whole / name).is_file() == (again / name).is_file()
        if (whole / name).is_file():
            assert (whole / name).read_bytes() == (again / name).read_bytes()
    assert report_of(whole)["eval"] == report_of(again)["eval"]


def test_a_prompt_is_found_again_from_another_folder(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    options = ["--model", "model", *SEARCH, "--steps", "1", "--runtime", "numpy"]
    assert cli.main(words(place, tmp_path / "run", *options)) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert cli.main(["infer", "run", "cat or dog?"]) == 0
    assert "cat or dog?" in capsys.readouterr().out


def test_a_step_is_a_position_and_an_id_in_the_journal(place, tmp_path):
    out = tmp_path / "run"
    assert cli.main(words(place, out, *SEARCH)) == 0
    records, _ = journal.read(out / "journal.jsonl")
    steps = [record for record in records if record.get("kind") == "step"]
    assert len(steps) == 12
    for record in steps:
        position, token = record["scalars"]
        assert position in (0, 1, 2) and token == int(token) < 340


@pytest.mark.slow
@pytest.mark.parametrize("records", range(2, 12))
def test_a_run_that_is_killed_ends_with_the_same_bits(place, tmp_path, records):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli.main(words(place, whole, *SEARCH, "--runtime", "numpy")) == 0
    command = [sys.executable, dying.__file__, str(records), "0.01"]
    command += words(place, killed, *SEARCH, "--runtime", "numpy")
    ended = subprocess.run(command, env=dict(os.environ), capture_output=True, check=False)
    assert ended.returncode < 0
    assert cli.main(["run", "--resume", str(killed), "--json"]) == 0
    assert (whole / "prompt.json").read_bytes() == (killed / "prompt.json").read_bytes()
    assert report_of(whole)["eval"] == report_of(killed)["eval"]


def test_a_cap_is_held(place, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "edge_train", *words(place, out, *SEARCH, "--mem", "400MB")]
    command += ["--runtime", "numpy"]
    subprocess.run(command, check=True, capture_output=True)
    assert report_of(out)["measured_peak_bytes"] <= 400_000_000


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_in_a_row_ends_with_the_same_bits(place, tmp_path):
    long = (*SEARCH[:-4], "--steps", "120", "--evaluate-every", "30", "--runtime", "numpy")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli.main(words(place, whole, *long)) == 0
    landed = []
    for number in range(10):
        assert kill(words(place, killed, *long), killed, 2 + 2 * number, 0.002)
        landed.append(steps_in(killed))
    assert landed == sorted(landed) and 0 < landed[-1] < 120
    assert cli.main(["run", "--resume", str(killed), "--json"]) == 0
    assert (whole / "prompt.json").read_bytes() == (killed / "prompt.json").read_bytes()
    assert report_of(whole)["eval"] == report_of(killed)["eval"]


@pytest.mark.slow
def test_a_cap_is_held_ten_times_seen_from_outside(place, tmp_path):
    cap = 250_000_000
    for seed in range(10):
        out = tmp_path / str(seed)
        more = (*SEARCH, "--runtime", "numpy", "--seed", str(seed), "--mem", str(cap))
        seen = watched_command(out, *words(place, out, *more))
        assert seen.status == 0, seen.said
        assert 0.3 * cap < seen.peak_bytes <= cap


def test_a_soft_prompt_learns_by_exact_gradients_and_is_used(place, tmp_path, capsys):
    out = tmp_path / "run"
    options = (*SOFT, "--method", "adamw", "--lr", "5e-2")
    assert cli.main(words(place, out, *options)) == 0
    report = report_of(out)
    assert report["eval"]["best"] < report["eval"]["first"]
    vectors = load_file(out / "prompt.safetensors")["prompt"]
    assert vectors.shape == (len(json.loads((out / "prompt.json").read_text())["ids"]), 32)
    capsys.readouterr()
    ask = ["generate", str(out), "--prompt", "cat or dog?", "--max-tokens", "4"]
    assert cli.main(ask) == 0
    first = capsys.readouterr().out
    save_tensors(out / "prompt.safetensors", {"prompt": vectors[:1].copy()}, {})
    assert cli.main(ask) == 2
    assert "does not hold" in capsys.readouterr().err
    assert first


def test_the_gradient_of_a_soft_prompt_is_the_slope_of_its_loss(place, tmp_path):
    recipe = LanguageModelRecipe(
        model=str(place / "model"),
        data=str(place / "chats.jsonl"),
        trainable="prompt",
        method="adamw",
        loss_on="labels",
        prompt_start="cat dog",
        length=64,
        samples=4,
        threads=1,
    )
    job = open_job(recipe)
    job.load()
    job.prepare(tmp_path, print)
    runtime, found = job.open_runtime(), {}
    batch = job.task().evaluation()
    runtime.backward(batch, found.__setitem__)
    start = runtime.parameters["prompt"].copy()
    draw = np.random.default_rng(0).standard_normal(start.shape).astype(np.float32)
    step = np.float32(1e-2)
    sides = [{"prompt": start + step * draw}, {"prompt": start - step * draw}]
    up, down = runtime.forward(batch, sides).astype(np.float64).mean(axis=1)
    # central differences in float32: 1e-7 of a loss of 1 over 0.02
    expected = (up - down) / (2 * float(step))
    assert float((found["prompt"] * draw).sum()) == pytest.approx(expected, rel=0.02, abs=1e-4)
    runtime.close()


def test_new_texts_get_the_answers_that_the_report_counts(place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert cli.main(words(place, out, *SEARCH, "--runtime", "numpy")) == 0
    capsys.readouterr()
    assert "edge-train infer ." in (out / "report.html").read_text()
    asked = rows()[-12:]  # of the tenth that is held out
    assert cli.main(["infer", str(out), *[row["prompt"] for row in asked], "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in found] == [row["prompt"] for row in asked]
    text = json.loads((out / "prompt.json").read_text())["text"]
    for one in found:
        assert set(one["probabilities"]) == {"yes", "no"}
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert one["probabilities"][one["class"]] >= 0.5
    # beside the definition: the next token's logits in transformers, of the chat as a text
    network = transformers.LlamaForCausalLM.from_pretrained(place / "model")
    tokenizer = tokenizers.Tokenizer.from_file(str(place / "model" / "tokenizer.json"))
    ids = tokenizer.encode(
        f"<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\n{asked[0]['prompt']}<|im_end|>"
        "\n<|im_start|>assistant\n"
    ).ids
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, -1]
    first = {name: tokenizer.encode(name).ids[0] for name in ("yes", "no")}
    share = torch.softmax(logits[[first["yes"], first["no"]]], 0)[0].item()
    assert found[0]["probabilities"]["yes"] == pytest.approx(share, abs=1e-4)
    monkeypatch.setattr("sys.stdin", io.StringIO("cat or dog?\n\nsun or sea?\n"))
    assert cli.main(["infer", str(out), "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["cat or dog?", "sun or sea?"]
    for asked_for, said in ((" ", "a text is empty"), ("cat " * 200, "positions")):
        assert cli.main(["infer", str(out), asked_for]) == 2
        assert said in capsys.readouterr().err


def test_a_run_without_fixed_answers_names_no_classes(place, tmp_path, capsys):
    out = tmp_path / "run"
    plain = words(place, out, "--loss-on", "completions", "--trainable", "lora", "--steps", "1")
    assert cli.main(plain) == 0
    capsys.readouterr()
    assert cli.main(["infer", str(out), "cat or dog?"]) == 2
    assert "--loss-on labels" in capsys.readouterr().err


def test_generate_and_chat_put_the_prompt_in_front(place, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(words(place, out, *SEARCH)) == 0
    capsys.readouterr()
    text = (out / "prompt.txt").read_text().strip()
    from edge_train.tasks.language_model.speaking import open_speaker

    speaker = open_speaker(out, 1)
    ids = speaker.ids_of_chat([{"role": "user", "content": "cat or dog?"}])
    assert speaker.tokenizer.decode(ids, skip_special_tokens=False).startswith(
        f"<|im_start|>system\n{text}<|im_end|>\n"
    )
    speaker.engine.close()
    assert cli.main(["generate", str(out), "--prompt", "cat or dog?", "--max-tokens", "2"]) == 0
    for damage in (b"[]", b'{"version": 9}', b"\xff\x00", b'{"version": 1, "ids": ["a"]}'):
        (out / "prompt.json").write_bytes(damage)
        assert cli.main(["generate", str(out), "--prompt", "cat"]) == 2
        assert "prompt.json: cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "discrete", "--prompt-tokens", "0"), "prompt_tokens"),
        (("--method", "discrete", "--prompt-tokens", "60"), "60 of them the learned prompt's"),
        (("--method", "discrete", "--prompt-start", "  "), "--prompt-start is empty"),
        (("--method", "discrete", "--prompt-start", "<|im_end|>"), "not read as the same"),
        (("--method", "discrete", "--prompt-start", "cat", "--prompt-tokens", "2"), "has 1"),
        (("--method", "discrete", "--trainable", "lora"), "leave one of them out"),
        (("--method", "discrete", "--rank", "4"), "rank"),
        (("--method", "discrete", "--queries", "4"), "queries is not read"),
        (("--trainable", "lora", "--prompt-tokens", "4"), "--trainable prompt"),
        (("--trainable", "prompt", "--method", "galore"), "discrete"),
        (("--trainable", "prompt", "--method", "zo", "--runtime", "numpy"), "soft prompt"),
        (("--method", "discrete", "--loss-on", "all"), "--loss-on completions or labels"),
        (("--method", "discrete", "--label-smoothing", "0.1"), "label_smoothing"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_a_sentence(place, tmp_path, options, said, capsys):
    out = tmp_path / "out"
    given = words(place, out, "--steps", "2", *options)
    status = cli.main(given)
    error = capsys.readouterr().err
    assert status == 2 and said in error, error
    assert not Path(out / "journal.jsonl").exists()


def test_data_without_fixed_answers_are_refused(place, tmp_path, capsys):
    other = tmp_path / "model-and-data"
    other.mkdir()
    (other / "model").symlink_to(place / "model")
    (other / "chats.jsonl").write_text("")

    def refused(found, *options):
        write_table(other / "chats.jsonl", found)
        assert cli.main(words(other, tmp_path / "out", "--steps", "2", *options)) == 2
        return capsys.readouterr().err

    many = [{"prompt": "cat", "completion": f"{n} yes"} for n in range(90)]
    assert "tells 2 to 64 different answers apart" in refused(many, *SEARCH)
    alike = [{"prompt": "cat", "completion": f"yes {w}"} for w in ("cat", "dog") * 10]
    assert "2 answers begin with 1" in refused(alike, *SEARCH)
    one = [{"prompt": "cat", "completion": "yes"} for _ in range(20)]
    assert "have 1" in refused(one, *SEARCH)
    texts = [{"text": "cat dog"} for _ in range(200)]
    assert "is for chats or prompts with completions" in refused(texts, *SEARCH)


def test_a_template_that_knows_no_system_gets_the_prompt_in_the_users_turn(place):
    from datetime import datetime

    from edge_train.formats.chat_template import ChatTemplate
    from edge_train.tasks.language_model.marks import Marks

    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template = ChatTemplate({"default": source + CHATML}, {}, datetime(2026, 1, 1))
    tokenizer = tokenizers.Tokenizer.from_file(str(place / "model" / "tokenizer.json"))
    recipe = LanguageModelRecipe(method="discrete", prompt_start="cat dog")
    prompt, _ = begin(recipe, tokenizer, template, Marks())
    assert prompt.role == "user"
    bare, _ = begin(recipe, tokenizer, None, Marks((5,), (6,)))
    assert (bare.role, bare.at) == ("system", 1)


@pytest.fixture(scope="module")
def second(place):
    """Another model of random weights, whose tokens have other ids, and fewer of its words."""
    folder = place / "second"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.LlamaConfig(**{**_SIZES, "hidden_size": 48, "vocab_size": 350})
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=350,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    known = _WORDS[1:]  # cat is several tokens
    texts = [f"user\nassistant\nsystem\n{w} {' '.join(reversed(known))}" for w in known]
    bpe.train_from_iterator(texts * 5, trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


TWO = ("--method", "discrete", "--prompt-start", "dog sun", "--tries", "4", "--steps", "8")
TWO += ("--evaluate-every", "2", "--runtime", "numpy")


def test_words_of_two_models_are_aligned_by_their_characters(place, second):
    from edge_train.formats.aligned_words import AlignedWords
    from edge_train.formats.prompt_words import Place, prompt_words

    files = (place / "model", second)
    read = [tokenizers.Tokenizer.from_file(str(one / "tokenizer.json")) for one in files]
    before = "system\n"
    own = [
        prompt_words(one, Place(before, "<|im_end|>", len(one.encode(before).ids))) for one in read
    ]
    words = AlignedWords(*own)
    for text in ("dog sun", "sun sea ice"):
        one, two = (each.encode(f"{before}{text}").ids[-len(text.split()) :] for each in read)
        assert words.other(one) == tuple(two) != tuple(one)
    cat = read[0].encode(f"{before}cat").ids[-1:]  # one token here, several there
    assert own[0].admits(cat) and words.other(cat) is None


def test_a_prompt_is_searched_for_two_models_and_resumes_to_the_same_bits(place, second, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    options = (*TWO, "--also-for", str(second))
    assert cli.main(words(place, whole, *options)) == 0
    report = report_of(whole)
    assert report["eval"]["best"] <= report["eval"]["first"]
    for name in ("accuracy", "second_accuracy"):
        assert 0 <= report["metrics"][name] <= 1
    own = json.loads((whole / "prompt.json").read_text())
    other = json.loads((whole / "second" / "prompt.json").read_text())
    assert own["text"] == other["text"] and own["ids"] != other["ids"]
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints")
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:6]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    assert (whole / "prompt.json").read_bytes() == (again / "prompt.json").read_bytes()
    assert report_of(whole)["eval"] == report_of(again)["eval"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "zo", "--trainable", "prompt"), "also_for is of --method discrete"),
        (("--method", "discrete", "--prompt-tokens", "2"), "needs --prompt-start"),
        (("--method", "discrete", "--prompt-start", "cat"), "not the same words"),
    ],
)
def test_what_two_models_do_not_share_is_said(place, second, tmp_path, options, said, capsys):
    given = words(place, tmp_path / "out", "--steps", "2", "--also-for", str(second), *options)
    assert cli.main(given) == 2
    assert said in capsys.readouterr().err


def test_the_worse_model_of_a_pair_counts_more():
    from edge_train.runtimes.prompted_pair import PromptedPair

    class Alone:
        device, dtype = "cpu", "float32"

        def __init__(self, losses):
            self.losses, self.parameters = np.float32(losses), {}

        def forward(self, batch, points):
            return self.losses[: len(points)]

    pair = PromptedPair(Alone([[1, 1], [0, 0]]), Alone([[1, 3], [1, 3]]), lambda ids: ids)
    standing, other = pair.forward({}, [{"prompt": np.zeros(1)}] * 2)
    share = 1 / (1 + np.exp(2))
    np.testing.assert_allclose(standing, [1, share * 1 + (1 - share) * 3], rtol=1e-6)
    np.testing.assert_allclose(other, [0.5, (1 - share) * 3], rtol=1e-6)
    (alone,) = pair.forward({}, [{"prompt": np.zeros(1)}])
    np.testing.assert_allclose(alone, [1, 2])
