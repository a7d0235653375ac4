"""Screenshots of reports for the docs: short real runs, drawn by a real browser.

    python demos/screenshots.py [RUNS]

Four runs (a word, a language model, a classifier, a network; minutes) go into the folder RUNS, by
default a temporary one; those that are finished there are not run again. The pictures go to
docs/images. Chromium is taken from the environment variable CHROMIUM, or from /usr/bin/chromium.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
# run, width, height, dark, the part of the page at the top of the picture
SHOTS = {
    "report-word": ("word", DESKTOP, 1320, False, ""),
    "report-word-phone": ("word", PHONE, 1080, True, "before-and-after"),
    "report-curves": ("word", DESKTOP, 1180, True, "curves"),
    "report-language": ("language", DESKTOP, 900, True, ""),
    "report-classify-phone": ("classify", PHONE, 1060, False, "numbers"),
    "report-network": ("network", DESKTOP, 850, False, ""),
}


def questions(play: str) -> Iterator[str]:
    """Yield sentences of a play without their last sign, each with what that sign was."""
    for text, sign in re.findall(r"([A-Z][a-z]+ [^.?!:;]{8,90})([.?])", " ".join(play.split())):
        yield f"{text}\t{'question' if sign == '?' else 'statement'}\n"


def recipes(folder: Path) -> dict[str, list[str]]:
    """Return the words of each run; a table and two small models are made for them."""
    play, llama = HERE / "data" / "shakespeare.txt", HERE / "llama_small"
    texts = list(questions(play.read_text()))
    (folder / "questions.tsv").write_text("".join(["text\tlabel\n", *texts]))
    if not (folder / "small-classifier").exists():
        kind = {"kind": "bert", "layers": 2, "width": 64, "vocabulary": 800, "positions": 64}
        words = [text.split("\t")[0] for text in texts]
        make_classifier(folder / "small-classifier", words, **kind)
    if not (folder / "small-llama").exists():
        shutil.copytree(llama, folder / "small-llama")
        config = json.loads((llama / "config.json").read_text()) | SMALLER
        (folder / "small-llama" / "config.json").write_text(json.dumps(config))
    language = f"--task language-model --model small-llama --data {play} --length 64 --steps 300"
    classify = "--task classify --model small-classifier --data questions.tsv --new-head"
    return {
        "word": ["--mem", "8GB"],
        "language": f"{language} --method adamw --learning-rate 3e-3 --mem 1GB".split(),
        "classify": f"{classify} --method adamw --learning-rate 1e-3 --steps 250 --mem 1GB".split(),
        "network": ["--recipe", f"{HERE}/tpsgd_fashion.toml", "--mem", "200MB"],
    }


def shoot(page: Path, out: Path, width: int, height: int, dark: bool, part: str) -> None:
    """Draw a part of a page as a PNG of 256 colors."""
    with tempfile.TemporaryDirectory() as folder:
        frame, shot = Path(folder, "frame.html"), Path(folder, "shot.png")
        scheme = "dark" if dark else "light"
        style = f"border: 0; width: {width}px; height: {height}px"
        frame.write_text(
            f'<!doctype html><meta name="color-scheme" content="{scheme}"><body style="margin: 0">'
            f'<iframe src="{page.resolve().as_uri()}#{part}" style="{style}"></iframe>'
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
