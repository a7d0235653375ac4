"""A language model in a GGUF file: transformers' loss, and a run whose result transformers reads.

A loss is held to 1e-4 of itself, for the reason that tests/test_architectures.py gives.
"""

import json

import numpy as np
import pytest
from gguf_files import F32, Q4_0, Q8_0
from gguf_models import KINDS, make_gguf

from edge_train import cli
from edge_train.formats.gguf.model import open_gguf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLOSE, LENGTH = 1e-4, 16
CASES = [(name, F32) for name in KINDS] + [("llama", Q8_0), ("gemma3", Q4_0), ("phi3", Q8_0)]
# In the usual tests: rows of heads in pairs, norms with their 1, fused products, blocks.
USUAL = [("llama", Q8_0), ("llama 3.1", F32), ("qwen3", F32), ("gemma3", Q4_0), ("phi3", Q8_0)]


def wanted_loss(network, ids):
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        logits = network(input_ids=tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


@pytest.mark.parametrize(
    ("name", "kind"),
    [one if one in USUAL else pytest.param(*one, marks=pytest.mark.slow) for one in CASES],
)
def test_the_loss_is_that_of_transformers(name, kind, tmp_path):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    network = make_gguf(tmp_path / "a.gguf", name, kind)
    model = open_gguf(tmp_path / "a.gguf")
    runtime = TorchLanguageModel.open(model, quant="none", threads=1, seed=0)
    ids = np.random.default_rng(0).integers(3, 300, (3, LENGTH + 1))
    found = runtime.forward({"ids": ids}, [runtime.parameters]).mean()
    assert found == pytest.approx(wanted_loss(network, ids), rel=CLOSE)


def test_a_run_ends_in_a_folder_that_transformers_loads_with_the_metric(tmp_path):
    from edge_train.formats.tensor_file import TensorFile

    make_gguf(tmp_path / "a.gguf", "llama", Q8_0)
    words = np.random.default_rng(0).choice(["the", "hat", "and", "tin", "a"], 900)
    (tmp_path / "text.txt").write_text(" ".join(words))
    out = tmp_path / "run"
    told = [
        "--model",
        str(tmp_path / "a.gguf"),
        "--out",
        str(out),
        "--steps",
        "2",
        "--threads",
        "1",
    ]
    told += ["--length", str(LENGTH), "--samples", "2", "--mem", "4GB"]
    told += ["--trainable", "all"]
    assert cli.main(["run", str(tmp_path / "text.txt"), *told]) == 0
    report = json.loads((out / "report.json").read_text())
    network = transformers.AutoModelForCausalLM.from_pretrained(out / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    assert tokenizer.chat_template == "{{ messages }}" and tokenizer.eos_token == "</s>"
    own = open_gguf(tmp_path / "a.gguf").tokenizer()
    assert tokenizer("the hat</s>").input_ids == own.encode("the hat</s>").ids
    ids = np.fromfile(out / "tokens.bin", "<u2").astype(np.int64)
    held = ids[len(ids) - len(ids) // 10 :]
    count = min((len(held) - 1) // LENGTH, 64)
    windows = np.stack([held[n * LENGTH : (n + 1) * LENGTH + 1] for n in range(count)])
    assert report["metrics"]["held_out_loss"] == pytest.approx(
        wanted_loss(network, windows), rel=CLOSE
    )
    written = TensorFile(out / "model" / "model.safetensors")
    assert {entry.dtype for entry in written.entries.values()} == {"F32"}
