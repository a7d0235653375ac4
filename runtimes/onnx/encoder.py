"""A frozen text encoder on ONNX Runtime: hidden values of tokens, from a graph."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.memory.measure import give_back_memory
from edge_train.runtimes.onnx.engine import call, load_graph, session_settings

_NAMES = {
    "input_ids": "ids",
    "ids": "ids",
    "attention_mask": "mask",
    "mask": "mask",
    "token_type_ids": "types",
    "types": "types",
}


class OnnxEncoder:
    """A graph of ids and mask, and maybe types, whose first output of three axes is hidden values.

    Raises:
      ModelError: no engine, a damaged file, or a graph of anything else.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        settings = session_settings(threads)
        settings.enable_cpu_mem_arena = False  # texts of every length come: an arena keeps all
        self._session: Any = load_graph(path, settings, ["CPUExecutionProvider"])
        self._inputs = [given.name for given in self._session.get_inputs()]
        if {_NAMES.get(name) for name in self._inputs} - {"types"} != {"ids", "mask"}:
            raise ModelError(
                f"{path}: takes {', '.join(self._inputs)}, expected input_ids and attention_mask; "
                "export it with `edge-train export MODEL OUT --for retrieve`."
            )
        outputs = [one.name for one in self._session.get_outputs() if len(one.shape) == 3]
        if not outputs:
            raise ModelError(
                f"{path}: no output has hidden values of every token (texts, tokens, width); "
                "export it with `edge-train export MODEL OUT --for retrieve`."
            )
        self._output = outputs[0]

    def hidden(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
        """Return the last hidden values (texts, tokens, width) of padded ids (texts, tokens)."""
        values = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
        feeds = {name: values[_NAMES[name]] for name in self._inputs}
        found: Array = call(self._session, [self._output], feeds)[0]
        return found

    def close(self) -> None:
        """Let go of the session."""
        self._session = None
        give_back_memory()
