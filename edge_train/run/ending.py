"""The report of a run, written whole or not at all."""

import json
from pathlib import Path

from edge_train.formats.atomic import write_bytes
from edge_train.records.history import read_records, summary_of
from edge_train.registry import load
from edge_train.report.section import sections
from edge_train.tasks import tasks


def write_report(run: Path) -> Path:
    """Write `report.json` and `report.html` into a run folder; return the path of the page.

    The run may be unfinished: the report says so. Each file is replaced whole or not at all.

    Raises:
      RunFolderError: `run` has no journal, nothing was trained yet, or it cannot be written.
    """
    from edge_train.report.page import render  # 2 MB that training does not need

    records = read_records(run)
    summary = summary_of(records)
    page = run / "report.html"
    write_bytes(run / "report.json", (json.dumps(summary, indent=2) + "\n").encode())
    facts = records[0]["facts"]
    task = tasks.all().get(facts.get("task", ""))  # of a package that may be gone by now
    own = load(task.sections)() if task and task.sections else ()
    others = [s for s in sections.all().values() if s.task in (None, facts.get("task"))]
    title = task.title(facts) if task else f"Run: {facts.get('task')}"
    write_bytes(page, render(run, summary, records, title, [*own, *others]).encode())
    return page
