"""The parent of a run finds its cap however that is spelled, and stays small."""

import subprocess
import sys

import pytest

from edge_train import entry
from edge_train.errors import InputError

MEGABYTE = 10**6


@pytest.fixture(autouse=True)
def no_accelerator(tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "_GPUS", tmp_path / "gpus")


@pytest.fixture
def started(monkeypatch):
    """Return a function that types a command; what it returns is how a worker was started."""

    def type_command(*words):
        found = []

        def supervise(arguments, cap_bytes, *, host, talk, planned_bytes):
            found.append((cap_bytes, host, talk))
            return 0

        monkeypatch.setattr(entry, "supervise", supervise)
        monkeypatch.setattr(
            "edge_train.cli.main", lambda arguments, began: found.append("here") or 0
        )
        monkeypatch.setattr(sys, "argv", ["edge-train", *map(str, words)])
        assert entry.main() == 0
        return found[0]

    return type_command


@pytest.mark.parametrize(
    "words",
    [
        "--mem 300MB",
        "--mem=300MB",
        "--steps 5 --mem 300MB photos",
        "photos --mem 1GB --mem 300MB",
        "--class --mem 300MB",  # refused by whoever reads all words
    ],
)
def test_a_cap_is_found_wherever_it_stands(started, words):
    assert started("run", *words.split()) == (300 * MEGABYTE, True, [])


def test_without_a_cap_a_run_begins_in_this_process(started):
    assert started("run", "photos", "--steps", "5") == "here"
    assert started("run", "--mem") == "here"  # argparse says what is missing
    assert started("run", "--mem", "--json") == "here"
    assert started("run", "--", "--mem", "300MB") == "here"  # a folder of that name


def test_only_a_run_has_a_worker(started):
    assert started("plan", "--mem", "300MB") == "here"
    assert started("--help") == "here"
    assert started() == "here"


@pytest.mark.parametrize("flag", ["--host-mem", "--host_mem"])
def test_underscores_are_as_good_as_hyphens(started, flag):
    assert started("run", flag, "2GB") == (2000 * MEGABYTE, True, [])
    assert started("run", f"{flag}=2GB", "--mem", "8GB")[0] == 2000 * MEGABYTE


def test_all_words_about_talking_are_kept(monkeypatch):
    monkeypatch.setitem(entry.TALKING, "--tongue", True)
    monkeypatch.setitem(entry.TALKING, "--very-quiet", False)
    words = "x --json --mem 1GB --tongue de --steps 5 --very_quiet --tongue=fr"
    said, talk = entry.read_words(words.split())
    assert said == {"mem": "1GB"}
    assert talk == ["--json", "--tongue=de", "--very-quiet", "--tongue=fr"]


def test_every_word_about_talking_is_one_of_the_command(capsys):
    from edge_train import cli

    assert cli.main(["run", "--task", "personalize", "--help"]) == 0
    assert cli.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in (*entry.TALKING, "--mem", "--host-mem", "--device", "--recipe", "--resume"):
        assert f"{flag} " in text, flag


@pytest.mark.parametrize("line", ['mem = "300MB"', "cap_bytes = 300_000_000 # bytes"])
def test_a_cap_in_a_recipe_file_is_found_however_it_is_spelled(started, tmp_path, line):
    path = tmp_path / "recipe.toml"
    path.write_text(f'prompts = ["""\nmem = "1GB"\n"""]\n{line}\n')
    for words in (["--recipe", path], [f"--recipe={path}"]):
        assert started("run", *words)[0] == 300 * MEGABYTE
    for words in (
        ["--resume", tmp_path],
        [f"--resume={tmp_path}"],
        ["--resume_from_checkpoint", tmp_path],
    ):
        assert started("run", *words)[0] == 300 * MEGABYTE
    assert started("run", "--resume", tmp_path, "--mem", "200MB")[0] == 200 * MEGABYTE


def test_what_a_run_that_goes_on_was_planned_to_need_is_found_and_damage_is_no_matter(tmp_path):
    assert entry.find_plan({}) is None
    assert entry.find_plan({"resume": str(tmp_path)}) is None
    for text, found in (
        ('{"peak_bytes": 468000000}', 468_000_000),
        *((text, None) for text in ('{"peak_bytes": true}', '{"peak_bytes": -1}', "[]", "{", "")),
    ):
        (tmp_path / "plan.json").write_text(text)
        assert entry.find_plan({"resume": str(tmp_path)}) == found


@pytest.mark.parametrize("content", ["no toml at [all", "steps = 5", "\udcff"])
def test_a_recipe_that_names_no_cap_is_left_to_who_reads_it_in_earnest(started, tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert started("run", "--recipe", path) == "here"
    assert started("run", "--recipe", tmp_path / "none.toml") == "here"


def test_a_recipe_that_cannot_be_read_is_never_run_without_its_cap(tmp_path, monkeypatch):
    (tmp_path / "recipe.toml").write_text('mem = "300MB"')
    monkeypatch.setattr(entry, "in_child", lambda work: (-9, ""))
    with pytest.raises(InputError, match="cannot be read"):
        entry.find_cap({"resume": str(tmp_path)})


def test_with_an_accelerator_a_cap_is_about_its_memory(tmp_path):
    entry._GPUS.mkdir()
    assert entry.find_cap({"mem": "8GB"}) == (8000 * MEGABYTE, False)
    assert entry.find_cap({"mem": "8GB", "device": "cpu"}) == (8000 * MEGABYTE, True)
    assert entry.find_cap({"mem": "8GB", "host_mem": "2GB"}) == (2000 * MEGABYTE, True)
    (tmp_path / "recipe.toml").write_text('mem = "8GB"\ndevice = "cpu"')
    assert entry.find_cap({"recipe": str(tmp_path / "recipe.toml")}) == (8000 * MEGABYTE, True)


@pytest.mark.parametrize("size", ["0", "much", "-5GB", ""])
def test_a_cap_that_is_no_size_is_refused_before_anything_starts(monkeypatch, capsys, size):
    monkeypatch.setattr(sys, "argv", ["edge-train", "run", f"--mem={size}"])
    assert entry.main() == 2
    assert "The least that works is" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="counters of Linux")
def test_the_parent_holds_two_and_a_half_megabytes_more_than_an_interpreter(tmp_path):
    (tmp_path / "recipe.toml").write_text('mem = "300MB"')
    resident = "print(int(open('/proc/self/statm').read().split()[1]) * 4096)"
    reads = f"from edge_train.entry import find_cap; find_cap({{'resume': {str(tmp_path)!r}}}); "
    bare, parent = (
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for code in (resident, reads + resident)
    )
    # 2.1 to 2.2: how much of a shared library is resident differs from start to start
    assert parent - bare < 2.5 * MEGABYTE
