"""Record what edge-train produces, and compare two records: `python tests/support/same_results`.

    record OUT [--models DIR] [--only PATTERN] [--desk PYTHON] [--device PYTHON] [--code FOLDER]
    unstable A B    two records of one code: what differs is noted in A and left out from then on
    compare A B     exit status 1 if anything else differs

Everything goes through the command line, so the code inside may be moved as one likes. Values are
compared bit for bit: both records must come from the same machine and environments.
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cases import CASES, Case
from files import fields, results, sentences

ROOT = Path(__file__).resolve().parents[3]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MOST_SECONDS = 300  # of one command; far above any of them
_SHOWN = 20  # differences of one case
Values = dict[str, Any]


def main() -> int:
    """Run one of the three commands; return its exit status."""
    parser = argparse.ArgumentParser(prog="same_results", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("out", type=Path)
    record.add_argument("--models", type=Path, help="of an earlier record; else made in OUT/models")
    record.add_argument("--only", default="*", help="names of cases, such as 'classify-*'")
    record.add_argument("--desk", type=Path, default=ROOT / ".venv/bin/python")
    record.add_argument("--device", type=Path, default=ROOT / ".venv-device/bin/python")
    record.add_argument("--code", type=Path, default=ROOT, help="folder that holds edge_train")
    for name in ("unstable", "compare"):
        command = commands.add_parser(name)
        command.add_argument("first", type=Path)
        command.add_argument("second", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        return Recorder(options).record(options.only)
    if options.command == "unstable":
        return _note_unstable(options.first, options.second)
    return _compare(options.first, options.second)


class Recorder:
    """Runs cases in a folder: what they leave in `cases/`, their values in `values/`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out = options.out.resolve()
        self.models = (options.models or self.out / "models").resolve()
        # Not resolved: the link's own folder is what makes it an environment.
        self.python = {True: options.desk.absolute(), False: options.device.absolute()}
        self.environment = {
            **os.environ,
            **dict.fromkeys(_ONE_THREAD, "1"),
            "PYTHONPATH": str(options.code.resolve()),
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": "0",  # peft writes a set, in the order of its hashes
        }
        self.places = {
            str(self.out / "cases"): "<cases>",
            str(self.models): "<models>",
            str(options.code.resolve()): "<code>",
        }

    def record(self, only: str) -> int:
        """Run the cases whose name fits; return 1 if one of them failed."""
        if not self.models.exists():
            self._make_models()
        (self.out / "values").mkdir(parents=True, exist_ok=True)
        failed = False
        for case in CASES:
            if not fnmatch.fnmatch(case.name, only):
                continue
            began = time.monotonic()
            values = self._values(case)
            text = json.dumps(values, indent=1) + "\n"
            (self.out / "values" / f"{case.name}.json").write_text(text, "utf-8")
            count = sum(1 for _ in fields(values))
            good = not any(values["status"])
            failed |= not good
            state = f"{count:6} values" if good else f"FAILED {values['status']}"
            print(f"{case.name:44} {state} {time.monotonic() - began:6.1f} s", flush=True)
            if not good:
                print("\n".join(f"    {line}" for line in values["errors"]), flush=True)
        return int(failed)

    def _make_models(self) -> None:
        script = "import sys, pathlib; from models import make_models; "
        script += "make_models(pathlib.Path(sys.argv[1]))"
        environment = dict(self.environment)
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
        command = [self.python[True], "-c", script, str(self.models)]
        subprocess.run(command, env=environment, check=True)

    def _values(self, case: Case) -> Values:
        """Run a case from its beginning; return all that it printed and left."""
        folder = self.out / "cases" / case.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if case.recipe:
            lines = [f"{k} = {json.dumps(self._filled(v))}" for k, v in case.recipe.items()]
            (folder / "recipe.toml").write_text("\n".join(lines) + "\n")
        values: Values = {"status": [], "said": [], "errors": []}
        self._run(case, [self._filled(word) for word in case.words], values)
        run = folder / "run"
        for name in case.then:
            if any(values["status"]):
                break
            self._run(case, _THEN[name](run), values)
        values["files"] = results(folder, self.places, case.left_out)
        return values

    def _filled(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return value.format(models=self.models, cases=self.out / "cases")

    def _run(self, case: Case, words: list[str], values: Values) -> None:
        done = subprocess.run(
            [self.python[case.desk], "-m", "edge_train", *words],
            cwd=self.out / "cases" / case.name,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
        values["status"].append(done.returncode)
        values["said"].append(sentences(done.stdout, self.places))
        if done.returncode:
            values["errors"] += done.stderr.strip().splitlines()[-5:]


def _report(run: Path) -> list[str]:
    for name in ("report.json", "report.html"):
        (run / name).unlink()
    return ["report", str(run)]


def _generate(run: Path) -> list[str]:
    return ["generate", str(run), "--count", "2", "--steps", "2"]


def _more(run: Path) -> list[str]:
    """Make a finished run look as if it was killed half-way, after its last checkpoint."""
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "end"]
    (run / "journal.jsonl").write_bytes(b"".join(kept))
    recipe = (run / "recipe.toml").read_text().splitlines()
    recipe = [f"steps = {2 * int(x[8:])}" if x.startswith("steps = ") else x for x in recipe]
    (run / "recipe.toml").write_text("\n".join(recipe) + "\n")
    return ["run", "--resume", str(run), "--json"]


def _replay(run: Path) -> list[str]:
    """Leave nothing of a finished run but the first half of its journal."""
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    steps = [n for n, line in enumerate(lines) if json.loads(line)["kind"] == "step"]
    (run / "journal.jsonl").write_bytes(b"".join(lines[: steps[len(steps) // 2]]))
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    return ["run", "--resume", str(run), "--json"]


_THEN = {"report": _report, "generate": _generate, "more": _more, "replay": _replay}


def _read(record: Path) -> dict[str, Values]:
    paths = sorted((record / "values").glob("*.json"))
    if not paths:
        sys.exit(f"{record}: no record; make one with `record {record}`.")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def _differences(first: Values, second: Values) -> Iterator[tuple[str, Any, Any]]:
    """Yield file, field and both values of whatever differs in a case."""
    ours, theirs = ({name: list(_of(part)) for name, part in _parts(v)} for v in (first, second))
    for part in sorted(ours.keys() | theirs.keys()):
        one, other = dict(ours.get(part, ())), dict(theirs.get(part, ()))
        if not one or not other:
            yield part, "" if not one else "there", "" if not other else "there"
            continue
        for name in [*one, *(n for n in other if n not in one)]:
            if (a := one.get(name, "absent")) != (b := other.get(name, "absent")):
                yield f"{part}: {name}", a, b


def _parts(values: Values) -> Iterator[tuple[str, Any]]:
    yield from ((name, values[name]) for name in ("status", "said", "errors"))
    yield from values["files"].items()


def _of(part: Any) -> Iterator[tuple[str, Any]]:
    return fields(part)


def _note_unstable(first: Path, second: Path) -> int:
    ours, theirs = _read(first), _read(second)
    found = {
        name: [where for where, *_ in _differences(ours[name], theirs[name])]
        for name in ours.keys() & theirs.keys()
    }
    found = {name: found[name] for name in sorted(found) if found[name]}
    (first / "unstable.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for name, places in found.items():
        for place in places:
            print(f"{name}: {place}")
    print(f"{sum(map(len, found.values()))} values differ between two runs of the same code")
    return 0


def _unstable(record: Path) -> Mapping[str, list[str]]:
    path = record / "unstable.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _compare(first: Path, second: Path) -> int:
    ours, theirs = _read(first), _read(second)
    left_out = [_unstable(first), _unstable(second)]
    print(f"{'case':44} {'compared':>9} {'left out':>9} {'differ':>7}")
    total = 0
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            print(f"{name:44} only in {first if name in ours else second}")
            total += 1
            continue
        skip = {place for record in left_out for place in record.get(name, ())}
        found = [d for d in _differences(ours[name], theirs[name]) if d[0] not in skip]
        count = sum(1 for _, part in _parts(ours[name]) for _ in _of(part))
        print(f"{name:44} {count - len(skip):9} {len(skip):9} {len(found):7}")
        for place, a, b in found[:_SHOWN]:
            print(f"    {name}: {place}: {a!r} -> {b!r}")
        if len(found) > _SHOWN:
            print(f"    and {len(found) - _SHOWN} more")
        total += len(found)
    print("the same results" if not total else f"{total} differences")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
