"""Every test file runs in one environment, and what is left to the other is never skipped."""

import ast
from collections import Counter

from environments import DEVICE
from places import TESTS

FILES = {path.stem: path for path in TESTS.rglob("test_*.py")}
DESK_ONLY = {"torch", "transformers", "diffusers", "peft", "optimum", "onnx", "onnxscript"}
DESK_FIXTURES = {"exported", "classifiers"}  # they need torch
DESK_HELPERS = {"tiny_models", "classifiers", "make_golden_artifact"}  # so do these


def test_the_device_list_names_test_files_only():
    assert not DEVICE - FILES.keys()


def test_a_name_on_the_device_list_is_of_one_file():
    names = Counter(path.stem for path in TESTS.rglob("test_*.py"))
    assert [name for name in DEVICE if names[name] > 1] == []


def test_no_device_file_needs_what_only_the_desk_has():
    """It would be skipped there, and left out on the desk."""
    for name in DEVICE:
        for node in ast.walk(ast.parse(FILES[name].read_text())):
            needed = set()
            if isinstance(node, ast.Import):
                needed = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                needed = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                needed = {str(getattr(argument, "value", "")) for argument in node.args}
            elif isinstance(node, ast.FunctionDef):
                needed = {argument.arg for argument in node.args.args} & DESK_FIXTURES
            found = needed & (DESK_ONLY | DESK_FIXTURES | DESK_HELPERS)
            assert not found, f"{name}:{node.lineno} needs {sorted(found)}"
