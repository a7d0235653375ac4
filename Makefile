# Everything a fresh clone can do. Two environments: .venv (desk: torch and all engines) and
# .venv-device (device: ONNX Runtime and no torch).

PYTHON ?= python3
NAME ?= personalize
install := install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test test-device test-desk check bench clean

demo: .venv/.ready
	.venv/bin/edge-train run --mem 8GB

# Both environments at once: the two suites share nothing but the machine.
test: .venv/.ready .venv-device/.ready
	$(MAKE) --jobs=2 --output-sync=target test-device test-desk

test-device:
	.venv-device/bin/python -c "import sys; from importlib.util import find_spec; sys.exit('torch is in .venv-device' if find_spec('torch') else 0)"
	.venv-device/bin/python -m pytest --doctest-ignore-import-errors

test-desk:
	.venv/bin/python -m pytest

check: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/python -m pytest

bench: .venv/.ready
	.venv/bin/edge-train bench $(NAME)

clean:
	rm -rf .venv .venv-device build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# torch comes first and alone, so that nothing after it can choose another build of it.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip $(install) torch
	.venv/bin/python -m pip $(install) -e '.[desk,dev]'
	touch $@

.venv-device/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/python -m pip $(install) -e '.[device,dev]'
	touch $@
