"""Rows that are chats in the ways people have them; what is none is counted with its reason."""

import json

import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.tasks.language_model.accepts import accepts
from edge_train.tasks.language_model.documents import open_texts

ASKED, ANSWERED = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
PLAIN = [ASKED, ANSWERED]


def chats_of(path, rows, column=None):
    texts = open_texts(write_table(path, rows), column)
    found = [chat for _, _, chat in texts.chats(texts.train)]
    return found, texts.notices


def only(tmp_path, row):
    (found,), notices = chats_of(tmp_path / "t.jsonl", [row])
    assert not notices
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"messages": PLAIN},
        {"Messages": PLAIN, "text": "2 + 2? 4", "score": 3},
        {"messages": json.dumps(PLAIN)},
        {"messages": [{**ASKED, "content": [{"type": "text", "text": "2 + 2?"}]}, ANSWERED]},
        {"messages": [{**ASKED, "tool_calls": None}, ANSWERED]},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
        {"conversations": PLAIN},
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": "2 + 2?", "completion": 4},
        {"prompt": [ASKED], "completion": [ANSWERED]},
        {"prompt": [ASKED], "completion": "4"},
        {"instruction": "2 + 2?", "input": "", "output": "4"},
        {"question": "2 + 2?", "answer": "4"},
    ],
    ids=" ".join,
)
def test_one_question_and_answer_is_the_same_chat_however_it_is_written(tmp_path, row):
    found = only(tmp_path, row)
    assert list(found.messages) == PLAIN and not found.tools
    assert found.answers == [1]


def test_pairs_in_a_csv_are_chats_and_its_first_line_is_no_pair(tmp_path):
    (tmp_path / "t.csv").write_text("prompt,completion\n2 + 2?,4\n2 + 2?,4\n")
    texts = open_texts(tmp_path / "t.csv", None)
    found = [list(chat.messages) for _, _, chat in texts.chats(texts.train)]
    assert found == [PLAIN, PLAIN]


def test_an_input_goes_behind_its_instruction_and_a_system_message_before_all(tmp_path):
    row = {"instruction": "Sum up", "input": "2 + 2", "output": "4", "system": "Be brief"}
    found = only(tmp_path, row)
    assert [one["content"] for one in found.messages] == ["Be brief", "Sum up\n\n2 + 2", "4"]
    assert found.messages[0]["role"] == "system" and found.answers == [2]


def test_tools_their_calls_and_turns_without_weight_are_kept(tmp_path):
    call = {"id": "1", "function": {"name": "add", "arguments": '{"a": 2}'}}
    called = {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0}
    tools = [{"type": "function", "function": {"name": "add"}}]
    row = {
        "messages": [ASKED, called, {"role": "tool", "content": "4"}, ANSWERED],
        "tools": json.dumps(tools),
    }
    found = only(tmp_path, row)
    assert found.tools == tuple(tools) and found.answers == [3]
    # templates write them as JSON: a text would be written as a text within a text
    assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 2}


@pytest.mark.parametrize("key", ["prompt", "completion"])
def test_a_turn_without_weight_is_not_learned_in_lists_of_a_prompt_and_its_completion(
    tmp_path, key
):
    """The weight was read under `messages` alone."""
    bad = {"role": "assistant", "content": "5", "weight": 0}
    row = {"prompt": [ASKED], "completion": [ANSWERED]}
    row[key] = [ASKED, bad, ASKED] if key == "prompt" else [bad, ASKED, ANSWERED]
    assert only(tmp_path, row).answers == [3]
    system = {**row, "system": "Be brief"}
    assert only(tmp_path, system).answers == [4]


def test_turns_of_the_assistant_within_a_prompt_are_not_learned(tmp_path):
    """As TRL has it: the completion is what is learned."""
    row = {"prompt": [ASKED, ANSWERED, ASKED], "completion": [ANSWERED, ASKED, ANSWERED]}
    assert only(tmp_path, row).answers == [3, 5]
    assert only(tmp_path, {**row, "completion": "4"}).answers == [3]
    found = only(tmp_path, {"prompt": "2 + 2?", "completion": [ANSWERED]})
    assert list(found.messages) == PLAIN and found.answers == [1]


@pytest.mark.parametrize(
    "value",
    ['{"name": "add", "arguments": {"a": 2}}', '[{"name": "add", "arguments": "{\\"a\\": 2}"}]'],
)
@pytest.mark.parametrize("answer", ["observation", "tool", "function", "function_response"])
def test_a_function_call_of_sharegpt_is_a_call_of_a_tool(tmp_path, value, answer):
    """LLaMA-Factory's names; such a file was refused whole."""
    said = (("human", "2 + 2?"), ("function_call", value), (answer, "4"), ("gpt", "4"))
    row = {"conversations": [{"from": name, "value": text} for name, text in said]}
    found = only(tmp_path, row)
    call = {"name": "add", "arguments": {"a": 2}}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert list(found.messages) == [ASKED, called, {"role": "tool", "content": "4"}, ANSWERED]
    assert found.answers == [1, 3]


def test_functions_of_openais_first_kind_are_tools(tmp_path):
    """Its rows were refused: the answer has no text, and there is no role of a function."""
    call = {"name": "add", "arguments": '{"a": 2}'}
    called = {"role": "assistant", "content": None, "function_call": call}
    result = {"role": "function", "name": "add", "content": "4"}
    functions = [{"name": "add", "parameters": {}}]
    row = {"messages": [ASKED, called, result, ANSWERED], "functions": functions}
    found = only(tmp_path, row)
    assert found.messages[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"name": "add", "arguments": {"a": 2}}],
    }
    assert found.messages[2] == {"role": "tool", "name": "add", "content": "4"}
    assert found.tools == ({"type": "function", "function": functions[0]},)
    assert found.answers == [1, 3]


def test_a_system_message_and_tools_that_come_late_are_read(tmp_path):
    """Columns were those of the first 1,000 rows."""
    tools = [{"type": "function", "function": {"name": "add"}}]
    late = {"messages": PLAIN, "system": "Be brief", "tools": tools}
    found, notices = chats_of(tmp_path / "t.jsonl", [{"messages": PLAIN}] * 1001 + [late])
    assert not notices
    assert found[-1].messages[0]["content"] == "Be brief" and found[-1].tools == tuple(tools)


def test_chats_behind_many_texts_are_not_left_out_in_silence(tmp_path):
    rows = [{"text": "a"}] * 1001 + [{"messages": PLAIN}] * 3
    with pytest.raises(
        InputError, match=r"1001 of 1004 rows\); --text-column text takes its texts"
    ):
        chats_of(tmp_path / "t.jsonl", rows)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_turns_in_rows_of_their_own_are_no_texts(tmp_path, name):
    """They were learned as documents."""
    with pytest.raises(InputError, match=r"its rows are turns of a chat.*list under 'messages'"):
        open_texts(write_table(tmp_path / name, PLAIN), None).check()
    assert open_texts(tmp_path / name, "content").chats_found() is None


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ("hello", "has no list of messages"),
        ([], "has no messages"),
        (None, "has no list of messages"),
        (["hello"], "has a message 1 that is no object"),
        (
            [{"role": "narrator", "content": "a"}],
            "has a message 1 of role 'narrator'",
        ),
        ([{"content": "a"}], "has a message 1 of role None"),
        ([{"role": ["user"], "content": "a"}], "has a message 1 of role"),
        ([{"from": 3, "value": "a"}], "has a message 1 of from 3; rename it"),
        (
            [{"from": "narrator", "value": "a"}],
            "has a message 1 of from 'narrator'; rename it to one that 'from' takes: system, human,"
            " user, gpt, chatgpt, model, bot, assistant, function_call, observation, tool, ",
        ),
        (
            [{"role": "narrator", "content": "a"}],
            "rename it to one that 'role' takes: system, developer, user, assistant, tool",
        ),
        ('[{"role": "user", "content": "\\ud83d"}]', "has no list of messages (half of a letter"),
        ([{"from": "function_call", "value": "Action: add"}], "that is no JSON of a call"),
        ([{"from": "function_call", "value": "{}"}], "with a call of a tool without a name"),
        ([{"role": "user", "content": 3}, ANSWERED], "has a message 1 whose content is no text"),
        ([{"role": "user"}, ANSWERED], "has a message 1 without a text"),
        ([ASKED, {**ANSWERED, "content": " "}], "has an answer without a text (message 2)"),
        ([ASKED, {**ANSWERED, "tool_calls": "add"}], "whose tool_calls are no list of objects"),
        ([ASKED, {**ANSWERED, "tool_calls": [{}]}], "with a call of a tool without a name"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWERED],
            "has a message 1 with 'image_url', which is no text",
        ),
    ],
)
def test_what_is_no_chat_is_left_out_with_its_reason(tmp_path, messages, why):
    rows = [{"messages": PLAIN}, {"messages": messages}, {"messages": PLAIN}]
    found, notices = chats_of(tmp_path / "t.jsonl", rows)
    assert len(found) == 2
    assert len(notices) == 1 and why in notices[0]
    assert notices[0].startswith("1 of 3 rows of t.jsonl is left out: line 2 has ")


@pytest.mark.parametrize(
    ("name", "value"), [("images", ["a.png"]), ("image", "a.png"), ("videos", '["a.mp4"]')]
)
@pytest.mark.parametrize("row", [{"messages": PLAIN}, {"prompt": "a", "completion": "b"}])
def test_a_chat_about_a_picture_beside_it_is_not_learned_as_a_text(tmp_path, row, name, value):
    rows = [{**row, name: value}, row, {**row, name: []}, {**row, name: None}]
    found, notices = chats_of(tmp_path / "t.jsonl", rows)
    assert len(found) == 3
    assert f"line 1 has {name!r} beside its text, and texts alone are learned" in notices[0]


def test_an_answer_that_its_row_calls_bad_is_not_learned(tmp_path):
    row = {"prompt": "a", "completion": "b"}
    rows = [{**row, "label": False}, {**row, "label": True}, {**row, "label": "x"}, row]
    found, notices = chats_of(tmp_path / "t.jsonl", rows)
    assert len(found) == 3
    assert "line 1 has an answer that is marked as a bad one ('label' is false)" in notices[0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "completion": None}, "has no completion"),
        ({"prompt": " ", "completion": "a"}, "has no prompt"),
        ({"prompt": "a", "completion": "b", "tools": [3]}, "has tools that are no list"),
    ],
)
def test_a_file_of_wrong_pairs_is_refused_by_the_first(tmp_path, row, why):
    with pytest.raises(InputError, match=f"line 1 {why}"):
        chats_of(tmp_path / "t.jsonl", [row])


def test_a_column_of_texts_that_is_named_is_read_and_no_chats(tmp_path):
    path = write_table(tmp_path / "t.jsonl", [{"messages": PLAIN, "text": "2 + 2? 4"}])
    assert open_texts(path, "text").chats_found() is None
    assert open_texts(path, None, as_texts=True).chats_found() is None
    assert open_texts(path, None).chats_found().what == "chats"


def test_a_held_out_file_of_another_kind_is_one_sentence(tmp_path):
    write_table(tmp_path / "train.jsonl", [{"messages": PLAIN}])
    write_table(tmp_path / "dev.jsonl", [{"text": "a"}])
    texts = open_texts(tmp_path, None)
    with pytest.raises(InputError, match="has no column of chats, but train"):
        list(texts.chats(texts.held))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": PLAIN}, "chats"),
        ({"conversations": PLAIN, "category": "a"}, "chats"),
        ({"prompt": "a", "completion": "b"}, "prompts with completions"),
        ({"instruction": "a", "input": "", "output": "b"}, "instructions with outputs"),
        ({"question": "a", "answer": "b"}, "questions with answers"),
        ({"chosen": PLAIN, "rejected": PLAIN}, "pairs of a better and a worse answer"),
        ({"text": "a"}, "texts"),
        ({"text": "a", "label": 1}, None),
        ({"question": "a", "answer": "b", "label": 1}, None),
        ({"question": "a", "sentence": "b", "label": 1}, None),
    ],
)
def test_data_are_known_by_their_columns(tmp_path, row, said):
    assert accepts(write_table(tmp_path / "t.jsonl", [row])) == said


def test_a_letter_that_parts_lines_elsewhere_parts_no_rows(tmp_path):
    """JSON may hold U+2028 and its like as they are; JavaScript and ensure_ascii=False do so."""
    words = "a\u2028b\u2029c\x85d"
    row = {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": "e"}]}
    path = tmp_path / "t.jsonl"
    path.write_text((json.dumps(row, ensure_ascii=False) + "\n") * 2, "utf-8")
    assert accepts(path) == "chats"
    texts = open_texts(path, None)
    found = [chat.messages[0]["content"] for _, _, chat in texts.chats(texts.train)]
    assert found == [words] * 2
