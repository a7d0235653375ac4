"""A text of any length becomes tokens in little memory, measured in a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

TOKENIZER = Path(__file__).parents[2] / "demos" / "llama_small" / "tokenizer.json"
MEASURED = """
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.token_stream import write_ids


def most_held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


text, out, tokenizer = Path(sys.argv[1]), Path(sys.argv[2]), Tokenizer.from_file(sys.argv[3])
tokenizer.encode_batch(["some words"])
before = most_held()
written = write_ids(open_texts(text, None), Marks(), tokenizer, out, np.dtype("<u2"))
print(written.ids, most_held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read in /proc")
@pytest.mark.parametrize("name", ["notes.txt", "rows.csv"])
def test_megabytes_of_text_become_tokens_in_forty_megabytes(tmp_path, name):
    line = "Who would have thought it? It is the east, and Juliet is the sun.\n"
    words = line * (3_000_000 // len(line))
    if name.endswith("csv"):  # a book in one row
        words = f'text\n"{words}"\n'
    (tmp_path / name).write_text(words)
    command = [sys.executable, "-c", MEASURED, tmp_path / name, tmp_path / "ids", TOKENIZER]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ids, held = map(int, done.stdout.split())
    assert ids > 500_000
    # 64 kB at a time, 200 bytes a letter; of a row the whole text beside, some times
    assert held < 40_000_000 + (10 * len(words) if name.endswith("csv") else 0)
