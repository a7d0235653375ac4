"""Screenshots of reports for the docs: short real runs, drawn by a real browser.

    python demos/screenshots.py [RUNS]

Four runs (a word, a language model, a classifier, a network; minutes) go into the folder RUNS, by
default a temporary one; those that are finished there are not run again. The pictures go to
docs/images. Chromium is taken from the environment variable CHROMIUM, or from /usr/bin/chromium.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from edge_train.bench.small_classifier import make_classifier

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = "headless no-sandbox disable-gpu no-first-run disable-background-networking hide-scrollbars"
QUIET += " disable-component-update disable-sync"
DESKTOP, PHONE = 1280, 390  # pixels across
SMALLER = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
SMALLER |= {"num_attention_heads": 4, "num_key_value_heads": 4}
_LEAST = 500  # pixels across that a window of Chromium has; a frame inside it has fewer
# run, width, height, dark, where the picture begins: pixels from the top of the page
SHOTS = {
    "report-word": ("word", DESKTOP, 1470, False, 0),
    "report-word-phone": ("word", PHONE, 1000, True, 1370),
    "report-curves": ("word", DESKTOP, 1210, True, 2300),
    "report-language": ("language", DESKTOP, 1020, True, 0),
    "report-classify-phone": ("classify", PHONE, 1500, False, 0),
    "report-network": ("network", DESKTOP, 870, False, 0),
}


def recipes(folder: Path) -> dict[str, list[str]]:
    """Return the words of each run; two small models are made for them."""
    reviews, llama = HERE / "data" / "reviews_sample.tsv", HERE / "llama_small"
    texts = [line.split("\t")[0] for line in reviews.read_text().splitlines()[1:]]
    if not (folder / "small-classifier").exists():
        kind = {"kind": "bert", "layers": 2, "width": 64, "vocabulary": 400, "positions": 64}
        make_classifier(folder / "small-classifier", texts, **kind)
    if not (folder / "small-llama").exists():
        shutil.copytree(llama, folder / "small-llama")
        config = json.loads((llama / "config.json").read_text()) | SMALLER
        (folder / "small-llama" / "config.json").write_text(json.dumps(config))
    play = ["--data", str(HERE / "data" / "shakespeare.txt"), "--length", "64", "--steps", "300"]
    play += ["--method", "adamw", "--learning-rate", "3e-3"]
    short = ["--length", "32", "--steps", "60", "--samples", "16", "--evaluate-every", "10"]
    short += ["--method", "adamw", "--learning-rate", "1e-3", "--data", str(reviews)]
    return {
        "word": ["--mem", "8GB"],
        "language": ["--task", "language-model", "--model", "small-llama", *play, "--mem", "1GB"],
        "classify": ["--task", "classify", "--model", "small-classifier", *short, "--mem", "1GB"],
        "network": ["--recipe", f"{HERE}/tpsgd_fashion.toml", "--mem", "200MB"],
    }


def shoot(page: Path, out: Path, width: int, height: int, dark: bool, top: int) -> None:
    """Draw a part of a page as a PNG of 256 colors."""
    with tempfile.TemporaryDirectory() as folder:
        frame, shot = Path(folder, "frame.html"), Path(folder, "shot.png")
        scheme = "dark" if dark else "light"
        style = f"border: 0; width: {width}px; height: {top + height}px; margin-top: -{top}px"
        frame.write_text(
            f'<!doctype html><meta name="color-scheme" content="{scheme}"><body style="margin: 0">'
            f'<iframe src="{page.resolve().as_uri()}" style="{style}"></iframe>'
        )
        flags = [f"--{flag}" for flag in QUIET.split()]
        flags += ["--allow-file-access-from-files", f"--user-data-dir={folder}/profile"]
        flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        flags += [f"--window-size={max(width, _LEAST)},{height}", f"--screenshot={shot}"]
        subprocess.run([CHROMIUM, *flags, frame.as_uri()], check=True, capture_output=True)
        with Image.open(shot) as image:
            image.crop((0, 0, width, height)).convert("RGB").quantize(256).save(out, optimize=True)


def main(runs: Path) -> None:
    """Run what is not there yet, and draw every picture."""
    IMAGES.mkdir(exist_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    for name, words in recipes(runs).items():
        done = (runs / name / "report.html").exists()
        command = ["report", name] if done else ["run", *words, "--out", name]
        subprocess.run([sys.executable, "-m", "edge_train", *command], check=True, cwd=runs)
    for name, (run, *how) in SHOTS.items():
        out = IMAGES / f"{name}.png"
        shoot(runs / run / "report.html", out, *how)
        print(f"{out.relative_to(HERE.parent)}  {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
