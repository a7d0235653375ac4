"""An artifact with integer products is opened with exact sums on every processor, or refused."""

import dataclasses
import hashlib
import re
import shutil

import numpy as np
import pytest
from cutting_engine import CuttingEngine
from extreme_products import EIGHT_BITS, SEVEN_BITS, write, write_old
from places import GOLDEN

pytest.importorskip("onnx_ir")

from edge_train.errors import InputError
from edge_train.formats.artifact import Artifact, open_artifact
from edge_train.formats.onnx_products import CONVOLUTION, FOUR_BITS, LINEAR, read_products
from edge_train.quant import quants
from edge_train.runtimes.onnx import products
from edge_train.runtimes.onnx.engine import load_engine
from edge_train.runtimes.onnx.product_probe import PRECISE, make_probe, wrong_by
from edge_train.tasks.personalize import on_onnx
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

ROUNDED = frozenset((LINEAR, CONVOLUTION))
MANIFEST = open_artifact(GOLDEN).manifest


@pytest.fixture
def made(tmp_path):
    """Return a function that makes an artifact of extreme weights, as a manifest describes it."""

    def make(write_products, said: str) -> Artifact:
        tensors = write_products(tmp_path)
        shutil.copyfile(tmp_path / "int8-fast.onnx", tmp_path / "step.onnx")
        shutil.copyfile(tmp_path / "int8-fast.weights", tmp_path / "step.weights")
        lying = tuple(dataclasses.replace(tensor, file="step.weights") for tensor in tensors)
        return Artifact(
            tmp_path,
            dataclasses.replace(MANIFEST, quant="int8-fast", products=said, tensors=lying),
        )

    return make


@pytest.fixture
def install(monkeypatch):
    def install(version: str, bits: int = 16) -> CuttingEngine:
        engine = CuttingEngine(version, bits)
        monkeypatch.setattr(products, "load_engine", lambda: engine)
        return engine

    return install


def write_new(folder):
    return write(folder, "int8-fast")


@pytest.mark.parametrize("operator", sorted(ROUNDED))
def test_the_probe_sees_a_kernel_that_cuts_off(operator) -> None:
    engine = CuttingEngine("1.32.0")
    assert wrong_by(engine, frozenset((operator,)), SEVEN_BITS, precise=False) == 0
    assert wrong_by(engine, frozenset((operator,)), SEVEN_BITS + 1, precise=False) > 0
    assert wrong_by(engine, frozenset((operator,)), EIGHT_BITS, precise=False) > 0
    assert wrong_by(engine, frozenset((operator,)), EIGHT_BITS, precise=True) == 0


@pytest.mark.parametrize("operator", [LINEAR, CONVOLUTION, FOUR_BITS])
def test_products_of_7_bit_weights_are_exact_on_this_processor(operator) -> None:
    assert wrong_by(load_engine(), frozenset((operator,)), SEVEN_BITS, precise=False) == 0


@pytest.mark.parametrize("levels", ["of a row, from smallest to largest", "of a group, symmetric"])
def test_4_bit_rows_are_the_same_however_an_engine_rounds_them(levels) -> None:
    rows = make_probe(frozenset((FOUR_BITS,)), SEVEN_BITS).feeds["few_rows"]
    if levels.startswith("of a row"):
        low, high = rows.min(1, keepdims=True).clip(max=0), rows.max(1, keepdims=True).clip(min=0)
        step = (high - low) / 255
        zero = np.rint(-128 - low / step)
        rounded = (np.rint(rows / step + zero).clip(-128, 127) - zero) * step
    else:
        groups = rows.reshape(len(rows), -1, 32)
        step = np.abs(groups).max(2, keepdims=True) / 127
        rounded = (np.rint(groups / step) * step).reshape(rows.shape)
    np.testing.assert_allclose(rounded, rows, rtol=1e-5, atol=0)  # of float32 steps, rounded once


def test_an_artifact_that_says_7_bits_is_opened_as_it_is(made, install) -> None:
    engine = install("1.19.2")
    assert products.exact_opening(made(write_new, "uint8 x 7-bit")) == products.Opening()
    assert engine.asked == 0


def test_an_older_artifact_of_7_bit_weights_is_known_by_its_weights(made, install) -> None:
    install("1.19.2")
    assert products.exact_opening(made(write_new, "")) == products.Opening()


def test_old_8_bit_weights_are_made_unsigned_and_counted(made, install) -> None:
    install("1.32.0")
    artifact = made(write_old, "")
    opening = products.exact_opening(artifact)
    assert opening.options == {PRECISE: "1"}
    assert "edge-train export" in opening.note
    met = [t for t in artifact.manifest.tensors if t.dtype == "int8"]
    assert opening.rewritten_bytes == sum(tensor.bytes for tensor in met) > 0
    recipe = PersonalizeRecipe(model=str(GOLDEN), quant="int8-fast")
    assert on_onnx.weight_bytes(recipe, artifact).rewritten == opening.rewritten_bytes
    assert opening.note in on_onnx.device_notes(recipe, artifact)


@pytest.mark.parametrize("version", ["1.19.2", "1.24.1"])
def test_old_8_bit_weights_are_refused_where_nothing_is_exact(made, install, version) -> None:
    engine = install(version)
    artifact = made(write_old, "")
    again = "edge-train export ./small OUT --quant int8-fast"
    with pytest.raises(InputError, match=f"weights up to 127 .* {version} has no .*{again}"):
        on_onnx.device_notes(PersonalizeRecipe(model=str(GOLDEN), quant="int8-fast"), artifact)
    assert engine.asked == 0  # it would end the process


def test_old_8_bit_weights_cost_nothing_where_sums_are_exact(made, install) -> None:
    install("1.19.2", bits=32)
    assert products.exact_opening(made(write_old, "")) == products.Opening()


def test_a_kernel_that_cuts_off_even_7_bits_is_not_used(made, install) -> None:
    install("1.32.0", bits=15)
    artifact = made(write_new, "uint8 x 7-bit")
    assert products.exact_opening(artifact).options == {PRECISE: "1"}
    install("1.24.1", bits=15)
    with pytest.raises(InputError, match="weights up to 64"):
        products.exact_opening(artifact)


def test_float_products_are_not_tried(monkeypatch) -> None:
    monkeypatch.setattr(products, "load_engine", lambda: pytest.fail("nothing to try"))
    assert products.exact_opening(open_artifact(GOLDEN)) == products.Opening()


@pytest.mark.parametrize(
    ("version", "bits", "says"),
    [
        ("1.32.0", 32, "exact here, with 7-bit and with 8-bit"),
        ("1.32.0", 16, "7-bit weights that exports write.* opened in a slower exact way"),
        ("1.19.2", 16, "7-bit weights that exports write.* refused"),
        ("1.32.0", 15, "WRONG here"),
    ],
)
def test_doctor_says_whether_products_are_exact(install, version, bits, says) -> None:
    install(version, bits)
    assert re.search(says, products.examine())


def test_a_graph_is_asked_for_its_operators(made) -> None:
    artifact = made(write_new, "")
    assert artifact.integer_products.operators == ROUNDED
    found = set(artifact.integer_products.weights)
    assert found == {t.name for t in artifact.manifest.tensors if t.dtype == "int8"}
    assert not read_products(GOLDEN / "step.onnx").operators


def test_a_manifest_without_the_key_keeps_its_hash() -> None:
    written = (GOLDEN / "manifest.json").read_bytes()
    assert open_artifact(GOLDEN).sha256() == hashlib.sha256(written).hexdigest()
    said = dataclasses.replace(MANIFEST, products=quants.get("int8-fast").products)
    assert b'"products": "uint8 x 7-bit"' in said.to_bytes()
