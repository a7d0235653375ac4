"""What personalize needs of an engine: the functions of a module that `Use.open` names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.adapter import Adapter
from edge_train.formats.artifact import Artifact
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.tasks.job import OpenRuntime
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

Model = ModelFolder | Artifact
Pictures = NDArray[np.uint8]  # (n, height, width, 3)
ModelT = TypeVar("ModelT", bound=Model, contravariant=True)


def hashes_of(model: Model) -> tuple[str, ...]:
    """Return the hash of a model's weights; of an artifact, of those it was exported from.

    Its own follows, of its manifest: what learned from it in earlier versions has that.
    """
    if isinstance(model, Artifact):
        return model.manifest.origin["sha256"], model.sha256()
    return (model.sha256(),)


class Denoiser(OpenRuntime, Protocol):
    """An open runtime that can also draw, and hands out what its losses are made of."""

    def predict(self, batch: Batch, point: Point) -> Array:
        """Return the denoiser's output (B, C, h, w) float32; `target` is not needed."""
        ...

    def predictions(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the output of every sample at every point, (points, B, C, h, w) float32."""
        ...


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of weights as a run holds them: of the trained step, and of the VAE's halves.

    `rewritten` are those of the step that an engine holds a second time, in another form.
    """

    step: int
    encoder: int
    decoder: int
    rewritten: int = 0

    @property
    def total(self) -> int:
        """All three."""
        return self.step + self.encoder + self.decoder


@dataclass(frozen=True)
class Call:
    """The largest call of the denoiser in a run.

    Attributes:
      cells: of a latent picture.
      together: samples that runtimes take at once where nothing limits them.
      samples: that are in the call.
    """

    cells: int
    together: int
    samples: int


class Serving(Protocol[ModelT]):
    """How an engine serves personalize; a module with these functions is one.

    A module that has those of `AdaptingServing`, too, can train a LoRA.

    `fix` comes first and may be given any model; the others only one that it let through, with the
    recipe that it returned. Importing the module loads no engine: functions import it when called.
    """

    def fix(self, recipe: PersonalizeRecipe, model: Model) -> PersonalizeRecipe:
        """Return the recipe with every key that engine and model leave no choice of.

        Raises:
          InputError: the recipe asks for something else, the model is of another kind, or the
            engine is not installed.
        """
        ...

    def origin(self, recipe: PersonalizeRecipe, model: ModelT) -> str:
        """Return the name of the model folder that the weights come from."""
        ...

    def device_notes(self, recipe: PersonalizeRecipe, model: ModelT) -> list[str]:
        """Return what the user should know of the device, a line each.

        Raises:
          InputError: no engine, or none that has this device.
        """
        ...

    def encode(
        self, recipe: PersonalizeRecipe, model: ModelT, pixels: Pictures, *, strips: bool
    ) -> tuple[Array, Array]:
        """Return mean and standard deviation of the photos' latents; the VAE comes and goes.

        Args:
          strips: as `vae_in_strips` says.
        """
        ...

    def decode(
        self, recipe: PersonalizeRecipe, model: ModelT, latents: Array, *, strips: bool
    ) -> Pictures:
        """Return the pictures (n, H, W, 3) of latents; the VAE comes and goes."""
        ...

    def vae_in_strips(self, recipe: PersonalizeRecipe, model: ModelT) -> bool:
        """Return whether photos and pictures go through the VAE in strips, for want of memory.

        They do in a lean run, and under a cap that the VAE in one piece would exceed on a CPU. The
        numbers then differ as sums in another order do.
        """
        ...

    def open_runtime(
        self,
        recipe: PersonalizeRecipe,
        model: ModelT,
        parameters: Parameters,
        token_ids: Sequence[Collection[int]],
    ) -> Denoiser:
        """Return the runtime.

        Args:
          token_ids: per text encoder, every vocabulary id a prompt will ever hold.
        """
        ...

    def smallest_radius(self, model: ModelT) -> float:
        """Return the relative radius below which slopes are mostly rounding; 0: none is known."""
        ...

    def weight_bytes(self, recipe: PersonalizeRecipe, model: ModelT) -> WeightBytes:
        """Return the bytes of weights as they are loaded."""
        ...

    def vae_stays_in_file(self, recipe: PersonalizeRecipe, model: ModelT) -> bool:
        """Return whether the weights of the VAE are read in place."""
        ...

    def stored_bytes(self, model: ModelT) -> int:
        """Return the bytes of weights as they lie in files."""
        ...

    def weight_shapes(self, model: ModelT) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the trained step's weights, as `denoiser_operations` names them."""
        ...

    def vae_width(self, recipe: PersonalizeRecipe, model: ModelT) -> int:
        """Return the channels of the VAE's first level."""
        ...

    def activation_bytes(
        self, recipe: PersonalizeRecipe, model: ModelT, call: Call, step_bytes: int
    ) -> tuple[int, int]:
        """Return the bytes of activations in training, and while latents are drawn.

        Args:
          step_bytes: weights of the step, from `weight_bytes`.
        """
        ...


class AdaptingServing(Serving[ModelT], Protocol[ModelT]):
    """How an engine serves a LoRA, too."""

    def open_adapted(
        self,
        recipe: PersonalizeRecipe,
        model: ModelT,
        parameters: Parameters,
        adapter: Adapter,
        token_ids: Sequence[Collection[int]],
    ) -> Denoiser:
        """Return the runtime whose parameters are the matrices of an adapter."""
        ...
