"""Words become a chain of blocks, or one sentence that says why not."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.formats.network import PRESETS, Reshape, initial_parameters, parameter_shapes, parse

PICTURE = (28, 28, 1)


@pytest.mark.parametrize("text", [*PRESETS, "mlp 30 20", "rnn 8 8", "gru 8", "lstm 8 8"])
def test_presets_end_in_one_number_per_class(text):
    network = parse(text, PICTURE, 7)
    assert network.blocks[-1].output_shape == (7,)
    for before, after in zip(network.blocks, network.blocks[1:], strict=False):
        assert before.output_shape == after.input_shape


def test_a_block_begins_with_what_its_layer_needs_and_takes_the_layers_up_to_the_next():
    network = parse("conv 4 3, relu, maxpool 2, dense 5, tanh", PICTURE, 2)
    first, second, last = network.blocks
    assert [type(layer).__name__ for layer in first.layers] == ["Convolution", "Activation", "Pool"]
    assert second.layers[0] == Reshape("flat")
    assert (first.output_shape, second.output_shape, last.output_shape) == ((14, 14, 4), (5,), (2,))
    assert (first.bounds, second.bounds) == ((0, np.inf), (-1, 1))


@pytest.mark.parametrize(
    ("words", "bounds"),
    [
        ("dense 5", (-np.inf, np.inf)),
        ("dense 5, relu", (0, np.inf)),
        ("dense 5, sigmoid", (0, 1)),
        ("dense 5, batchnorm, relu", (0, np.inf)),
        ("dense 5, relu, batchnorm", (-np.inf, np.inf)),
        ("dense 5, sigmoid, layernorm", (-np.inf, np.inf)),
        ("dense 5, relu, sigmoid", (0.5, 1)),
        ("dense 5, tanh, relu", (0, 1)),
        ("conv 2 3, sigmoid, meanpool 2", (0, 1)),
        ("gru 4", (-1, 1)),
    ],
)
def test_a_block_knows_the_range_of_its_outputs(words, bounds):
    """A norm after a ReLU gives either sign: its block was taken for a non-negative one."""
    assert parse(words, PICTURE, 2).blocks[0].bounds == bounds


def test_parameters_have_the_shapes_of_their_block_and_no_two_draws_are_equal():
    network = parse("lstm 6 6", (5, 3), 4)
    found = dict(initial_parameters(network, 0))
    shapes = {n: s for block in network.blocks for n, s in parameter_shapes(block).items()}
    assert {name: block.shape for name, block in found.items()} == shapes
    assert not np.array_equal(found["0.recurrent"], found["1.recurrent"])
    np.testing.assert_array_equal(found["0.bias"], [0] * 6 + [1] * 6 + [0] * 12)


@pytest.mark.parametrize(
    "word", ["residual", "skip 2", "shared 1", "tied", "concat", "attention 4"]
)
def test_what_is_no_plain_chain_is_refused_by_name_with_what_would_work(word):
    with pytest.raises(InputError, match=f"'{word.split()[0]}'.*plain chain.*backbone"):
        parse(f"dense 8, tanh, {word}, dense 8", (4,), 2)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ("", PICTURE, "empty"),
        ("mlp", PICTURE, "needs its sizes"),
        ("dense", PICTURE, "'dense' is not a layer"),
        ("dense 0", PICTURE, "from 1 to 65536"),
        ("dense -3", PICTURE, "from 1 to 65536"),
        ("dense 5 5", PICTURE, "'dense 5 5' is not a layer"),
        ("dens 5", PICTURE, "'dens 5' is not a layer"),
        ("tanh, dense 5", PICTURE, "nothing to train"),
        ("conv 4 3", (20,), "does not fit"),
        ("conv 4 40 valid", PICTURE, "does not fit"),
        ("conv 4 3, maxpool 30", PICTURE, "does not fit"),
        ("gru 5", (20,), "does not fit"),
    ],
)
def test_words_that_make_no_network_are_refused_in_one_sentence(text, shape, words):
    with pytest.raises(InputError, match=words):
        parse(text, shape, 2)
