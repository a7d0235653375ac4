"""The files of `edge-train bench gguf-shapes` have tokenizers as large as real ones."""

from edge_train.bench.gguf_shapes import _SHAPES
from edge_train.bench.random_gguf import Shape, write_gguf
from edge_train.formats.gguf.model import open_gguf


def test_a_file_has_as_many_tokens_and_merges_as_its_shape_says(tmp_path):
    write_gguf(tmp_path / "a.gguf", Shape(256, 256, 1, 4, 4, 2_000, True, merges=1_234), "Q4_0")
    size = open_gguf(tmp_path / "a.gguf").made.size
    assert (size.tokens, size.merges) == (2_000, 1_234)


def test_shapes_of_llama_3_have_its_merges():
    large = [shape for shape in _SHAPES.values() if shape.vocabulary == 128_256]
    assert [shape.merges for shape in large] == [280_147, 280_147]
