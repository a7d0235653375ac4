"""Late interaction: its loss is MaxSim's cross-entropy, its gradient exact, its reading bounded."""

import numpy as np
import pytest

from edge_train.arrays.projections import KINDS, folded, project, start_values
from edge_train.errors import RunFolderError
from edge_train.runtimes import token_vectors
from edge_train.runtimes.numpy.late_interaction import LateInteraction
from edge_train.runtimes.token_vectors import TokenVectors, packed, unpacked, write_vectors

WIDTH, OUTPUTS, PASSAGES = 8, 5, 6
TITLES = np.array([6, 6, -1, 7, -1, 7])  # texts 6 and 7 are titles, 8 to 10 queries
OWNERS = np.array([0, 0, 1, 2, 3, 4], np.int32)
BATCH = {
    "query": np.array([8, 9, 6]),
    "bare": np.array([False, False, True]),
    "passages": np.array([[0, 3], [2, 5], [1, 4]]),
    "right": np.array([[0, -1], [1, 2], [0, -1]]),
}


@pytest.fixture
def vectors(tmp_path):
    draw = np.random.default_rng(0)
    counts = np.array([4, 3, 5, 2, 6, 3, 2, 3, 4, 2, 3])
    values = draw.standard_normal((counts.sum(), WIDTH)).astype(np.float32)
    write_vectors(tmp_path / "vectors", [packed(values)])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return TokenVectors(tmp_path / "vectors", starts, WIDTH)


def runtime(vectors, kind="upscaled", temperature=2.0):
    draw = np.random.default_rng(1)
    directions = np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))[0][:OUTPUTS].astype(np.float32)
    start = start_values(kind, directions, 0)
    start = {
        n: v + 0.1 * draw.standard_normal(v.shape).astype(np.float32) for n, v in start.items()
    }
    return LateInteraction(
        vectors, OWNERS, TITLES, start, kind=kind, activation="silu", temperature=temperature
    )


def reference(vectors, kind, values, temperature=2.0):
    """Losses as ColBERT has them: sum of best products, softmax over the batch's passages."""
    head = folded(kind, "silu", {n: v.astype(np.float64) for n, v in values.items()})

    def unit(text):
        found = project(head, vectors.text(int(text)).astype(np.float64))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    losses = []
    for sample in range(3):
        query, candidates = unit(BATCH["query"][sample]), {}
        for other in range(3):
            for passage in BATCH["passages"][other]:
                bare = bool(BATCH["bare"][other])
                own = other == sample and passage == BATCH["passages"][sample][0]
                if OWNERS[passage] in BATCH["right"][sample] and not own:
                    continue
                parts = [unit(passage)]
                if TITLES[passage] >= 0 and not bare:
                    parts.append(unit(TITLES[passage]))
                score = (query @ np.concatenate(parts).T).max(axis=1).sum() / temperature
                candidates[passage, bare] = score
        first = BATCH["passages"][sample][0], bool(BATCH["bare"][sample])
        scores = np.array(list(candidates.values()))
        losses.append(np.log(np.exp(scores).sum()) - candidates[first])
    return np.array(losses)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_cross_entropy_of_maxsim_over_the_passages_of_the_batch(vectors, kind):
    some = runtime(vectors, kind)
    found = some.forward(BATCH, [some.parameters])[0]
    np.testing.assert_allclose(found, reference(vectors, kind, some.parameters), rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_mean_loss(vectors, kind):
    some, found = runtime(vectors, kind), {}
    losses = some.backward(BATCH, lambda name, value: found.update({name: value}))
    np.testing.assert_allclose(losses, reference(vectors, kind, some.parameters), rtol=2e-5)
    values = {n: v.astype(np.float64) for n, v in some.parameters.items()}
    for name, block in values.items():
        step = np.random.default_rng(7).standard_normal(block.shape)
        two = [
            reference(vectors, kind, {**values, name: block + sign * 1e-6 * step}).mean()
            for sign in (1, -1)
        ]
        wanted = (two[0] - two[1]) / 2e-6
        # the gradient is in float32; a maximum that changes hands within 1e-6 is not drawn here
        assert (found[name] * step).sum() == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_smaller_calls_give_the_same_gradient(vectors, monkeypatch):
    whole, parts = {}, {}
    runtime(vectors).backward(BATCH, lambda name, value: whole.update({name: value}))
    monkeypatch.setattr("edge_train.runtimes.numpy.late_interaction._TOKENS_AT_ONCE", 3)
    runtime(vectors).backward(BATCH, lambda name, value: parts.update({name: value}))
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-6)  # other sums


def test_one_sample_of_a_batch_is_a_batch(vectors):
    some = runtime(vectors)
    one = {name: values[:1] for name, values in BATCH.items()}
    assert np.isfinite(some.forward(one, [some.parameters])).all()


def test_tokens_are_kept_to_half_a_code_of_their_largest_value():
    values = np.random.default_rng(0).standard_normal((20, WIDTH)).astype(np.float32)
    values[3] = 0
    apart = np.abs(unpacked(packed(values)) - values).max(axis=1)
    assert (apart <= 0.5001 * np.abs(values).max(axis=1) / 127 + 1e-7).all()


def test_reading_all_tokens_holds_no_more_than_the_window(vectors, monkeypatch):
    monkeypatch.setattr(token_vectors, "WINDOW_BYTES", 100)
    let_go = []
    monkeypatch.setattr(vectors._file, "release", lambda: let_go.append(1))
    before = [vectors.text(number) for number in range(len(vectors))]
    assert len(let_go) >= 3
    list(vectors.checksum_parts())
    assert len(let_go) >= 4
    for number, values in enumerate(before):
        assert np.array_equal(vectors.text(number), values)


def test_a_file_of_another_size_is_refused(tmp_path, vectors):
    path = tmp_path / "vectors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFolderError, match="expected"):
        TokenVectors(path, vectors.starts, WIDTH)
