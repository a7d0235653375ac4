"""Flower's two apps of a fleet; the only file that imports Flower."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import EdgeTrainError, InputError
from edge_train.fleet.averaging import Average, MeanOfWeights
from edge_train.fleet.device import Device, Settings
from edge_train.fleet.server import Server
from edge_train.fleet.turns import train
from edge_train.fleet.wire import STOPPED, TAG_BYTES, Answer
from edge_train.records.folder import RunFolder
from edge_train.records.lock import only_writer

_RECORD, _CONTENT = "e", "m"  # short: they are sent every round
_PAUSE_SECONDS = 0.2  # between two looks for answers
_WAIT_SECONDS = 1.0  # where no device is there


def server_app(file: str) -> Any:
    """Return the app of the server.

    Args:
      file: of the app's module, beside which its recipe lies.
    """
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator] # Flower may not be installed
    def main(grid: Any, context: Any) -> None:
        config = context.run_config
        folder = Path(str(config["folder"])).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        recipe = RunFolder(folder).recipe
        recipe.write_bytes((Path(file).parent / "recipe.toml").read_bytes())
        with only_writer(folder, _say):
            rule, trim = str(config["average"]), float(config["trim"])
            server = Server(
                folder,
                Average(rule, trim),  # type: ignore[arg-type]
                int(config["quorum"]),
                _say,
                mixed=bool(config["mixed"]),
                exchange=str(config["exchange"]),
                weights=mean_of_weights(rule, trim),
            )
            try:
                deadline = float(config["deadline"])
                train(server, FlowerGrid(grid), deadline, lambda: time.sleep(_WAIT_SECONDS))
            finally:
                server.book.close()
        _say(f"{server.book.over}: {server.book.steps} steps are in {folder}")

    return app


def mean_of_weights(rule: str, trim: float) -> MeanOfWeights:
    """Return the mean of Flower's own strategies: FedAvg, FedTrimmedAvg or FedMedian."""
    from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
    from flwr.serverapp import strategy

    of = {
        "mean": strategy.FedAvg,
        "median": strategy.FedMedian,
        "trimmed": partial(strategy.FedTrimmedAvg, beta=trim),
    }
    if rule not in of:
        raise InputError(f"fleet: average is {rule!r}, choose one of {', '.join(of)}.")
    one = of[rule]()

    def mean(rows: Sequence[Sequence[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        replies = []
        for blocks in rows:
            arrays = ArrayRecord({str(n): Array(block) for n, block in enumerate(blocks)})
            # each device took the same number of steps
            content = RecordDict({"arrays": arrays, "said": MetricRecord({"num-examples": 1})})
            asked = Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
            replies.append(Message(content, reply_to=asked))
        found, _ = one.aggregate_train(0, replies)
        return [found[str(n)].numpy().astype(np.float32) for n in range(len(rows[0]))]

    return mean


class FlowerGrid:
    """The devices that Flower reaches."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid

    def nodes(self) -> list[int]:
        """Return their node ids."""
        return sorted(self._grid.get_node_ids())

    def exchange(self, messages: Mapping[int, bytes], seconds: float) -> list[tuple[int, bytes]]:
        """Return what was answered within some seconds, or by all."""
        from flwr.app import ConfigRecord, Message, MessageType, RecordDict

        pushed = [
            Message(
                RecordDict({_RECORD: ConfigRecord({_CONTENT: content})}),
                dst_node_id=node,
                message_type=MessageType.TRAIN,
                ttl=seconds + _WAIT_SECONDS,
            )
            for node, content in messages.items()
        ]
        waiting = set(self._grid.push_messages(pushed))
        found: list[tuple[int, bytes]] = []
        end = time.monotonic() + seconds
        while waiting and time.monotonic() < end:
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                content = _content_of(reply)
                if content is not None:
                    found.append((reply.metadata.src_node_id, content))
            if waiting:
                time.sleep(_PAUSE_SECONDS)
        return found


def _content_of(message: Any) -> bytes | None:
    """Return our bytes in a message; None where a client failed, empty in a message of others."""
    if not message.has_content():
        return None
    record = message.content.get(_RECORD)
    content = record.get(_CONTENT) if isinstance(record, Mapping) else None
    return content if isinstance(content, bytes) else b""


def client_app(file: str) -> Any:
    """Return the app of a device.

    Args:
      file: of the app's module, beside which its recipe lies.
    """
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def measure(message: Any, context: Any) -> Any:
        content = _answer(Path(file).parent / "recipe.toml", message, context)
        return Message(RecordDict({_RECORD: ConfigRecord({_CONTENT: content})}), reply_to=message)

    return app


def _answer(recipe: Path, message: Any, context: Any) -> bytes:
    config, node = context.run_config, context.node_config
    try:
        folder = Path(str(node.get("folder", f"fleet-{context.node_id}"))).expanduser().absolute()
        own = {name: str(value) for name, value in node.items() if name != "folder"}
        clip, noise, idle = (float(config[name]) for name in ("clip", "noise", "idle"))
        settings = Settings(clip, noise, idle, str(config["exchange"]))
        device = Device(folder, recipe, own, settings)
        return device.answer(_content_of(message) or b"", float(config["deadline"]))
    except EdgeTrainError as error:
        _say(str(error))
        return Answer(STOPPED, bytes(TAG_BYTES), 0, text=str(error)[:300]).encode()


def _say(text: str) -> None:
    print(f"edge-train: {text}", flush=True)
