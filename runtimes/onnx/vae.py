"""The VAE of an artifact: photos to latents and latents to pictures; opened, used and let go."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.formats.artifact import Artifact
from edge_train.memory.measure import give_back_memory
from edge_train.runtimes.onnx.engine import Value, call, check_values, open_session, pick_provider
from edge_train.runtimes.onnx.mapped_weights import MappedWeights

_PIXELS_PER_CALL = 65_536  # below this a call is mostly overhead; above it is mostly memory
_RELEASE_SECONDS = 0.02  # between two times that weights already read are let go


def encode_photos(
    artifact: Artifact,
    images: NDArray[np.uint8],
    device: str,
    threads: int,
    *,
    strips: bool = False,
) -> tuple[Array, Array]:
    """Return mean and standard deviation of the photos' latents, (n, C, h, w) each.

    `mean + std * noise` is a latent as the denoiser knows it: shifted and scaled.

    Args:
      images: (n, H, W, 3) of the artifact's resolution.
      strips: compute in strips; only for an artifact that has the graph for it.

    Memory:
      The VAE's encoder, and the activations of one photo; both gone on return. In strips, of the
      encoder only what was read in the last moment, and of the activations two feature maps.
    """

    def pixels(some: slice) -> Array:
        values: Array = images[some].transpose(0, 3, 1, 2).astype(np.float32)
        values /= np.float32(127.5)
        values -= 1
        return values

    outputs = ("mean", "deviation")
    mean, deviation = _through(
        "vae_encoder", "pixels", pixels, len(images), outputs, artifact, device, threads, strips
    )
    scale = np.float32(artifact.manifest.scaling_factor)
    return (mean - np.float32(artifact.manifest.shift_factor)) * scale, deviation * scale


def decode_latents(
    artifact: Artifact,
    latents: Array,
    device: str,
    threads: int,
    limit: int | None = None,
    *,
    strips: bool = False,
) -> NDArray[np.uint8]:
    """Return the pictures (n, H, W, 3) of scaled latents (n, C, h, w), `limit` at a time at most.

    Args:
      strips: compute in strips; only for an artifact that has the graph for it.

    Memory:
      The VAE's decoder, and the activations of one picture; both gone on return. In strips, of the
      decoder only what was read in the last moment, and of the activations two feature maps.
    """
    manifest = artifact.manifest
    scaled = latents / np.float32(manifest.scaling_factor) + np.float32(manifest.shift_factor)
    (pixels,) = _through(
        "vae_decoder",
        "latents",
        lambda some: np.ascontiguousarray(scaled[some]),
        len(scaled),
        ("pixels",),
        artifact,
        device,
        threads,
        strips,
        limit,
    )
    levels = np.rint(np.clip(pixels / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def _through(
    half: str,
    name: str,
    values: Callable[[slice], Array],
    count: int,
    outputs: Sequence[str],
    artifact: Artifact,
    device: str,
    threads: int,
    strips: bool,
    limit: int | None = None,
) -> list[Array]:
    """Return a graph's outputs for all values, given a few at a time; it is open only meanwhile."""
    provider = pick_provider(device, "none")
    graph = artifact.path / (f"{half}_strips.onnx" if strips else f"{half}.onnx")
    pages = None
    if strips:
        pages = MappedWeights(graph.with_name(f"{half}.weights"), artifact.manifest.tensors)
    session = open_session(
        graph,
        provider,
        threads=threads,
        options=artifact.manifest.engine,
        lean=strips,
        pages=pages,
        as_written=strips,
    )
    together = min(max(1, _PIXELS_PER_CALL // artifact.resolution**2), limit or count)
    if strips:
        together = 1
    parts = []
    with _released(pages):
        for start in range(0, count, together):
            some = values(slice(start, start + together))
            if not start:
                check_values(graph, session, [Value(name, (None, *some.shape[1:]))], outputs)
            parts.append(call(session, outputs, {name: some}))
    del session
    give_back_memory()
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@contextmanager
def _released(pages: MappedWeights | None) -> Iterator[None]:
    """Let go of weights soon after they were read: within a call, each is read once or in a row."""
    if pages is None:
        yield
        return
    over = threading.Event()

    def release() -> None:
        while not over.wait(_RELEASE_SECONDS):
            pages.release()

    thread = threading.Thread(target=release, name="weights of the VAE", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        pages.release()
