"""`edge-train export` at the command line: what it does unasked, and runs that are named whole."""

import pytest
from tables import write_table

from edge_train import cli


def test_a_small_network_is_exported_as_its_page_types_it_and_its_run_names_it(tmp_path, capsys):
    rows = [{"a": n % 7, "b": n % 2, "label": n % 2} for n in range(60)]
    table, run, out = write_table(tmp_path / "t.csv", rows), tmp_path / "run", tmp_path / "b.onnx"
    words = ("--network", "mlp 4", "--steps", "1", "--samples", "10", "--out", str(run))
    assert cli.main(["run", str(table), *words]) == 0
    assert cli.main(["export", str(run), str(out)]) == 2
    assert f"export its network: {run / 'network.safetensors'}." in capsys.readouterr().err
    pytest.importorskip("onnx")
    assert cli.main(["export", str(run / "network.safetensors"), str(out)]) == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("folder", "said"), [("model", "export its model: "), ("samples", "nothing is exported")]
)
def test_a_run_that_is_named_whole_is_no_missing_stable_diffusion(tmp_path, capsys, folder, said):
    (tmp_path / folder).mkdir()
    (tmp_path / "recipe.toml").write_text('task = "images"\n')
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert said in (found := capsys.readouterr().err) and "model_index.json" not in found
