"""Imports point one way only: this file holds the table and fails on a new arrow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import places
import pytest

ROOT = places.ROOT / "edge_train"

# From the bottom up. A line is a floor, a tuple in it a group; the groups of a floor never meet.
# A package counts as one name; inside a group imports go any way that makes no circle.
TABLE: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        (
            "__init__",
            "errors",
            "units",
            "rng",
            "losses",
            "quant",
            "registry",
            "command",
            "paths",
            "arrays",
            "process",
            "power",
        ),
    ),
    (("protocols",), ("formats",), ("recipe",)),
    (("optim",), ("estimators",), ("memory",), ("records",)),
    (("loop",), ("methods",), ("export",), ("runtimes",), ("report",)),
    (("tasks",),),
    (("run",),),
    (("cli", "entry", "worker", "doctor", "bench", "watch", "api", "fleet", "__main__"),),
)
# What the parent of a run imports: a few megabytes beside a training that needs them all.
PARENT = (
    "edge_train.__init__",
    "edge_train.errors",
    "edge_train.units",
    "edge_train.memory",
    "edge_train.memory.link",
    "edge_train.memory.ending",
    "edge_train.memory.child",
    "edge_train.memory.groups",
    "edge_train.memory.machine",
    "edge_train.memory.kills",
    "edge_train.memory.fresh",
    "edge_train.memory.streams",
    "edge_train.memory.handover",
    "edge_train.memory.unstarted",
    "edge_train.process",
    "edge_train.process.age",
    "edge_train.process.interrupts",
    "edge_train.paths",
    "edge_train.memory.wall",
    "edge_train.memory.supervisor",
    "edge_train.entry",
)
MOST_MODULES = 16  # directly in edge_train; a seventeenth wants a room
PLACE = {
    name: (level, group)
    for level, groups in enumerate(TABLE)
    for group, names in enumerate(groups)
    for name in names
}
# They turn names into classes and load only what a run needs.
IMPORT_LATE = {
    "methods",
    "tasks",
    "run",
    "cli",
    "entry",
    "__main__",
    "worker",
    "bench",
    "api",
    "fleet",
}
# Installed with edge-train in every environment; everything else may be missing. (So is
# charset_normalizer, which is imported late: few texts need it.)
CORE = {"jinja2", "markupsafe", "numpy", "PIL", "safetensors", "tokenizers", "tomli", "tqdm"}
# The only packages that may need more than that.
NEED_EXTRAS = {"export", "runtimes"}
HEAVY = {
    "torch",
    "onnxruntime",
    "onnx",
    "diffusers",
    "transformers",
    "optimum",
    "peft",
    "huggingface_hub",
}


@dataclass(frozen=True)
class Import:
    """One import: the module it names, as written, and whether a function body holds it.

    `typing`: only a type checker reads it.
    """

    line: int
    module: str
    late: bool
    typing: bool = False


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def files(folder: Path) -> Iterator[Path]:
    """Yield the modules below a folder, also those behind the links to export/ and runtimes/."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "data":
            yield from files(path)
        elif path.suffix == ".py":
            yield path


MODULES = {module_name(path): path for path in files(ROOT)}


def place_name(module: str) -> str:
    """Return the name in the table of a module of edge_train."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(node: ast.AST, late: bool = False, typing: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(child.lineno, alias.name, late, typing)
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            for alias in child.names:
                whole = f"{source}.{alias.name}"
                yield Import(child.lineno, whole if whole in MODULES else source, late, typing)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            only_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from imports(child, late or inside, typing or only_typing)


@cache
def parsed(module: str) -> list[Import]:
    return list(imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "edge_train"


def test_every_module_has_a_place_in_the_table() -> None:
    homeless = [module for module in MODULES if place_name(module) not in PLACE]
    assert not homeless, "give these a line in the table of this test"


def test_imports_go_down_the_table() -> None:
    wrong = []
    for module in MODULES:
        name = place_name(module)
        level, group = PLACE[name]
        for found in parsed(module):
            if found.module.startswith("."):
                wrong.append(f"{module}:{found.line}: write the full name")
            elif is_ours(found.module):
                other_level, other_group = PLACE[place_name(found.module)]
                if not (other_level < level or (other_level, other_group) == (level, group)):
                    wrong.append(f"{module}:{found.line}: {found.module} is not below {name}")
    assert not wrong


def test_imports_make_no_circle() -> None:
    arrows = {
        module: {found.module for found in parsed(module) if found.module in MODULES}
        for module in MODULES
    }
    while leaves := [module for module, below in arrows.items() if not below & arrows.keys()]:
        for module in leaves:
            del arrows[module]
    assert not arrows, f"in or above a circle: {sorted(arrows)}"


def test_only_builders_import_our_modules_late() -> None:
    wrong = [
        f"{module}:{found.line}: {found.module}"
        for module in MODULES
        for found in parsed(module)
        if found.late and is_ours(found.module) and place_name(module) not in IMPORT_LATE
    ]
    assert not wrong


def test_late_imports_are_of_packages_that_may_be_missing() -> None:
    wrong = []
    for module in MODULES:
        for found in parsed(module):
            top = found.module.split(".")[0]
            needless = found.late and (top in CORE or top in sys.stdlib_module_names)
            if needless and place_name(module) not in IMPORT_LATE:
                wrong.append(f"{module}:{found.line}: import {top} at the top")
    assert not wrong


def test_only_export_and_runtimes_need_more_than_the_core_dependencies() -> None:
    wrong = []
    for module in MODULES:
        for found in parsed(module):
            top = found.module.split(".")[0]
            core = top in CORE or top in sys.stdlib_module_names or is_ours(top)
            if not (found.late or core or place_name(module) in NEED_EXTRAS):
                wrong.append(f"{module}:{found.line}: {top} is not a core dependency")
    assert not wrong


def test_tasks_never_meet() -> None:
    rooms = {module: module.split(".")[2] for module in MODULES if module.count(".") > 2}
    wrong = [
        f"{module}:{found.line}: {found.module}"
        for module, room in rooms.items()
        if place_name(module) == "tasks"
        for found in parsed(module)
        if place_name(found.module) == "tasks" and rooms.get(found.module, room) != room
    ]
    assert not wrong


def test_few_modules_lie_outside_of_a_room() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_MODULES


def test_the_parent_of_a_run_imports_the_standard_library_only() -> None:
    wrong = [
        f"{name}:{found.line}: {found.module}"
        for name in PARENT
        for found in parsed(name)
        if not found.typing
        and not found.late  # where there is no worker, or in a child that ends
        and found.module.split(".")[0] not in sys.stdlib_module_names
        and found.module not in PARENT
    ]
    assert not wrong


def test_every_python_that_we_start_leaves_the_current_folder_aside() -> None:
    """`python -m` looks there first; `memory/fresh.py` makes command lines that do not."""
    folders = [places.ROOT / name for name in ("edge_train", "export", "runtimes")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(files) > 200
    assert not [path for path in files if '"-m", "edge_train' in path.read_text()]


def test_the_first_line_of_a_file_names_its_idea() -> None:
    wrong = []
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstring = ast.get_docstring(tree)
        if docstring is None or not docstring.splitlines()[0].strip():
            wrong.append(f"{module}: the docstring has no first line")
        elif tree.body[0].lineno != 1:
            wrong.append(f"{module}: something stands before the docstring")
    assert not wrong


@pytest.mark.process
def test_help_loads_no_engine() -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['edge-train', '--help']\n"
        "try:\n"
        "    runpy.run_module('edge_train', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('loaded', *(name for name in sys.modules if '.' not in name))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *text, last = done.stdout.splitlines()
    assert any("run" in line for line in text)
    assert not (HEAVY | {"numpy", "PIL"}) & set(last.split())
