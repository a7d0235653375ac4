"""Round after round: a server's messages go out through a grid, answers come in."""

from collections.abc import Callable, Mapping
from typing import Protocol

from edge_train.fleet.rounds import NONE
from edge_train.fleet.server import Server


class Grid(Protocol):
    """The devices that can be reached."""

    def nodes(self) -> list[int]:
        """Return their numbers."""
        ...

    def exchange(self, messages: Mapping[int, bytes], seconds: float) -> list[tuple[int, bytes]]:
        """Return what was answered within some seconds, or by all, in the order of arrival."""
        ...


def train(
    server: Server, grid: Grid, deadline: float, wait: Callable[[], None], tries: int = 20
) -> None:
    """Take rounds until training is over, then tell the devices that it is.

    Args:
      deadline: seconds for the answers of a round.
      wait: called while no device is there.
      tries: exchanges in which devices that have to catch up are told the end.
    """
    while not server.is_over or tries:
        nodes = grid.nodes()
        messages = server.messages(nodes)
        if server.is_over:
            tries -= 1
            messages = {n: m for n, m in messages.items() if server.devices[n].known != NONE}
            if not messages:
                return
        elif not messages:
            wait()
            continue
        for node, content in grid.exchange(messages, deadline):
            server.take(node, content)
        if not server.is_over and not server.close():
            wait()
