"""The README names every command; the reference is what the records say; links lead somewhere."""

import re

import pytest
from places import ROOT

from edge_train import cli
from edge_train.cli import reference

README = (ROOT / "README.md").read_text()


def test_every_command_appears():
    commands = list(cli.known_commands())
    assert len(commands) >= 5
    for command in commands:
        assert f"edge-train {command}" in README, command


@pytest.mark.parametrize("name", reference.pages())
def test_the_reference_is_what_the_records_say(name):
    """Flags, keys, methods and commands are frozen: each change of a page gives its reason."""
    written = (reference.FOLDER / name).read_text()
    assert written == reference.pages()[name], "run `python -m edge_train.cli.reference`"


def test_no_placeholder_is_left():
    for name in ("README.md", "BENCHMARKS.md", "CHANGELOG.md"):
        assert not re.search(r"@[A-Z0-9]+@|TODO", (ROOT / name).read_text()), name


def test_linked_files_exist():
    for name in ("README.md", "BENCHMARKS.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), target


def test_every_file_that_the_page_of_architecture_names_exists():
    page = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:tests|edge_train)/[\w/]+(?:\.py)?)`", page)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
