"""Low-rank chains equal their textbook definitions, and the published packages where those do."""

import importlib
import math
import sys
import types
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import reference
from recipes import recipe_for, rule_of

from edge_train.arrays import factored
from edge_train.arrays import packed as int4
from edge_train.arrays.factored import Factors, dense
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.optim.adam8bit import Adam8bit
from edge_train.optim.apollo import Apollo
from edge_train.optim.bases import Columns, RandomVectors, TopVectors
from edge_train.optim.low_rank import LowRank, MatricesApart, is_projected
from edge_train.optim.transforms import Adam, for_block

SHAPES = [(40, 12), (12, 40)]


def gradients(shape, steps, seed=0):
    """Return gradients of a slowly turning low-rank signal with some noise."""
    draw = np.random.default_rng(seed)
    left, right = draw.standard_normal((shape[0], 3)), draw.standard_normal((3, shape[1]))
    result = []
    for _ in range(steps):
        left = left + 0.1 * draw.standard_normal(left.shape)
        noise = 0.3 * draw.standard_normal(shape)
        result.append(((left * [4, 2, 1]) @ right + noise).astype(np.float32))
    return result


def run(transform, many, param=None):
    param = np.zeros_like(many[0]) if param is None else param
    state = transform.init(param)
    return [transform.update(gradient, state, param) for gradient in many], state


class Textbook:
    """Adam in float64 on whatever array it is given."""

    def __init__(self):
        self.first = self.second = self.count = 0

    def __call__(self, gradient):
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean, square = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        return mean / (np.sqrt(square) + 1e-8)


def close(ours, expected, tolerance=2e-3):
    for update, other in zip(ours, expected, strict=True):
        assert np.linalg.norm(update - other) <= tolerance * np.linalg.norm(other)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_galore_is_adam_between_a_projection_and_its_lift(shape):
    many, adam, expected = gradients(shape, 12), Textbook(), []
    for step, gradient in enumerate(many):
        if step % 5 == 0:
            left, _, right = np.linalg.svd(gradient.astype(np.float64))
        if shape[0] >= shape[1]:
            expected.append(0.25 * adam(gradient @ right[:3].T) @ right[:3])
        else:
            expected.append(0.25 * left[:, :3] @ adam(left[:, :3].T @ gradient))
    # the same subspace in other coordinates: Adam sees the difference of a sign as none
    close(run(LowRank(Adam(), TopVectors(3), 5, 0.25), many)[0][:5], expected[:5], 0.02)


def standing(gradient):
    """Return a matrix whose rows are those of its longer side, in float64."""
    return (gradient if gradient.shape[0] >= gradient.shape[1] else gradient.T).astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fira_is_galore_and_a_remainder_whose_rows_are_scaled_as_adam_scales(shape):
    many = gradients(shape, 12)
    expected = reference.fira([standing(g) for g in many], 3, 5, 0.25)
    rule = LowRank(Adam(), TopVectors(3), 5, 0.25, remainder=1.0, remainder_by="length")
    close([standing(update) for update in run(rule, many)[0]], expected, 0.02)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sumo_is_an_orthogonal_momentum_in_vectors_and_the_raw_gradient_beside_them(shape):
    many = gradients(shape, 12)
    expected = reference.sumo([standing(g) for g in many], 3, 5, 0.95)
    close([standing(u) for u in run(sumo_rule(), many)[0]], expected, 0.02)


def sumo_rule():
    rule = rule_of("sumo", rank=3, refresh_every=5, scale=1.0, seed=0)
    return rule.matrices.links[0]


def test_directions_that_are_rounding_alone_get_no_orthogonal_update():
    many = [np.outer(np.arange(1, 41), np.arange(1, 13)).astype(np.float32)] * 3
    for update in run(sumo_rule(), many)[0]:
        singular = np.linalg.svd(update.astype(np.float64), compute_uv=False)
        assert singular[1] < 1e-3 * singular[0]


@pytest.mark.parametrize("packed", [False, True], ids=["float32", "int4"])
def test_a_vector_that_stays_keeps_its_sign_at_a_refresh(packed):
    """Moments are kept, so a mean of the old sign would pull against the gradient."""
    many = gradients((200, 32), 30)
    turned = {}
    for aligned in (True, False):
        basis, flips = TopVectors(3, packed=packed, aligned=aligned), 0
        state = basis.init(32)
        for epoch, gradient in enumerate(many):
            before = basis.vectors(state, 32).copy()
            # signs of a product are those of the draw it began with, or of LAPACK
            basis.refresh(gradient * (-1) ** epoch, state, epoch)
            flips += int(((basis.vectors(state, 32) * before).sum(axis=1) < 0).sum())
        turned[aligned] = flips
    assert turned[True] == 0
    assert turned[False] > 5


@pytest.mark.parametrize("name", ["galore", "q-galore", "dct-adamw", "apollo", "frugal", "fira"])
def test_an_output_layer_gets_adam_unless_it_is_asked_to_be_projected(name):
    keys = {"rank": 8, "refresh_every": 200, "scale": 1.0, "learning_rate": 0.1, "steps": 9}
    for other, apart in (({}, True), ({"project_head": True}, False), ({"rules": 1}, False)):
        recipe = recipe_for("language-model", method=name, **keys, **other)
        rule = methods.get(name).build(recipe, Parts(is_head=lambda block: block == "lm_head"))[1]
        param = np.zeros((90, 60), np.float32)
        for block, moments in (("lm_head", apart), ("model.layers.0.mlp.up", False)):
            state = for_block(rule, block).init(param)
            found = [part for part in state if part.endswith("first")]
            assert any(state[part].size >= param.size for part in found) is moments, block


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frugal_is_adam_on_some_columns_and_signs_elsewhere(shape):
    many = gradients(shape, 9)
    transform = LowRank(Adam(), Columns(4, by="chance", seed=7), 4, moments="reset", remainder=0.1)
    param = np.zeros(shape, np.float32)
    state = transform.init(param)
    seen = set()
    for step, gradient in enumerate(many):
        update = transform.update(gradient, state, param)
        if step % 4 == 0:
            adam = Textbook()
            chosen = state["basis.indices"].copy()
            seen.add(tuple(chosen))
        where = (slice(None), chosen) if shape[0] >= shape[1] else (chosen,)
        expected = 0.1 * np.sign(gradient)
        expected[where] = adam(gradient[where].astype(np.float64))
        np.testing.assert_allclose(update, expected, atol=2e-3)
    assert len(seen) == 3


@dataclass(frozen=True)
class Rounded(Columns):
    """Columns of a processor that rounds them another way than when it makes whole rows."""

    read: list = field(default_factory=list)  # what each projection returned

    def project(self, standing, state):
        low = super().project(standing, state)
        away = np.where(np.arange(low.size).reshape(low.shape) % 2, -np.inf, np.inf)
        self.read.append(np.nextafter(low, away.astype(np.float32)))
        return self.read[-1]


@pytest.mark.parametrize("rule", ["sign", "sgd"])
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounding_moves_nothing_inside_the_columns_of_frugal(shape, lazy, rule, monkeypatch):
    """There is no remainder there: exactly Adam's update, whatever a product rounds to."""
    monkeypatch.setattr(factored, "_TILE_NUMBERS", 5 * shape[1])  # columns in several parts
    basis = Rounded(4, by="chance", seed=7)
    transform = LowRank(Adam(), basis, 4, 0.5, moments="reset", remainder=0.1, remainder_by=rule)
    param, draw = np.zeros(shape, np.float32), np.random.default_rng(0)
    state = transform.init(param)
    for step in range(6):
        left, right = (draw.standard_normal((9, side), np.float32) for side in shape)
        whole = left.T @ right
        update = dense(transform.update(Factors(left, right) if lazy else whole, state, param))
        if step % 4 == 0:
            adam, moments = Adam(), Adam().init(basis.read[-1])
        expected = np.float32(0.5) * dense(adam.update(basis.read[-1], moments, basis.read[-1]))
        free = np.sign(whole) if rule == "sign" else whole
        if shape[0] < shape[1]:
            update, free = update.T, free.T
        chosen = state["basis.indices"]
        np.testing.assert_array_equal(update[:, chosen], expected)
        others = np.setdiff1d(np.arange(12), chosen)
        # nine products of a few units round by less than 1e-4, and no gradient here is as small
        assert np.abs(whole).min() > 1e-4
        np.testing.assert_allclose(update[:, others], 0.1 * free[:, others], atol=1e-5)


BASES = {"svd": TopVectors(4), "dct": Columns(4, of="dct"), "random": RandomVectors(4)}


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BASES)
def test_vectors_that_mix_columns_leave_a_remainder_everywhere(name, shape, lazy):
    basis = BASES[name]
    transform = LowRank(Adam(), basis, 9, remainder=0.1)
    param, draw = np.zeros(shape, np.float32), np.random.default_rng(0)
    left, right = (draw.standard_normal((9, side), np.float32) for side in shape)
    whole = left.T @ right
    state = transform.init(param)
    update = dense(transform.update(Factors(left, right) if lazy else whole, state, param))
    exact = whole if shape[0] >= shape[1] else whole.T
    own = {key.removeprefix("basis."): value for key, value in state.items()}
    vectors = basis.vectors(own, 12)
    low = exact @ vectors.T
    rest = exact - low @ vectors
    expected = np.sign(low) @ vectors + 0.1 * np.sign(rest)  # Adam's first step
    found = update if shape[0] >= shape[1] else update.T
    clear = (np.abs(rest) > 1e-4) & (np.abs(low).min(axis=1, keepdims=True) > 1e-4)
    assert clear.mean() > 0.99
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-3)


def test_the_remainder_of_frugal_can_be_plain_descent():
    many = gradients((20, 8), 3)
    transform = LowRank(Adam(), Columns(2), 9, remainder=0.5, remainder_by="sgd")
    updates, state = run(transform, many)
    left = np.setdiff1d(np.arange(8), state["basis.indices"])
    np.testing.assert_allclose(updates[-1][:, left], 0.5 * many[-1][:, left], rtol=1e-5)


def test_cosine_columns_that_stay_keep_their_moments_and_new_ones_start_from_zero():
    many = np.random.default_rng(0).standard_normal((10, 30, 10)).astype(np.float32)
    transform = LowRank(Adam(), Columns(4, of="dct"), 1, moments="rotate")
    param = np.zeros((30, 10), np.float32)
    state = transform.init(param)
    moved = 0
    for gradient in many:
        before = state["basis.indices"].copy()
        first = state["inner.first"].copy()
        transform.update(gradient, state, param)
        after = state["basis.indices"]
        low = transform.basis.project(gradient, {"indices": after})
        for place, index in enumerate(after):
            old = first[:, list(before).index(index)] if index in before else 0
            moved += index not in before
            expected = 0.9 * old + 0.1 * low[:, place]
            np.testing.assert_allclose(state["inner.first"][:, place], expected, atol=1e-5)
    assert moved > 4  # beyond the first choice


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("by", ["rows", "tensor"])
def test_apollo_scales_the_gradient_by_what_adam_does_to_its_projection(shape, by):
    many, transform = gradients(shape, 8), Apollo(Adam(), RandomVectors(3), 4, 2.0, by, 1e9)
    param = np.zeros(shape, np.float32)
    state, adam = transform.init(param), Textbook()
    for gradient in many:
        update = transform.update(gradient, state, param)
        standing = gradient if shape[0] >= shape[1] else gradient.T
        low = transform.basis.project(standing, {"epoch": state["basis.epoch"]})
        axis = 1 if by == "rows" else None
        size = np.linalg.norm(adam(low.astype(np.float64)), axis=axis, keepdims=True)
        expected = 2 * standing * (size / np.linalg.norm(low, axis=axis, keepdims=True))
        np.testing.assert_allclose(update, expected if standing is gradient else expected.T, 5e-3)


def test_apollo_grows_by_a_percent_a_step_at_most():
    signs = [1, -1] * 10 + [1] * 10  # Adam makes little of what alternates
    many = [g * sign for g, sign in zip(gradients((40, 12), 30), signs, strict=True)]

    def largest_growth(growth):
        updates, _ = run(Apollo(Adam(), RandomVectors(3), 99, growth=growth), many)
        lengths = [max(np.linalg.norm(update), 0.1 * np.sqrt(40 * 3)) for update in updates]
        return max(after / before for before, after in pairwise(lengths))

    assert largest_growth(1e9) > 1.2
    assert largest_growth(1.01) < 1.0101


def theirs(many, growth=1.01):
    """Return updates of APOLLO-Mini as its code makes them: limited before bias correction.

    The projection is all of the gradient, so that nothing is left to chance.
    """
    first, second, before, updates = 0.0, 0.0, math.inf, []
    for step, gradient in enumerate(many, 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scaled = gradient * np.linalg.norm(first / np.sqrt(second)) / np.linalg.norm(gradient)
        length = min(np.linalg.norm(scaled), growth * before)
        scaled *= length / np.linalg.norm(scaled)
        updates.append(scaled * math.sqrt(1 - 0.999**step) / (1 - 0.9**step))
        before = length
    return updates


class Everything(RandomVectors):
    """Vectors that project nothing away."""

    def vectors(self, state, width):
        return np.eye(self.rank, width, dtype=np.float32)


def test_the_limit_of_apollo_keeps_a_steady_update_which_the_official_order_halves_at_first():
    steady = np.random.default_rng(0).standard_normal((30, 9)).astype(np.float32)
    ours, _ = run(Apollo(Adam(), Everything(8), 999, by="tensor"), [steady] * 80)
    official = theirs([steady.astype(np.float64)] * 80)
    usual = np.linalg.norm(ours[0])
    assert [np.linalg.norm(u) / usual for u in ours] == pytest.approx([1] * 80, rel=1e-3)
    shares = [np.linalg.norm(u) / np.linalg.norm(official[0]) for u in official]
    assert (min(shares), np.argmin(shares) + 1) == (pytest.approx(0.529, abs=1e-3), 9)
    assert shares[42] < 0.99999 <= shares[43]
    free, _ = run(Apollo(Adam(), Everything(8), 999, by="tensor", growth=1e9), [steady] * 80)
    unlimited = theirs([steady.astype(np.float64)] * 80, growth=1e9)
    lengths = [[np.linalg.norm(u) for u in updates] for updates in (free, unlimited)]
    np.testing.assert_allclose(lengths[0], np.array(lengths[1]) * usual / lengths[1][0], rtol=1e-3)


@pytest.mark.parametrize("first", [0.0, 1e-12])
def test_a_gradient_of_almost_nothing_at_the_start_does_not_hold_apollo_down(first):
    many = gradients((40, 12), 60)
    many[0] = first * many[0]
    updates, _ = run(Apollo(Adam(), RandomVectors(3), 999), many)
    assert np.linalg.norm(updates[-1]) > 0.1 * np.sqrt(40 * 3)


def test_a_stable_subspace_is_refreshed_ever_less_often_and_a_lost_one_more():
    draw = np.random.default_rng(0)
    transform = LowRank(Adam(), TopVectors(3), 4, adaptive=True)
    param = np.zeros((40, 12), np.float32)
    state = transform.init(param)
    signal = (draw.standard_normal((40, 3)) @ draw.standard_normal((3, 12))).astype(np.float32)
    for _ in range(60):
        noise = 0.01 * draw.standard_normal(param.shape).astype(np.float32)
        transform.update(signal + noise, state, param)
    assert state["interval"][0] == 32 and state["overlap"][0] > 0.99
    assert state["refreshes"][0] == 4  # at 0, 4, 12, 28; the next is due at 60
    for _ in range(300):
        transform.update(draw.standard_normal(param.shape).astype(np.float32), state, param)
    assert state["interval"][0] < 32


def test_equal_leading_values_do_not_look_like_a_lost_subspace():
    """The order and sign of single vectors are arbitrary there; the overlap is of all of them."""
    draw = np.random.default_rng(0)
    vectors = np.linalg.qr(draw.standard_normal((64, 64)))[0][:8]
    transform = LowRank(Adam(), TopVectors(8), 1, adaptive=False)
    param, cosines = np.zeros((200, 64), np.float32), []
    state = transform.init(param)
    for _ in range(6):
        before = state["basis.vectors"][0].copy()
        gradient = draw.standard_normal((200, 8)) @ vectors + 0.1 * draw.standard_normal((200, 64))
        transform.update(gradient.astype(np.float32), state, param)
        cosines.append(float(before @ state["basis.vectors"][0]))
    assert state["overlap"][0] > 0.95
    assert np.mean(cosines[1:]) < 0.4  # Q-GaLore's test of one signed vector


def test_vectors_heads_and_embeddings_get_plain_adam():
    many = [np.ones(5, np.float32), 2 * np.ones(5, np.float32)]
    expected, _ = run(Adam(), many)
    np.testing.assert_array_equal(run(LowRank(Adam(), TopVectors(2), 3, 9.0), many)[0], expected)
    assert not is_projected((2, 384), 8)
    rule = rule_of("galore", rank=8, refresh_every=200, scale=4.0, seed=0)
    assert isinstance(rule, MatricesApart)
    param = np.zeros((40, 30), np.float32)
    table = rule.rule("model.embed_tokens.weight").init(param)
    layer = rule.rule("model.layers.0.mlp.up_proj.weight").init(param)
    assert table["0.first"].shape == (40, 30)
    assert layer["0.inner.first"].shape == (40, 8)


def test_bytes_of_every_rule_are_those_of_its_paper():
    """Of one matrix of 1024 x 512 at rank 64 (apollo-mini: 1), against 8 a coordinate for Adam."""
    param, most = np.zeros((1024, 512), np.float32), {}
    for name in ("galore", "q-galore", "dct-adamw", "frugal", "apollo", "apollo-mini"):
        rank = 1 if name == "apollo-mini" else 64
        state = rule_of(name, rank=rank, refresh_every=200, scale=1.0, seed=0).init(param)
        most[name] = sum(value.nbytes for value in state.values())
    moments, basis = 8 * 64 * 1024, 4 * 64 * 512
    assert most["galore"] == moments + basis + 44
    assert most["dct-adamw"] == most["frugal"] == moments + 4 * 64 + 44
    assert most["apollo"] == moments + 28
    assert most["apollo-mini"] == 8 * 1024 + 28
    assert most["q-galore"] < (2.04 * 64 * 1024) + 4.25 / 8 * 64 * 512 + 100
    assert most["q-galore"] < 0.04 * 8 * param.size


def official(name, module):
    """Import one module of a package of development without running its __init__."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    pytest.importorskip("transformers")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    before = {key: value for key, value in sys.modules.items() if key.split(".")[0] == name}
    sys.modules[name] = package
    try:
        return importlib.import_module(f"{name}.{module}")
    finally:
        for key in [key for key in sys.modules if key.split(".")[0] == name]:
            del sys.modules[key]
        sys.modules.update(before)


def official_updates(optimizer_type, group, many, **options):
    import torch

    param = torch.nn.Parameter(torch.zeros(many[0].shape))
    optimizer = optimizer_type(
        [{"params": [param], **group}], lr=1.0, no_deprecation_warning=True, **options
    )
    result = []
    for gradient in many:
        before = param.detach().numpy().copy()
        param.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        result.append(before - param.detach().numpy())
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_galore_equals_galore_torch(shape):
    module = official("galore_torch", "adamw")
    draw = np.random.default_rng(0)
    left, right = draw.standard_normal((shape[0], 3)), draw.standard_normal((3, shape[1]))
    # an exactly low-rank signal with well apart values: no basis but one, up to signs
    many = [(((left * [9, 3, 1]) * draw.uniform(0.5, 1.5)) @ right) for _ in range(8)]
    many = [gradient.astype(np.float32) for gradient in many]
    group = {"rank": 3, "update_proj_gap": 99, "scale": 0.25, "proj_type": "std"}
    expected = official_updates(module.AdamW, group, many, eps=1e-8)
    close(run(LowRank(Adam(), TopVectors(3), 99, 0.25), many)[0], expected, 5e-3)


@pytest.mark.parametrize("by", ["rows", "tensor"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_apollo_equals_apollo_torch(shape, by, monkeypatch):
    module = official("apollo_torch", "apollo")
    many = gradients(shape, 8)
    basis = RandomVectors(3)
    vectors = basis.vectors({"epoch": np.zeros(1, np.int64)}, min(shape))

    def ours(self, weights, rank, seed, **side):
        import torch

        return torch.from_numpy(vectors if side["type"] == "right" else vectors.T.copy())

    monkeypatch.setattr(module.GradientProjector, "get_orthogonal_matrix", ours)
    group = {
        "rank": 3,
        "update_proj_gap": 99,
        "scale": 4.0,
        "proj": "random",
        "proj_type": "std",
        "scale_type": "channel" if by == "rows" else "tensor",
    }
    expected = official_updates(module.AdamW, group, many, eps=1e-8, disable_nl=True)
    close(run(Apollo(Adam(), basis, 99, 2.0, by, growth=1e9), many)[0], expected, 1e-3)


def test_apollo_torch_is_held_down_by_a_first_gradient_of_zeros():
    module = official("apollo_torch", "apollo")
    many = gradients((40, 12), 60)
    many[0] *= 0
    group = {"rank": 3, "update_proj_gap": 999, "scale": 1.0, "proj": "random", "proj_type": "std"}
    theirs = official_updates(module.AdamW, {**group, "scale_type": "channel"}, many)
    ours, _ = run(Apollo(Adam(), RandomVectors(3), 999), many)
    assert np.linalg.norm(theirs[-1]) < 1e-6 < np.linalg.norm(ours[-1])


def test_q_galore_torch_destroys_groups_of_one_sign_and_keeps_a_value_a_byte():
    torch = pytest.importorskip("torch")
    module = official("q_galore_torch", "q_galore_projector")
    projector = module.GaLoreProjector(1, quant=True, group_size=128, n_bit=4)
    rows = np.tile(np.array([1.0, 2.0], np.float32), (1, 64))
    codes, scales, zeros, shape = projector._quantize(torch.from_numpy(rows), 128, 4)
    theirs = (scales * (codes.to(scales.dtype) - zeros)).reshape(shape).numpy()
    assert np.unique(theirs).size == 1  # 1 and 2 became one number
    assert codes.numel() * codes.element_size() == rows.size
    packed = int4.empty(1, 128)
    int4.pack(rows, packed)
    np.testing.assert_allclose(int4.unpack(packed, 128), rows, rtol=1e-3)


def test_q_galore_is_galore_with_rounding():
    many = gradients((2000, 128), 20)
    exact, _ = run(LowRank(Adam(), TopVectors(3), 99, 0.25), many)
    rounded, state = run(LowRank(Adam8bit(), TopVectors(3, packed=True), 99, 0.25), many)
    assert state["inner.first"].dtype == np.int8 and state["basis.codes"].dtype == np.uint8
    for update, other in zip(rounded, exact, strict=True):
        cosine = (update * other).sum() / np.linalg.norm(update) / np.linalg.norm(other)
        assert cosine > 0.95
