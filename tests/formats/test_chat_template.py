"""Chats as their model's template writes them: transformers' text, and no code of strangers."""

import json
import subprocess
import sys
from datetime import datetime

import pytest
from chat_templates import LLAMA3, MARKED, QWEN3, TEMPLATES
from emulated import natively
from running import STALLED_SECONDS

from edge_train.errors import ModelError, TemplateError
from edge_train.formats import chat_sandbox
from edge_train.formats.chat_template import ChatTemplate, chat_template_of
from edge_train.formats.language_folder import LanguageFolder, Made

DAY = datetime(2025, 3, 2)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
ASKED = {"role": "user", "content": "  What is <b>2 + 2</b>?\n"}
ANSWERED = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n 4, \u00fc \n"}
CHATS = {
    "one turn": [ASKED, ANSWERED],
    "system": [{"role": "system", "content": "Be brief. "}, ASKED, ANSWERED],
    "turns": [ASKED, ANSWERED, ASKED, {**ANSWERED, "reasoning": "so"}],
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a & b <\u00e9>"}}]
CALL = {"function": {"name": "add", "arguments": {"a": "<2>", "b": 2}}}
CALLED = [
    *(ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}),
    *({"role": "tool", "content": "4"}, {"role": "assistant", "content": "4"}),
]


def template_of(source, day=DAY):
    return ChatTemplate({"default": source}, TOKENS, day)


def of_transformers(source, messages, tools=None, **more):
    """Return transformers' text of a chat, its day fixed to ours."""
    module = pytest.importorskip("transformers.utils.chat_template_utils")
    texts, marked = module.render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=source.replace("strftime_now(", "fixed_day("),
        fixed_day=None,
        **TOKENS,
        **more,
    )
    return texts[0], marked


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("open_", [False, True], ids=["whole", "open"])
@pytest.mark.parametrize("family", TEMPLATES)
def test_a_chat_is_the_text_that_transformers_makes_of_it(family, chat, open_):
    source = TEMPLATES[family].replace('strftime_now("%d %b %Y")', '"02 Mar 2025"')
    try:
        expected = of_transformers(source, CHATS[chat], add_generation_prompt=open_)[0]
    except Exception as error:  # noqa: BLE001 - whatever theirs raises, ours has to say
        with pytest.raises(TemplateError, match=str(error).split(".")[0]):
            template_of(source).text(CHATS[chat], open_=open_)
        return
    assert template_of(source).text(CHATS[chat], open_=open_) == expected


@pytest.mark.parametrize("source", [QWEN3, LLAMA3], ids=["qwen3", "llama-3"])
def test_a_chat_with_tools_is_the_text_that_transformers_makes_of_it(source):
    source = source.replace('strftime_now("%d %b %Y")', '"02 Mar 2025"')
    template = template_of(source)
    assert template.takes_tools()
    assert template.text(CALLED, TOOLS) == of_transformers(source, CALLED, TOOLS)[0]


def test_now_is_the_day_that_was_named():
    assert "Today Date: 02 Mar 2025" in template_of(LLAMA3).text(CHATS["one turn"])


def test_answers_that_a_template_marks_are_those_that_transformers_finds():
    template = template_of(MARKED)
    text, spans = template.parts(CHATS["turns"])
    theirs, marked = of_transformers(MARKED, CHATS["turns"], return_assistant_tokens_mask=True)
    assert text == theirs and [tuple(span) for span in marked[0]] == spans
    assert len(spans) == 2 and text[slice(*spans[0])].endswith("<|im_end|>")
    assert template.marks_answers() and not template_of(QWEN3).marks_answers()
    assert template_of(QWEN3).parts(CHATS["turns"])[1] == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ raise_exception('no\n such chat') }}", "says 'no such chat'"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            "goes round",
        ),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(60) }}",
            "goes round",
        ),
        ("{{ 'a' * 10 ** 12 }}", "makes a text that is too long"),
        ("{{ 9 ** 9 ** 9 }}", "to a power that is too large"),
        ("{{ 'a'.ljust(10 ** 12) }}", "fails"),
        ("{{ messages.append(1) }}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "fails"),
        ("{{ raise_exception.__globals__.os }}", "fails"),
        ("{{ namespace(__class__=1) }}", "fails"),
        ("{% include '/etc/passwd' %}", "fails"),
        ("{{ messages[0].content.nothing.more }}", "fails"),
        ("{{ 1 / 0 }}", "fails"),
        ("{% if messages[0].content == 1e999 %}{% endif %}", "fails"),
        ("{{ nothing | tojson }}", "fails"),
        ("{{ '\\ud83d' }}", "writes '.*ud83d', half a letter"),
    ],
)
def test_a_template_that_refuses_fails_or_does_not_end_is_a_reason(monkeypatch, source, why):
    monkeypatch.setattr(chat_sandbox, "_MOST_ROUNDS", 20_000)
    with pytest.raises(TemplateError, match=why):
        template_of(source).text(CHATS["one turn"])


DOUBLED = (
    "{%% set n = namespace(%s) %%}{%% for i in range(40) %%}{%% set n.s = n.s %s n.s %%}"
    "{%% endfor %%}"
)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@natively
@pytest.mark.parametrize(
    "source",
    [
        DOUBLED % ("s='a'", "~"),
        DOUBLED % ("s=[1]", "+"),
        "{% set s = '%4000000000d' % 1 %}",
        "{% set s = '{:4000000000}'.format(1) %}",
    ],
    ids=["doubled text", "doubled list", "filled by %", "filled by format"],
)
def test_a_template_that_asks_for_gigabytes_is_a_reason_and_holds_some_hundred_megabytes(source):
    code = (
        "import re\n"
        "from datetime import datetime\n"
        "from pathlib import Path\n"
        "from edge_train.errors import TemplateError\n"
        "from edge_train.formats.chat_template import ChatTemplate\n"
        f"source = {source!r}\n"
        "status = Path('/proc/self/status')\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1]) // 1024\n"
        "template, before = ChatTemplate({'default': source}, {}, datetime.now()), peak()\n"
        "try: template.text([])\n"
        "except TemplateError as error: print(error, peak() - before, sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=STALLED_SECONDS,
        check=True,
    )
    why, _, grown = done.stdout.partition("|")
    assert "more memory than it may have" in why and int(grown) < 300


def folder_with(path, settings=None, **files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        place = path / name.replace("__", "/").replace("_jinja", ".jinja")
        place.parent.mkdir(exist_ok=True)
        place.write_text(content)
    if settings is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return LanguageFolder(path, {}, 9, 9, ())


def test_the_file_of_a_template_goes_before_the_settings_and_tokens_come_from_them(tmp_path):
    settings = {"chat_template": "in settings", "bos_token": {"content": "<b>"}}
    settings |= {"add_bos_token": True, "eos_token": None}
    model = folder_with(tmp_path / "m", settings)
    assert chat_template_of(model, DAY).text([ASKED]) == "in settings"
    model = folder_with(tmp_path / "m", chat_template_jinja="{{ bos_token }}{{ eos_token }} file")
    assert chat_template_of(model, DAY).text([ASKED]) == "<b> file"
    (tmp_path / "m" / "special_tokens_map.json").write_text('{"eos_token": "<e>"}')
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"bos_token": "<b>"}')
    assert chat_template_of(model, DAY).text([ASKED]) == "<b><e> file"


def test_chats_with_tools_take_the_template_for_tools(tmp_path):
    several = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    model = folder_with(tmp_path / "m", {"chat_template": several})
    assert chat_template_of(model, DAY).text([ASKED], TOOLS) == "tools"
    assert chat_template_of(model, DAY).text([ASKED]) == "plain"
    texts = {"chat_template_jinja": "a", "additional_chat_templates__tool_use_jinja": "b"}
    model = folder_with(tmp_path / "f", **texts)
    assert chat_template_of(model, DAY).text([ASKED], TOOLS) == "b"


def test_a_model_without_a_template_has_none_and_one_file_has_its_own(tmp_path):
    assert chat_template_of(folder_with(tmp_path / "m"), DAY) is None
    settings = {"chat_template": "{{ eos_token }}", "eos_token": "</s>"}
    one_file = LanguageFolder(tmp_path / "m.gguf", {}, 9, 9, (), made=Made(None, settings))
    assert chat_template_of(one_file, DAY).text([ASKED]) == "</s>"


@pytest.mark.parametrize("source", ["{% for %}", "{{", "{% generation %}", "{%" + "(" * 3000])
def test_what_is_no_template_is_one_sentence(tmp_path, source):
    model = folder_with(tmp_path / "m", {"chat_template": source})
    with pytest.raises(ModelError, match="its chat template cannot be read"):
        chat_template_of(model, DAY)


def test_a_template_that_is_a_link_out_of_the_folder_is_not_opened(tmp_path):
    (tmp_path / "outside.jinja").write_text("secret")
    model = folder_with(tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").symlink_to(tmp_path / "outside.jinja")
    assert chat_template_of(model, DAY) is None
