"""Where tests find files; a test may move to another folder, these stay."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
SUPPORT = TESTS / "support"
ROOT = TESTS.parent
GOLDEN = TESTS / "golden" / "artifact-v1"
DEMOS = ROOT / "demos"
