"""The README names every command and every recipe key, and its numbers are filled in."""

import dataclasses
import re

from places import ROOT

from edge_train import cli
from edge_train.recipe import Recipe

README = (ROOT / "README.md").read_text()


def test_every_command_appears():
    commands = re.findall(r"^    (\w+)  ", cli._parser().format_help(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert f"edge-train {command}" in README, command


def test_every_recipe_key_appears():
    for field in dataclasses.fields(Recipe):
        assert f"`{field.name}`" in README, field.name


def test_no_placeholder_is_left():
    for name in ("README.md", "BENCHMARKS.md", "CHANGELOG.md"):
        assert not re.search(r"@[A-Z0-9]+@|TODO", (ROOT / name).read_text()), name


def test_linked_files_exist():
    for name in ("README.md", "BENCHMARKS.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), target
