"""The report of a classifier says how many texts of each label it knows."""

from edge_train.report.section import Section
from edge_train.tasks.classify.report import sections


def rendered(metrics, labels):
    section = next(one for one in sections() if one.name == "label by label")
    assert isinstance(section, Section)
    return section.render(None, {"metrics": metrics}, [{"facts": {"labels": labels}}])


def test_every_label_has_its_texts_and_those_that_are_correct():
    metrics = {"confusion": [[8, 2], [1, 4]], "scored_on": "dev"}
    page = rendered(metrics, ["bad", "<good>"])
    assert "Label by label" in page
    assert "dev texts" in page
    for cell in ("bad", "10", "8", "80 %", "&lt;good&gt;", "5", "4"):
        assert f'<td dir="auto">{cell}</td>' in page


def test_without_scores_or_with_other_labels_there_is_nothing():
    assert rendered({}, ["a"]) == ""
    assert rendered({"confusion": [[1]]}, ["a", "b"]) == ""
    assert rendered({"confusion": [[0, 0], [0, 0]]}, ["a", "b"]).count("<tr>") == 3
