"""The picture of README is made by a command from a run's folder."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from places import ROOT


@pytest.mark.process
def test_photos_and_what_was_drawn_before_and_after_are_rows_of_one_picture(tmp_path):
    (tmp_path / "samples").mkdir()
    colors = {"photo": (255, 0, 0), "before": (0, 255, 0), "after": (0, 0, 255)}
    for kind, color in colors.items():
        for number in (1, 2):
            file = tmp_path / f"samples/{kind}-0{number}.png"
            Image.new("RGB", (32, 32), color).save(file)
    command = [sys.executable, ROOT / "demos/before_after.py", tmp_path, tmp_path / "out.png"]
    subprocess.run(command, check=True, capture_output=True)
    sheet = np.asarray(Image.open(tmp_path / "out.png"))
    rows = np.array_split(sheet, len(colors))
    for row, color in zip(rows, colors.values(), strict=True):
        shown = (row == color).all(axis=-1).sum()
        assert shown == 2 * 128 * 128  # two pictures, four times as large, and nothing else of it


@pytest.mark.process
def test_a_folder_without_pictures_is_an_error(tmp_path):
    command = [sys.executable, ROOT / "demos/before_after.py", tmp_path, tmp_path / "out.png"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path} has no samples/" in done.stderr
