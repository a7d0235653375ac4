"""Train the tokenizer of this folder: `python demos/llama_small/make_tokenizer.py TEXT`.

A byte-level BPE, so that no text is unknown to it.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

FOLDER = Path(__file__).parent


def make(text: Path, folder: Path, tokens: int) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=tokens,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(text)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


if __name__ == "__main__":
    size = json.loads((FOLDER / "config.json").read_text())["vocab_size"]
    make(Path(sys.argv[1]), FOLDER, size)
