"""What `import edge_train` offers, what it costs, and that its types and its page say the same."""

import ast
import subprocess
import sys

import pytest
from places import ROOT

import edge_train as et


def test_every_public_name_is_there_and_the_types_say_the_same():
    for name in et.__all__:
        assert getattr(et, name) is not None
        assert name in dir(et)
    stub = ast.parse((ROOT / "edge_train/__init__.pyi").read_text())
    said = {a.asname for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names} - {None}
    assert said | {"__version__"} == set(et.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        et.trian  # noqa: B018


def test_optimizers_estimators_and_engines_are_found_by_name():
    for package in (et.optim, et.estimators, et.runtimes):
        for name in package.HOMES:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError):
            package.nothing  # noqa: B018


@pytest.mark.process
def test_import_loads_the_standard_library_only():
    code = "import sys; old = set(sys.modules); import edge_train; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "edge_train" in loaded
    assert loaded - {"edge_train"} <= set(sys.stdlib_module_names)
    assert len(done.stdout.split()) < 5  # nothing of ours beside the package itself
