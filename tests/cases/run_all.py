"""Try what people bring: `python tests/cases/run_all.py [NUMBER ...]` prints a line a case.

Each case stands for a public bug report of a program of this field; `--list` prints them. Inputs
are made anew (inputs.py) or taken from `--inputs FOLDER`. Status 1 if a case does not pass.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common_jobs  # noqa: F401 (registers its cases)
import courtesies  # noqa: F401
import wrong_results  # noqa: F401
from trying import CASES, Case, Place, Unexpected


def attempt(case: Case, inputs: Path, out: Path) -> str:
    """Return what is to be printed behind the case's number: pass, fail or left out, and why."""
    if case.only_root and os.geteuid() != 0:
        return "left out (needs root)"
    place = Place(inputs, out)
    out.mkdir()
    try:
        case.attempt(place)
    except Unexpected as unexpected:
        return f"FAIL: {unexpected}"
    except Exception as error:  # noqa: BLE001 (a line a case, whatever happens in one)
        return f"FAIL: {type(error).__name__}: {error}"
    return "pass"


def main() -> int:
    """Try the cases and return the exit status."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("numbers", nargs="*", help="cases to try; all without")
    words.add_argument("--inputs", type=Path, help="folder made by inputs.py")
    words.add_argument("--jobs", type=int, default=1, help="cases at once")
    words.add_argument("--list", action="store_true", help="print the cases and try none")
    asked = words.parse_args()
    unknown = sorted(set(asked.numbers) - {case.number for case in CASES})
    if unknown:
        words.error(f"no case {', '.join(unknown)}; --list prints them")
    chosen = [case for case in CASES if not asked.numbers or case.number in asked.numbers]
    if asked.list:
        print("\n".join(f"{case.number:>3} {case.title}" for case in chosen))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        inputs = asked.inputs
        if inputs is None:
            from inputs import make

            inputs = Path(scratch, "inputs")
            make(inputs)
        with ThreadPoolExecutor(asked.jobs) as pool:
            outs = [Path(scratch, f"case-{number}") for number in range(len(chosen))]
            results = pool.map(attempt, chosen, [inputs.resolve()] * len(chosen), outs)
            failed = left_out = 0
            for case, result in zip(chosen, results, strict=True):
                print(f"{case.number:>3} {case.title}: {result}", flush=True)
                failed += result.startswith("FAIL")
                left_out += result.startswith("left out")
    passed = len(chosen) - failed - left_out
    print(f"{passed} of {len(chosen)} cases pass, {failed} fail, {left_out} left out")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
