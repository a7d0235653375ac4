"""The VAE of an artifact: photos to latents and latents to pictures; opened, used and let go."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.artifact import Artifact
from edge_train.memory import give_back_memory
from edge_train.protocols import Array
from edge_train.runtimes.onnx_engine import (
    Value,
    call,
    check_values,
    open_session,
    pick_provider,
)

_PIXELS_PER_CALL = 65_536  # below this a call is mostly overhead; above it is mostly memory


def encode_photos(
    artifact: Artifact, images: NDArray[np.uint8], device: str, threads: int
) -> tuple[Array, Array]:
    """Return mean and standard deviation of the photos' latents, (n, C, h, w) each.

    `mean + std * noise` is a latent as the denoiser knows it: shifted and scaled.

    Args:
      images: (n, H, W, 3) of the artifact's resolution.

    Memory:
      The VAE's encoder, and the activations of one photo; both gone on return.
    """
    pixels: Array = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    graph = artifact.path / "vae_encoder.onnx"
    mean, deviation = _through(
        graph, "pixels", pixels, ("mean", "deviation"), artifact, device, threads
    )
    scale = np.float32(artifact.manifest.scaling_factor)
    return (mean - np.float32(artifact.manifest.shift_factor)) * scale, deviation * scale


def decode_latents(
    artifact: Artifact, latents: Array, device: str, threads: int, limit: int | None = None
) -> NDArray[np.uint8]:
    """Return the pictures (n, H, W, 3) of scaled latents (n, C, h, w), `limit` at a time at most.

    Memory:
      The VAE's decoder, and the activations of one picture; both gone on return.
    """
    manifest = artifact.manifest
    scaled = latents / np.float32(manifest.scaling_factor) + np.float32(manifest.shift_factor)
    graph = artifact.path / "vae_decoder.onnx"
    (pixels,) = _through(graph, "latents", scaled, ("pixels",), artifact, device, threads, limit)
    levels = np.rint(np.clip(pixels / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)


def _through(
    graph: Path,
    name: str,
    values: Array,
    outputs: Sequence[str],
    artifact: Artifact,
    device: str,
    threads: int,
    limit: int | None = None,
) -> list[Array]:
    """Return a graph's outputs for all values, given a few at a time; it is open only meanwhile."""
    provider = pick_provider(device, "none")
    session = open_session(graph, provider, threads=threads, options=artifact.manifest.engine)
    check_values(graph, session, [Value(name, (None, *values.shape[1:]))], outputs)
    together = min(max(1, _PIXELS_PER_CALL // artifact.resolution**2), limit or len(values))
    parts = [
        call(session, outputs, {name: np.ascontiguousarray(values[start : start + together])})
        for start in range(0, len(values), together)
    ]
    del session
    give_back_memory()
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
