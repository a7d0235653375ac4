"""Tables in every format that is read, written by the standard library for tests."""

import csv
import gzip
import io
import json


def write_table(
    path, rows, *, delimiter=None, coding="utf-8", head=True, quoting=csv.QUOTE_MINIMAL
):
    """Write rows, which are mappings with the same keys, in the format of the file's name."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif kind == "json":
        text = json.dumps(rows, ensure_ascii=False)
    else:
        lines = io.StringIO(newline="")
        delimiter = delimiter or {"tsv": "\t"}.get(kind, ",")
        writer = csv.writer(lines, delimiter=delimiter, quoting=quoting, lineterminator="\n")
        writer.writerows([list(rows[0])] if head else [])
        writer.writerows(row.values() for row in rows)
        text = lines.getvalue()
    content = text.encode(coding)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return path
