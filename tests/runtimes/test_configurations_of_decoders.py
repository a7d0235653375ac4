"""A configuration that no model has is one sentence, before anything is planned by it."""

import json

import pytest
from small_decoders import write_decoder

from edge_train.errors import ModelError
from edge_train.formats.language_folder import open_language_model
from edge_train.runtimes.numpy.decoder import decoder_of


def configured(folder, **values):
    config, _ = write_decoder(folder, "llama")
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


@pytest.mark.parametrize("value", [-1, 1 << 17, 1.5, "x", [1], {"a": 1}], ids=str)
@pytest.mark.parametrize("name", ["num_attention_heads", "num_key_value_heads", "head_dim"])
def test_heads_that_no_model_has_are_refused_for_every_engine(tmp_path, name, value):
    """A plan was of 41 TB, or a traceback."""
    with pytest.raises(ModelError, match="a value is missing or of a wrong type"):
        open_language_model(configured(tmp_path / "m", **{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hidden_size", 10**9, "expected a whole number from 1 to 1048576"),
        ("intermediate_size", 10**9, "expected a whole number up to 1048576"),
        ("rope_theta", 0, "rope_theta is 0, expected a number above 0"),
        ("rope_parameters", 1, "of a wrong type"),
    ],
    ids=str,
)
def test_sizes_and_positions_that_no_model_has_are_refused(tmp_path, name, value, sentence):
    folder = open_language_model(configured(tmp_path / "m", **{name: value}))
    with pytest.raises(ModelError, match=sentence):
        decoder_of(folder.config, folder.path)
