"""What comes with the program: a tiny Stable Diffusion, photos to try it on, and a judge."""

from pathlib import Path

EMBEDDED = "tiny-sd"  # how people name the model
DATA = Path(__file__).parent.parent / "data"
MODEL_FOLDER = DATA / "tiny_sd"
PHOTOS = DATA / "photos" / "bag"
