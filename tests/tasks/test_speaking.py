"""generate and chat: what is asked of a model, where an answer ends, and hostile terminals."""

import io
import json
import signal
import sys
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pytest
from gguf_models import plain_llama

from edge_train import cli
from edge_train.errors import InputError
from edge_train.formats.chat_template import ChatTemplate
from edge_train.formats.gguf.model import open_gguf
from edge_train.tasks.language_model import chat as chat_module
from edge_train.tasks.language_model import generate as generate_module
from edge_train.tasks.language_model.chat import Conversation, chat
from edge_train.tasks.language_model.generate import generate
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.tasks.language_model.speaking import Speaker, first_draw

BEST = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
SAME = {"sampling": BEST, "most": 40, "seed": 0, "threads": 1}


@dataclass
class Parrot:
    """Says one text, whatever it is asked, and then what ends an answer."""

    tokenizer: object
    says: str
    asked: list = field(default_factory=list)
    closed: bool = False
    then: object = None

    def next_logits(self, ids):
        answer = [*self.tokenizer.encode(self.says).ids, self.tokenizer.token_to_id("</s>")]
        if not self.asked or len(ids) <= len(self.asked[-1]) or ids[:-1] != self.last:
            self.asked.append(list(ids))
            self.start = len(ids)
        self.last = list(ids)
        if self.then is not None:
            self.then(len(ids) - self.start)
        logits = np.zeros(300, np.float32)
        logits[answer[len(ids) - self.start]] = 1
        return logits

    def close(self):
        self.closed = True


@pytest.fixture
def speaker(tmp_path):
    def make(says="a hat", template=TURNS, positions=None):
        path = tmp_path / "a.gguf"
        changes = {} if positions is None else {"llama__context_length": positions}
        path.write_bytes(plain_llama(**changes))
        model = open_gguf(path)
        source = (
            None if template is None else ChatTemplate({"default": template}, {}, datetime.now())
        )
        tokenizer = model.tokenizer()
        return Speaker("mine", model, tokenizer, source, Parrot(tokenizer, says))

    return make


@pytest.fixture
def opened(speaker, monkeypatch):
    """Have runs opened that say what they are told to."""

    def make(*says, **more):
        speakers = [speaker(one, **more) for one in says]
        for module in (chat_module, generate_module):
            monkeypatch.setattr(module, "open_speaker", lambda *_: speakers[0])
            monkeypatch.setattr(module, "open_its_base", lambda *_: speakers[1])
        return speakers

    return make


def asked(speaker, number=-1):
    return speaker.tokenizer.decode(speaker.engine.asked[number], skip_special_tokens=False)


def test_an_answer_comes_in_pieces_of_whole_characters_and_ends_at_the_end_token(speaker):
    mine = speaker("the \u00e9\u4e16 hat")
    ids = mine.ids_of_chat([{"role": "user", "content": "a"}])
    pieces = list(mine.answer(ids, BEST, 40, first_draw(0, 0)))
    assert "".join(pieces) == "the \u00e9\u4e16 hat" and len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_has_at_most_so_many_tokens_and_none_behind_the_last_position(speaker):
    mine = speaker("a" * 40, positions=16)
    assert "".join(mine.answer([5] * 4, BEST, 3, first_draw(0, 0))) == "aaa"
    assert "".join(mine.answer([5] * 11, BEST, 40, first_draw(0, 0))) == "a" * 5


def test_what_the_template_puts_behind_an_answer_ends_it(speaker):
    mine = speaker(template="{% for m in messages %}{{ m.content }}<s>{% endfor %}")
    assert mine.ends == {mine.tokenizer.token_to_id("</s>"), mine.tokenizer.token_to_id("<s>")}


def test_a_prompt_is_a_message_where_the_model_has_a_template_and_a_text_with_raw(opened):
    (mine,) = opened("a hat")
    out = io.StringIO()
    generate(".", ["the"], out, **SAME, raw=False, base=False)
    assert asked(mine) == "<user>the</s><assistant>"
    assert out.getvalue() == "a hat\n" and mine.engine.closed
    generate(".", ["the"], out, **SAME, raw=True, base=False)
    assert asked(mine) == "the"


def test_a_base_is_asked_the_same_and_each_answer_says_whose_it_is(opened):
    mine, base = opened("a hat", "a tin")
    out = io.StringIO()
    generate(".", ["the"], out, **SAME, raw=False, base=True)
    assert out.getvalue() == "--- mine: the\na hat\n--- mine: the\na tin\n"
    assert asked(mine) == asked(base)


@pytest.mark.parametrize(
    ("prompt", "words"), [(" \n", "--prompt is empty"), ("a" * 80, "tokens, and the model has 64")]
)
def test_a_prompt_that_is_empty_or_leaves_no_room_is_refused(opened, prompt, words):
    opened("a")
    with pytest.raises(InputError, match=words):
        generate(".", [prompt], io.StringIO(), **SAME, raw=False, base=False)


def talk(lines, **more):
    out = io.StringIO()
    status = chat(".", **{**SAME, "system": None, "base": False, **more}, lines=lines, out=out)
    return status, out.getvalue()


def test_lines_that_come_from_no_terminal_are_answered_without_marks(opened):
    (mine,) = opened("a hat")
    assert talk(io.StringIO("one\n\n  \ntwo")) == (0, "a hat\na hat\n")
    wanted = "<user>one</s><assistant>a hat</s><user>two</s><assistant>"
    assert asked(mine) == wanted


def test_a_conversation_can_be_forgotten_and_ended(opened):
    (mine,) = opened("a hat")
    status, _ = talk(io.StringIO("one\n/clear\ntwo\n/bye\nthree\n"), system="be brief")
    assert status == 0 and len(mine.engine.asked) == 2
    assert asked(mine) == "<system>be brief</s><user>two</s><assistant>"


def test_the_base_has_a_conversation_of_its_own(opened):
    _, base = opened("a hat", "a tin")
    _, text = talk(io.StringIO("one\ntwo\n"), base=True)
    assert text == "--- mine\na hat\n--- mine\na tin\n" * 2
    assert asked(base) == "<user>one</s><assistant>a tin</s><user>two</s><assistant>"


def test_the_oldest_turns_are_dropped_where_they_do_not_fit_and_the_systems_stays(speaker, capsys):
    mine = Conversation(speaker(positions=100), [{"role": "system", "content": "s"}])
    for number in range(6):
        mine.messages.append({"role": "user", "content": f"u{number}"})
        ids = mine.ids(200)
        assert len(ids) <= 75  # a quarter is for the answer
        mine.messages.append({"role": "assistant", "content": "hat"})
    assert mine.forgotten and mine.messages[0]["role"] == "system"
    assert mine.messages[1] != {"role": "user", "content": "u0"}
    assert mine.messages[-2]["content"] == "u5"


def test_a_line_that_is_too_long_is_one_sentence_and_the_talk_goes_on(opened, capsys):
    (mine,) = opened("a hat", positions=40)
    status, text = talk(io.StringIO("a" * 90 + "\none\n"))
    assert (status, text) == (0, "a hat\n")
    assert asked(mine) == "<user>one</s><assistant>"
    assert "write a shorter one" in capsys.readouterr().err


def test_a_line_that_is_no_utf_8_is_one_sentence_and_the_talk_goes_on(opened, capsys):
    (mine,) = opened("a hat")
    typed = io.TextIOWrapper(
        io.BytesIO(b"hi \xff\xfe\none\n"), encoding="ascii", errors="surrogateescape"
    )
    assert talk(typed) == (0, "a hat\n")
    assert asked(mine) == "<user>one</s><assistant>"
    assert "byte 0xff after 3 letters of 'hi ' is no UTF-8" in capsys.readouterr().err


def test_a_prompt_and_a_systems_message_that_are_no_utf_8_are_one_sentence(opened):
    opened("a hat")
    with pytest.raises(InputError, match="byte 0xff after 0 letters of '' is no UTF-8"):
        talk(io.StringIO("one\n"), system="\udcff")
    for raw in (False, True):
        with pytest.raises(InputError, match="is no UTF-8; write the text in UTF-8"):
            generate(".", ["a \udce4"], io.StringIO(), **SAME, raw=raw, base=False)


def test_a_systems_message_that_leaves_no_room_is_a_sentence_before_the_first_line(opened):
    opened("a hat", positions=40)
    with pytest.raises(InputError, match="the model has 40 positions; shorten --system"):
        talk(io.StringIO("one\n"), system="a" * 90)


def test_ctrl_c_ends_an_answer_and_nothing_else(opened):
    (mine,) = opened("abcdefgh")
    mine.engine.then = lambda count: signal.raise_signal(signal.SIGINT) if count == 3 else None
    status, text = talk(io.StringIO("one\ntwo\n"))
    assert status == 0 and text == "abcd\nabcd\n"
    assert "<assistant>abcd</s><user>two" in asked(mine)


def test_ctrl_c_while_a_line_is_waited_for_ends_the_talk_with_its_status(opened):
    opened("a")

    class Waiting(io.StringIO):
        def readline(self):
            signal.raise_signal(signal.SIGINT)

    assert talk(Waiting())[0] == 130


def test_no_terminal_at_all_is_one_sentence(opened, monkeypatch):
    opened("a")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="edge-train generate RUN --prompt"):
        chat(".", **SAME, system=None, base=False)


def test_a_model_without_a_template_is_not_talked_to(opened):
    opened("a", template=None)
    with pytest.raises(InputError, match="has no chat template"):
        talk(io.StringIO("a\n"))


def test_a_template_that_refuses_the_system_is_a_sentence_before_the_first_line(opened):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    opened("a", template=refuses + TURNS)
    with pytest.raises(InputError, match="no system"):
        talk(io.StringIO("a\n"), system="s")


def test_generate_is_one_verb_and_the_run_says_whose(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text('task = "language-model"\n')
    assert cli.main(["generate", str(tmp_path)]) == 2
    assert "--prompt is missing" in capsys.readouterr().err
    assert cli.main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "--resume" in capsys.readouterr().err
    (tmp_path / "recipe.toml").write_text('task = "personalize"\n')
    with pytest.raises(SystemExit):
        cli.main(["generate", str(tmp_path), "--top-k", "2"])
    assert "--top-k" in capsys.readouterr().err
    (tmp_path / "recipe.toml").write_text('task = "classify"\n')
    assert cli.main(["generate", str(tmp_path)]) == 2
    assert "a run of task 'classify'" in capsys.readouterr().err
    assert cli.main(["generate", str(tmp_path / "none")]) == 2
    assert "not a run folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["generate", "--help"])
    said = capsys.readouterr().out
    assert "--guidance" in said and "--min-p" in said


@pytest.mark.parametrize("flag", ["--max-tokens", "--seed", "--threads", "--temperature"])
def test_a_number_out_of_range_is_one_sentence(tmp_path, capsys, flag):
    (tmp_path / "recipe.toml").write_text('task = "language-model"\n')
    assert cli.main(["chat", str(tmp_path), flag, "-5"]) == 2
    assert f"{flag} is -5" in capsys.readouterr().err


def test_settings_of_a_damaged_folder_are_a_sentence(tmp_path):
    (tmp_path / "recipe.toml").write_text('task = "language-model"\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert cli.main(["chat", str(tmp_path)]) == 2
