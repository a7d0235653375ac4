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
    ({"llama__block_count": 1 << 24}, "block_count is 16777216, and its tensors are of 1 layers"),
    ({"llama__attention__head_count_kv": 3}, "2 heads of 16 numbers beside 3 of keys"),
    ({"general__architecture": [1, 2]}, "its architecture is '[1"),
    ({"split__count": [1, 2]}, "is one of [1"),
    ({"llama__expert_count": [0, 0]}, "made of experts"),
    ({"tokenizer__ggml__model": [1, 2]}, "its tokenizer is '[1"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_cannot_be_used_is_one_sentence(tmp_path, changes, says):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama(**changes))
    with pytest.raises(ModelError) as caught:
        open_gguf(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_words_that_are_lists_are_no_words(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama(general__type=[1, 2]))
    assert open_gguf(path).vocabulary == 300  # nothing else asks for it


def without(path, *lost, more=()):
    """Write the small model without some of its tensors, and with others, a row of zeros each."""
    path.write_bytes(plain_llama())
    file = GgufFile(path)
    tensors = {}
    for name, tensor in file.tensors.items():
        values = np.zeros((int(np.prod(tensor.shape[:-1])), tensor.shape[-1]), np.float32)
        file.rows_into(name, range(len(values)), values)
        if name not in lost:
            tensors[name] = stored(values.reshape(tensor.shape), F32)[0]
    for name in more:
        tensors[name] = stored(np.zeros(32, np.float32), F32)[0]
    path.write_bytes(gguf_bytes(dict(file.metadata), tensors))
    return path


PARTS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
PARTS += ["attn_norm", "ffn_norm"]


@pytest.mark.parametrize("part", PARTS)
def test_a_layer_without_one_of_its_parts_is_refused_by_name(tmp_path, part):
    assert open_gguf(without(tmp_path / "a.gguf")).vocabulary == 300
    with pytest.raises(ModelError, match="no tensor 'output_norm"):
        open_gguf(without(tmp_path / "c.gguf", "output_norm.weight"))
    with pytest.raises(ModelError, match=rf"no tensor 'blk\.0\.{part}\.weight'; download it"):
        open_gguf(without(tmp_path / "b.gguf", f"blk.0.{part}.weight"))


def test_a_token_longer_than_any_word_is_refused(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama())
    tokens = [*GgufFile(path).metadata["tokenizer.ggml.tokens"][:-1], "x" * 10_001]
    path.write_bytes(plain_llama(tokenizer__ggml__tokens=tokens))
    with pytest.raises(ModelError, match="a token has 10001 letters, the limit is 10000"):
        open_gguf(path)


def test_a_vector_in_the_place_of_a_matrix_is_refused(tmp_path):
    path = without(tmp_path / "a.gguf", "blk.0.ffn_down.weight", more=["blk.0.ffn_down.weight"])
    with pytest.raises(ModelError, match=r"tensor 'blk\.0\.ffn_down\.weight' has 1 sides"):
        open_gguf(path)


def test_layers_and_biases_that_do_not_belong_are_refused(tmp_path):
    with pytest.raises(ModelError, match="block_count is 1, and its tensors are of 2 layers"):
        open_gguf(without(tmp_path / "a.gguf", more=["blk.5.attn_norm.weight"]))
    with pytest.raises(ModelError, match=r"no tensor 'blk\.0\.attn_k\.bias'"):
        open_gguf(without(tmp_path / "b.gguf", more=["blk.0.attn_q.bias"]))


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


@pytest.mark.parametrize("number", [0.0, -1.0, np.nan, np.inf])
def test_factors_of_positions_that_are_no_numbers_above_zero_are_refused(tmp_path, number):
    path = tmp_path / "a.gguf"
    path.write_bytes(plain_llama())
    factors = np.array([1, 1, 1, 1, 2, 4, 8, number], np.float32)
    tensors = {"token_embd.weight": stored(np.zeros((300, 32), np.float32), F32)[0]}
    tensors["rope_freqs.weight"] = stored(factors, F32)[0]
    path.write_bytes(gguf_bytes(dict(GgufFile(path).metadata), tensors))
    with pytest.raises(ModelError, match=r"rope_freqs.* has factors that are no numbers above"):
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
