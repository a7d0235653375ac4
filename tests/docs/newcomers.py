"""The commands of docs/start.md as they stand there, in an empty folder.

    python tests/docs/newcomers.py [--device .venv-device/bin] [SECTION ...]

Blocks marked `sh` and `python` are run, those marked `text` are only shown. A block after the line
`<!-- device -->` runs in the environment without torch. Ends with status 1 if a command failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/start.md"
_BLOCK = re.compile(r"(<!-- device -->\n)?^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Commands that are copied at once.

    Attributes:
      language: sh or python.
      device: whether they are for the environment without torch.
    """

    language: str
    text: str
    device: bool


def sections(page: str) -> dict[str, list[Block]]:
    """Return the blocks of each section that has some, by its title."""
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    found = {
        title: [
            Block(language, text, bool(device)) for device, language, text in _BLOCK.findall(body)
        ]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {title: blocks for title, blocks in found.items() if blocks}


def run(blocks: list[Block], folder: Path, desk: Path, device: Path) -> str | None:
    """Run blocks in a folder, one after the other; return why it ended early, None if it did not.

    Args:
      desk, device: folders of programs of the two environments.
    """
    for block in blocks:
        programs = device if block.device else desk
        surroundings = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",  # nothing that a section runs is downloaded
        }
        command = ["bash", "-e", "-c", block.text]
        if block.language == "python":
            command = [str(programs / "python"), "-c", block.text]
        print(block.text, flush=True)
        done = subprocess.run(command, cwd=folder, env=surroundings, check=False)
        if done.returncode != 0:
            return f"status {done.returncode} of: {block.text}"
    return None


def main() -> int:
    """Run the sections that were named, or all; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=Path, default=ROOT / ".venv-device/bin")
    parser.add_argument("sections", nargs="*")
    options = parser.parse_args()
    known = sections(PAGE.read_text("utf-8"))
    desk = Path(sys.executable).parent
    ends = {}
    for title in options.sections or known:
        with tempfile.TemporaryDirectory() as folder:
            ends[title] = run(known[title], Path(folder), desk, options.device.absolute())
    for title, why in ends.items():
        print(f"{title}: {why or 'ended with a result'}")
    return int(any(ends.values()))


if __name__ == "__main__":
    sys.exit(main())
