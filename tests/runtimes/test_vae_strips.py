"""In strips a VAE computes what it computes in one piece, and holds less of it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import tiny_models
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from edge_train.export.artifact_folder import write_graph, write_graph_of_same_weights
from edge_train.export.diffusion_graphs import vae_graphs
from edge_train.export.model_weights import ModelWeights
from edge_train.export.strip_graphs import strip_graphs
from edge_train.formats.hub import find_model
from edge_train.runtimes.onnx.engine import open_session, pick_provider
from edge_train.runtimes.onnx.mapped_weights import MappedWeights
from edge_train.runtimes.torch import vae_strips

TOLERANCE = 2e-5  # of the largest number: sums of float32 in another order, layer after layer
SIDE = 72  # leaves a smaller last strip


def model_with_vae(folder, channels=(32, 64, 64)):
    """Return a tiny model whose VAE has three levels, each with a residual block that widens."""
    tiny_models.make_tiny_model(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=32,
        ).save_pretrained(folder / "vae")
    return find_model(str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_with_vae(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vae(model):
    return AutoencoderKL.from_pretrained(model.path / "vae").eval()


def inputs(side=SIDE):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    return pixels, rng.standard_normal((2, 4, side // 4, side // 4)).astype(np.float32)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("kept_bytes", [0, 2**19, 2**30])  # nothing, some and all of the maps
@pytest.mark.parametrize("strip_bytes", [2**12, 2**16, 2**18])
def test_torch_computes_in_strips_what_it_computes_whole(vae, strip_bytes, kept_bytes):
    pixels, latents = map(torch.from_numpy, inputs())
    with torch.no_grad():
        whole = vae.encode(pixels).latent_dist
        mean, deviation = vae_strips.encode(vae, pixels, strip_bytes, kept_bytes)
        picture = vae_strips.decode(vae, latents, strip_bytes, kept_bytes)
        assert_close(mean.numpy(), whole.mean.numpy())
        assert_close(deviation.numpy(), whole.std.numpy())
        assert_close(picture.numpy(), vae.decode(latents).sample.numpy())


HALVES = ("vae_encoder", "vae_decoder")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    """Write both graphs of a VAE in one piece; return their folder and the tensors in it."""
    folder, tensors = tmp_path_factory.mktemp("whole"), []
    for name, graph in zip(HALVES, vae_graphs(model, SIDE), strict=True):
        tensors += write_graph(folder / f"{name}.onnx", graph, ModelWeights(model))
    return folder, tensors


def open_half(folder, name, tensors, *, strips):
    pages = MappedWeights(folder / f"{name}.weights", tensors) if strips else None
    path = folder / (f"{name}_strips.onnx" if strips else f"{name}.onnx")
    provider = pick_provider("cpu", "none")
    session = open_session(
        path, provider, threads=1, options={}, lean=strips, pages=pages, as_written=strips
    )
    return session, pages


@pytest.mark.parametrize(
    ("strip_bytes", "kept_bytes"), [(2**14, 0), (2**16, 2**19), (2**18, 2**30)]
)
def test_the_graphs_in_strips_compute_what_the_whole_ones_do(whole, model, strip_bytes, kept_bytes):
    folder, tensors = whole
    graphs = strip_graphs(model, SIDE, strip_bytes, kept_bytes)
    pixels, latents = inputs()
    for name, graph, feeds in zip(
        HALVES, graphs, ({"pixels": pixels}, {"latents": latents}), strict=True
    ):
        path = folder / f"{name}_strips.onnx"
        write_graph_of_same_weights(path, graph, ModelWeights(model), f"{name}.weights", tensors)
        session, _ = open_half(folder, name, tensors, strips=False)
        in_strips, pages = open_half(folder, name, tensors, strips=True)
        outputs = [value.name for value in session.get_outputs()]
        expected, found = session.run(outputs, feeds), in_strips.run(outputs, feeds)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
        del in_strips, pages
    assert len(list(folder.glob("*.weights"))) == len(HALVES)  # strips bring none of their own


def test_a_graph_of_other_weights_is_not_written(tmp_path, model):
    graph, _ = strip_graphs(model, SIDE)
    tensors = write_graph(tmp_path / "vae_encoder.onnx", graph, ModelWeights(model))
    edited = [replace(tensor, sha256="0" * 64) for tensor in tensors]
    graph, _ = strip_graphs(model, SIDE)
    with pytest.raises(ValueError, match=r"vae_encoder\.weights does not hold this"):
        write_graph_of_same_weights(
            tmp_path / "other.onnx", graph, ModelWeights(model), "vae_encoder.weights", edited
        )


_RUN = """
import sys
import numpy as np
from edge_train.memory.measure import measure
from edge_train.runtimes.onnx.engine import call, open_session, pick_provider
path, name, side, channels = sys.argv[1:]
session = open_session(
    path, pick_provider("cpu", "none"), threads=1, options={}, lean=True, as_written=True
)
before = measure().resident_bytes
call(session, None, {name: np.zeros((1, int(channels), int(side), int(side)), np.float32)})
print(measure().peak_bytes - before)
"""


@pytest.mark.process
def test_in_strips_a_fifth_less_is_held_than_in_one(tmp_path):
    side, levels = 512, 5  # feature maps of 32 MiB
    model = model_with_vae(tmp_path / "model", (32,) * levels)
    source = ModelWeights(model)
    shapes = (("pixels", 3, side), ("latents", 4, side >> (levels - 1)))
    sizes = ((2**30, 2**30), (2**21, 2**25))  # of a strip, and of maps that are kept
    graphs = [strip_graphs(model, side, *bytes_) for bytes_ in sizes]
    for half, (given, channels, size) in enumerate(shapes):
        held = []
        for pair in graphs:
            path = tmp_path / f"{given}-{len(held)}.onnx"
            write_graph(path, pair[half], source)
            words = [str(path), given, str(size), str(channels)]
            done = subprocess.run(
                [sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True
            )
            held.append(int(done.stdout))
        whole, strips = held
        assert strips < 0.8 * whole, (given, held)


def test_the_nodes_of_a_graph_in_strips_stand_in_an_order_that_can_run(tmp_path, model):
    for graph in strip_graphs(model, SIDE, 2**14):
        made = set(graph.graph.inputs) | set(graph.graph.initializers.values())
        for node in graph.graph:
            assert all(value is None or value in made for value in node.inputs)
            made |= set(node.outputs)
        assert isinstance(graph, ir.Model)
