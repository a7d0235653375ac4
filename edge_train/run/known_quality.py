"""What is known of how well a way to train learns: a word each, from rows of BENCHMARKS.md.

Measured on the embedded model (share of pictures that show the word `bag`), on Fashion-MNIST with
the network `mlp 500 500`, and on SST-2 with a small BERT. Other models and data differ in numbers;
what is better than what has held so far.
"""

from edge_train.recipe import Recipe

# (task, runtime, method, weights) -> start of the row in BENCHMARKS.md, its cell
_MEASURED: dict[tuple[str, str, str, str], tuple[str, str]] = {
    ("personalize", "torch", "backprop", "none"): ("bag, backprop", "99 %"),
    ("personalize", "torch", "zo", "none"): ("bag, zo", "99 %"),
    ("personalize", "torch", "zo", "int8"): ("bag, zo, int8 weights", "99 %"),
    ("personalize", "torch", "zo", "int4"): ("bag, zo, int4 weights", "98 %"),
    ("personalize", "onnx", "zo", "none"): ("onnx, none", "99 %"),
    ("personalize", "onnx", "zo", "int8"): ("onnx, int8", "99 %"),
    ("personalize", "onnx", "zo", "int8-fast"): ("onnx, int8-fast", "91 %"),
    ("personalize", "onnx", "zo", "int4"): ("onnx, int4", "95 %"),
    ("network", "numpy", "backprop", "none"): ("backprop", "85.3"),
    ("network", "numpy", "backprop", "int8"): ("backprop, int8 weights", "84.2"),
    ("network", "numpy", "tpsgd", "none"): ("tpsgd", "84.0"),
    ("network", "numpy", "tpsgd", "int8"): ("tpsgd, int8 weights", "82.9"),
    ("network", "numpy", "local", "none"): ("local", "85.3"),
    ("network", "numpy", "dfa", "none"): ("dfa", "85.2"),
    ("network", "numpy", "drtp", "none"): ("drtp", "81.7"),
    ("classify", "torch", "adamw", "none"): ("torch", "77.1 %"),
    ("classify", "ort-training", "adamw", "none"): ("ort-training", "77.1 %"),
}
_WHERE = {"personalize": "bag", "network": "Fashion-MNIST", "classify": "SST-2"}


def known_quality(recipe: Recipe) -> str:
    """Return where a way was measured and what it reached.

    Args:
      recipe: with every default filled in.

    >>> known_quality(Recipe(runtime="onnx", method="zo", quant="int4"))
    'bag 95 %'
    """
    method = recipe.method
    if recipe.task == "classify" and method == "backprop":
        method = "adamw"  # one thing with two names there
    found = _MEASURED.get((recipe.task, recipe.runtime, method, recipe.quant))
    if found is None:
        return "not measured"
    return f"{_WHERE[recipe.task]} {found[1].removesuffix(' %')} %"
