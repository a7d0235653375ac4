"""Learn a sensor on the device, notice when it drifts, and learn that without forgetting.

    python demos/raspberry_pi/sensor.py readings.csv            # or - for standard input
    python demos/raspberry_pi/sensor.py /dev/ttyUSB0            # with pyserial, 115200 baud

Rows are numbers and, last, the name of what was going on; the first line names the columns. The
first rows are learned: a GRU, by target projection, with INT8 weights. Later rows are answered
before they are learned from; where the errors drift (Page-Hinkley), the rows that follow become
the next task, and the directions that earlier ones need are protected. Stopped, it goes on with
the same command.
"""

import csv
import sys
from itertools import islice
from pathlib import Path

import numpy as np

import edge_train as et
from edge_train.errors import EdgeTrainError, InputError
from edge_train.formats import network_file
from edge_train.runtimes.numpy.network import NumpyNetwork

ROWS = 16  # of a window
FIRST, AGAIN = 2000, 1000  # rows that are learned at first, and after a drift
SLACK, ALARM = 0.1, 6  # more errors than the mean that are borne; wrong answers beyond that
WRONG = 50  # rows in a row that are no numbers: then the sensor is broken


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
    """Yield the lines of a serial port, of standard input or of a file."""
    if source.startswith("/dev/"):
        from serial import Serial  # pip install pyserial

        with Serial(source, 115200) as port:
            yield from (line.decode("utf-8", "replace") for line in port)
    elif source == "-":
        yield from sys.stdin
    else:
        with open(source, newline="") as file:
            yield from file


def rows_of(source):
    """Yield the names of the columns, then (numbers, label) of each row; say what is left out."""
    table, wrong = csv.reader(lines_of(source)), 0
    names = next(table, [])
    yield names
    for number, cells in enumerate(table, 2):
        try:
            values = [float(cell) for cell in cells[:-1]]
            if len(cells) != len(names) or not np.isfinite(values).all():
                raise ValueError
            wrong = 0
            yield values, cells[-1]
        except ValueError:
            if wrong == 0:
                print(f"line {number} is left out: {','.join(cells)[:60]!r} is no row of numbers")
            wrong += 1
            if wrong == WRONG:
                raise InputError(
                    f"{source}: {WRONG} rows in a row are no numbers, the last in line {number}; "
                    "look at the sensor. What was learned is kept; the same command goes on."
                ) from None


def learn(out, part, names, rows, steps):
    """Learn the rows as one more task, or what a run that was cut off has of it; return the run."""
    data, run = out / f"part-{part}.csv", out / f"run-{part}"
    if (run / "journal.jsonl").exists():
        return et.resume(run).wait()
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([names, *([*values, label] for values, label in rows)])
    before = str(out / f"run-{part - 1}") if part else None
    recipe = et.NetworkRecipe(
        data=str(data), label_column=names[-1], series=(ROWS, 4), network="gru 32", method="tpsgd",
        quant="int8", momentum=0.0, steps=steps, next=before, out=str(run),
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
    out, rows = Path(out), rows_of(source)
    out.mkdir(parents=True, exist_ok=True)
    names = next(rows)
    part = len(list(out.glob("run-*/network.safetensors")))  # tasks that are learned
    while True:
        if part == 0 or (out / f"run-{part}").exists():  # the first, or one that was cut off
            drifted = True
        else:
            drifted = watch(out / f"run-{part - 1}", rows)
        if not drifted:
            print(f"{source} is over")
            return
        taught = list(islice(rows, AGAIN if part else FIRST))
        if len(taught) < AGAIN and not (out / f"run-{part}").exists():
            print(f"{source} is over; {len(taught)} rows are too few to learn")
            return
        metrics = learn(out, part, names, taught, steps).report["metrics"]
        print(f"learned {len(taught)} rows: {100 * metrics['test_accuracy']:.0f} % right")
        if part:
            old = ", ".join(f"{100 * score:.0f} %" for score in metrics["tasks"]["scores"][-1][:-1])
            print(f"what was learned earlier is still answered: {old} right")
        part += 1


def watch(run, rows):
    """Answer rows by what was learned; return whether their errors drifted before they ended."""
    drift = Drift()
    for answer, label in answers(run, rows):
        if drift.wrong(answer != label):
            print(f"drift: {drift.errors} of {drift.answers} answers were wrong; learning")
            return True
    print(f"no drift; {drift.errors} of {drift.answers} answers wrong")
    return False


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except EdgeTrainError as error:
        sys.exit(f"sensor.py: {error}")
