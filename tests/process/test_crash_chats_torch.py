"""The same as `test_crash_chats`, with torch, which takes seconds to start."""

import pytest
from killed_chats import kill_and_compare

pytest.importorskip("torch")
pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_killed_again_and_again_it_ends_with_the_same_adapter(tmp_path):
    kill_and_compare(tmp_path, "torch", kills=3)
