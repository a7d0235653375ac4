"""A backbone of pictures small enough for tests: one product of all pixels, without onnx."""

import numpy as np
from PIL import Image

from edge_train.formats.onnx_writer import GraphWriter

SIDE, WIDTH = 8, 24


def write_backbone(path, side=SIDE, width=WIDTH, entry="pixels", output="features", size=1.0):
    """Write a graph from (1, side, side, 3) pixels to (1, width) features; return its path."""
    numbers = side * side * 3
    weight = np.random.default_rng(3).standard_normal((numbers, width)).astype(np.float32)
    graph = GraphWriter()
    graph.input(entry, (1, side, side, 3))
    graph.output(output, (1, width))
    graph.weight("weight", weight * np.float32(size / (255 * np.sqrt(numbers))))
    graph.node("Flatten", [entry], ["flat"], {"axis": 1})
    graph.node("MatMul", ["flat", "weight"], ["product"])
    graph.node("Relu", ["product"], [output])
    path.write_bytes(graph.content())
    return path


def write_classes(folder, names=("cat", "dog", "owl"), count=6, noise=20, seed=0, side=16):
    """Write a folder of noisy pictures for each class, each with a pattern of its own."""
    draw = np.random.default_rng(seed)
    for number, name in enumerate(names):
        pattern = np.random.default_rng(100 + number).integers(0, 255, (4, 4, 3))
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            pixels = np.kron(pattern, np.ones((side // 4, side // 4, 1)))
            pixels = np.clip(pixels + noise * draw.standard_normal(pixels.shape), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{place}.png")
    return folder
