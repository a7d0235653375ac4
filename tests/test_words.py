"""What is typed after `run` and `plan`: every fault at once, by name, and nothing is written."""

import sys

import pytest
from gguf_files import gguf_bytes
from recipes import recipe_for

from edge_train import cli
from edge_train.cli.help import help_text
from edge_train.cli.options import Words
from edge_train.command import Command
from edge_train.errors import InputError
from edge_train.recipe import to_toml
from edge_train.registry import Registry
from edge_train.tasks import open_job, read_recipe, tasks
from edge_train.tasks.task import Task


def said(words):
    with pytest.raises(InputError) as caught:
        Words(words, resumable=True).read()
    return str(caught.value).splitlines()


def test_hyphens_and_underscores_are_the_same():
    for words in (["--max_train_steps", "3"], ["--max-train-steps=3"], ["--steps", "3"]):
        assert Words(words, resumable=True).read() == recipe_for(steps=3)


def test_all_faults_of_a_line_are_said_at_once():
    lines = said(
        ["--stepz", "3", "--seed", "-1", "--schedule", "cosin", "--report_to", "x", "--mem"]
    )
    assert any("unknown flag --stepz; did you mean '--steps'?" in line for line in lines)
    assert any("seed is -1, must be from 0" in line for line in lines)
    assert any("did you mean 'cosine'" in line for line in lines)
    assert any("--report_to x cannot be honored" in line for line in lines)
    assert any("--mem needs a size after it" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["--task", "classfy"], "did you mean 'classify'"),
        (["--precision", "2"], "unknown flag --precision"),
        (["--task", "network", "--photos", "x"], "only by personalize; name data"),
        (["--steps", "many"], "is not a whole number"),
        (["--window", "300"], "is not a list of 2 whole numbers"),
        (["a", "b"], "'b' is one word too many"),
        (["x" * 300, "--stepz"], "unknown flag --stepz"),
    ],
)
def test_the_nearest_known_word_is_named(words, near):
    assert any(near in line for line in said(words)), said(words)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--method", "backprob"],
        ["run", "--quant", "int9"],
        ["run", "--runtime", "toch"],
        ["run", "--stepz", "2"],
        ["rnu"],
    ],
)
def test_an_unknown_word_is_status_2_and_no_folder(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert "did you mean" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_words_stand_over_the_file_and_its_data_lies_beside_it(tmp_path):
    (tmp_path / "r.toml").write_text('task = "network"\ndata = "x.npz"\nsteps = 5\nseed = 3\n')
    found = Words(["--recipe", str(tmp_path / "r.toml"), "--steps", "7"], resumable=True).read()
    assert (found.task, found.steps, found.seed) == ("network", 7, 3)
    assert found.data == str(tmp_path / "x.npz")


def test_another_task_than_that_of_the_file_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text('task = "network"\n')
    lines = said(["--recipe", str(tmp_path / "r.toml"), "--task", "classify"])
    assert "is of task 'network', --task says 'classify'" in lines[0]


def test_data_infers_the_task_and_says_so(tmp_path):
    (tmp_path / "book.txt").write_text("once upon a time")
    words = Words([str(tmp_path / "book.txt")], resumable=True)
    assert words.read() == recipe_for("language-model", data=str(tmp_path / "book.txt"))
    assert words.understood.endswith("a text; task language-model")


def test_only_caps_and_the_number_of_steps_change_when_a_run_goes_on():
    words = ["--resume", "run", "--mem", "2GB", "--steps", "9"]
    assert Words(words, resumable=True).caps() == {"cap_bytes": 2 * 10**9, "steps": 9}
    with pytest.raises(InputError, match="--samples cannot be given"):
        Words(["--resume", "run", "--samples", "2"], resumable=True).caps()


@pytest.fixture
def begun(tmp_path):
    """Return a function that returns the recipe of a new run which starts from another one."""

    def read(kind, keys, *typed):
        run = tmp_path / "run"
        (run / kind).mkdir(parents=True, exist_ok=True)
        recipe = recipe_for("language-model", model="m.gguf", data="d.jsonl", seed=7, **keys)
        (run / "recipe.toml").write_text(to_toml(recipe))
        return Words(["--from", str(run), *typed], resumable=True).read()

    return read


_EXACT = {"method": "backprop", "clip": 1.0, "label_smoothing": 0.1, "weight_decay": 0.5}
_FORWARD = {"method": "zo", "queries": 4, "sides": 1, "preset": "mezo"}
_RATED = {"method": "backprop", "steps": 30, "learning_rate": 0.1, "samples": 2, "warmup": 3}
_RATED["evaluation_samples"] = 5
_PROJECTED = {"method": "galore", "trainable": "all", "rank": 64, "refresh_every": 50, "scale": 1.0}


@pytest.mark.parametrize(
    ("keys", "method", "kept"),
    [
        (_EXACT, "zo", {"label_smoothing", "weight_decay"}),
        (_EXACT, "adamw8bit", {"clip", "label_smoothing", "weight_decay"}),
        (_EXACT, "backprop", {"clip", "label_smoothing", "weight_decay"}),
        (_EXACT, "auto", set()),
        (_FORWARD, "backprop", set()),
        (_FORWARD, "zo", {"queries", "sides", "preset"}),
        (_PROJECTED, "apollo", {"trainable", "rank", "refresh_every", "scale"}),
        (_PROJECTED, "apollo-mini", {"trainable", "refresh_every"}),
        (_RATED, "adamw8bit", set(_RATED)),
        (_RATED, "zo", {"evaluation_samples"}),
        (_PROJECTED, "adamw", set()),
    ],
)
def test_a_new_run_has_no_key_of_another_that_its_own_method_does_not_read(
    begun, keys, method, kept
):
    found = begun("model", keys, "--method", method)
    usual, own = recipe_for("language-model"), keys.keys() - {"method", "trainable"}
    assert {name for name in own if getattr(found, name) == keys[name]} == kept - {
        "method",
        "trainable",
    }
    assert all(getattr(found, name) == getattr(usual, name) for name in own - kept)
    assert (found.method, found.seed, found.data) == (method, 7, "d.jsonl")


def test_a_preset_brings_what_it_is_made_of(begun):
    typed = begun("model", {**_FORWARD, "preset": "default", "steps": 9}, "--preset", "mezo")
    assert (typed.preset, typed.queries, typed.sides, typed.steps) == ("mezo", None, None, None)
    assert (typed.method, typed.seed) == ("zo", 7)
    left = begun("model", {**_FORWARD, "steps": 9}, "--preset", "default")
    assert (left.preset, left.queries, left.steps) == ("default", None, None)


def test_a_warm_up_of_another_run_is_none_of_a_run_of_other_steps(begun):
    assert begun("model", _RATED).warmup == 3
    assert begun("model", _RATED, "--steps", "2").warmup is None
    assert begun("model", _RATED, "--steps", "2", "--warmup", "1").warmup == 1


def test_what_an_adapter_says_itself_is_no_key_of_a_new_run_from_it(begun):
    keys = {"trainable": "dora", "rank": 16, "alpha": 32.0, "rslora": True, "targets": "q_proj"}
    for typed in ((), ("--trainable", "all"), ("--method", "discrete"), ("--method", "galore")):
        found = begun("adapter", keys, *typed)
        usual = recipe_for("language-model")
        wanted = "all" if "all" in typed else "auto"
        assert found.trainable == wanted
        for name in keys.keys() - {"trainable"}:
            assert getattr(found, name) == getattr(usual, name), name


def test_a_run_that_trains_something_else_has_no_key_of_what_was_trained(begun):
    found = begun("model", {**_PROJECTED, "difference_rank": 8}, "--trainable", "lora")
    assert (found.trainable, found.rank, found.difference_rank) == ("lora", None, None)


def test_a_new_run_chooses_its_engine_anew_where_that_of_the_other_is_not_here(begun, monkeypatch):
    keys = {"runtime": "torch", "device": "cuda", "dtype": "bfloat16", "quant": "int8"}
    usual = recipe_for("language-model")
    monkeypatch.setattr("edge_train.runtimes.engine.find_spec", lambda name: name)
    found = begun("adapter", keys)
    assert {name: getattr(found, name) for name in keys} == keys
    found = begun("adapter", keys, "--runtime", "numpy")
    assert found == begun("adapter", {}, "--runtime", "numpy")
    monkeypatch.setattr("edge_train.runtimes.engine.find_spec", lambda name: None)
    found = begun("adapter", keys)
    assert all(getattr(found, name) == getattr(usual, name) for name in keys)


_LLAMA_CPP = gguf_bytes({"general.architecture": "llama", "general.type": "adapter"}, {})


@pytest.mark.parametrize("more", [{}, {"model": "base.gguf"}], ids=["alone", "with its base"])
def test_a_file_of_llama_cpp_is_refused_as_a_start_with_what_runs_start_from(tmp_path, more):
    for name in ("ollama", "run/adapter"):
        (tmp_path / name).mkdir(parents=True)
    run, peft = tmp_path / "run", tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    (run / "recipe.toml").write_text("")
    (run / "adapter" / "adapter_config.json").write_text("{}")
    peft.write_bytes(b"")
    for file in (tmp_path / "e.gguf", tmp_path / "ollama" / "a.gguf", run / "adapter.gguf"):
        file.write_bytes(_LLAMA_CPP)
    wanted = {
        tmp_path / "e.gguf": "(`edge-train run DATA --from RUN/adapter --model BASE`)",
        tmp_path / "ollama": "(`edge-train run DATA --from RUN/adapter --model BASE`)",
        run / "adapter.gguf": f"name the run that made it: --from {run}.",
        peft: f"name that: --from {run / 'adapter'}.",
    }
    for start, sentence in wanted.items():
        with pytest.raises(InputError) as caught:
            open_job(recipe_for("language-model", data="d", start=str(start), **more))
        assert sentence in str(caught.value) and "leave --model" not in str(caught.value)


@pytest.mark.parametrize("name", tasks.names())
def test_help_of_a_task_names_each_of_its_flags(name, capsys):
    assert cli.main(["run", "--task", name, "--help"]) == 0
    text = capsys.readouterr().out
    for key in tasks.get(name).recipe.declared().values():
        assert key.spellings[0] in text


def test_the_short_help_has_a_dozen_options_the_tasks_and_examples(capsys):
    assert cli.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in tasks.names())
    assert text.count("edge-train run") >= 4
    assert text.count("\n  --") < 24


@pytest.mark.parametrize("name", ["book.txt", "rows.csv", "numbers.csv"])
def test_init_writes_a_recipe_that_is_read(name, tmp_path, capsys):
    contents = {
        "book.txt": "once",
        "rows.csv": "so good,1\nso bad,0\n",
        "numbers.csv": "1,2\n3,4\n",
    }
    (tmp_path / name).write_text(contents[name])
    assert cli.main(["init", str(tmp_path / name), "--out", str(tmp_path / "r.toml")]) == 0
    recipe = read_recipe(tmp_path / "r.toml")
    assert recipe.data == str(tmp_path / name)
    text = (tmp_path / "r.toml").read_text()
    assert all(f"{key} =" in text for key in recipe.declared())
    assert cli.main(["init", str(tmp_path / name), "--out", str(tmp_path / "r.toml")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_switch_with_a_value_is_one_fault_among_others():
    lines = said(["--lean=1", "--json=yes", "--seed", "-1"])
    assert "--lean stands alone; leave =1 out." in lines
    assert "--json stands alone; leave =yes out." in lines
    assert any("seed is -1" in line for line in lines)


@pytest.mark.parametrize("word", ["\u2013-steps", "\u2014steps"])
def test_a_dash_that_a_text_program_made_of_hyphens_is_named(word):
    assert f"{word} begins with a dash; a flag begins with two hyphens." in said([word, "3"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([""], "DATA is empty"),
        (["--out", ""], "out is empty"),
        (["--out="], "out is empty"),
        (["--token", ""], "token is empty"),
        (["--recipe="], "--recipe needs a value"),
        (["--resume="], "--resume needs a value"),
        (["--out", "a\0b"], "is not text that can be kept"),
        (["--out", "a\udcff"], "is not text that can be kept"),
        (["~no-such-user/x"], "there is no such user here"),
        (["--out", "~no-such-user/x"], "there is no such user here"),
        (["--model", "~no-such-user/x"], "there is no such user here"),
        (["a" * 300], "cannot be a file or folder here"),
    ],
)
def test_a_variable_that_was_not_set_or_is_no_text_never_starts_a_run(words, sentence):
    assert any(sentence in line for line in said(words)), said(words)


def test_a_sentence_without_a_file_begins_with_its_key():
    assert said(["--network", "mlp 8"])[0].startswith("network is not read by task")


def test_a_name_of_a_kind_that_has_none_is_refused_without_a_list():
    none = Registry("flavour", "edge_train.methods", "FLAVOURS")
    with pytest.raises(InputError, match="flavour 'x' is not known; there are none"):
        none.get("x")


def test_resume_is_of_run_only():
    with pytest.raises(InputError, match="--resume is for `edge-train run` only"):
        Words(["--resume", "x"], resumable=False).read()


@pytest.mark.parametrize(
    "words",
    [["--resume", "x"], ["--report-to", "tensorboard"], ["--fleet", "x"], ["--go-on"], ["--watch"]],
)
def test_what_is_of_run_only_is_one_sentence_for_plan_and_not_in_its_help(words):
    with pytest.raises(InputError) as refused:
        Words(words, resumable=False).read()
    assert str(refused.value) == f"{words[0]} is for `edge-train run` only; leave it out."
    assert words[0] in help_text("run", None)
    assert words[0] not in help_text("plan", None)
    assert words[0] not in help_text("init", None)


def test_what_is_of_plan_only_is_said_of_run():
    assert said(["--all"]) == ["--all is for `edge-train plan` only; leave it out."]


def test_init_refuses_events_that_it_has_none_of(capsys):
    assert cli.main(["init", "--json"]) == 2
    assert "--json is for `edge-train run` and `edge-train plan` only" in capsys.readouterr().err


def test_a_negative_value_is_one_and_no_flag():
    (line,) = said(["--mem", "-8GB"])
    assert line.startswith("'-8GB' is not a size")


def test_init_into_a_folder_that_is_not_there_is_one_sentence(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("once")
    words = ["init", str(tmp_path / "book.txt"), "--out", str(tmp_path / "none" / "r.toml")]
    assert cli.main(words) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("X = type('Lost', (), {'name': 'lost'})", "edge_lost:X is no Task"),
        ("raise SystemExit(7)", "edge_lost:X: SystemExit: 7"),
    ],
)
def test_what_another_package_registers_wrongly_is_named_and_the_rest_works(
    code, reason, tmp_path, monkeypatch
):
    info = tmp_path / "edge_lost-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-lost\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge_train.tasks]\nlost = edge_lost:X\n")
    (tmp_path / "edge_lost.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edge_lost", raising=False)
    found: Registry[Task] = Registry("task", "edge_train.tasks", "TASK", folders=True)
    assert found.broken()["lost"] == reason
    assert found.names()[:4] == tasks.names()[:4]


def test_a_command_whose_options_raise_is_named_and_the_rest_works(monkeypatch, capsys):
    def raises(parser):
        raise RuntimeError("no such luck")

    lost = Command(name="lost", help="100%", add=raises, run=lambda options: 0)
    monkeypatch.setattr(cli.commands, "_found", {**cli.commands.all(), "lost": lost})
    assert cli.main(["lost"]) == 2
    said = capsys.readouterr().err
    assert f"lost of {__name__} cannot be used: RuntimeError: no such luck." in said
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
