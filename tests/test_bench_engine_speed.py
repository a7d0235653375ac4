"""`bench engine-speed` says what it compared: the processor, every engine, and how fast each is."""

import re
import shutil
import sys
from importlib.metadata import version

import pytest
from places import ROOT

from edge_train import cli
from edge_train.bench import engine_speed

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

DEVICE = ROOT / ".venv-device" / "bin" / "python"
_RATIO = r"(\d+\.\d\d) \| (\S+)"
ROW = re.compile(rf"^\| (.+?) \| {_RATIO} \| {_RATIO} \|$", re.MULTILINE)


def rows_of(model, out, capsys) -> dict[str, list[float]]:
    """Run the command; return its numbers by the name of the engine, after a look at the rest."""
    python = DEVICE if DEVICE.is_file() else sys.executable
    words = ["bench", "engine-speed", "--model", str(model), "--out", str(out), "--seeds", "1"]
    assert cli.main([*words, "--python", str(python)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{engine_speed.processor_words()}. {model}:")
    rows = {name: list(map(float, numbers)) for name, *numbers in ROW.findall(said)}
    assert all(number > 0 for numbers in rows.values() for number in numbers)
    engines = 2 if DEVICE.is_file() else 1
    first, *others = rows
    assert re.fullmatch(r"torch \S+ float32", first) and rows[first][0] == rows[first][2] == 1
    assert len(others) == engines
    assert all(re.fullmatch(r"onnx int8-fast, ONNX Runtime \d+\.\d+\.\d+", n) for n in others)
    return rows


@pytest.mark.process
def test_the_table_names_processor_and_engines_with_a_ratio_each(
    exported, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(engine_speed, "_REPEATS", 1)
    shutil.copytree(exported.artifacts["int8-fast"], tmp_path / f"speed-{exported.model.name}")
    rows = rows_of(exported.model, tmp_path, capsys)
    assert f"torch {version('torch')} float32" in rows


@pytest.mark.slow
def test_the_embedded_model_is_exported_and_timed(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(engine_speed, "_REPEATS", 1)
    rows_of("tiny-sd", tmp_path, capsys)
    assert (tmp_path / "speed-tiny-sd" / "manifest.json").is_file()
