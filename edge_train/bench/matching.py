"""The cheapest matching of two equal sets, exactly: what the Wasserstein distance of clouds is."""

import numpy as np
from numpy.typing import NDArray


def matched(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each column the row that it is matched with, for the least total cost.

    Shortest augmenting paths with potentials: O(n^3), a row of NumPy at a time.

    Args:
      cost: (n, n).

    >>> matched(np.array([[4.0, 1.0], [2.0, 3.0]])).tolist()
    [1, 0]
    """
    count = len(cost)
    of_rows, of_columns = np.zeros(count), np.zeros(count + 1)
    row_of = np.full(count + 1, -1, np.int64)
    for row in range(count):
        row_of[count], column = row, count
        least = np.full(count, np.inf)
        way = np.full(count, count, np.int64)
        used = np.zeros(count + 1, np.bool_)
        while row_of[column] >= 0:
            used[column] = True
            free = ~used[:count]
            here = row_of[column]
            reduced = cost[here] - of_rows[here] - of_columns[:count]
            better = free & (reduced < least)
            least[better], way[better] = reduced[better], column
            following = int(np.where(free, least, np.inf).argmin())
            delta = least[following]
            of_rows[row_of[used]] += delta
            of_columns[used] -= delta
            least[free] -= delta
            column = following
        while column != count:
            row_of[column] = row_of[way[column]]
            column = int(way[column])
    return row_of[:count]


def wasserstein2(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return the Wasserstein-2 distance of two clouds of as many points, (n, 3) each."""
    cost = np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2)
    rows = matched(cost)
    return float(np.sqrt(cost[rows, np.arange(len(rows))].mean()))
