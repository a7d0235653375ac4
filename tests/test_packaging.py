"""What a wheel holds, and that the files around the package agree with each other."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.process
DATA = Path("edge_train/data")
TEMPLATES = ROOT / "edge_train" / "report" / "templates"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    clone = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, clone)
    for name in ("edge_train", "export", "runtimes"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=ignore)
    build = "from setuptools import build_meta; build_meta.build_wheel('wheels')"
    (clone / "wheels").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (clone / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules(folder: str) -> set[str]:
    return {path.name for path in (ROOT / folder).glob("*.py")}


@pytest.mark.parametrize("folder", ["export", "runtimes"])
def test_wheel_holds_the_top_level_folders_inside_the_package(
    wheel_names: set[str], folder: str
) -> None:
    assert {f"edge_train/{folder}/{name}" for name in modules(folder)} <= wheel_names
    assert not any(name.startswith(f"{folder}/") for name in wheel_names)


def test_wheel_holds_every_module(wheel_names: set[str]) -> None:
    paths = (ROOT / "edge_train").rglob("*.py")
    assert {path.relative_to(ROOT).as_posix() for path in paths} <= wheel_names


def test_wheel_holds_every_data_file(wheel_names: set[str]) -> None:
    files = {path for path in (ROOT / DATA).rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= wheel_names


def test_wheel_holds_the_artifact_that_a_device_alone_learns_with(wheel_names: set[str]) -> None:
    folder = ROOT / DATA / "tiny_sd_int8_fast"
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"step.onnx", "step.weights", "tokenizer/vocab.json"} <= listed.keys()
    names = {f"{DATA}/{folder.name}/{name}" for name in ("manifest.json", *listed)}
    assert names <= wheel_names


def test_wheel_holds_the_style_sheet_and_templates_of_the_report(wheel_names: set[str]) -> None:
    files = {"edge_train/report/style.css"}
    files |= {f"edge_train/report/templates/{path.name}" for path in TEMPLATES.iterdir()}
    assert "edge_train/report/templates/page.html" in files
    assert files <= wheel_names


def test_wheel_holds_the_page_of_watch(wheel_names: set[str]) -> None:
    for name in ("page.html", "page.css", "page.js", "login.html"):
        assert f"edge_train/watch/{name}" in wheel_names


def test_wheel_says_that_it_is_typed(wheel_names: set[str]) -> None:
    assert {"edge_train/py.typed", "edge_train/__init__.pyi"} <= wheel_names


def test_wheel_installs_one_top_level_name(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edge_train"}


def test_wheel_carries_license_and_notice(wheel_names: set[str]) -> None:
    names = {Path(name).name for name in wheel_names if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE"} <= names


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {distribution(line) for line in lines if line and not line.startswith("#")}
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["desk"] + extras["device"] + extras["dev"]
    assert {distribution(line) for line in wanted} - pinned == {"tomli"}  # Python 3.10 only


def distribution(requirement: str) -> str:
    """Return the normalized name in front of a requirement's version."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return match[0].replace("_", "-").lower()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "AMD64", "arm64"])
def test_desk_takes_exactly_one_onnxruntime(python: str, system: str, machine: str) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    where = {"python_version": python, "sys_platform": system, "platform_machine": machine}
    parsed = [requirements.Requirement(r) for r in PROJECT["optional-dependencies"]["desk"]]
    found = [
        r.name
        for r in parsed
        if r.name.startswith("onnxruntime") and r.marker.evaluate({**where, "extra": ""})
    ]
    assert len(found) == 1


# what the standard library has only since a later Python than `requires-python` names
LATER = {
    "3.11": {
        *("tomllib", "enum.StrEnum", "datetime.UTC", "typing.Self", "typing.assert_never"),
        *("typing.LiteralString", "typing.Never", "typing.reveal_type", "typing.Required"),
        *(
            "contextlib.chdir",
            "hashlib.file_digest",
            "operator.call",
            "logging.getLevelNamesMapping",
        ),
        *("asyncio.TaskGroup", "asyncio.timeout", "math.cbrt", "math.exp2", "sys.exception"),
        *("ExceptionGroup", "BaseExceptionGroup", "enum.verify", "inspect.getmembers_static"),
    },
    "3.12": {
        *("itertools.batched", "typing.override", "math.sumprod", "pathlib.Path.walk"),
        *("collections.abc.Buffer", "inspect.markcoroutinefunction", "os.listdrives"),
    },
    "3.13": {"copy.replace", "warnings.deprecated", "queue.ShutDown"},
}


def names_in(tree: ast.AST) -> set[str]:
    """Return every name of another module, and of a builtin, that a file uses, spelled in full."""
    imported: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
            imported |= whole
            found |= set(whole.values())
        elif isinstance(node, ast.Name):
            found.add(node.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{imported.get(node.value.id, node.value.id)}.{node.attr}")
    return found


def test_the_oldest_python_that_is_named_reads_every_file_and_has_every_name() -> None:
    assert PROJECT["requires-python"] == ">=3.10"
    later = set().union(*LATER.values())
    wrong = []
    for folder in ("edge_train", "export", "runtimes"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 10))
            used = names_in(tree) & later
            if "sys.version_info >= (3, 11)" in path.read_text("utf-8"):
                used -= {"tomllib"}
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in sorted(used)]
    assert not wrong
    assert "typing.Self" in names_in(ast.parse("from typing import Self"))
    assert "datetime.UTC" in names_in(ast.parse("import datetime as d; d.UTC"))
