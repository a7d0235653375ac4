"""Losses and slopes by one walk over the words are those of all logits at once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edge_train.arrays.parameters import Int8Parameters
from edge_train.runtimes.torch import logit_pieces, word_pieces
from edge_train.runtimes.torch.logit_pieces import in_pieces
from edge_train.runtimes.torch.stored_matrices import Buffer, FrozenCodes, WholeMatrix
from edge_train.runtimes.torch.word_pieces import in_words

TOKENS, WORDS, WIDTH = 40, 301, 16


def drawn(seed=0):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw)
    weights = torch.randn(WORDS, WIDTH, generator=draw)
    targets = torch.randint(0, WORDS, (TOKENS,), generator=draw)
    targets[:3] = torch.tensor([0, WORDS - 1, 0])
    return hidden, weights, targets, torch.randn(WORDS, generator=draw)


def wanted(hidden, weights, targets, bias, smoothing):
    """Return losses and slopes by autograd, in float64."""
    hidden = hidden.double().requires_grad_()
    logits = hidden @ weights.double().T
    if bias is not None:
        logits = logits + bias.double()
    losses = torch.nn.functional.cross_entropy(
        logits, targets, reduction="none", label_smoothing=smoothing
    )
    (slopes,) = torch.autograd.grad(losses.sum(), hidden)
    return losses.detach(), slopes


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("at_once", [TOKENS, 7 * TOKENS, 1 << 20])
def test_losses_and_slopes_are_those_of_autograd(monkeypatch, smoothing, biased, at_once):
    monkeypatch.setattr(word_pieces, "WORDS_AT_ONCE", at_once)
    hidden, weights, targets, bias = drawn()
    bias = bias if biased else None
    losses, slopes = wanted(hidden, weights, targets, bias, smoothing)
    found = in_words(hidden, targets, WholeMatrix(weights), bias, smoothing=smoothing, sloped=True)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5, atol=1e-5)
    assert (found.errors - slopes).norm() < 1e-5 * slopes.norm()
    alone = in_words(hidden, targets, WholeMatrix(weights), bias, smoothing=smoothing, sloped=False)
    assert torch.equal(alone.losses, found.losses)
    assert alone.errors is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_with_a_scale_are_those_of_the_float_matrix(monkeypatch, smoothing):
    monkeypatch.setattr(word_pieces, "WORDS_AT_ONCE", 7 * TOKENS)
    hidden, weights, targets, _ = drawn()
    held = Int8Parameters({"head": weights.numpy()}.items())
    matrix = FrozenCodes(held, "head", Buffer(torch.float32, torch.device("cpu")))
    plain = torch.from_numpy(held["head"])
    assert not torch.equal(plain, weights)
    losses, slopes = wanted(hidden, plain, targets, None, smoothing)
    found = in_words(hidden, targets, matrix, None, smoothing=smoothing, sloped=True)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5, atol=1e-5)
    assert (found.errors - slopes).norm() < 1e-5 * slopes.norm()


def test_the_slope_of_a_loss_near_zero_is_right_in_bfloat16(monkeypatch):
    """It is a sum of small numbers; with the wanted word in it, one large one would be rounded."""
    monkeypatch.setattr(word_pieces, "WORDS_AT_ONCE", 7 * TOKENS)
    _, weights, targets, _ = drawn()
    weights = weights.bfloat16()
    hidden = (4 * weights[targets].float()).bfloat16().float()
    losses, slopes = wanted(hidden, weights, targets, None, 0.0)
    near = losses < 1e-5
    assert near.sum() > TOKENS // 2
    found = in_words(hidden, targets, WholeMatrix(weights), None, smoothing=0.0, sloped=True)
    off = (found.errors - slopes).norm(dim=1)[near]
    # shares are e to the difference of two logits near a hundred, rounded to 8 bits: e^1 at most
    assert (off < 2 * slopes.norm(dim=1)[near] + 1e-9).all()
    kept = weights[targets].float().norm(dim=1)[near] * 2.0**-9
    assert (off < 0.1 * kept).all()  # what rounding a share of one would leave


@pytest.mark.parametrize(
    ("words", "after", "most", "walks"),
    [
        (True, None, WORDS * TOKENS - 1, True),
        (True, None, WORDS * TOKENS, False),  # one piece: logits are made once anyway
        (True, torch.tanh, 1, False),
        (False, None, 1, False),
    ],
)
def test_words_are_gone_through_where_logits_would_be_in_pieces(
    monkeypatch, words, after, most, walks
):
    hidden, weights, targets, _ = drawn()
    head = SimpleNamespace(
        outputs=WORDS,
        bias=None,
        words=WholeMatrix(weights) if words else None,
        forward_product=lambda values: values @ weights.T,
        backward_product=lambda errors: errors @ weights,
    )
    walked = []

    def walk(*given, **named):
        walked.append(True)
        return in_words(*given, **named)

    monkeypatch.setattr(logit_pieces, "in_words", walk)
    found = in_pieces(hidden, targets, head, after, smoothing=0.0, most=most, sloped=True)
    assert bool(walked) is walks
    if after is None:
        losses, slopes = wanted(hidden, weights, targets, None, 0.0)
        np.testing.assert_allclose(found.losses, losses, rtol=1e-5, atol=1e-5)
        assert (found.errors - slopes).norm() < 1e-5 * slopes.norm()
