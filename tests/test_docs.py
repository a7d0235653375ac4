"""Pages: README is short, the reference is what the records say, links lead somewhere."""

import ast
import re
import sys
from pathlib import Path

import newcomers
import pytest
from places import ROOT

from edge_train import cli
from edge_train.cli import reference
from edge_train.records.folder import RunFolder
from edge_train.records.history import read_records, summary_of
from edge_train.records.summary_keys import KEYS

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "BENCHMARKS.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
NAMES = [path.relative_to(ROOT).as_posix() for path in sorted(PAGES)]
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")


def prose(path):
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """Return the anchors of a page, as code hosts and the site make them of its headings."""
    titles = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    words = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    made = {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in words}
    return made | set(re.findall(r'^<a id="([^"]+)"></a>$', prose(path), flags=re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_and_anchor_leads_somewhere(name):
    page, lost = ROOT / name, []
    for target, anchor in _LINK.findall(prose(page)):
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            lost.append(target)
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            lost.append(f"{target}#{anchor}")
    assert lost == []


def test_a_link_to_nothing_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c\n\n[x](y.md#z)\n\n```\n[no](link)\n# no title\n```\n")
    assert _LINK.findall(prose(page)) == [("y.md", "z")]
    assert anchors(page) == {"a-b-c"}


def test_the_readme_is_read_in_a_minute():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.encode()) <= 6000
    first_screen = readme.partition("\n## What fits")[0]
    assert first_screen.count("![") == 1 == readme.count("![")
    assert len(re.findall(r"^- \[.*\]\(docs/start\.md#", first_screen, flags=re.MULTILINE)) == 4


def test_what_the_readme_says_of_memory_stands_on_the_page_of_its_bench():
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| \[bench [\w-]+\]\(([^)]+)\) \|$",
        (ROOT / "README.md").read_text("utf-8"),
        flags=re.MULTILINE,
    )
    assert len(rows) == 9
    for held, page in rows:
        text = (ROOT / page).read_text("utf-8")
        for number in re.findall(r"[\d.]+", held):
            assert re.search(rf"\b{re.escape(number)}\b", text), (held, page)


def test_every_command_has_its_row_in_the_reference():
    page = (DOCS / "reference/cli.md").read_text("utf-8")
    commands = list(cli.known_commands())
    assert len(commands) >= 5
    for command in commands:
        assert f"| `edge-train {command}` |" in page, command


def test_every_page_begins_with_the_command_it_is_about():
    listed = {"reference", "formats"}  # tables; those of formats name the command that writes them
    told = [path for path in DOCS.rglob("*.md") if path.parent.name not in listed]
    for path in told:
        head = "\n".join(path.read_text("utf-8").splitlines()[:9])
        if path.stem != "defects":  # a list of what was wrong, without a command
            assert re.search(r"^(    |```)", head, flags=re.MULTILINE), path


def test_every_bench_is_in_the_index_of_benchmarks():
    index = (DOCS / "benchmarks/index.md").read_text("utf-8")
    for path in (ROOT / "edge_train/bench").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            assert f"`edge-train bench {path.stem.replace('_', '-')}`" in index, path.stem


def test_every_page_of_a_bench_says_its_command_and_when_it_was_measured():
    pages = [path for path in (DOCS / "benchmarks").glob("*.md") if path.stem != "index"]
    assert len(pages) >= 12
    for path in pages:
        text = path.read_text("utf-8")
        assert f"edge-train bench {path.stem}" in text, path
        assert re.search(r"\*Measured\*:.*20\d\d-\d\d-\d\d.*commit", text), path
        assert "Loading weights" not in text, path


@pytest.mark.parametrize("name", reference.pages())
def test_the_reference_is_what_the_records_say(name):
    """Flags, keys, methods and commands are frozen: each change of a page gives its reason."""
    written = (reference.FOLDER / name).read_text()
    assert written == reference.pages()[name], "run `python -m edge_train.cli.reference`"


@pytest.mark.parametrize("run", sorted((ROOT / "tests/golden/stopped").glob("*/journal.jsonl")))
def test_every_key_of_a_report_is_explained(run):
    found = set(summary_of(read_records(run.parent)))
    assert found <= set(KEYS)
    assert set(KEYS) - found <= {"labels", "predicted_seconds"}  # of runs that have them


def test_the_page_of_the_run_folder_names_every_file_in_it():
    page = (DOCS / "formats/run-folder.md").read_text("utf-8")
    folder = RunFolder(Path())
    properties = [name for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    assert len(properties) >= 9
    for name in properties:
        assert f"`{getattr(folder, name)}" in page, name


def test_four_newcomers_find_commands_to_copy():
    found = newcomers.sections((DOCS / "start.md").read_text("utf-8"))
    assert list(found) == [
        "A dog on a laptop",
        "A device without a screen",
        "My notes",
        "An app in Python",
    ]
    assert [block.device for block in found["A device without a screen"]] == [True]
    for blocks in found.values():
        for block in blocks:
            if block.language == "python":
                ast.parse(block.text)


@pytest.mark.slow
@pytest.mark.parametrize("title", newcomers.sections(newcomers.PAGE.read_text("utf-8")))
def test_the_commands_of_a_newcomer_end_with_a_result(title, tmp_path):
    desk, device = Path(sys.executable).parent, ROOT / ".venv-device/bin"
    blocks = newcomers.sections(newcomers.PAGE.read_text("utf-8"))[title]
    if any(block.device for block in blocks) and not device.is_dir():
        pytest.skip("the device environment is missing: make test")
    assert newcomers.run(blocks, tmp_path, desk, device) is None


def test_no_placeholder_is_left():
    for page in PAGES:
        assert not re.search(r"@[A-Z0-9]+@|TODO", page.read_text("utf-8")), page


def test_every_file_that_the_page_of_architecture_names_exists():
    page = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:tests|edge_train)/[\w/]+(?:\.py)?)`", page)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_is_in_the_menu_of_the_site():
    menu = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(menu) == len(set(menu))
    assert set(menu) == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
