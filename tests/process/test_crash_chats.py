"""Killed at random instants, a run on chats without torch ends with the adapter of a whole one."""

import pytest
from killed_chats import kill_and_compare

pytestmark = pytest.mark.process


def test_killed_again_and_again_it_ends_with_the_same_adapter(tmp_path):
    kill_and_compare(tmp_path, "numpy", kills=2)
