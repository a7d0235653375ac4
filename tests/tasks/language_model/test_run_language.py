"""Task language-model through the command line: it learns, goes on with the same bits, refuses."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from byte_tokenizer import save_byte_tokenizer
from page_lines import lines_to_copy
from safetensors.numpy import load_file, save_file
from tables import write_table

from edge_train import cli
from edge_train.formats.weight_files import read_json
from edge_train.tasks import open_job
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.process

_CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and a model folder without weights."""
    root = tmp_path_factory.mktemp("language")
    text = "the cat sat on the mat and the dog sat on the cat\n" * 200
    (root / "text.txt").write_text(text)
    model = root / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(_CONFIG))
    save_byte_tokenizer(model, root / "text.txt")
    return root


def run(place, out, *options, model=None, data=None):
    words = ["run", "--task", "language-model", "--data", str(data or place / "text.txt")]
    words += ["--model", str(model or place / "model"), "--threads", "1", "--json"]
    words += ["--length", "16", "--steps", "40", "--lr", "1e-2", "--evaluate-every", "10"]
    return cli.main([*words, "--out", str(out), *options])


def report_of(out):
    return json.loads((out / "report.json").read_text())


_TIMES = ("before", "after")
_LOW_RANK = ("--rank", "4", "--refresh-every", "5")
_TURNS = ("--block-schedule", "owlore", "--sampled-layers", "1", "--resample-every", "7")


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "q-galore", "--quant", "int8", *_LOW_RANK),
        ("--method", "q-galore", "--quant", "int8", *_LOW_RANK, "--micro-batch", "3"),
        ("--method", "q-galore", "--quant", "int4", *_LOW_RANK),
        ("--method", "adamw8bit", "--quant", "int4", "--weight-decay", "0.01"),
        ("--method", "adamw", "--weight-decay", "0.01"),
        (
            "--method",
            "adamw8bit",
            "--quant",
            "int8",
            "--weight-decay",
            "0.01",
            "--micro-batch",
            "2",
        ),
        ("--method", "frugal", "--quant", "int8", "--weight-decay", "0.01", "--rank", "4"),
        ("--method", "scale-sgd", "--quant", "int8", "--micro-batch", "3"),
        ("--method", "q-galore", "--quant", "int8", *_LOW_RANK, *_TURNS),
        ("--method", "gradnormlorp8bit", "--quant", "int8", *_LOW_RANK, "--micro-batch", "3"),
        ("--method", "gradnormlorp", "--weight-decay", "0.01", *_LOW_RANK, *_TURNS),
    ],
    ids=" ".join,
)
def test_it_learns_and_goes_on_with_the_same_bits(place, tmp_path, options):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(place, whole, *options) == 0
    report = report_of(whole)
    assert report["status"] == "done"
    # INT4 weights take noise of half a level from every step, which is much for rank 4 in 40 steps
    most = 0.7 if "q-galore" in options and "int4" in options else 0.5
    assert report["eval"]["best"] < most * report["eval"]["first"]
    assert report["metrics"]["perplexity"] == pytest.approx(
        np.exp(report["metrics"]["held_out_loss"])
    )
    shutil.copytree(whole, again)
    for name in ("model", "checkpoints"):
        shutil.rmtree(again / name)
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:24]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    expected = load_file(whole / "model" / "model.safetensors")
    for name, value in load_file(again / "model" / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[name])


def test_the_page_shows_what_the_model_wrote_and_lines_that_load_it(
    place, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    assert run(place, out, "--method", "adamw") == 0
    before, after = ((out / "samples" / f"{when}-01.txt").read_text() for when in _TIMES)
    page = (out / "report.html").read_text()
    assert "Before and after" in page and after != before
    known = {"the", "cat", "sat", "on", "mat", "and", "dog"}
    assert set(after.split()[1:-1]) <= known  # words at the ends may be cut
    assert after.split()[1] in page
    found = lines_to_copy(out / "report.html")
    monkeypatch.chdir(out)
    capsys.readouterr()
    exec(found["transformers"], {})
    assert capsys.readouterr().out.strip()
    words = found["edge-train, to learn more"].replace("MORE.txt", str(place / "text.txt")).split()
    words += ["--length", "16", "--steps", "1", "--difference-rank", "2", "--json"]
    assert cli.main([*words[1:], "--out", str(tmp_path / "on")]) == 0
    code = lines_to_copy(tmp_path / "on" / "report.html")["peft, what training changed"]
    assert 'from_pretrained("difference")' in code
    assert (tmp_path / "on" / "difference" / "adapter_config.json").is_file()


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_forward_passes_alone_make_it_better_and_are_replayed_from_the_journal(
    place, tmp_path, quant
):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(place, whole, "--method", "zo", "--lr", "1e-2", "--quant", quant) == 0
    report = report_of(whole)
    assert report["backwards"] == 0
    assert report["eval"]["best"] < 0.98 * report["eval"]["first"]
    shutil.copytree(whole, again)
    for path in (again / "checkpoints").iterdir():
        path.unlink()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:12]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    expected = load_file(whole / "model" / "model.safetensors")
    for name, value in load_file(again / "model" / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[name])


def test_weight_decay_that_int8_weights_cannot_show_is_refused(place, tmp_path, capsys):
    options = ("--method", "zo", "--quant", "int8", "--weight-decay", "0.1")
    assert run(place, tmp_path / "run", *options) == 2
    assert "use --quant none" in capsys.readouterr().err


def test_the_result_is_the_folder_it_came_from_in_the_same_shards_and_types(place, tmp_path):
    """A bfloat16 model in two shards, one with a tensor that is no parameter."""
    torch = pytest.importorskip("torch")
    model = shutil.copytree(place / "model", tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(model)
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    network.save_pretrained(model, max_shard_size="40KB")
    assert len(read_json(model / "model.safetensors.index.json")["weight_map"]) == 21
    out = tmp_path / "run"
    options = ("--quant", "int8", "--method", "q-galore", *_LOW_RANK)
    assert run(place, out, *options, model=model) == 0
    shards = sorted(path.name for path in model.glob("*.safetensors"))
    assert shards == sorted(path.name for path in (out / "model").glob("*.safetensors"))
    assert len(shards) > 1
    trained = transformers.AutoModelForCausalLM.from_pretrained(out / "model")
    assert trained.dtype == torch.bfloat16
    ids = np.fromfile(out / "tokens.bin", "<u2")[-17:].astype(np.int64)
    with torch.no_grad():
        loss = trained.float()(torch.from_numpy(ids[None]), labels=torch.from_numpy(ids[None])).loss
    assert float(loss) < 0.7 * report_of(out)["eval"]["first"]


def test_a_gradient_that_is_not_finite_leaves_the_last_good_weights(place, tmp_path, monkeypatch):
    from edge_train.runtimes.torch.held_layers import Weights

    plain, calls = Weights.hand_over, []

    def poisoned(self, name, left, right):
        calls.append(name)
        if len(calls) == 305:
            left = left * float("nan")
        plain(self, name, left, right)

    monkeypatch.setattr(Weights, "hand_over", poisoned)
    out = tmp_path / "run"
    assert run(place, out, "--quant", "int8") == 0
    journal = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    skipped = [line for line in journal if line.get("skipped")]
    assert len(skipped) == 1 and "is not finite" in skipped[0]["skipped"]
    assert report_of(out)["eval"]["best"] < 0.5 * report_of(out)["eval"]["first"]


def test_a_plan_counts_the_sequences_that_are_scored_at_their_length(place):
    """It took one sequence of 256 tokens for every length; four are scored at once, of any."""
    from recipes import recipe_for

    from edge_train.memory.footprint import SAVE, TRAIN
    from edge_train.tasks.language_model.job import LanguageModelJob

    keys = {"data": str(place / "text.txt"), "model": str(place / "model")}
    keys["task"] = "language-model"
    logits = 4 * 300  # a token's, in bytes

    def scored(**more):
        return LanguageModelJob(recipe_for(**keys, **more)).footprint().workspace[SAVE]

    assert scored(length=32) == 4 * scored(length=8) == 4 * scored(length=32, micro_batch=1)
    # outputs and their logarithms, and a layer that is small beside them
    assert 2 * logits <= scored(length=32) / (4 * 32) < 6 * logits
    one = LanguageModelJob(recipe_for(**keys, length=32, samples=1)).footprint().workspace
    assert one[TRAIN] >= one[SAVE]  # evaluations are a part of training


def test_a_plan_counts_the_activations_of_a_micro_batch_and_what_is_summed(place):
    from recipes import recipe_for

    from edge_train.tasks.language_model.job import LanguageModelJob

    keys = {"task": "language-model", "model": str(place / "model"), "length": 16, "samples": 8}
    keys |= {"data": str(place / "text.txt"), "method": "galore", "rank": 4}
    whole, parts, one = (
        LanguageModelJob(recipe_for(**keys, micro_batch=size)).footprint() for size in (8, 2, 1)
    )
    tokens = whole.workspace["train"] - parts.workspace["train"]
    assert tokens == 6 * (parts.workspace["train"] - one.workspace["train"]) > 0
    lines = {line.name: line.bytes for line in parts.known["train"]}
    dense = 32 * 8 * 16 + 5 * 32  # the rows that 8 texts of 16 tokens look up at most; norms
    # the inputs of the output layer and its hidden states, whose errors are made again
    projected, head = 4 * 2 * (4 * 32 + 3 * 64), 2 * 8 * 16 * 32
    assert lines["sums of a step's parts"] == 4 * (dense + projected + head)
    in_rows = LanguageModelJob(recipe_for(**keys | {"method": "gradnormlorp"}, micro_batch=2))
    rows = 2 * (4 * 32 + 64 + 64 + 32)
    own = {line.name: line.bytes for line in in_rows.footprint().known["train"]}
    assert own["sums of a step's parts"] == 4 * (dense + projected + rows + head)
    like_others = LanguageModelJob(recipe_for(**keys, micro_batch=2, project_head=True))
    lines = {line.name: line.bytes for line in like_others.footprint().known["train"]}
    assert lines["sums of a step's parts"] == 4 * (dense + projected + 4 * 300)
    assert "sums of a step's parts" not in {line.name for line in whole.known["train"]}


def test_a_plan_counts_the_moments_of_an_output_layer_whole(place):
    """And in runs of earlier code, which projected it, as they are."""
    from recipes import recipe_for

    from edge_train.tasks.language_model.job import LanguageModelJob

    keys = {"task": "language-model", "model": str(place / "model"), "length": 16}
    keys |= {"data": str(place / "text.txt"), "method": "galore", "rank": 4}
    bytes_of = {}
    for name, more in {"": {}, "asked": {"project_head": True}, "earlier": {"rules": 1}}.items():
        held = LanguageModelJob(recipe_for(**keys, **more)).footprint().known["train"]
        bytes_of[name] = {line.name: line.bytes for line in held}["optimizer state and copies"]
    assert bytes_of["asked"] == bytes_of["earlier"]
    low = 8 * 4 * 300 + 4 * 4 * 32 + 44
    assert bytes_of[""] - bytes_of["asked"] == 8 * 300 * 32 + 8 - low


def test_weights_that_have_learned_get_a_small_rate_that_rises_first():
    """A run that earlier code began, without a warm-up in its recipe, goes on without one."""
    from recipes import resolved

    for method, least in (("adamw", 1e-5), ("scale-sgd", 1e-6), ("galore", 1e-5)):
        of = {
            known: resolved("language-model", method=method, steps=50, engine="torch", known=known)
            for known in (False, True)
        }
        assert least <= of[True].learning_rate <= 2e-4 < of[False].learning_rate
        assert (of[False].warmup, of[True].warmup) == (0, 5)
    named = {"method": "adamw", "steps": 50, "learning_rate": 0.5, "warmup": 0}
    found = resolved("language-model", known=True, **named)
    assert (found.learning_rate, found.warmup) == (0.5, 0)
    assert resolved("language-model", method="adamw", steps=50, known=True, rules=1).warmup == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--length", "40"), "the model has 32 positions; use at most 32"),
        (("--method", "galore", "--rank", "32"), "use a --rank of at most 31"),
        (("--quant", "int8-fast"), "only none, int8, int4"),
        (("--micro-batch", "0"), "micro_batch is 0, must be from 1 to 4096"),
        (("--method", "local"), "method 'local' is not for task 'language-model', only"),
        (("--method", "lora"), "what is trained: use --trainable lora, and leave out --method"),
        (("--method", "dora"), "what is trained: use --trainable dora, and leave out --method"),
        (("--runtime", "onnx"), "runtime 'onnx' does not serve task 'language-model'"),
        (("--trainable", "head"), "trainable 'head' is not known"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_trained_is_one_sentence(place, tmp_path, capsys, options, sentence):
    assert run(place, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"some\0thing", "holds zero bytes"),
        ("жизнь\n".encode("cp1251"), "line 1 is not UTF-8, it does not look like Windows-1252"),
    ],
)
def test_what_is_no_text_is_one_sentence(place, tmp_path, capsys, content, sentence):
    text = tmp_path / "text"
    text.write_bytes(content)
    assert run(place, tmp_path / "run", data=text) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_text_that_is_too_short_says_what_would_do(place, tmp_path, capsys):
    (tmp_path / "text").write_text("the cat sat on the mat\n")
    assert run(place, tmp_path / "run", data=tmp_path / "text") == 2
    assert "Use a shorter --length, or a longer text" in capsys.readouterr().err


def _with(place, folder, **changes):
    shutil.copytree(place / "model", folder)
    config = {**read_json(folder / "config.json"), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_models_that_cannot_be_used_are_one_sentence(place, tmp_path, capsys):
    small = _with(place, tmp_path / "small", vocab_size=200)
    code = _with(
        place, tmp_path / "code", auto_map={"AutoConfig": "mine.Config"}, model_type="mine"
    )
    strange = _with(place, tmp_path / "strange", model_type="unheard-of")
    pickle = _with(place, tmp_path / "pickle")
    (pickle / "pytorch_model.bin").write_bytes(b"\x80\x04")
    partial = _with(place, tmp_path / "partial")
    save_file({"model.norm.weight": np.ones(32, np.float32)}, partial / "model.safetensors")
    wordless = _with(place, tmp_path / "wordless")
    (wordless / "tokenizer.json").unlink()
    for model, sentence in {
        small: "tokens, the model's table 200 rows; they do not belong together",
        code: "code from a model folder is never run",
        strange: "transformers cannot build a causal language model of it",
        pickle: "a pickle file, which can run any code and is never loaded",
        partial: "no tensor 'model.embed_tokens.weight'",
        wordless: "no tokenizer.json",
        tmp_path / "nowhere": "not a folder here and not a hub id",
    }.items():
        assert run(place, tmp_path / "run", model=model) == 2, sentence
        message = capsys.readouterr().err
        assert sentence in message and "Traceback" not in message


def test_a_plan_names_the_ways_to_train_it_and_none_that_it_cannot_take(place, capsys):
    words = ["plan", "--task", "language-model", "--data", str(place / "text.txt"), "--json"]
    words += ["--model", str(place / "model"), "--threads", "1", "--length", "16"]
    assert cli.main([*words, "--method", "adamw", "--all", "--rehearse"]) == 0
    found = json.loads(capsys.readouterr().out)
    ways = {(way["method"], way["quant"]) for way in found["choices"]}
    # the rank of 64 of `q-galore` is too large
    methods = ("adamw", "adamw8bit", "racs", "scale-sgd")
    assert ways == {(method, quant) for method in methods for quant in ("none", "int8", "int4")}
    assert found["plan"]["source"] == "rehearsal"


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_rehearsal_judges_one_call_of_sequences_however_many_its_run_judges(
    place, tmp_path, rehearsed
):
    """On a GGUF and a busy machine one took seven minutes, nearly all of them for judging."""
    from recipes import recipe_for

    from edge_train.tasks.language_model.job import LanguageModelJob

    keys = {"task": "language-model", "model": str(place / "model"), "length": 8, "threads": 1}
    job = LanguageModelJob(recipe_for(**keys, data=str(place / "text.txt")))
    together = job.footprint().together
    if rehearsed:
        job.judge_less()
        assert job.footprint().workspace == LanguageModelJob(job.recipe).footprint().workspace
    (tmp_path / "samples").mkdir()
    job.load()
    job.prepare(tmp_path, lambda text: None)
    judged, asked = [], []
    with closing(job.open_runtime()) as runtime:
        forward, logits = runtime.forward, runtime.next_logits
        runtime.forward = lambda batch, points: (
            judged.append(len(batch["ids"])) or forward(batch, points)
        )
        runtime.next_logits = lambda ids: asked.append(len(ids)) or logits(ids)
        job.task().loss(runtime, job.task().evaluation(), [runtime.parameters])
        job.preview(tmp_path, 0, runtime)
        best = runtime.parameters.copy()
        job.finish(tmp_path, runtime, best, 2, whole=True)
    if rehearsed:
        assert judged == [together, together] and len(asked) == 4
    else:
        assert min(judged) > together and len(asked) > 4


def _with_begin(place, folder):
    """Copy the model; its tokenizer puts a token before every text."""
    import tokenizers

    _with(place, folder, eos_token_id=0)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = tokenizer.id_to_token(5)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, 5)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _prepared(model, data, folder):
    folder.mkdir(exist_ok=True)
    keys = {"threads": 1, "length": 16, "samples": 2}
    job = open_job(LanguageModelRecipe(model=str(model), data=str(data), **keys))
    job.load()
    job.prepare(folder, print)
    return job


def test_a_text_begins_with_the_models_own_token_and_a_row_ends_with_its_end(place, tmp_path):
    model = _with_begin(place, tmp_path / "model")
    plain = _prepared(place / "model", place / "text.txt", tmp_path / "plain").task().ids
    begun = _prepared(model, place / "text.txt", tmp_path / "begun").task().ids
    assert begun.tolist() == [5, *plain.tolist()]
    rows = write_table(tmp_path / "t.jsonl", [{"text": "the cat sat on the mat"}] * 60)
    ids = _prepared(model, rows, tmp_path / "rows").task().ids.tolist()
    assert ids[0] == 5 and ids[-1] == 0
    assert ids.count(0) == 60 == sum(pair == (0, 5) for pair in pairwise(ids)) + 1


def test_a_run_of_earlier_code_reads_its_damaged_ids_again_as_it_did(place, tmp_path):
    model, folder = _with_begin(place, tmp_path / "model"), tmp_path / "run"
    job = _prepared(model, place / "text.txt", folder)
    new = job.data_sha256()
    job._data._prepare(folder, print, {"tokens": 1})  # as it was: no marks, and no word of them
    old = job.data_sha256()
    assert old != new
    assert "begin" not in read_json(folder / "tokens.json")
    for damage in (b"", b"\1\0"):
        (folder / "tokens.bin").write_bytes(damage)
        again = open_job(job.recipe)
        again.restore(folder, print)
        assert again.data_sha256() == old


def test_a_run_of_earlier_code_reads_its_damaged_ids_again_in_the_pieces_that_it_had(
    place, tmp_path
):
    (tmp_path / "text.txt").write_text("a " + "the cat sat on the mat " * 9000)  # one line
    folder = tmp_path / "run"
    job = _prepared(place / "model", tmp_path / "text.txt", folder)
    new = job.data_sha256()
    before = {"begin": [], "end": [], "halves": True, "day": "2026-11-01"}
    job._data._prepare(folder, print, before)
    old = job.data_sha256()
    assert old != new
    about = folder / "tokens.json"
    said = about.read_text()
    for name in ("peace", "piece"):  # earlier code said nothing of it
        about.write_text(said.replace('"piece"', f'"{name}"'))
        (folder / "tokens.bin").write_bytes(b"")
        again = open_job(job.recipe)
        again.restore(folder, print)
        assert again.data_sha256() == old


def test_a_run_of_earlier_code_on_rows_reads_them_as_one_text_though_they_are_chats_too(
    place, tmp_path
):
    rows = [{"text": "the cat sat on the mat", "messages": []}] * 60
    data = write_table(tmp_path / "t.jsonl", rows)
    plain = write_table(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in rows])
    folder = tmp_path / "run"
    new = _prepared(place / "model", plain, folder)
    assert new.task().starts is not None and new.task().halves
    old = open_job(replace(new.recipe, data=str(data)))
    old._data._prepare(folder, print, {"tokens": 1, "begin": [], "end": [0]})
    sha256, ids = old.data_sha256(), old.task().ids.tolist()
    assert old.task().starts is None and not old.task().halves
    assert ids == new.task().ids.tolist()
    for damage in (None, b""):
        if damage is not None:
            (folder / "tokens.bin").write_bytes(damage)
        again = open_job(old.recipe)
        again.restore(folder, print)
        assert again.data_sha256() == sha256
        assert again.task().starts is None and not again.task().halves


def test_documents_of_rows_are_held_out_whole(place, tmp_path):
    rows = [{"text": "the cat sat on the mat " * (1 + n % 7)} for n in range(90)]
    data = write_table(tmp_path / "t.jsonl", rows)
    task = _prepared(place / "model", data, tmp_path / "run").task()
    first = len(task.ids) - task.held
    assert first in task.starts.tolist() and task.ids[first - 1] == 0  # the end of another
    assert 0.05 * len(task.ids) <= task.held <= 0.2 * len(task.ids)


def test_a_run_on_rows_goes_on_with_its_held_out_file(place, tmp_path):
    for name, count in (("train", 60), ("valid", 20)):
        write_table(tmp_path / "d" / f"{name}.jsonl", [{"text": "the cat sat on the mat"}] * count)
    job = _prepared(place / "model", tmp_path / "d", tmp_path / "run")
    again = open_job(job.recipe)
    again.restore(tmp_path / "run", print)
    assert again.task().held == job.task().held > 0
    assert again.data_sha256() == job.data_sha256()


def test_a_model_with_pieces_and_merges_trains_as_with_tokenizer_json_which_the_result_has(
    place, tmp_path
):
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    whole = read_json(model / "tokenizer.json")["model"]
    (model / "tokenizer.json").unlink()
    (model / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in whole["merges"])
    (model / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert run(place, tmp_path / "whole") == run(place, tmp_path / "run", model=model) == 0
    ids = [(tmp_path / name / "tokens.bin").read_bytes() for name in ("whole", "run")]
    assert ids[0] == ids[1]
    assert read_json(tmp_path / "run/model/tokenizer.json")["model"]["vocab"] == whole["vocab"]
    assert (tmp_path / "run/model/merges.txt").is_file()


def test_layers_that_rest_have_no_state_and_the_plan_counts_those_that_may_at_once(
    place, tmp_path, capsys
):
    def state(*options):
        recipe = recipe_of(place, "adamw", *options)
        lines = open_job(recipe).footprint().known["train"]
        return next(line.bytes for line in lines if line.name.startswith("optimizer state"))

    every, one = state(), state("lisa", 1)
    assert every == state("lisa", 2)  # of two layers
    assert every / 4 < one < 0.8 * every  # tables always have theirs
    out = tmp_path / "run"
    words = ("--method", "adamw", "--block-schedule", "lisa", "--sampled-layers", "1")
    assert run(place, out, *words, "--resample-every", "3") == 0
    newest = max((out / "checkpoints").glob("step-*.safetensors"))
    layers = {name.split(".")[2] for name in load_file(newest) if "state/model.layers" in name}
    assert len(layers) == 1


def recipe_of(place, method, schedule=None, layers=None):
    return LanguageModelRecipe(
        model=str(place / "model"),
        data=str(place / "text.txt"),
        method=method,
        length=16,
        steps=5,
        block_schedule=schedule,
        options={} if layers is None else {"sampled_layers": layers},
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--block-schedule", "owlore"), "has 2 layers; take at most 2"),
        (
            ("--block-schedule", "owlore", "--trainable", "lora", "--sampled-layers", "1"),
            "use --block-schedule lisa",
        ),
        (("--sampled-layers", "1"), "sampled_layers is not read by"),
        (("--block-schedule", "owlroe"), "'owlroe' is not known; did you mean 'owlore'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_a_sentence(place, tmp_path, capsys, options, said):
    assert run(place, tmp_path / "run", *options) == 2
    assert said in capsys.readouterr().err
