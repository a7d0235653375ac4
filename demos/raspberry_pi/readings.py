"""Readings of a made-up machine in three states, to try sensor.py without a sensor.

    python demos/raspberry_pi/readings.py > readings.csv

Two accelerations and, last, what the machine does. From row 2600 on the sensor is mounted the other
way, with another gain.
"""

import sys

import numpy as np

STATES = {"idle": (0.1, 0.0), "slow": (0.6, 0.25), "fast": (1.0, 0.9)}  # size, speed
NOISE = 0.1


def series(total: int, drifted: int, seed: int = 0) -> list[str]:
    """Return rows of text; from row `drifted` on the sensor is mounted the other way."""
    draw, rows = np.random.default_rng(seed), list[str]()
    while len(rows) < total:
        name = list(STATES)[draw.integers(3)]
        size, speed = STATES[name]
        for t in range(draw.integers(90, 130)):
            x, y = size * np.array([np.sin(speed * t), np.cos(speed * t)])
            x, y = np.array([x, y]) + NOISE * draw.standard_normal(2)
            if len(rows) >= drifted:
                x, y = 0.4 * x + 1.5, -0.4 * y - 1.5
            rows.append(f"{x:.4f},{y:.4f},{name}")
    return rows[:total]


if __name__ == "__main__":
    sys.stdout.write("\n".join(["x,y,state", *series(4200, drifted=2600)]) + "\n")
