"""The cases of the record: one short run or export for every task, engine, weights and method.

A case names its commands as a user would type them. `{models}` is the folder of tiny models and
data, `{cases}` the folder where every case has one of its name: a later case may read what an
earlier one left, so the order matters.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Case:
    """One thing that edge-train does today.

    Attributes:
      name: task, engine, weights and what is special; also the name of its folder.
      desk: whether it needs the desk environment (torch, onnxruntime-training).
      words: of the command line, after `python -m edge_train`.
      recipe: keys of a recipe file, for what has no flag; the file is named `recipe.toml`.
      then: what happens to the finished run, in order: `report` makes its report again, `more` goes
        on to twice the steps from the last checkpoint, `replay` goes on from half of the journal
        without any checkpoint, `generate` draws with the word that was learned.
      left_out: keys whose values no two runs of the same code share.
    """

    name: str
    desk: bool
    words: tuple[str, ...]
    recipe: dict[str, object] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


# The manifest is hashed too, and holds the memory that one forward pass was measured to take.
_HASH_OF_ARTIFACT = ("model_sha256", "metadata model_sha256", "metadata base_model_sha256")
_PREVIEW = "--preview-steps 2 --prompt 'a photo of {{}}'"


def _case(name: str, desk: bool, words: str, *then: str, **recipe: object) -> Case:
    import shlex

    return Case(name, desk, tuple(shlex.split(words)), recipe, then)


def _word(name: str, desk: bool, words: str, *then: str) -> Case:
    """Return a run that learns a word from two photos in a few steps."""
    base = "run {models}/photos --out {cases}/" + name + "/run --json --threads 1 --steps 6"
    pictures = "" if "--no-previews" in words or "tiny-sd" in words else _PREVIEW
    case = _case(name, desk, f"{base} {pictures} --evaluate-every 3 {words}", *then)
    return replace(case, left_out=_HASH_OF_ARTIFACT) if "export-onnx" in words else case


def _classify(name: str, desk: bool, words: str, *then: str) -> Case:
    """Return a run of a text classifier; options in `words` come last, so they win."""
    base = "run --task classify --data {models}/texts --model {models}/bert --json --threads 1"
    sizes = "--steps 12 --samples 8 --evaluate-every 4 --lr 5e-3 --schedule constant"
    return _case(name, desk, f"{base} --out {{cases}}/{name}/run {sizes} {words}", *then)


def _language(name: str, words: str, *then: str) -> Case:
    """Return a run of a language model from random weights."""
    base = "run --task language-model --data {models}/text.txt --model {models}/llama --json"
    sizes = "--threads 1 --length 16 --steps 12 --lr 1e-2 --evaluate-every 4 --schedule constant"
    return _case(name, True, f"{base} --out {{cases}}/{name}/run {sizes} {words}", *then)


def _network(name: str, *then: str, **recipe: object) -> Case:
    """Return a run of a small network from a recipe; it needs no engine but NumPy."""
    base = "run --recipe recipe.toml --json --out {cases}/" + name + "/run"
    keys = {"task": "network", "data": "{models}/pictures.npz", "network": "mlp 20 16"}
    sizes = {"steps": 20, "samples": 20, "evaluate_every": 5, "schedule": "constant"}
    return Case(name, False, tuple(base.split()), {**keys, **sizes, **recipe}, then)


_RANK = "--rank 4 --refresh-every 3"
_SD = "--model {models}/sd --class dog"

PERSONALIZE = (
    _word("personalize-torch-none-zo", True, f"{_SD} --method zo", "report", "generate"),
    _word("personalize-torch-none-zo-replay", True, f"{_SD} --method zo --no-previews", "replay"),
    _word("personalize-torch-none-zoodip", True, f"{_SD} --method zo --preset zoodip"),
    _word("personalize-torch-none-backprop", True, f"{_SD} --method backprop", "more"),
    _word("personalize-torch-none-lean", True, f"{_SD} --method zo --lean"),
    _word(
        "personalize-torch-none-bfloat16", True, f"{_SD} --method zo --dtype bfloat16 --epsilon 0.1"
    ),
    _word("personalize-torch-int8-zo", True, f"{_SD} --method zo --quant int8", "more"),
    _word("personalize-torch-int8-backprop", True, f"{_SD} --method backprop --quant int8"),
    _word("personalize-torch-int4-zo", True, f"{_SD} --method zo --quant int4"),
    _word("personalize-torch-int4-backprop", True, f"{_SD} --method backprop --quant int4"),
    _word(
        "personalize-torch-none-sd2-vectors",
        True,
        "--model {models}/sd2 --class thing --vectors 2 --no-flips --method backprop",
    ),
    _word("personalize-torch-none-sdxl", True, "--model {models}/sdxl --class dog --method zo"),
    _word(
        "personalize-torch-none-embedded-style",
        True,
        "--model tiny-sd --learn style --method zo --steps 2 --no-previews --samples 1 --queries 1",
    ),
    _word(
        "personalize-torch-none-embedded",
        True,
        "--model tiny-sd --method backprop --preview-steps 2 --batch-limit 4",
    ),
)

ARTIFACTS = (
    *(
        _case(
            f"export-onnx-{quant}",
            True,
            f"export {{models}}/sd {{cases}}/export-onnx-{quant}/out --quant {quant} --threads 1",
        )
        for quant in ("none", "int8", "int4")
    ),
    _case(
        "export-onnx-int8-fast",
        True,
        "export {models}/sd {cases}/export-onnx-int8-fast/out --quant int8-fast --threads 1 "
        "--photos {models}/photos",
    ),
    _case(
        "export-onnx-int8-sdxl",
        True,
        "export {models}/sdxl {cases}/export-onnx-int8-sdxl/out --threads 1",
    ),
    *(
        _word(
            f"personalize-onnx-{quant}-zo",
            False,
            f"--model {{cases}}/export-onnx-{quant}/out --class dog",
            *then,
        )
        for quant, *then in (
            ("none",),
            ("int8", "report", "generate"),
            ("int4", "replay"),
            ("int8-fast", "more"),
        )
    ),
    _word(
        "personalize-onnx-int8-lean-zoodip",
        False,
        "--model {cases}/export-onnx-int8/out --class dog --lean --preset zoodip",
    ),
    _word(
        "personalize-onnx-int8-sdxl",
        False,
        "--model {cases}/export-onnx-int8-sdxl/out --class dog --batch-limit 2",
    ),
    _word("personalize-onnx-int4-desk", True, "--model {cases}/export-onnx-int4/out --class dog"),
)

CLASSIFY = (
    _classify("classify-torch-none-adamw", True, "--method adamw", "report", "more"),
    _classify("classify-torch-none-backprop", True, "--method backprop --batch-limit 3"),
    _classify("classify-torch-none-adamw8bit", True, "--method adamw8bit", "replay"),
    _classify("classify-torch-none-galore", True, f"--method galore {_RANK}", "more"),
    _classify(
        "classify-torch-none-q-galore",
        True,
        f"--method q-galore {_RANK} --basis auto --difference-rank 2",
        "replay",
    ),
    _classify("classify-torch-none-dct-adamw", True, "--method dct-adamw --rank 4"),
    _classify("classify-torch-none-apollo", True, f"--method apollo {_RANK}"),
    _classify("classify-torch-none-apollo-mini", True, "--method apollo-mini --refresh-every 3"),
    _classify("classify-torch-none-frugal", True, f"--method frugal {_RANK}", "more"),
    _classify("classify-torch-none-lora", True, "--method lora --rank 4", "more"),
    _classify("classify-torch-none-zo", True, "--method zo", "replay"),
    _classify("classify-torch-none-mezo-norms", True, "--preset mezo --trainable norms"),
    _classify("classify-torch-none-roberta", True, "--model {models}/roberta --trainable head"),
    _case(
        "export-ort-training-all",
        True,
        "export {models}/bert {cases}/export-ort-training-all/out --for ort-training --threads 1",
    ),
    _case(
        "export-ort-training-head",
        True,
        "export {models}/bert {cases}/export-ort-training-head/out --for ort-training --threads 1 "
        "--trainable head",
    ),
    *(
        _classify(
            f"classify-ort-training-none-{name}",
            desk,
            f"--model {{cases}}/export-ort-training-{part}/out {words}",
            *then,
        )
        for name, desk, part, words, *then in (
            ("adamw", True, "all", "--method adamw", "more"),
            ("q-galore", True, "all", f"--method q-galore {_RANK}", "replay"),
            ("lean", True, "all", "--method adamw8bit --lean --batch-limit 3"),
            ("head", True, "head", "--method adamw --trainable head"),
            ("mezo", True, "all", "--preset mezo"),
            ("zo-device", False, "all", "--method zo", "replay"),
        )
    ),
)

LANGUAGE = (
    _language("language-torch-none-adamw", "--method adamw --weight-decay 0.01", "report", "more"),
    _language(
        "language-torch-none-galore",
        "--model {cases}/language-torch-none-adamw/run/model --difference-rank 2 "
        f"--method galore {_RANK}",
    ),
    _language("language-torch-none-dct-adamw", "--method dct-adamw --rank 4"),
    _language("language-torch-none-apollo", f"--method apollo {_RANK} --micro-batch 3"),
    _language("language-torch-none-zo", "--method zo"),
    _language("language-torch-int8-q-galore", f"--method q-galore --quant int8 {_RANK}", "more"),
    _language(
        "language-torch-int8-q-galore-micro-batch",
        f"--method q-galore --quant int8 {_RANK} --micro-batch 3",
        "replay",
    ),
    _language(
        "language-torch-int8-adamw8bit-lean", "--method adamw8bit --quant int8 --lean", "more"
    ),
    _language("language-torch-int8-frugal", f"--method frugal --quant int8 {_RANK}", "replay"),
    _language("language-torch-int8-zo", "--method zo --quant int8", "replay"),
    _language("language-torch-int4-q-galore", f"--method q-galore --quant int4 {_RANK}", "more"),
    _language("language-torch-int4-adamw8bit", "--method adamw8bit --quant int4"),
    _language("language-torch-int4-apollo-mini", "--method apollo-mini --quant int4 --lean"),
    _language("language-torch-int4-mezo", "--preset mezo --quant int4", "more"),
)

_CONVOLUTION = "conv 4 3, batchnorm, relu, maxpool 2, dense 12, tanh"
_FIRST = "{cases}/network-numpy-none-tpsgd/run/network.safetensors"

NETWORK = (
    _network("network-numpy-none-tpsgd", "report", method="tpsgd"),
    _network("network-numpy-none-local", "more", method="local"),
    _network("network-numpy-none-drtp", method="drtp", projection="gaussian"),
    _network("network-numpy-none-dfa", method="dfa", projection_memory="key"),
    _network("network-numpy-none-backprop", "replay", method="backprop"),
    _network("network-numpy-none-conv", "more", network=_CONVOLUTION, micro_batch=10),
    _network("network-numpy-none-gru", network="gru 12 12", targets="every", through_time=False),
    _network("network-numpy-none-lstm", network="lstm 12", micro_batch=8, projection="orthogonal"),
    _network(
        "network-numpy-none-sequential",
        "replay",
        mode="sequential",
        loss="l2",
        projection_scale=0.5,
    ),
    _network("network-numpy-int8-tpsgd", "more", quant="int8", momentum=0.5),
    _network("network-numpy-int8-backprop", "replay", quant="int8", method="backprop"),
    _network(
        "network-numpy-int8-local-sequential", quant="int8", method="local", mode="sequential"
    ),
    _network(
        "network-numpy-none-backbone",
        "more",
        backbone=_FIRST,
        network="mlp 8",
        old_data="{models}/pictures.npz",
    ),
    *(
        _case(
            f"network-export-{name}",
            True,
            f"export {_FIRST} {{cases}}/network-export-{name}/network.onnx {words}",
        )
        for name, words in (("none", "--quant none --blocks 2"), ("int8", "--quant int8"))
    ),
    _network(
        "network-numpy-none-onnx-backbone",
        backbone="{cases}/network-export-none/network.onnx",
        network="mlp 8",
    ),
)

CASES = (*NETWORK, *PERSONALIZE, *ARTIFACTS, *CLASSIFY, *LANGUAGE)
