"""Blocks are copied unless they are shared on purpose, and change only where they are told to."""

import numpy as np
import pytest

from edge_train.errors import NonFinite
from edge_train.params import Parameters


def test_blocks_are_copies_unless_they_are_shared():
    own = {"a": np.ones(3, np.float32)}
    copied, shared = Parameters(own), Parameters.sharing(own)
    copied.subtract("a", np.ones(3, np.float32))
    np.testing.assert_array_equal(own["a"], 1)
    shared.subtract("a", np.ones(3, np.float32))
    np.testing.assert_array_equal(own["a"], 0)
    assert list(shared) == ["a"] and len(shared) == 1


def test_an_update_that_is_not_finite_leaves_a_block_as_it_was():
    parameters = Parameters({"a": np.ones(3, np.float32)})
    with pytest.raises(NonFinite, match="block 'a'"):
        parameters.subtract("a", np.array([0, np.nan, 0], np.float32))
    np.testing.assert_array_equal(parameters["a"], 1)
