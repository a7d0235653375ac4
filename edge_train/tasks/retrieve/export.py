"""From an encoder's folder to its graph, for devices without torch; compared with torch's."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_train.errors import ModelError
from edge_train.export.encoder_graph import write_encoder
from edge_train.formats.atomic import check_free, whole_folder
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.encoder_folder import GRAPHS
from edge_train.formats.hub import find_folder
from edge_train.formats.tokenizer_files import tokenizer_files
from edge_train.rng import Key
from edge_train.runtimes.onnx.encoder import OnnxEncoder
from edge_train.runtimes.torch.encoder import TorchEncoder
from edge_train.units import format_bytes

_CHECKED_TEXTS, _CHECKED_LENGTH = 4, 16
_MOST_DIFFERENCE = 1e-3  # of the values' root mean square; rounding alone is far below 1e-5


def export_encoder(
    name: str, out: Path, *, threads: int | None, say: Callable[[str], None]
) -> None:
    """Write the graph, configuration and tokenizer of an encoder into `out`, or nothing.

    Args:
      name: the folder or hub id of an encoder of transformers.
      say: told what happens, a line at a time.

    Raises:
      InputError, ModelError: one sentence about what the user must change.
    """
    check_free(out)
    folder = open_classifier(*find_folder(name, "edge-train export"))
    with whole_folder(out) as partial:
        say("exporting the graph")
        exact = TorchEncoder(folder, threads=threads or 1, attention="eager")
        write_encoder(partial / GRAPHS[0], exact.network, folder.positions)
        for file in ("config.json", *tokenizer_files(folder.path)):
            if (folder.path / file).is_file():
                shutil.copyfile(folder.path / file, partial / file)
        graph = OnnxEncoder(partial / GRAPHS[0], threads=threads or 1)
        draw = Key(0, 0).generator("texts")
        length = min(_CHECKED_LENGTH, folder.positions)
        shape = (_CHECKED_TEXTS, length)
        counts = draw.integers(2, length + 1, _CHECKED_TEXTS)
        mask = (np.arange(length) < counts[:, None]).astype(np.int64)
        ids = np.where(mask, draw.integers(0, folder.vocabulary, shape), folder.pad)
        wanted, found = (one.hidden(ids, mask)[mask > 0] for one in (exact, graph))
        apart = float(np.abs(found - wanted).max() / np.sqrt(np.square(wanted).mean()))
        exact.close()
        graph.close()
        if not apart < _MOST_DIFFERENCE:
            raise ModelError(
                f"{folder.path}: the graph's values differ from torch's by {apart:.1e}, more than "
                "rounding explains; run it with --runtime torch."
            )
        say(f"compared with torch: values differ by {apart:.1e}")
    size = format_bytes(sum(file.stat().st_size for file in out.iterdir()))
    say(f"{out}: {size}; use it with `edge-train run NOTES --task retrieve --model {out}`")
