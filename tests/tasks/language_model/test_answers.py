"""What is learned of a chat: its answers to the token that ends each, and nothing else."""

from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from chat_templates import LLAMA3, QWEN3, TEMPLATES

from edge_train.errors import TemplateError
from edge_train.formats.chat_template import ChatTemplate
from edge_train.formats.tables.wrong import Wrong
from edge_train.tasks.language_model.answers import text_and_answers
from edge_train.tasks.language_model.chat_stream import counted_tokens, write_chats
from edge_train.tasks.language_model.chats import Chat
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.passages import Reader
from edge_train.tasks.language_model.token_stream import id_type, read_ids

CONTROLS = ("<s>", "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|im_start|>")
ASKED = {"role": "user", "content": "2 + 2?"}
FOUR = {"role": "assistant", "content": "It is 4."}
AGAIN = {"role": "user", "content": "Sure? It is 4.?"}
YES = {"role": "assistant", "content": "Yes"}
THOUGHT = "<think>\nhm\n</think>\n\n"


def template_of(source):
    return ChatTemplate(
        {"default": source}, {"bos_token": "<s>", "eos_token": "</s>"}, datetime.now()
    )


def learned(source, *messages, tools=(), uncounted=()):
    chat = Chat(messages, tools, frozenset(uncounted))
    text, spans = text_and_answers(template_of(source), chat, CONTROLS)
    return text, [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [
        ("smollm", "It is 4.<|im_end|>", "Yes<|im_end|>"),
        ("llama-2", " It is 4. </s>", " Yes </s>"),
        ("llama-3", "It is 4.<|eot_id|>", "Yes<|eot_id|>"),
        ("qwen3", "It is 4.<|im_end|>", "<think>\n\n</think>\n\nYes<|im_end|>"),
        ("gemma", "It is 4.<end_of_turn>", "Yes<end_of_turn>"),
        ("phi3", "It is 4.<|end|>", "Yes<|end|>\n</s>"),
        ("marked", "It is 4.<|im_end|>", "Yes<|im_end|>"),
    ],
)
def test_answers_of_every_family_are_learned_to_the_token_that_ends_them(family, first, last):
    source = TEMPLATES[family]
    text, found = learned(source, ASKED, FOUR, AGAIN, YES)
    assert found == [first, last]
    assert text.count("It is 4.") == 2  # it stands in the question, too, which is not learned
    assert learned(source, ASKED, FOUR, AGAIN, YES, uncounted={1})[1] == [last]
    assert learned(source, ASKED, FOUR, AGAIN)[1] == [first]


def test_thoughts_that_a_template_leaves_out_are_not_learned_and_those_it_writes_are():
    thinking = [{**one, "content": THOUGHT + one["content"]} for one in (FOUR, YES)]
    text, found = learned(QWEN3, ASKED, thinking[0], AGAIN, thinking[1])
    assert text.count("hm") == 1
    assert found == ["It is 4.<|im_end|>", f"{THOUGHT}Yes<|im_end|>"]


def test_calls_of_tools_are_learned_and_what_tools_answer_is_not():
    call = {"function": {"name": "add", "arguments": {"a": 2}}}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    told = {"role": "tool", "content": "four"}
    tools = ({"type": "function", "function": {"name": "add"}},)
    text, found = learned(QWEN3, ASKED, called, told, YES, tools=tools)
    assert len(found) == 2 and '{"name": "add", "arguments": {"a": 2}}' in found[0]
    assert "four" in text and "four" not in "".join(found)
    assert found[0].endswith("</tool_call><|im_end|>")
    text, found = learned(LLAMA3, ASKED, called, told, YES, tools=tools)
    assert found == ['{"name": "add", "parameters": {"a": 2}}<|eot_id|>', "Yes<|eot_id|>"]


def test_calls_that_a_template_does_not_write_are_no_answers(tmp_path):
    call = {"function": {"name": "add", "arguments": {"a": 2}}}
    for content in ("", None):
        called = {"role": "assistant", "content": content, "tool_calls": [call]}
        chats = [[ASKED, FOUR], [ASKED, called], [ASKED, called, AGAIN, YES]]
        for loss_on in ("completions", "all"):
            source = TEMPLATES["smollm"]
            _, counted, _, wrong = written(tmp_path, chats, source=source, loss_on=loss_on)
            assert len(counted) == 1
            why = "calls a tool, which the model's chat template does not write"
            assert wrong.first == [f"line 2 {why}", f"line 3 {why}"]
        _, counted, _, wrong = written(tmp_path, chats, source=LLAMA3)
        assert len(counted) == 4 and not wrong.first


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # opens an answer with a thought that earlier turns do not have
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<assistant><think>{% endif %}",
            ["It is 4.</s>", "Yes</s>"],
        ),
        # says before everything how many turns there are
        (
            "{{ messages | length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>"
            "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
            ["It is 4.</s>", "Yes</s>"],
        ),
        # takes only chats that end with an answer
        (
            "{% if messages[-1].role == 'user' %}{{ raise_exception('unanswered') }}{% endif %}"
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}",
            ["It is 4.</s>", "Yes</s>"],
        ),
    ],
    ids=["opens", "counts", "refuses"],
)
def test_answers_are_found_where_shorter_chats_are_written_otherwise(source, expected):
    assert learned(source, ASKED, FOUR, AGAIN, YES)[1] == expected


def test_of_a_chat_of_many_turns_the_answers_that_are_kept_are_looked_for(monkeypatch):
    """To find one takes two texts as long as the chat before it."""
    turns = (ASKED, FOUR, AGAIN, YES) * 250
    template, written = template_of(TEMPLATES["smollm"]), []
    write = ChatTemplate.text
    monkeypatch.setattr(
        ChatTemplate, "text", lambda *given, **how: written.append(1) or write(*given, **how)
    )
    text, spans = text_and_answers(template, Chat(turns), CONTROLS, 1000)
    assert len(written) < 50
    found = [text[start:end] for start, end in spans]
    assert found[:2] == ["It is 4.<|im_end|>", "Yes<|im_end|>"]
    assert spans[-2][0] <= 1000 < spans[-1][0]  # none that begins before is left out
    assert text.endswith("Yes<|im_end|>\n")


def test_a_template_that_writes_no_answers_is_a_reason():
    with pytest.raises(TemplateError, match="does not write the answer of message 2"):
        learned("{{ messages | length }}{{ messages[0].content }}", ASKED, FOUR)


def test_a_token_over_the_border_is_of_the_prompt():
    encoding = SimpleNamespace(
        ids=[1, 2, 3, 4, 5], offsets=[(0, 2), (2, 5), (5, 5), (5, 7), (7, 9)]
    )
    assert counted_tokens(encoding, [(4, 7)]).tolist() == [False, False, True, True, False]
    assert counted_tokens(encoding, None).all()


class Letters:
    """A tokenizer whose ids are code points."""

    def encode_batch(self, texts, add_special_tokens):
        assert not add_special_tokens  # templates write these themselves
        places = {text: [(n, n + 1) for n in range(len(text))] for text in texts}
        return [SimpleNamespace(ids=[*map(ord, text)], offsets=places[text]) for text in texts]


def written(tmp_path, chats, *, source=None, loss_on="completions", most=1000, marks=None):
    template = None if source is None else template_of(source)
    reader, wrong = Reader(template, loss_on, CONTROLS), Wrong(tmp_path / "t.jsonl")
    passages = reader.passages((wrong, n, Chat(tuple(one))) for n, one in enumerate(chats, 1))
    kind, marks = id_type(300), marks or Marks((60,), (62,))
    found = write_chats([(passages, False)], marks, Letters(), tmp_path / "ids", kind, most)
    text = "".join(map(chr, read_ids(tmp_path / "ids", kind)))
    ranges = np.array(found.counted).reshape(-1, 2).tolist()
    return text, [text[start:end] for start, end in ranges], found, wrong


def test_a_chat_has_the_marks_that_its_template_writes_and_no_others(tmp_path):
    text, counted, found, _ = written(tmp_path, [[ASKED, FOUR]] * 2, source=TEMPLATES["llama-2"])
    assert text == "<s>[INST] 2 + 2? [/INST] It is 4. </s>" * 2
    assert counted == [" It is 4. </s>"] * 2
    assert found.starts.tolist() == [0, len(text) // 2, len(text)]


def test_a_model_without_a_template_reads_a_prompt_and_its_completion_as_they_stand(tmp_path):
    spaced = {**FOUR, "content": " It is 4."}
    text, counted, _, _ = written(tmp_path, [[ASKED, FOUR], [ASKED, spaced]])
    assert text == "<2 + 2?\nIt is 4.><2 + 2? It is 4.>"
    assert counted == ["It is 4.>", " It is 4.>"]
    _, counted, _, wrong = written(tmp_path, [[ASKED, FOUR], [ASKED, FOUR, AGAIN, YES]])
    assert len(counted) == 1 and "has no chat template" in wrong.first[0]


def test_all_of_a_chat_is_learned_where_that_is_asked_for(tmp_path):
    text, counted, _, _ = written(tmp_path, [[ASKED, FOUR]], source=QWEN3, loss_on="all")
    assert counted == [text]
    assert written(tmp_path, [[ASKED]], source=QWEN3, loss_on="all")[1]


def test_chats_that_cannot_be_learned_from_are_counted_with_their_reason(tmp_path):
    system = {"role": "system", "content": "Be brief"}
    chats = [[ASKED, FOUR], [ASKED], [system, ASKED, FOUR]]
    _, counted, _, wrong = written(tmp_path, chats, source=TEMPLATES["gemma"])
    assert counted == ["It is 4.<end_of_turn>"]
    assert wrong.first == [
        "line 2 has no turn of the assistant that counts",
        "line 3 is refused: the chat template says 'System role not supported'",
    ]


def test_long_chats_lose_their_end_and_those_without_an_answer_before_it_are_left_out(tmp_path):
    long = {"role": "user", "content": "2 + 2? " * 9}
    prompt = len("[INST] 2 + 2? [/INST]") + len("<s>")
    chats = [[ASKED, FOUR], [long, FOUR], [ASKED, YES]]
    text, counted, found, _ = written(tmp_path, chats, source=TEMPLATES["llama-2"], most=prompt + 5)
    assert counted == [" It i", " Yes "] and len(text) == 2 * (prompt + 5)
    assert (found.cut, found.unanswered) == (3, 1) and len(found.lengths) == 3
