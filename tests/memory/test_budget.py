"""The data limit is arithmetic: every summand moves it by its own bytes, in every phase."""

import pytest

from edge_train.memory.budget import LOADING, SPENT, STEADY, WINDOW, Share, Weights, budget

CAP = 100_000_000
WINDOW_BYTES = 16_000_000  # of this cap: its least


def limit(cap_bytes=CAP, **changes):
    nothing = {"others": 0, "files": 0, "idle": 0, "unread": 0, "weights": None, "slack": STEADY}
    return budget(cap_bytes, **{**nothing, **changes})


def test_a_share_stays_within_its_bounds():
    share = Share(0.1, least_bytes=20, most_bytes=50)
    assert [share.of(whole) for whole in (0, 200, 300, 500, 9_999)] == [20, 20, 30, 50, 50]
    assert [WINDOW.of(gb * 10**9) for gb in (0.1, 0.5, 10)] == [16_000_000, 25_000_000, 64_000_000]


# what changes beside a cap of 100 MB, and the limit
TABLE = {
    "alone, only the slack of a hundredth or 1.5 MB is kept": [({}, 98_500_000)],
    "of a larger cap a hundredth is kept": [({"cap_bytes": 10**9}, 990_000_000)],
    "what others hold is taken off": [({"others": 12_000_000}, 86_500_000)],
    "resident file pages are taken off": [({"files": 30_000_000}, 68_500_000)],
    "what was never touched is added": [({"idle": 70_000_000}, 168_500_000)],
    "code not read yet needs a sixteenth of it, 16 MB at most": [
        ({"unread": 24_000_000}, 98_500_000),  # the slack is as much
        ({"unread": 80_000_000}, 95_000_000),
        ({"unread": 10**9}, 84_000_000),
    ],
    "while libraries load, 6.5 MB are kept": [
        ({"slack": LOADING}, 93_500_000),
        ({"slack": LOADING, "unread": 160_000_000}, 90_000_000),
        ({"slack": LOADING, "cap_bytes": 10**9}, 990_000_000),
    ],
    "when memory ran out, 1 MB is kept whatever the cap and the code are": [
        ({"slack": SPENT}, 99_000_000),
        ({"slack": SPENT, "cap_bytes": 10**9, "unread": 10**9}, 999_000_000),
    ],
    "weights about to be mapped have room beside the pages there were": [
        ({"weights": Weights(5_000_000, 30_000_000, False), "files": 30_000_000}, 63_500_000),
        ({"weights": Weights(5_000_000, 30_000_000, False), "files": 40_000_000}, 58_500_000),
    ],
    "of weights about to be mapped a window has room, and 2.5 MB of the rest": [
        ({"weights": Weights(17_000_000, 30_000_000, False), "files": 30_000_000}, 51_500_000),
        ({"weights": Weights(10**9, 30_000_000, False), "files": 30_000_000}, 50_000_000),
    ],
    "mapped weights have the room of their window from the start": [
        ({"weights": Weights(5_000_000, 30_000_000), "files": 30_000_000}, 63_500_000),
        ({"weights": Weights(10**9, 30_000_000), "files": 30_000_000}, 50_000_000),
    ],
    "weights resident beyond the window will be released and need none": [
        ({"weights": Weights(10**9, 30_000_000), "files": 90_000_000}, 50_000_000),
    ],
    "libraries that grew since the last slow look have what the window leaves": [
        ({"weights": Weights(5_000_000, 30_000_000), "files": 40_000_000}, 58_500_000),
        ({"weights": Weights(5_000_000, 30_000_000), "files": 60_000_000}, 52_500_000),
    ],
    "while libraries load or memory ran out, weights beyond the window have no more": [
        ({"weights": Weights(10**9, 0), "slack": LOADING}, 77_500_000),
        ({"weights": Weights(10**9, 0), "slack": SPENT}, 83_000_000),
    ],
    "everything at once adds up": [
        (
            {
                "others": 12_000_000,
                "files": 35_000_000,
                "idle": 4_000_000,
                "unread": 200_000_000,
                "weights": Weights(40_000_000, 30_000_000),
            },
            100_000_000 - 12_000_000 - (30_000_000 + WINDOW_BYTES) - 12_500_000 + 4_000_000,
        )
    ],
    "a cap that others fill leaves less than nothing": [({"others": 2 * CAP}, -101_500_000)],
}


@pytest.mark.parametrize("promise", TABLE)
def test_the_limit_is_the_cap_less_what_it_does_not_count(promise):
    for changes, expected in TABLE[promise]:
        assert limit(**changes) == expected
