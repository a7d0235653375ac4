"""Weights that stay in their file give the same bits, and can be let go while they are in use."""

import threading
from pathlib import Path

import numpy as np
import pytest
from emulated import natively
from places import GOLDEN

from edge_train.arrays.parameters import Parameters
from edge_train.errors import ModelError
from edge_train.formats.artifact import open_artifact
from edge_train.runtimes.onnx.mapped_weights import MappedWeights

pytest.importorskip("onnxruntime")

from edge_train.runtimes.onnx.diffusion import OnnxDiffusion


def opened(lean):
    artifact = open_artifact(GOLDEN)
    start = {"token": artifact.embedding_rows("text_encoder", [3])}
    ids = [list(range(8))]
    return OnnxDiffusion(
        artifact, Parameters(start), token_ids=ids, threads=1, device="cpu", lean=lean
    )


def losses(runtime):
    artifact = open_artifact(GOLDEN)
    side = artifact.resolution // artifact.latent_scale
    draws = np.random.default_rng(0)
    latents = draws.standard_normal((3, artifact.latent_channels, side, side), np.float32)
    batch = {
        "latents": latents,
        "target": latents[::-1].copy(),
        "timesteps": np.array([5, 300, 800]),
        "ids": np.full((3, artifact.prompt_tokens), -1),
    }
    return runtime.forward(batch, [runtime.parameters])


def test_lean_gives_the_bits_of_the_default():
    np.testing.assert_array_equal(losses(opened(lean=True)), losses(opened(lean=False)))


def test_every_call_is_one_pass_over_the_weights():
    runtime = opened(lean=True)
    losses(runtime)
    assert (runtime.passes, runtime.evaluations) == (1, 3)  # float activations share a call
    runtime.batch_limit = 2
    losses(runtime)
    assert (runtime.passes, runtime.evaluations) == (3, 6)


def test_released_at_any_instant_the_losses_keep_their_bits():
    runtime, over = opened(lean=True), threading.Event()
    expected = losses(runtime)

    def release():
        while not over.is_set():
            runtime.pages.release()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        for _ in range(50):
            np.testing.assert_array_equal(losses(runtime), expected)
    finally:
        over.set()
        thread.join()


@natively
def test_released_pages_are_gone_and_a_kept_head_stays():
    runtime = opened(lean=True)
    pages = runtime.pages
    for _ in range(100):  # a kernel that is short of memory takes pages of files at any moment
        losses(runtime)
        whole = pages.resident_bytes()
        if whole is None:
            pytest.skip("this kernel does not say which pages are resident")
        if whole >= pages.bytes - 4096:
            break
    else:
        pytest.fail(f"{whole} bytes of {pages.bytes} are resident after they were read")
    pages.release(keep_bytes=pages.bytes // 2)
    assert abs(pages.resident_bytes() - pages.bytes // 2) <= 2 * 4096
    pages.release()
    assert pages.resident_bytes() == 0


def test_the_mapping_is_one_and_can_never_be_dirty():
    runtime = opened(lean=True)
    losses(runtime)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc")
    mine = [line.split() for line in maps.read_text().splitlines() if str(GOLDEN) in line]
    assert {words[1] for words in mine if words[5].endswith("step.weights")} == {"r--s"}
    del runtime


def test_a_short_file_is_refused(tmp_path):
    artifact = open_artifact(GOLDEN)
    (tmp_path / "step.weights").write_bytes(b"abc")
    with pytest.raises(ModelError, match="3 bytes, the manifest says"):
        MappedWeights(tmp_path / "step.weights", artifact.manifest.tensors)
