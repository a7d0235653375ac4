"""Every task that reads tables reads the same rows of the same file, whatever its format."""

import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.tasks import tasks
from edge_train.tasks.classify.texts import load_texts
from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.network.datasets import load

# Texts that are numbers, so that each task can read them.
ROWS = [{"text": f"{n + 0.5}", "label": ("eins", "zwölf")[n % 2]} for n in range(40)]
WRONG = [{"text": "", "label": "eins"}, *ROWS]


def of_classify(path):
    found = load_texts(path, ())
    examples = sorted((*found.train, *found.dev), key=lambda one: float(one.text))
    return [(float(one.text), one.label) for one in examples], found.notices


def of_language_model(path):
    texts = open_texts(path, None)
    return [(float(text), None) for text, _, _ in texts.documents(texts.train)], texts.notices


def of_network(path):
    found = load(path)
    parts = [
        (value[0], found.class_names[label])
        for part in (found.train, found.test)
        for value, label in zip(part.inputs.tolist(), part.labels, strict=True)
    ]
    return sorted(parts), found.notices


READERS = {"classify": of_classify, "language-model": of_language_model, "network": of_network}
# Their tables name files or have documents of several columns: tests beside those tasks read them.
OF_FILES = ("images", "retrieve")
LABELED = [name for name in READERS if name != "language-model"]


def test_every_task_with_a_column_of_texts_or_labels_is_compared_here():
    columns = ("text_column", "label_column")
    reading = [n for n in tasks.names() if set(columns) & tasks.get(n).recipe.declared().keys()]
    assert sorted(reading) == sorted([*READERS, *OF_FILES])


@pytest.mark.parametrize("task", READERS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t.csv", {}),
        ("T.CSV", {"coding": "utf-8-sig"}),
        ("t.csv", {"coding": "utf-16", "delimiter": "\t"}),
        ("t.csv", {"coding": "cp1252", "delimiter": ";"}),
        ("t.tsv", {}),
        ("t.tsv.gz", {"delimiter": "|"}),
        ("t.jsonl", {}),
        ("t.json", {"coding": "utf-8-sig"}),
        pytest.param("t.parquet", {}, marks=pytest.mark.process),
    ],
)
def test_the_same_file_gives_the_same_rows(tmp_path, task, name, options):
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    found, notices = READERS[task](write_table(tmp_path / name, ROWS, **options))
    labels = [row["label"] if task in LABELED else None for row in ROWS]
    assert found == [(float(r["text"]), label) for r, label in zip(ROWS, labels, strict=True)]
    assert any("Windows-1252" in line for line in notices) is (options.get("coding") == "cp1252")


@pytest.mark.parametrize("task", READERS)
def test_wrong_rows_are_left_out_and_said_alike(tmp_path, task):
    path = write_table(tmp_path / "t.csv", ROWS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "one cell", *lines[5:]]) + "\n")
    found, notices = READERS[task](path)
    assert len(found) == len(ROWS)
    line = "1 of 41 rows of t.csv is left out: line 6 has 1 columns, expected 2"
    assert line in notices


@pytest.mark.parametrize("task", READERS)
def test_a_dev_file_beside_the_training_file_is_said_not_to_be_used(tmp_path, task):
    path = write_table(tmp_path / "train.csv", ROWS)
    write_table(tmp_path / "val.csv", ROWS[:4])
    notices = READERS[task](path)[1]
    assert f"val.csv beside train.csv is not used; --data {tmp_path} uses the folder" in notices


@pytest.mark.parametrize("task", READERS)
@pytest.mark.parametrize(
    "content", [b"", b"text,label\n", b"text,label\n\0", b'text,label\n"a,1\n', b"\xff\xfe\x00"]
)
def test_what_is_no_table_is_one_sentence_with_its_name(tmp_path, task, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.csv: ") as caught:
        READERS[task](tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
