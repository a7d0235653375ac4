"""Learn a sensor on the device, notice when it drifts, and learn that without forgetting.

    python demos/raspberry_pi/sensor.py readings.csv            # or - for standard input
    python demos/raspberry_pi/sensor.py /dev/ttyUSB0            # with pyserial, 115200 baud

Rows are numbers and, last, the name of the state; the first line of a file names the columns. The
first rows are learned: a GRU, by target projection, with INT8 weights. Later rows are answered
before they are learned from; where the errors drift (Page-Hinkley), the rows that follow become
the next task, and the directions that earlier ones need are protected. Names that the first rows
did not have are left out. Stopped, it goes on with the same command: status 2 where nothing was
begun, 3 where it stopped.
"""

import csv
import shutil
import sys
from itertools import islice
from pathlib import Path

import numpy as np

import edge_train as et
from edge_train.errors import EdgeTrainError, InputError, TrainingStopped
from edge_train.formats import network_file
from edge_train.runtimes.numpy.network import NumpyNetwork

ROWS = 16  # of a window
FIRST, AGAIN = 2000, 1000  # rows that are learned at first, and after a drift
SLACK, ALARM = 0.1, 6  # more errors than the mean that are borne; wrong answers beyond that
WRONG = 50  # rows in a row that are no numbers: then the sensor is broken
KEPT = "What was learned is kept; start the same command again to go on."


class Drift:
    """Page-Hinkley's test on wrong answers: their excess over the mean so far, since it was least.

    Source: Page, "Continuous inspection schemes" (1954), as drift detectors use it (Gama et al.,
    "A survey on concept drift adaptation", 2014).
    """

    def __init__(self):
        self.answers, self.errors, self.excess, self.least = 0, 0, 0.0, 0.0

    def wrong(self, is_wrong):
        """Count an answer; return whether the errors have drifted."""
        self.answers, self.errors = self.answers + 1, self.errors + is_wrong
        self.excess += is_wrong - self.errors / self.answers - SLACK
        self.least = min(self.least, self.excess)
        return self.excess - self.least >= ALARM


def lines_of(source):
    """Yield the lines of a serial port, of standard input or of a file.

    Raises:
      InputError: it cannot be opened.
      TrainingStopped: it went away.
    """
    try:
        file = opened(source)
    except ImportError:
        raise InputError(
            f"pyserial, which reads {source}, is not installed: pip install pyserial."
        ) from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error}).") from None
    try:
        with file:
            yield from (line.decode("utf-8", "replace") for line in file if line.strip())
    except OSError as error:  # pyserial's are, too
        raise TrainingStopped(
            f"{source} went away ({error.strerror or error}); plug it in. {KEPT}"
        ) from None


def opened(source):
    """Return a serial port, standard input or a file, to read bytes from."""
    if is_port(source):
        from serial import Serial  # pip install pyserial

        return Serial(source, 115200)
    return sys.stdin.buffer if source == "-" else open(source, "rb")


def is_port(source):
    return source.startswith("/dev/")


def rows_of(source):
    """Yield the names of the columns, then (numbers, label) of each row; say what is left out.

    A port may be joined in the middle of a line, long after the names: its first line is passed
    over, and its columns are numbered.

    Raises:
      InputError: the first line names no columns.
      TrainingStopped: the source went away, or gives no numbers any more.
    """
    lines, wrong = ((n, cells_of(line)) for n, line in enumerate(lines_of(source), 1)), 0
    _, names = next(lines, (0, []))
    if is_port(source):
        _, line = next(lines, (0, []))
        names = [*(f"column {n}" for n in range(1, len(line))), "state"]
    if len(names) < 2 or are_numbers(names[:-1]):
        raise InputError(
            f"{source}: its first line names no columns of numbers and, last, one of states: "
            f"{','.join(names)[:60]!r}."
        )
    yield names
    for number, cells in lines:
        if len(cells) == len(names) and are_numbers(cells[:-1]):
            wrong = 0
            yield [float(cell) for cell in cells[:-1]], cells[-1]
            continue
        if wrong == 0:
            print(f"line {number} is left out: {','.join(cells)[:60]!r} is no row of numbers")
        wrong += 1
        if wrong == WRONG:
            raise TrainingStopped(
                f"{source}: {WRONG} rows in a row are no numbers, the last in line {number}; "
                f"look at the sensor. {KEPT}"
            )


def cells_of(line):
    """Return the cells of a line; a quote of a torn one must not swallow the lines after it."""
    return [cell.strip(' "') for cell in line.strip().split(",")]


def are_numbers(cells):
    """Return whether all cells are finite numbers."""
    try:
        return bool(np.isfinite([float(cell) for cell in cells]).all())
    except ValueError:
        return False


def of_known(rows, first):
    """Yield rows; once the first ones are learned, those with their labels alone.

    Args:
      first: the network that learned them; it may not be there yet.
    """
    known, unknown = None, set()
    for values, label in rows:
        if known is None and first.exists():
            known = network_file.load(first).class_names
        if known is None or label in known:
            yield values, label
        elif label not in unknown:
            unknown.add(label)
            print(f"{label!r} was not among the first rows: rows of it are left out")


def keep(path, names, rows):
    """Write rows as a table.

    Raises:
      TrainingStopped: the card is full, or nothing may be written there.
    """
    try:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *([*values, label] for values, label in rows)])
    except OSError as error:
        raise TrainingStopped(
            f"{path}: cannot be written ({error.strerror}); make room there. {KEPT}"
        ) from None


def learn(out, part, label_column, steps):
    """Learn a table as one more task, or what a run that was cut off has of it; return the run."""
    run = out / f"run-{part}"
    if (run / "journal.jsonl").exists():
        return et.resume(run).wait()
    if run.exists():  # cut off before its first step
        shutil.rmtree(run)
    recipe = et.NetworkRecipe(
        data=str(out / f"part-{part}.csv"), label_column=label_column, series=(ROWS, 4),
        network="gru 32", method="tpsgd", quant="int8", momentum=0.0, steps=steps,
        next=str(out / f"run-{part - 1}") if part else None, out=str(run),
    )  # fmt: skip
    return et.run(recipe, mem="200MB").wait()


def answers(folder, rows):
    """Yield (answer, label) of every window of rows with one label."""
    saved = network_file.load(folder / "network.safetensors")
    network = NumpyNetwork(saved.network, saved.parameters)
    for window in iter(lambda: list(islice(rows, ROWS)), []):
        labels = {label for _, label in window}
        if len(window) == ROWS and len(labels) == 1:
            values = np.array([[values for values, _ in window]], np.float32)
            logits = network.predict((values - saved.mean) / saved.deviation, saved.parameters)
            yield saved.class_names[int(logits[0].argmax())], labels.pop()


def main(source, out="runs/sensor", steps=600):
    out, found = Path(out), rows_of(source)
    names = next(found)
    rows = of_known(found, out / "run-0" / "network.safetensors")
    out.mkdir(parents=True, exist_ok=True)
    part = len(list(out.glob("run-*/network.safetensors")))  # tasks that are learned
    while True:
        cut_off = (out / f"run-{part}" / "journal.jsonl").exists()
        if not cut_off:
            if part and not watch(out / f"run-{part - 1}", rows):
                break
            taught = list(islice(rows, AGAIN if part else FIRST))
            if len(taught) < AGAIN:
                print(f"{len(taught)} rows are too few to learn")
                break
            keep(out / f"part-{part}.csv", names, taught)
        metrics = learn(out, part, names[-1], steps).report["metrics"]
        rows_are = "what was cut off" if cut_off else f"{len(taught)} rows"
        print(f"learned {rows_are}: {100 * metrics['test_accuracy']:.0f} % right")
        if part:
            old = ", ".join(f"{100 * score:.0f} %" for score in metrics["tasks"]["scores"][-1][:-1])
            print(f"what was learned earlier is still answered: {old} right")
        part += 1
    print(f"{source} is over")


def watch(run, rows):
    """Answer rows by what was learned; return whether their errors drifted before they ended."""
    drift = Drift()
    for answer, label in answers(run, rows):
        if drift.wrong(answer != label):
            print(f"drift: {drift.errors} of {drift.answers} answers were wrong; learning")
            return True
    print(f"no drift; {drift.errors} of {drift.answers} answers wrong")
    return False


def script(words):
    """Return the exit status: 0, 2 where nothing was begun, 3 where it stopped, 130 by Ctrl-C."""
    if len(words) not in (1, 2):
        print("usage: sensor.py READINGS.csv|-|/dev/PORT [FOLDER]", file=sys.stderr)
        return 2
    try:
        main(*words)
    except EdgeTrainError as error:
        print(f"sensor.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(script(sys.argv[1:]))
