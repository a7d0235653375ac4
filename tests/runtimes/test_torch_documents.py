"""Documents that are packed into a sequence have the losses that transformers gives each alone."""

import numpy as np
import pytest

from edge_train.arrays.factored import dense
from edge_train.formats import language_apart
from edge_train.formats.language_folder import open_language_model
from edge_train.rng import Key
from edge_train.tasks.language_model.packing import PackedDocuments

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = (5, 9, 12, 3, 8, 11, 4, 7)
LENGTH = 20
_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "sliding_window": 4,  # shorter than documents: it has to count within each
}
_EXTRA = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "mixtral": {"num_local_experts": 2},
    "gemma2": {"query_pre_attn_scalar": 8},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
}


# One of each way of positions and windows; the others are slow.
_FAST = ("gpt2", "gemma2", "llama", "qwen2")
KINDS = [
    kind if kind in _FAST else pytest.param(kind, marks=pytest.mark.slow)
    for kind in sorted(language_apart._APART)
]


def opened(kind, tmp_path, **more):
    """Return a tiny model of a kind with random weights, and the same as transformers has it."""
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    settings = {**_COMMON, **_EXTRA.get(kind, {}), **more}
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    network.save_pretrained(tmp_path / kind)
    folder = open_language_model(tmp_path / kind)
    return TorchLanguageModel.open(folder, quant="none", threads=1, seed=0), network


def documents(*, apart=True, samples=4, everything=False):
    draw = np.random.default_rng(3)
    starts = np.cumsum([0, *SIZES])
    ids = draw.integers(1, 60, starts[-1]).astype(np.uint16)
    counted = np.array([(s + n // 2, s + n) for s, n in zip(starts, SIZES, strict=False)])
    counted = None if everything else counted
    return PackedDocuments(ids, starts, counted, LENGTH, samples, 4, apart=apart)


def of_transformers(network, task):
    """Return the mean loss of all counted tokens of what is trained on, each document alone."""
    total, count = 0.0, 0
    for number in task.parts[0].tolist():
        start, end = task.starts[number : number + 2]
        ids = torch.from_numpy(task.ids[start:end].astype(np.int64))[None]
        labels = ids.clone()
        labels[0, ~torch.from_numpy(task.counts_of(number))] = -100
        counted = int((labels != -100).sum())
        with torch.no_grad():
            total += float(network(ids, labels=labels).loss) * counted
        count += counted
    return total / count


def epoch(task):
    """Return all that is trained on, in one batch."""
    return task._batch(task.rows[0])


@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_have_the_loss_that_transformers_gives_each_alone(kind, tmp_path):
    runtime, network = opened(kind, tmp_path)
    packed, alone = documents(), documents(apart=False)
    assert len(packed.rows[0]) < len(alone.rows[0])
    expected = of_transformers(network, packed)
    # one sequence's sums in float32, in another order
    for task in (packed, alone):
        losses = runtime.forward(epoch(task), [runtime.parameters])[0]
        assert float(losses.mean()) == pytest.approx(expected, rel=2e-5)
    runtime.close()


def test_documents_that_are_not_kept_apart_have_another_loss(tmp_path):
    """The test above could fail: attention over the borders changes the loss by far more."""
    runtime, network = opened("llama", tmp_path)
    batch = epoch(documents())
    expected = of_transformers(network, documents())
    whole = {**batch, "document": np.zeros_like(batch["document"])}
    found = float(runtime.forward(whole, [runtime.parameters])[0].mean())
    assert abs(found / expected - 1) > 1e-3


def test_packed_and_unpacked_documents_have_the_same_gradients(tmp_path):
    runtime, _ = opened("llama", tmp_path)
    found = []
    for task in (documents(), documents(apart=False)):
        gradients = {}

        def take(name, gradient, into=gradients):
            into[name] = dense(gradient)

        batch = epoch(task)
        losses = runtime.backward(batch, take)
        found.append((float(losses.mean()), gradients))
    (first, ours), (second, other) = found
    assert first == pytest.approx(second, rel=2e-5)
    for name, gradient in ours.items():
        scale = np.abs(other[name]).max()
        np.testing.assert_allclose(gradient, other[name], atol=2e-5 * scale)


def test_a_batch_in_parts_has_the_mean_of_the_whole(tmp_path):
    runtime, _ = opened("llama", tmp_path)
    batch = documents(samples=3).batch(Key(0, 0))
    whole = runtime.forward(batch, [runtime.parameters])[0]
    runtime.batch_limit = 1
    np.testing.assert_allclose(runtime.forward(batch, [runtime.parameters])[0], whole, rtol=2e-5)


def test_padding_changes_nothing(tmp_path):
    runtime, _ = opened("llama", tmp_path)
    batch = epoch(documents(apart=False))
    padded = batch["ids"] == 0
    assert padded.any()
    other = {**batch, "ids": np.where(padded, 7, batch["ids"])}
    first, second = (runtime.forward(one, [runtime.parameters])[0] for one in (batch, other))
    np.testing.assert_allclose(first, second, rtol=2e-5)
