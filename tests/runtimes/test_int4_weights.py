"""4-bit layers compute what quanto's do, bit for bit, and nothing is ever compiled."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from optimum.quanto.nn import quantize_module
from quanto_reference import read_by_definition, refuse_to_compile
from torch import Tensor, nn

from edge_train.runtimes.torch.int4_weights import freeze_int4

# groups of 128, 32 and 96 inputs and none; rows of groups in odd and even number
LAYERS = {
    "linear 256": lambda: nn.Linear(256, 64),
    "linear 160": lambda: nn.Linear(160, 3),
    "linear 40": lambda: nn.Linear(40, 7),
    "conv 3x3": lambda: nn.Conv2d(32, 5, 3),
    "conv 1x1": lambda: nn.Conv2d(3, 7, 1),
}
DTYPES = ["float32", "bfloat16", "float16"]


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse_to_compile(monkeypatch, tmp_path)


def quantized(name: str, dtype: str) -> tuple[Any, Any, Tensor]:
    """Return a layer of ours, the same of quanto and an input."""
    torch.manual_seed(0)
    layer: Any = LAYERS[name]().to(getattr(torch, dtype))
    ours, stock = (quantize_module(layer, weights="qint4") for _ in range(2))
    freeze_int4(ours)
    stock.freeze()
    shape = (9, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 6, 6)
    return ours, stock.requires_grad_(False), torch.randn(shape).to(layer.weight.dtype)


def results(layer: Any, inputs: Tensor) -> list[Tensor]:
    """Return the output, the gradient of the inputs and the weight as floats."""
    given = inputs.clone().requires_grad_()
    output = layer(given)
    output.float().square().sum().backward()
    return [output.detach(), given.grad, layer.weight.dequantize()]  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_quantos_definition(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, stock, inputs = quantized(name, dtype)
    found = results(ours, inputs)
    read_by_definition(monkeypatch)
    for mine, other in zip(found, results(stock, inputs), strict=True):
        assert mine.dtype == other.dtype and mine.equal(other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_no_float_weight_stays_for_the_way_back(name: str, dtype: str) -> None:
    ours, _, inputs = quantized(name, dtype)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ours(inputs.requires_grad_())
    plain = [tensor for tensor in kept if type(tensor) is Tensor]
    assert len(kept) > len(plain)  # the packed weight is
    assert all(tensor.shape == inputs.shape for tensor in plain)


def test_quanto_itself_would_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the other tests show nothing."""
    _, stock, inputs = quantized("linear 40", "float32")
    with pytest.raises(AssertionError, match="compiled"):
        stock(inputs)


@pytest.mark.slow
@pytest.mark.process
def test_a_whole_run_starts_no_compiler(tmp_path: Path) -> None:
    """Every compiler of the path leaves a trace and fails."""
    tools, photos = tmp_path / "tools", Path(__file__).parents[1] / "golden/stopped/photos"
    tools.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "clang", "clang++", "nvcc", "ninja", "cmake", "make"):
        (tools / name).write_text(f"#!/bin/sh\necho {name} >> {tools}/started\nexit 1\n")
        (tools / name).chmod(0o755)
    words = "--task personalize --model tiny-sd --class item --token <my-item> --method zo"
    words += " --runtime torch --quant int4 --steps 2 --resolution 32 --threads 1 --no-previews"
    run = [*words.split(), "--photos", str(photos), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "edge_train", "run", *run],
        env={**os.environ, "PATH": str(tools), "TORCH_EXTENSIONS_DIR": str(tmp_path / "built")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tools / "started").exists()
