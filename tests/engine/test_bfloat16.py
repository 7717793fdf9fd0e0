"""Products of bfloat16: rounding, tiles, sweeps and matrix products beside float64 on rounded numbers.

On a processor without the instructions the same kernels compute the same bits with products of float32; the tests
make them run there too.
"""

import itertools

import numba
import numpy as np
import pytest
from conftest import from_python, relative_error

import rvtrain as rt
from rvtrain._engine import _bfloat16 as bfloat16
from rvtrain._engine import _blocks, _layout
from rvtrain._engine import _matmul as matmul
from rvtrain._engine import _precision as precision
from rvtrain._engine import _tile as tile
from rvtrain._engine import _word_packing as packing
from rvtrain._kernels import _caches, njit

BOTH = ("anchors", "positives")


@pytest.fixture
def chosen(request, monkeypatch):
    """Products of float32 arrays are of bfloat16, on every processor: of vectors of words, or in tile registers."""
    name, operands = request.param
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "has_amx", lambda: operands == "tiles")
    rt.set_float32_precision(name)
    yield name
    rt.set_float32_precision("highest")


def under(*forms):
    """Run a test under these precisions, by words or by tiles."""
    return pytest.mark.parametrize("chosen", forms, ids=" by ".join, indirect=True)


MEDIUM, HIGH = [("medium", "words"), ("medium", "tiles")], ("high", "tiles")


def rounded(x):
    """Rounded to 8 bits of precision, ties to even, as float64: by arithmetic, not by bits."""
    x = np.asarray(x, np.float32).astype(np.float64)
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    return np.rint(x / step) * step


def infonce(anchors, positives, tau):
    """InfoNCE and its gradients to the unit rows in float64, where operands of the products are rounded."""
    a, p = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (anchors.astype(float), positives.astype(float)))
    own = np.einsum("ij,ij->i", a, p)
    scores = rounded(a) @ rounded(p).T
    weights = np.exp((scores - 1) / tau)
    np.fill_diagonal(weights, 0)
    others = weights.sum(axis=1)
    e = np.exp((own - 1) / tau)
    losses = np.log(others + e) - (own - 1) / tau
    share = 1 / (others + e) / tau / len(a)
    slope = -others * share
    to_a = share[:, None] * (rounded(weights) @ rounded(p)) + slope[:, None] * p
    to_p = rounded(weights).T @ rounded(share[:, None] * a) + slope[:, None] * a
    gradients = []
    for x, unit, to_unit in ((anchors, a, to_a), (positives, p, to_p)):
        norms = np.linalg.norm(x.astype(float), axis=1, keepdims=True)
        gradients.append((to_unit - unit * np.einsum("ij,ij->i", unit, to_unit)[:, None]) / norms)
    return losses.mean(), *gradients


def test_upper_bits__round_to_nearest_and_ties_to_even(rng):
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 0.0, -0.0, 3e38, 1e-40], np.float32)
    x = np.concatenate([ties, rng.normal(size=999).astype(np.float32), [np.inf, -np.inf]]).astype(np.float32)
    got = bfloat16.upper_bits(x).view(np.float32)
    np.testing.assert_array_equal(got[:-2], rounded(x[:-2]).astype(np.float32))
    np.testing.assert_array_equal(got[-2:], x[-2:])
    assert np.isnan(bfloat16.upper_bits(np.float32(np.nan)).view(np.float32))


@from_python
@njit
def word_of(a, b, rest, out):
    for i in range(len(a)):
        out[i] = bfloat16.word(a[i], b[i], rest)


def test_word__holds_the_first_number_in_its_lower_half(rng):
    a, b = rng.normal(size=(2, 37)).astype(np.float32)
    out = np.empty(37, np.int32)
    for rest in (False, True):
        word_of(a, b, rest, out)
        for x, half in zip((a, b), bfloat16.halves(out), strict=True):
            np.testing.assert_array_equal(half, rounded(x - rounded(x)) if rest else rounded(x))


@from_python
@njit
def panels_of(left, right, out, add):
    tile.tile_panels(left, 0, left.shape[1], right, 0, len(left), out, 0, out.shape[1], add)


@from_python
@njit
def sums_of(blocks, right, to_rows, below, to_columns, start):
    size = blocks.shape[1] * blocks.shape[2]
    for b in range(len(blocks)):
        packing.narrow_tile(blocks, b * size)
    words = blocks.view(np.int32)
    tile.tile_rows(words, 0, size, right, 0, len(blocks), to_rows, 0, to_rows.shape[1], False)
    tile.tile_columns(words, start, size, below, 0, len(blocks), to_columns, 0, to_columns.shape[1], False)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_tiles_of_words__multiply_each_layout_of_the_left_operand(steps, rng):
    rows, columns, _ = tile.tile_shape(np.float32)
    left, right = (rng.normal(size=(2 * steps, n)).astype(np.float32) for n in (rows, columns))
    before = rng.normal(size=(rows, columns)).astype(np.float32)
    for add in (False, True):
        out = before.copy()
        panels_of(*(bfloat16.joined(x[::2], x[1::2]) for x in (left, right)), out, add)
        assert relative_error(out, before.astype(float) * add + rounded(left).T @ rounded(right)) < 1e-6

    blocks = rng.normal(size=(steps, rows, columns)).astype(np.float32)
    across, below = (rng.normal(size=(steps * n, columns)).astype(np.float32) for n in (columns, rows))
    wide, tall = rounded(blocks.transpose(1, 0, 2).reshape(rows, -1)), rounded(blocks.reshape(-1, columns))
    words = [bfloat16.joined(x[::2], x[1::2]) for x in (across, below)]
    for start in range(0, columns, rows):
        to_rows, to_columns = np.empty((2, rows, columns), np.float32)
        sums_of(blocks.copy(), words[0], to_rows, words[1], to_columns, start)
        assert relative_error(to_rows, wide @ rounded(across)) < 1e-6
        assert relative_error(to_columns, tall[:, start : start + rows].T @ rounded(below)) < 1e-6


@pytest.mark.skipif(not bfloat16.has_bfloat16(), reason="needs AVX-512 BF16")
def test_tiles_of_words__have_the_bits_of_products_in_float32(rng, monkeypatch):
    rows, columns, _ = tile.tile_shape(np.float32)
    left, right = (bfloat16.joined(*rng.normal(size=(2, 33, n)).astype(np.float32)) for n in (rows, columns))
    by_instruction, by_products = np.empty((2, rows, columns), np.float32)
    panels_of(left, right, by_instruction, False)
    monkeypatch.setattr(bfloat16, "has_bfloat16", lambda: False)
    other = tile._microkernel(tile._panel)

    @from_python
    @njit
    def in_float32(left, right, out):
        other(left, 0, left.shape[1], right, 0, len(left), out, 0, out.shape[1], False)

    in_float32(left, right, by_products)
    np.testing.assert_array_equal(by_instruction, by_products)


@under(*MEDIUM)
@pytest.mark.parametrize("shape", [(1, 5), (7, 1), (97, 33), (130, 128), (300, 100)])
def test_infonce__rounds_operands_of_products_alone(shape, chosen, rng):
    anchors, positives = rng.normal(size=(2, *shape)).astype(np.float32)
    loss = rt.InfoNCELoss(0.3)
    value, gradients = loss.compute_with_gradients(anchors, positives, wrt=BOTH)
    expected, *theirs = infonce(anchors, positives, 0.3)
    assert abs(value - expected) < 1e-5 * max(1.0, expected)
    for mine, other in zip(gradients, theirs, strict=True):
        # A number next to a tie is rounded the other way where float32 has another last bit.
        assert np.abs(mine - other).max() <= 1e-4 * max(np.abs(other).max(), 0.05 / shape[0])
    assert loss.compute(anchors, positives) == pytest.approx(value, rel=1e-6)


@under(HIGH)
@pytest.mark.parametrize("shape", [(1, 5), (7, 2), (97, 33), (130, 128), (300, 700)])
def test_infonce__of_high_precision_has_small_errors(shape, chosen, rng):
    anchors, positives = rng.normal(size=(2, *shape)).astype(np.float32)
    loss = rt.InfoNCELoss(0.3)
    value, gradients = loss.compute_with_gradients(anchors, positives, wrt=BOTH)
    exact, expected = loss.compute_with_gradients(anchors.astype(float), positives.astype(float), wrt=BOTH)
    assert value == pytest.approx(exact, rel=1e-6)
    for mine, other in zip(gradients, expected, strict=True):
        assert np.abs(mine - other).max() <= 1e-5 * max(np.abs(other).max(), 0.05 / shape[0])


LOSSES = {
    "unbounded": rt.InfoNCELoss(0.001),
    "symmetric": rt.InfoNCELoss(0.2, symmetric=True),
    "directions": rt.InfoNCELoss(0.2, directions=("query_to_document", "query_to_query")),
    "hard negatives": rt.HardNegativeContrastiveLoss(0.3),
    "sigmoid": rt.SigmoidLoss(),
}


@under(*MEDIUM, HIGH)
@pytest.mark.parametrize("name", LOSSES)
def test_losses__are_near_those_of_float32(name, chosen, rng):
    loss = LOSSES[name]
    anchors, noise = rng.normal(size=(2, 150, 65)).astype(np.float32)
    positives = anchors + noise
    value, gradients = loss.compute_with_gradients(anchors, positives, wrt=BOTH)
    rt.set_float32_precision("highest")
    exact, expected = loss.compute_with_gradients(anchors, positives, wrt=BOTH)
    of_value, of_gradient = {"medium": (5e-3, 6e-3), "high": (1e-5, 1e-5)}[chosen]
    assert value != exact and value == pytest.approx(exact, rel=of_value)
    sharp = 60 if name == "unbounded" else 1  # rounding of a score is divided by the temperature
    for mine, other in zip(gradients, expected, strict=True):
        assert np.abs(mine - other).max() <= of_gradient * sharp * np.abs(other).max()


def with_threads(count, call):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        return call()
    finally:
        numba.set_num_threads(before)


@under(*MEDIUM, HIGH)
def test_pool__strided_input_and_threads_give_the_same_bits(chosen, rng):
    anchors, positives = rng.normal(size=(2, 200, 48)).astype(np.float32)
    pool = rng.normal(size=(301, 96)).astype(np.float32)[:, ::2]
    loss, wrt = rt.InfoNCELoss(0.1), (*BOTH, "negatives")
    value, one = with_threads(1, lambda: loss.compute_with_gradients(anchors, positives, pool.copy(), wrt=wrt))
    other, two = with_threads(2, lambda: loss.compute_with_gradients(anchors, positives, pool, wrt=wrt))
    assert value == other
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@under(*MEDIUM, HIGH)
def test_results__are_the_same_bits_for_any_caches(chosen, monkeypatch, rng):
    anchors, positives = rng.normal(size=(2, 900, 100)).astype(np.float32)
    found = []
    for sizes in (_caches.TYPICAL, _caches.Caches(32 << 10, 64 << 10, 1 << 20), _caches.Caches(*3 * [1 << 25])):
        for module in (_blocks, _layout):
            monkeypatch.setattr(module, "cache_sizes", lambda sizes=sizes: sizes)
        _layout._facts.cache_clear()
        for loss in (rt.InfoNCELoss(0.1), rt.InfoNCELoss(0.1, symmetric=True)):
            value, gradients = loss.compute_with_gradients(anchors, positives, wrt=BOTH)
            found.append((value, *(g.tobytes() for g in gradients)))
    _layout._facts.cache_clear()
    assert found[:2] == found[2:4] == found[4:]


SHAPES = [(1, 1, 1), (5, 3, 2), (37, 65, 33), (70, 130, 64), (64, 32, 96)]


@under(*MEDIUM, HIGH)
@pytest.mark.parametrize(("count", "dim", "across"), SHAPES)
def test_products__are_those_of_rounded_numbers(count, dim, across, chosen, rng):
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((count + 3, dim), (dim, across)))
    g, rows = rng.normal(size=(count, across)).astype(np.float32), rng.permutation(count + 3)[:count]
    multiplied = {"medium": products_of_rounded, "high": products_of_sums}[chosen]
    assert relative_error(matmul.product(x, rows, w), multiplied(x[rows], w)) < 1e-6
    assert relative_error(matmul.product_with_transpose(g, w), multiplied(g, w.T)) < 1e-6
    assert relative_error(matmul.transposed_product(x, rows, g), multiplied(x[rows].T, g)) < 1e-6


def products_of_rounded(x, y):
    return rounded(x) @ rounded(y)


def products_of_sums(x, y):
    """Of numbers that are sums of two, without the product of the second ones."""
    (x, more_x), (y, more_y) = ((rounded(z), rounded(z - rounded(z))) for z in (x, y))
    return x @ y + x @ more_y + more_x @ y


@under(HIGH)
def test_products__of_high_precision_have_small_errors(chosen, rng):
    x, w = rng.normal(size=(90, 1300)).astype(np.float32), rng.normal(size=(1300, 70)).astype(np.float32)
    for mine, exact in (
        (matmul.product(x, None, w), x.astype(float) @ w),
        (matmul.product_with_transpose(x, w.T.copy()), x.astype(float) @ w),
        (matmul.transposed_product(x.T.copy(), None, w), x.astype(float) @ w),
    ):
        assert 1e-7 < relative_error(mine, exact) < 1e-5


@under(*MEDIUM)
def test_products__of_a_residual_layer_add_the_input_in_float32(chosen, rng):
    x, w = rng.normal(size=(50, 40)).astype(np.float32), 1e-3 * rng.normal(size=(40, 40)).astype(np.float32)
    exact = x.astype(float) + rounded(x) @ rounded(w)
    assert relative_error(matmul.product(x, None, w, residual=True), exact) < 1e-6
    exact = x.astype(float) + rounded(x) @ rounded(w).T
    assert relative_error(matmul.product_with_transpose(x, w, residual=True), exact) < 1e-6


@under(*MEDIUM)
def test_euclidean_similarity__is_always_of_float32(chosen, rng):
    anchors, positives = rng.normal(size=(2, 50, 33)).astype(np.float32)
    loss = rt.InfoNCELoss(3.0, similarity="euclidean", precision="medium")
    value = loss.compute(anchors, positives)
    rt.set_float32_precision("highest")
    assert loss.precision_used == "highest" and value == loss.compute(anchors, positives)


def test_precision__of_an_object_comes_before_that_of_all(monkeypatch, rng):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    anchors, positives = rng.normal(size=(2, 64, 32)).astype(np.float32)
    usual, highest, medium = (rt.InfoNCELoss(precision=name) for name in (None, "highest", "medium"))
    assert (usual.precision, usual.precision_used) == ("highest", "highest")
    assert (medium.precision, medium.precision_used) == ("medium", "medium")
    values = [loss.compute(anchors, positives) for loss in (usual, highest, medium)]
    assert values[0] == values[1] != values[2]
    try:
        rt.set_float32_precision("medium")
        assert [loss.compute(anchors, positives) for loss in (usual, highest)] == [values[2], values[0]]
        assert (usual.precision_used, highest.precision_used) == ("medium", "highest")
        monkeypatch.setattr(precision, "has_amx", lambda: False)
        rt.set_float32_precision("high")
        assert (usual.precision, usual.precision_used) == ("high", "highest")
        assert usual.compute(anchors, positives) == values[0]
    finally:
        rt.set_float32_precision("highest")


def test_precision__is_of_float32_and_of_processors_with_instructions_alone(monkeypatch, rng):
    anchors, positives = rng.normal(size=(2, 40, 24))
    loss, other = rt.InfoNCELoss(precision="medium"), rt.InfoNCELoss()
    assert loss.compute(anchors, positives) == other.compute(anchors, positives)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    assert (loss.precision, loss.precision_used) == ("medium", "highest")
    single = anchors.astype(np.float32), positives.astype(np.float32)
    assert loss.compute(*single) == other.compute(*single)


@pytest.mark.parametrize("wrong", ["low", "MEDIUM", "", None, 16])
def test_precision__wrong(wrong):
    before = rt.get_float32_precision()
    with pytest.raises((TypeError, ValueError), match=r"precision must be .*highest"):
        rt.set_float32_precision(wrong)
    assert rt.get_float32_precision() == before
    if wrong is not None:
        with pytest.raises((TypeError, ValueError), match=r"precision must be .*highest"):
            rt.InfoNCELoss(precision=wrong)


def test_precision__is_named_by_repr_where_it_was_chosen():
    assert "precision" not in repr(rt.InfoNCELoss())
    assert "precision='medium'" in repr(rt.InfoNCELoss(precision="medium"))


@under(*MEDIUM, HIGH)
def test_training__learns_as_well_as_in_float32(chosen, rng):
    hidden = rng.normal(size=(600, 12))
    queries, documents = (
        (hidden @ rng.normal(size=(12, 40)) + 2 * rng.normal(size=(600, 40))).astype(np.float32) for _ in range(2)
    )
    held_back = np.arange(450, 600)
    found = {}
    for name in (chosen, "highest"):
        rt.set_float32_precision(name)
        model = rt.TwoTower(rt.LinearAdapter(40), rt.LinearAdapter(40))
        optimizer = rt.AdamW(model.params, 3e-3)
        trainer = rt.Trainer(model, rt.InfoNCELoss(0.1), optimizer, epochs=8, batch_size=64, progress=False)
        trainer.fit(queries[:450], documents[:450])
        found[name] = rt.evaluate_retrieval(
            model.query.transform(queries[held_back]), model.document.transform(documents[held_back]),
            np.arange(150), ["recall@10"],
        )["recall@10"]  # fmt: skip
    assert found["highest"] > 0.3 and abs(found[chosen] - found["highest"]) <= 0.03


def test_resuming__refuses_another_precision(tmp_path, rng):
    x = rng.normal(size=(64, 8)).astype(np.float32)

    def trainer():
        adapter = rt.LinearAdapter(8)
        optimizer = rt.AdamW(adapter.params, 1e-3)
        path = tmp_path / "run.npz"
        return rt.Trainer(adapter, rt.SigmoidLoss(), optimizer, epochs=1, checkpoint=path, progress=False)

    trainer().fit(x, x)
    try:
        rt.set_float32_precision("medium")
        with pytest.raises(ValueError, match=r"float32_precision must be that of the run .*highest, got medium"):
            trainer().fit(x, x, resume=True)
    finally:
        rt.set_float32_precision("highest")


def test_tile_shapes__hold_pairs_of_rows_and_of_columns():
    rows, columns, lanes = tile.tile_shape(np.float32)
    assert all(n % 2 == 0 for n in (rows, columns, lanes))
    for count, wide in itertools.product((1, 2, 7), (1, 3)):
        assert bfloat16.words(2 * count) == count and bfloat16.words(2 * count - 1) == count
        assert bfloat16.joined(*np.zeros((2, wide, count), np.float32)).shape == (wide, count)
