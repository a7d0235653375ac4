"""The files of an artifact, one after another: graphs, token tables, tokenizers, manifest."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edge_train import __version__
from edge_train.export.diffusion_graphs import IR_VERSION, OPSET
from edge_train.export.model_weights import ModelWeights
from edge_train.export.quantized_graphs import Range, fill
from edge_train.export.weight_file import PAGE, StoredWeights, WeightFile
from edge_train.formats.artifact import EMBEDDINGS, ArtifactTensor, Manifest, SlopeBasis
from edge_train.formats.atomic import write_bytes
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.manifest import MANIFEST, describe_file
from edge_train.quant import quants

# Never left to the engine: 1 keeps activations float where it joins int8 weights with a product.
_ENGINE = {"session.qdq_matmulnbits_accuracy_level": "1"}
_TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
)


def write_graph(
    path: Path,
    graph: ir.Model,
    source: ModelWeights,
    profile: str = "none",
    ranges: Mapping[str, Range] | None = None,
) -> list[ArtifactTensor]:
    """Write a graph and its weights (`name.onnx`, `name.weights`); `graph` gets its values."""
    with WeightFile(path.with_suffix(".weights")) as file:
        fill(graph, profile, source, file, ranges or {})
    ClearMetadataAndDocStringPass()(graph)  # the exporter's stack traces are most of the file
    ir.save(graph, path)
    return file.tensors


def write_graph_of_same_weights(
    path: Path,
    graph: ir.Model,
    source: ModelWeights,
    weights: str,
    tensors: Sequence[ArtifactTensor],
) -> None:
    """Write a graph that computes the same as one that `write_graph` wrote, from its weights.

    Args:
      weights: the file of the other graph, in the same folder.
      tensors: what lies in it; others may be among them.
    """
    fill(graph, "none", source, StoredWeights(path.with_name(weights), tensors), {})
    ClearMetadataAndDocStringPass()(graph)
    ir.save(graph, path)


def write_range_graph(path: Path, graph: ir.Model, names: Sequence[str]) -> None:
    """Write a graph whose outputs are the smallest and largest number of each named value.

    Args:
      graph: one that `write_graph` wrote into the same folder; its weights are shared.
    """
    measured = graph.clone()
    values = {node.outputs[0].name: node.outputs[0] for node in measured.graph}
    values |= {value.name: value for value in measured.graph.inputs}
    measured.graph.outputs.clear()
    for name in names:
        for kind in ("ReduceMin", "ReduceMax"):
            node = ir.Node("", kind, [values[name]], [ir.AttrInt64("keepdims", 0)])
            node.outputs[0].name = f"{name}/{kind}"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape(())
            measured.graph.append(node)
            measured.graph.outputs.append(node.outputs[0])
    ir.save(measured, path)


def write_embeddings(folder: Path, model: ModelFolder) -> None:
    """Copy the token tables, as stored, into one safetensors file whose data starts on a page."""
    header, offset = {}, 0
    tables = [model.token_table(component) for component in model.text_encoders]
    for component, (file, name) in zip(model.text_encoders, tables, strict=True):
        entry = file.entries[name]
        end = offset + entry.nbytes
        header[component] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    with (folder / EMBEDDINGS).open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for file, name in tables:
            raw = np.empty(file.entries[name].nbytes, np.uint8)
            file.read_into(name, raw)
            out.write(raw.data)


def copy_tokenizers(folder: Path, model: ModelFolder) -> None:
    """Copy the files that a tokenizer is read from."""
    for source in model.tokenizers:
        target = folder / source.name
        target.mkdir()
        for name in _TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)


def describe(
    folder: Path,
    model: ModelFolder,
    name: str,
    *,
    quant: str,
    resolution: int,
    tensors: Sequence[ArtifactTensor],
) -> Manifest:
    """Return the manifest of what lies in the folder, with nothing measured yet.

    Args:
      name: how the user named the model.
    """
    files = {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    return Manifest(
        requires={"ir": IR_VERSION, "opset": OPSET},
        origin={"model": name, "sha256": model.sha256(), "edge_train": __version__},
        family=model.family,
        quant=quant,
        products=quants.get(quant).products,
        calls=quants.get(quant).calls,
        engine=_ENGINE,
        resolution=resolution,
        latent_channels=model.latent_channels,
        latent_scale=model.latent_scale,
        prompt_tokens=model.prompt_tokens,
        text_widths=model.text_widths,
        scaling_factor=model.scaling_factor,
        shift_factor=model.shift_factor,
        prediction_type=model.prediction_type,
        spacing=model.spacing,
        signal=tuple(model.alphas_cumprod.tolist()),
        files=files,
        tensors=tuple(tensors),
        slopes=(),
        slopes_from=SlopeBasis(0, 0, "nothing yet"),
        safe_epsilon=0.0,
        loss_tolerance=0.0,
        forward_bytes=0,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; from here on the folder is an artifact."""
    write_bytes(folder / MANIFEST, manifest.to_bytes())
