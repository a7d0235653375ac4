"""The texts that `infer` is asked about, from the standard input."""

import io

from edge_train.tasks.asking import asking_command


def test_a_line_of_standard_input_ends_where_lines_end_and_nowhere_else(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\u2028b\x85c\n\n  \nd\n"))
    monkeypatch.setattr("edge_train.tasks.asking.load", lambda _: lambda run, texts, **__: texts)

    class Options:
        run, texts, json = "run", ("-",), False

    assert asking_command("", "").run(Options()) == 0
    assert capsys.readouterr().out == "a\u2028b\x85c\nd\n"
