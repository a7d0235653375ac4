# Everything a fresh clone can do. Two environments: .venv (desk: torch and all engines) and
# .venv-device (device: ONNX Runtime and no torch).

PYTHON ?= python3
GIVEN = $(if $(filter file,$(origin PYTHON)),$(or $(wildcard .venv/bin/python),$(PYTHON)),$(PYTHON))
NAME ?= personalize
IMAGES ?= build try
install := install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo check test test-all test-desk test-desk-process test-device test-gpu bench-gpu test-arm bench docs images clean

demo: .venv/.ready
	.venv/bin/edge-train run --mem 8GB

# Before every commit. Each test file runs in one environment: tests/support/environments.py says in which.
check: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/python -m pytest -m "not process and not slow and not device"

# Three jobs on two cores; the longest comes first. They share nothing but the machine.
test: .venv/.ready .venv-device/.ready
	$(MAKE) --jobs=2 --output-sync=target test-desk-process test-device test-desk

test-desk-process:
	.venv/bin/python -m pytest -m "process and not slow and not device"

test-desk:
	.venv/bin/python -m pytest -m "not process and not slow and not device"

test-device:
	.venv-device/bin/python -c "import sys; from importlib.util import find_spec; sys.exit('torch is in .venv-device' if find_spec('torch') else 0)"
	.venv-device/bin/python -m pytest

# No file of the device environment is slow today; pytest says 5 where it selects nothing.
test-all: test
	.venv/bin/python -m pytest -m "slow and not device"
	.venv-device/bin/python -m pytest -m "slow and not device" || test $$? -eq 5

# Both install nothing and end in under eight minutes: a Python is given (PYTHON=...) whose torch, 2.8 or
# newer, sees a card; else it is that of .venv. What it lacks is named and left out.
test-gpu:
	$(GIVEN) tests/gpu

bench-gpu:
	$(GIVEN) tests/gpu/bench.py

# Needs root, debootstrap and qemu-user-static; the emulated root lies in a cache folder of yours,
# or in ARM_ROOT.
test-arm: .venv/.ready
	tests/emulated/arm.sh

bench: .venv/.ready
	.venv/bin/edge-train bench $(NAME)

# The site of docs/ in build/site; a page, link or anchor that is missing is an error. It needs nothing of ours.
docs: .venv-docs/.ready
	.venv-docs/bin/mkdocs build --strict

# Needs docker, podman or buildah (BUILDER=...); docs/containers.md.
images:
	tests/images/build.sh $(IMAGES)

clean:
	rm -rf .venv .venv-device .venv-docs build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# torch comes first and alone, so that nothing after it can choose another build of it.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip $(install) torch
	.venv/bin/python -m pip $(install) -e '.[desk,parquet,heif,tensorboard,dev]'
	touch $@

.venv-device/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/python -m pip $(install) -e '.[device,dev]'
	touch $@

# The extra [docs] without the product, which pages do not import.
.venv-docs/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip $(install) mkdocs-material
	touch $@
