"""What a GGUF file says of its model: every value is checked, and what is not read is refused."""

import struct

import numpy as np
import pytest
from gguf_files import F32, gguf_bytes, stored
from gguf_models import plain_llama

from edge_train.errors import ModelError
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.model import is_gguf, open_gguf
from edge_train.formats.language_folder import open_language_model
from edge_train.formats.weight_files import hash_of


def test_a_whole_file_is_read(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama())
    model = open_gguf(path)
    assert model.config["model_type"] == "llama" and model.vocabulary == 300
    assert model.config["tie_word_embeddings"] and model.positions == 64
    assert model.tokenizer().encode("the").ids == [
        model.made.tokenizer.token_to_id(t) for t in ("t", "he")
    ]


def test_a_file_is_known_by_its_contents_whatever_it_is_called(tmp_path):
    path, moved = tmp_path / "a.gguf", tmp_path / "sub" / "b.gguf"
    path.write_bytes(plain_llama())
    before, earlier = open_gguf(path).sha256(), hash_of([("b.gguf", path)])
    moved.parent.mkdir()
    path.rename(moved)
    model = open_gguf(moved)
    assert model.sha256() == before and model.is_known_as(before)
    assert earlier != before and model.is_known_as(earlier)  # which had the name in it
    content = moved.read_bytes()
    moved.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = open_gguf(moved)
    assert not changed.is_known_as(before) and not changed.is_known_as(earlier)


REFUSED = [
    ({"general__architecture": None}, "its architecture is 'None'"),
    ({"general__architecture": "mamba"}, "'mamba', and llama, qwen2"),
    ({"general__architecture": 7}, "its architecture is '7'"),
    ({"general__type": "adapter"}, "is an adapter, which has no model"),
    ({"llama__block_count": None}, "no llama.block_count"),
    ({"llama__block_count": 0}, "llama.block_count is 0, expected a whole number"),
    ({"llama__block_count": "two"}, "llama.block_count is two"),
    ({"llama__block_count": struct.pack("<IQ", 10, 1 << 60)}, "llama.block_count is 1152921504"),
    ({"llama__attention__head_count": [2, 2]}, "a model whose layers differ is not read"),
    ({"llama__attention__head_count": 3}, "has 32 rows, which heads of 16 do not make"),
    ({"llama__attention__key_length": 8}, "a head has 8"),
    ({"llama__rope__dimension_count": 8}, "rope.dimension_count is 8 and a head has 16"),
    ({"llama__rope__freq_base": 0.0}, "rope.freq_base is 0.0, expected a number above 0"),
    ({"llama__rope__freq_base": float("nan")}, "rope.freq_base is nan"),
    ({"llama__attention__layer_norm_rms_epsilon": "x"}, "epsilon is x"),
    ({"llama__expert_count": 8}, "made of experts"),
    ({"llama__rope__scaling__type": "su", "llama__rope__scaling__factor": 2.0}, "by 'su'"),
    ({"llama__rope__scaling__type": 3}, "rope.scaling.type is 3, expected a word"),
    ({"tokenizer__ggml__model": "bert"}, "its tokenizer is 'bert'"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_cannot_be_used_is_one_sentence(tmp_path, changes, says):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama(**changes))
    with pytest.raises(ModelError) as caught:
        open_gguf(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_tensor_that_no_such_model_has_is_refused(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama())
    file = GgufFile(path)
    tensors = {"blk.0.attn_sinks.weight": stored(np.zeros(32, np.float32), F32)[0]}
    tensors["token_embd.weight"] = stored(np.zeros((300, 32), np.float32), F32)[0]
    metadata = {k: v for k, v in file.metadata.items() if not isinstance(v, list)}
    metadata |= {"tokenizer.ggml.tokens": file.metadata["tokenizer.ggml.tokens"]}
    path.write_bytes(gguf_bytes(metadata, tensors))
    with pytest.raises(ModelError, match=r"tensor 'blk\.0\.attn_sinks\.weight', which no llama"):
        open_gguf(path)


def test_factors_of_positions_that_nobody_knows_are_refused(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama())
    metadata = dict(GgufFile(path).metadata)
    tensors = {"token_embd.weight": stored(np.zeros((300, 32), np.float32), F32)[0]}
    for count in (8, 5):
        numbers = np.linspace(1, 3, count, dtype=np.float32)
        tensors["rope_freqs.weight"] = stored(numbers, F32)[0]
        path.write_bytes(gguf_bytes(metadata, tensors))
        with pytest.raises(ModelError, match="rope_freqs are not those"):
            open_gguf(path)


def test_a_file_is_known_by_its_start_whatever_its_name(tmp_path):
    blob = tmp_path / "sha256-1234"
    blob.write_bytes(plain_llama())
    assert is_gguf(blob) and not is_gguf(tmp_path) and not is_gguf(tmp_path / "none.gguf")
    (tmp_path / "text.txt").write_text("GGU")
    assert not is_gguf(tmp_path / "text.txt")


def test_a_folder_of_such_files_is_said_and_one_with_a_model_in_it_named(tmp_path):
    (tmp_path / "a.gguf").write_bytes(plain_llama(general__type="adapter"))
    with pytest.raises(ModelError, match="is an adapter, which has no model in it"):
        open_language_model(tmp_path)
    (tmp_path / "m.gguf").write_bytes(plain_llama())
    with pytest.raises(ModelError, match=r"name one of them: .*m\.gguf\.$"):
        open_language_model(tmp_path)
