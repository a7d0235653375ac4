"""The keys of task personalize."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.errors import InputError
from edge_train.formats.embedded import EMBEDDED
from edge_train.methods.exact import AdapterKeys, ClipKeys, NoiseKeys, RateKeys
from edge_train.methods.low_rank import RankKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import key

MOST_CLASS_PICTURES = 200
ISOTROPIC, METRIC, PRIOR = "isotropic", "metric", "prior"


@dataclass(frozen=True, kw_only=True)
class PersonalizeRecipe(ForwardKeys, RateKeys, NoiseKeys, ClipKeys, RankKeys, AdapterKeys):
    """Learn a new word of a Stable Diffusion, or a LoRA of it, from a few photos.

    >>> PersonalizeRecipe(token="<my-dog>", class_word="dog", cap_bytes="8GB").cap_bytes
    8000000000
    """

    task: ClassVar[str] = "personalize"

    model: str = key(
        EMBEDDED,
        help="folder, artifact or hub id of a model; tiny-sd: the embedded one",
        flags=("--model", "--pretrained_model_name_or_path", "--model_name_or_path"),
        group="data",
        common=True,
    )
    photos: str | None = key(
        help="folder of 1-50 photos; default: five examples",
        flags=("--photos", "--train_data_dir", "--instance_data_dir"),
        is_path=True,
        group="data",
    )
    token: str | None = key(
        help="spelling of the new word, such as <my-dog>",
        flags=("--token", "--placeholder_token", "--token_string"),
        group="data",
        common=True,
    )
    class_word: str | None = key(
        help="word that the token starts from, such as dog",
        flags=("--class", "--initializer_token", "--init_word"),
        also=("class",),
        group="data",
        common=True,
    )
    learn: str = key(
        "object",
        help="what the photos show",
        flags=("--learn", "--learnable_property"),
        choices=("object", "style"),
        group="data",
    )
    vectors: int = key(
        1,
        help="vectors per token",
        flags=("--vectors", "--num_vectors", "--num_vectors_per_token"),
        low=1,
        high=64,
        group="data",
    )
    flips: bool = key(True, help="train on mirrored photos, too", group="data")
    trainable: str = key(
        "token",
        help="what is trained: the vectors of a new word, or a LoRA of the U-Net",
        choices=("token", "lora"),
    )
    alpha: float | None = key(
        help="alpha of a LoRA, which is scaled by alpha / rank; default: the rank",
        flags=("--alpha", "--lora_alpha", "--network_alpha"),
        low=1e-6,
        high=1e6,
    )
    targets: str | None = key(
        help="layers that get a LoRA, by the ends of their names, separated by commas, or "
        "all-linear; default: the projections of attentions, to_q,to_k,to_v,to_out.0; all-linear "
        "for tiny-sd",
        flags=("--targets", "--target_modules"),
    )
    train_text_encoder: bool = key(
        False,
        help="a LoRA beside the attentions of the text encoders, too",
        flags=("--train-text-encoder", "--train_text_encoder"),
    )
    resolution: int | None = key(help="side of a picture in pixels", low=8, high=4096, group="data")
    buckets: bool = key(
        False,
        help="train photos of other shapes at sizes of the same area, not as squares",
        flags=("--buckets", "--enable_bucket"),
        group="data",
    )
    window: tuple[int, int] | None = key(
        help="first and last timestep of the noise that is trained on"
    )
    directions: str | None = key(
        help="what zo draws its directions from: all there are (isotropic), what the model's words "
        "respond to (metric; vectors of up to 256 numbers: all after 100 steps), or where earlier "
        "ones went (prior); default: metric where a file of export lies beside the model, else "
        "isotropic",
        choices=(ISOTROPIC, METRIC, PRIOR),
    )
    class_photos: str | None = key(
        help="folder of pictures of the class, for prior preservation: it must not be forgotten",
        flags=("--class-photos", "--class_data_dir", "--reg_data_dir"),
        is_path=True,
        group="data",
    )
    class_count: int | None = key(
        help="pictures of the class; the model draws those that the folder lacks before training",
        flags=("--class-count", "--num_class_images"),
        low=1,
        high=MOST_CLASS_PICTURES,
        group="data",
    )
    prior_weight: float = key(
        1.0,
        help="weight of the loss on pictures of the class",
        flags=("--prior-weight", "--prior_loss_weight"),
        low=0,
        high=1e3,
    )
    snr_gamma: float | None = key(
        help="weigh errors by min-SNR with this gamma, such as 5; default: all timesteps the same",
        flags=("--snr-gamma", "--snr_gamma", "--min_snr_gamma"),
        low=1e-3,
        high=1e6,
    )
    prompts: tuple[str, ...] = key(
        (),
        help="prompt of a preview; {} or the token stands for the new word; may be repeated",
        flags=("--prompt", "--validation_prompt"),
        group="pictures",
        common=True,
    )
    previews: bool = key(True, help="draw pictures before and after training", group="pictures")
    preview_every: int = key(
        0,
        help="steps between previews; 0: before and after only",
        flags=("--preview-every", "--validation_steps", "--sample_every_n_steps"),
        low=0,
        high=10_000_000,
        group="pictures",
    )
    preview_steps: int = key(
        20, help="denoiser steps of a preview", low=1, high=1000, group="pictures"
    )
    guidance: float | None = key(
        help="guidance scale of previews", low=0, high=100, group="pictures"
    )

    @property
    def keeps_class(self) -> bool:
        """Whether a run trains on pictures of the class, too (prior preservation)."""
        return self.class_photos is not None or self.class_count is not None

    @property
    def step_samples(self) -> int:
        """How many samples a step trains on: with every photo a picture of the class, if any."""
        return super().step_samples * (2 if self.keeps_class else 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise InputError(f"window {list(self.window)} must be two rising timesteps.")
