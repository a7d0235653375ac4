"""What comes with the program: a tiny Stable Diffusion, photos to try it on, and a judge."""

from importlib.util import find_spec
from pathlib import Path

EMBEDDED = "tiny-sd"  # how people name the model
DATA = Path(__file__).parent.parent / "data"
MODEL_FOLDER = DATA / "tiny_sd"
ARTIFACT_FOLDER = DATA / "tiny_sd_int8_fast"  # the same model, for a device without torch
ARTIFACT_QUANT = "int8-fast"
PHOTOS = DATA / "photos" / "bag"
# Length of a row of the token table: of words that were in captions 0.5 and more, of others 0.2.
SHORTEST_LEARNED = 0.35


def embedded_artifact(model: str, runtime: str) -> Path | None:
    """Return the artifact that stands for the embedded model, where a run takes that one.

    It does on the engine of artifacts, and on no engine in particular where there is no torch. The
    recipe of a run names its engine, so it is resumed on the same weights wherever that happens.
    """
    if model != EMBEDDED or not ARTIFACT_FOLDER.is_dir():
        return None
    on_engine = runtime == "onnx" or (runtime == "auto" and find_spec("torch") is None)
    return ARTIFACT_FOLDER if on_engine else None
