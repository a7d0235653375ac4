"""Streams, names and instants in which a command cannot do its work: one sentence, or silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_train import cli
from edge_train.errors import NOT_STARTED, UNREAD, InputError
from edge_train.paths import check_path
from edge_train.recipe import toml_value, tomllib

linux = pytest.mark.skipif(sys.platform != "linux", reason="the devices are those of Linux")


@pytest.fixture
def table(tmp_path, monkeypatch):
    lines = [f"{n % 7},{-n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)


RUN = "run --task network --data table.csv --network 'mlp 4' --samples 10 --steps 2 --out r"


def shell(words):
    """Type a command into a shell, with what closes or redirects its streams."""
    command = f"exec {sys.executable} -m edge_train {words}"
    return subprocess.run(["sh", "-c", command], stderr=-1, text=True, check=False)


@linux
@pytest.mark.process
@pytest.mark.parametrize("cap", ["", "--mem 300MB"], ids=["alone", "worker"])
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-", "--json >/dev/full"])
def test_a_run_that_nobody_can_hear_trains_in_silence(table, cap, streams):
    done = shell(f"{RUN} {cap} {streams}")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("r/report.json").read_text())["status"] == "done"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@linux
@pytest.mark.process
def test_a_full_disk_for_an_answer_is_one_sentence(table):
    done = shell("doctor >/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("edge-train: ") and len(done.stderr.splitlines()) == 1


def unread(words):
    """Run a command whose reader has gone before it says a word; return status and complaints."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edge_train", *words.split()]
    done = subprocess.run(command, stdout=writer, stderr=-1, text=True, check=False)
    os.close(writer)
    return done.returncode, done.stderr


@linux
@pytest.mark.process
def test_a_reader_that_has_gone_ends_a_command_without_a_word(table):
    assert shell(f"{RUN} --mem 300MB").returncode == 0
    for words in ("doctor", "report r", "plan --recipe r/recipe.toml --out q"):
        assert unread(words) == (UNREAD, ""), words
    assert unread("report nowhere")[0] == NOT_STARTED


@linux
@pytest.mark.process
@pytest.mark.parametrize("more", ["", " --mem 300MB", " --json"])
def test_a_run_whose_reader_has_gone_trains_to_its_end(table, more):
    words = "run --task network --data table.csv --recipe r.toml --samples 10 --steps 2 --out r"
    Path("r.toml").write_text('task = "network"\nnetwork = "mlp 4"\n')
    assert unread(words + more)[0] == 0
    assert json.loads(Path("r/report.json").read_text())["status"] == "done"


@linux
@pytest.mark.process
def test_letters_that_the_output_cannot_show_are_escapes(table):
    assert shell(RUN.replace("--out r", "--out r\u00e9")).returncode == 0
    done = shell("report r\u00e9 >said").returncode, Path("said").read_bytes()
    assert done == (0, "r\u00e9/report.html\n".encode())
    command = [sys.executable, "-m", "edge_train", "report", "r\u00e9"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=ascii_only, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"r\\xe9/report.html\n")


NO_PATHS = ["x" * 300, "/".join(["y" * 200] * 30), "lat\udce9", "~nosuchuser/x", "pipe", "a\0b"]
COMMANDS = [
    *("run {}", "plan {}", "run --resume {}", "run --recipe {}", "plan --model {}"),
    *("run --data {} --task network", "run photos --out {}", "report {}", "export {} out"),
    *("export embedded {}", "export embedded out --photos {}", "generate {}", "init {}"),
    *("generate r --out {}", "bench cap --out {}", "run --photos {}"),
]


@linux
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", NO_PATHS, ids=["long", "deep", "bytes", "user", "pipe", "nul"])
def test_what_cannot_be_a_path_is_one_sentence_in_every_place(table, capsys, command, name):
    os.mkfifo("pipe")
    before = sorted(Path().iterdir())
    status = cli.main([name if word == "{}" else word for word in command.split()])
    said = capsys.readouterr().err
    assert status == 2, said
    assert said.startswith("edge-train: ") and len(said.splitlines()) == 1, said
    assert sorted(Path().iterdir()) == before


def test_every_name_that_a_folder_can_have_survives_a_recipe(tmp_path):
    name = "".join(map(chr, [*range(1, 47), *range(48, 160)]))
    check_path(str(tmp_path / name), "out")
    assert tomllib.loads(f"out = {toml_value(name)}")["out"] == name


def test_a_name_is_refused_with_the_option_that_it_followed():
    with pytest.raises(InputError, match="--resume is empty; name a file or folder"):
        check_path("", "--resume")
