"""InfoNCE's options: similarities, directions, margins, hardness, false negatives, guides, frequencies, together."""

import itertools

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error
from loss_cases import check_gradient, make_case
from reference_losses import DIRECTIONS

import rvtrain as rt

PLACES = ["in_batch", "symmetric", "pool", "symmetric pool", "own", "gathered"]
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(DIRECTIONS, n) if s != DIRECTIONS[:1]]
NEGATIVES = "negatives"
ALL = (*DIRECTIONS, NEGATIVES)
DOCUMENTS = {"query_to_document", "document_to_document"}

OPTIONS = {
    "plain": {},
    "dot": {"similarity": "dot"},
    "euclidean": {"similarity": "euclidean"},
    "margin": {"margin": 0.2},
    "hardness": {"hardness": 3.0},
    "false negatives": {"false_negative_margin": 0.1},
    "false negatives, negative margin": {"false_negative_margin": -0.3},
    "guide": {"guide": True},
    "guide with margin": {"guide": True, "false_negative_margin": 0.2},
    "log_q": {"log_q": True},
    "ids": {"ids": True},
    "all, cosine": {
        "margin": 0.2, "hardness": 3.0, "false_negative_margin": 0.2, "guide": True, "log_q": True, "ids": True,
    },
    "all, dot": {
        "similarity": "dot", "margin": 0.2, "hardness": 0.5, "false_negative_margin": 0.1, "log_q": True, "ids": True,
    },
    "all, euclidean": {
        "similarity": "euclidean", "margin": 0.5, "hardness": 0.5, "false_negative_margin": 0.1, "log_q": True,
    },
}  # fmt: skip


class Call:
    """A loss and its arguments, with its oracle and its formula in torch."""

    def __init__(self, place, options, batch, dim, dtype, rng, temperature=0.2, directions=DIRECTIONS[:1], size=1.0):
        self.place, self.options, self.tau, self.dtype = place, dict(options), temperature, dtype
        self.symmetric, self.directions = place.startswith("symmetric"), directions
        kind = {"symmetric": "in_batch", "symmetric pool": "pool"}.get(place, place)
        case = make_case(kind, batch, dim, dtype, rng, ids=1 if self.options.pop("ids", False) else 0)
        self.args = tuple((x * size / np.sqrt(dim)).astype(dtype) for x in case.args)
        self.extra, self.absent, self.equal = dict(case.extra), case.absent, case.equal
        self.indices = case.extra.get("negative_indices")
        self.batch_equal = None
        if "anchor_ids" in self.extra:
            ids = np.stack([self.extra["anchor_ids"], self.extra["positive_ids"]], axis=1)
            self.batch_equal = (ids[:, None, :, None] == ids[None, :, None, :]).any((2, 3))
        self.guide = self.log_q = None
        if self.options.pop("guide", False):
            self.guide = tuple(
                (x[..., :3] + 0.3 * rng.normal(size=(*x.shape[:-1], 3))).astype(dtype) for x in self.args
            )
            self.extra["guide"] = self.guide
        if self.options.pop("log_q", False):
            q = rng.uniform(0.01, 1.0, self.args[-1].shape[:-1])
            self.log_q = self.extra["log_q"] = np.log(q)

    @property
    def in_batch(self):
        return len(self.args) == 2

    @property
    def names(self):
        return ("anchors", "positives", "negatives")[: len(self.args)]

    @property
    def segments(self):
        """Columns of the rows' softmax."""
        if self.in_batch:
            return self.directions
        if self.symmetric:
            return (*DIRECTIONS[:1], NEGATIVES)
        return (NEGATIVES,) if self.directions == DIRECTIONS[:1] else (*self.directions, NEGATIVES)

    def loss(self, reduction="mean"):
        return rt.InfoNCELoss(self.tau, reduction, self.symmetric, directions=self.directions, **self.options)

    def own(self, array):
        """Of a pool that is read by index: one entry for each index."""
        return array if self.indices is None or array is None else array[self.indices]

    def oracle(self, args=None, tau=None):
        """Losses of the rows for other arguments, with what is stopped as it is."""
        args = self.args if args is None else args
        negatives = None if self.in_batch else self.own(args[2])
        guide = self.guide if self.guide is None or self.in_batch else (*self.guide[:2], self.own(self.guide[2]))
        frozen = (*self.args[:2], None if self.in_batch else self.own(self.args[2]))
        masks = [x for x in (self.absent, None if self.in_batch else self.equal) if x is not None]
        options = {
            "similarity": self.options.get("similarity", "cosine"),
            "margin": self.options.get("margin", 0.0),
            "hardness": self.options.get("hardness", 0.0),
            "false_negative_margin": self.options.get("false_negative_margin", 0.0 if self.guide else None),
            "guide": guide,
            "masked": np.logical_or.reduce(masks) if masks else None,
            "batch_masked": self.batch_equal,
            "frozen": frozen,
        }
        if self.log_q is not None:
            options["batch_log_q" if self.in_batch else "log_q"] = self.own(self.log_q)
        tau = self.tau if tau is None else tau
        if self.symmetric:
            return reference_losses.infonce_symmetric(*args[:2], negatives, tau, **options)
        batch = tuple(s for s in self.segments if s != NEGATIVES)
        return reference_losses.infonce(*args[:2], negatives, tau, directions=batch, hardness_on=ALL, **options)

    def torch(self, torch):
        """The mean loss and its gradients, by name, float64."""
        tensors = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in self.args]
        tau = torch.tensor(self.tau, dtype=torch.float64, requires_grad=True)
        rows = self._torch_rows(torch, tensors, tau, self.segments)
        if self.symmetric:
            rows = (rows + self._torch_rows(torch, tensors, tau, DIRECTIONS[1:2])) / 2
        rows.mean().backward()
        by_name = dict(zip(self.names, tensors, strict=False)) | {"temperature": tau}
        return rows.mean().item(), {
            name: np.zeros(x.shape) if x.grad is None else x.grad.numpy() for name, x in by_name.items()
        }

    def _torch_rows(self, torch, tensors, tau, segments):
        similarity, guide = self.options.get("similarity", "cosine"), self.guide
        scores, own = _torch_scores(torch, tensors, similarity, self.indices, segments)
        judges, judge_own, limit = scores, own, self.options.get("false_negative_margin", np.inf)
        if guide is not None:
            vectors = [torch.tensor(x.astype(np.float64)) for x in guide]
            judges, judge_own = _torch_scores(torch, vectors, "cosine", self.indices, segments)
            limit = -self.options.get("false_negative_margin", 0.0)
        positive = (own - self.options.get("margin", 0.0)) / tau
        log_q = None if self.log_q is None else torch.tensor(self.own(self.log_q))
        if log_q is not None and self.in_batch and not DOCUMENTS.isdisjoint(segments):
            positive = positive - log_q
        columns = []
        for name in segments:
            c = scores[name]
            s = c / tau + self.options.get("hardness", 0.0) * c.detach()
            if log_q is not None and (name == NEGATIVES or (self.in_batch and name in DOCUMENTS)):
                s = s - log_q
            keep = ~(judges[name] > judge_own[:, None] + limit)
            masks = (
                [self.absent, self.equal] if name == NEGATIVES else [np.eye(len(own), dtype=bool), self.batch_equal]
            )
            for mask in masks:
                keep = keep if mask is None else keep & ~torch.tensor(mask)
            columns.append(s.masked_fill(~keep, -torch.inf))
        return torch.logaddexp(torch.zeros_like(positive), torch.cat(columns, 1).logsumexp(1) - positive)


def _torch_scores(torch, tensors, similarity, indices, segments):
    """Scores by segment, (B, columns), and those of the positives."""
    if similarity == "cosine":
        tensors = [torch.nn.functional.normalize(x, dim=-1, eps=1e-8) for x in tensors]
    q, d, *n = tensors

    def between(x, y):
        dots = x @ y.T if y.ndim == 2 else torch.einsum("bd,bkd->bk", x, y)
        if similarity != "euclidean":
            return dots
        return dots - (x * x).sum(-1)[:, None] / 2 - (y * y).sum(-1) / 2

    n = n[0] if n else None
    n = n[torch.tensor(indices)] if indices is not None else n
    sides = {DIRECTIONS[0]: (q, d), DIRECTIONS[1]: (d, q), DIRECTIONS[2]: (q, q), DIRECTIONS[3]: (d, d)}
    sides[NEGATIVES] = (q, n)
    own = -((q - d) ** 2).sum(-1) / 2 if similarity == "euclidean" else (q * d).sum(-1)
    return {name: between(*sides[name]) for name in segments}, own


def check_against_torch(call, tolerance=None):
    torch = import_torch()
    names = (*call.names, "temperature")
    value, gradients = call.loss().compute_with_gradients(*call.args, wrt=names, **call.extra)
    right, expected = call.torch(torch)
    tolerance = TOLERANCE[call.dtype] if tolerance is None else tolerance
    assert relative_error(value, right) < tolerance
    for name, gradient in zip(names, gradients, strict=True):
        # Large and small scores cancel in the gradient to the temperature, whatever their sums are.
        of_size = np.abs(right).max() / call.tau if name == "temperature" else 0.0
        check_gradient(name, gradient, expected[name], call.dtype, tolerance, of_size)


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "temperature"), [((70, 9), 0.2), ((101, 31), 0.02)], ids=str)
def test_gradients__match_torch_autograd(options, place, shape, temperature, dtype, rng):
    tau = temperature * (10 if "similarity" in OPTIONS[options] else 1)
    check_against_torch(Call(place, OPTIONS[options], *shape, dtype, rng, tau, size=1.5))


@pytest.mark.parametrize("options", ["plain", "all, cosine", "all, dot", "all, euclidean"])
@pytest.mark.parametrize("place", ["in_batch", "pool"])
@pytest.mark.parametrize("directions", SUBSETS, ids=lambda s: "+".join(x.replace("_to_", "2") for x in s))
def test_directions__match_torch_autograd(options, place, directions, dtype, rng):
    for temperature in (0.2, 0.02):
        tau = temperature * (10 if "similarity" in OPTIONS[options] else 1)
        check_against_torch(Call(place, OPTIONS[options], 70, 9, dtype, rng, tau, directions, size=1.5))


@pytest.mark.parametrize("options", ["plain", "all, cosine", "all, dot", "all, euclidean"])
@pytest.mark.parametrize("place", [*PLACES, "in_batch, directions", "pool, directions"])
def test_gradients__match_torch_autograd_beyond_one_block_and_one_group(options, place, rng):
    place, _, joint = place.partition(", ")
    directions = DIRECTIONS if joint else DIRECTIONS[:1]
    for tau in (0.2, 2.0):
        check_against_torch(Call(place, OPTIONS[options], 300, 130, np.float64, rng, tau, directions))


ORACLE = [(place, DIRECTIONS[:1], options) for place in PLACES for options in OPTIONS]
ORACLE += [(p, s, o) for p in ("in_batch", "pool") for s in SUBSETS for o in ("all, cosine", "all, euclidean")]


@pytest.mark.parametrize(("place", "directions", "options"), ORACLE, ids=str)
def test_values_and_gradients__match_the_oracle(place, directions, options, rng):
    call = Call(place, OPTIONS[options], 5, 3, np.float64, rng, 0.3, directions)
    names = (*call.names, "temperature")
    values, gradients = call.loss("none").compute_with_gradients(*call.args, wrt=names, **call.extra)
    assert relative_error(values, call.oracle()) < TOLERANCE[np.float64]
    *gradients, slope = gradients
    up, down = (call.oracle(tau=0.3 + h).sum() for h in (1e-6, -1e-6))
    assert slope == pytest.approx((up - down) / 2e-6, rel=1e-6)
    for at, gradient in enumerate(gradients):
        x, direction = call.args[at], np.random.default_rng(at).normal(size=call.args[at].shape)

        def along(t, at=at, x=x, direction=direction):
            return call.oracle([*call.args[:at], x + t * direction, *call.args[at + 1 :]]).sum()

        expected = (along(1e-6) - along(-1e-6)) / 2e-6
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("place", [*PLACES, "directions"])
def test_gradients__each_alone_equals_all_together(place, dtype, rng):
    directions = DIRECTIONS if place == "directions" else DIRECTIONS[:1]
    call = Call("pool" if place == "directions" else place, OPTIONS["all, cosine"], 9, 6, dtype, rng, 0.2, directions)
    names = (*call.names, "temperature")
    value, together = call.loss().compute_with_gradients(*call.args, wrt=names, **call.extra)
    assert call.loss().compute(*call.args, **call.extra) == pytest.approx(value, rel=1e-12)
    for name, gradient in zip(names, together, strict=True):
        alone_value, alone = call.loss().compute_with_gradients(*call.args, wrt=name, **call.extra)
        assert alone_value == pytest.approx(value, rel=1e-12)
        assert relative_error(alone, gradient) < TOLERANCE[dtype]


@pytest.mark.parametrize("place", [*PLACES, "directions"])
def test_sample_weight__weighs_the_rows(place, dtype, rng):
    directions = DIRECTIONS if place == "directions" else DIRECTIONS[:1]
    call = Call("pool" if place == "directions" else place, OPTIONS["all, cosine"], 9, 6, dtype, rng, 0.2, directions)
    weights = rng.uniform(0, 2, 9)
    weights[4] = 0
    extra = call.extra | {"sample_weight": weights}
    right = call.oracle()
    for reduction in ("mean", "sum", "none"):
        expected = reference_losses.reduced(right, reduction, weights)
        assert relative_error(call.loss(reduction).compute(*call.args, **extra), expected) < TOLERANCE[dtype]
    total = call.loss("sum").compute_with_gradients(*call.args, wrt="positives", **extra)[1].astype(np.float64)
    parts = [
        call.loss("sum").compute_with_gradients(*call.args, wrt="positives", **call.extra | {"sample_weight": one})[1]
        for one in np.eye(9)
    ]
    assert relative_error(total, sum(w * g for w, g in zip(weights, parts, strict=True))) < TOLERANCE[dtype]
    mean = call.loss().compute_with_gradients(*call.args, wrt="positives", **extra)[1]
    check_gradient("positives", mean, total / weights.sum(), dtype)


@pytest.mark.parametrize("options", ["all, cosine", "all, dot", "all, euclidean"])
@pytest.mark.parametrize("place", [*PLACES, "directions"])
def test_result__same_bits_for_any_number_of_threads(options, place, dtype, rng):
    directions = DIRECTIONS if place == "directions" else DIRECTIONS[:1]
    place = "pool" if place == "directions" else place
    call = Call(place, OPTIONS[options], 331, 33, dtype, rng, 0.2, directions)
    names, before, results = (*call.names, "temperature"), numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradients = call.loss().compute_with_gradients(*call.args, wrt=names, **call.extra)
            results.append(b"".join(np.asarray(x).tobytes() for x in (value, *gradients)))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


# --- Corners -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 0.01])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("place", ["pool", "own", "gathered"])
@pytest.mark.parametrize("dim", [7, 130, 300])
def test_false_negative_margin__of_zero_keeps_copies_of_the_positive(place, similarity, temperature, dim, dtype, rng):
    """A copy scores as the positive itself, to the bit: it does not exceed it."""
    a = rng.normal(size=(40, dim)).astype(dtype) / np.sqrt(dim).astype(dtype)
    p = (a + rng.normal(size=a.shape) / np.sqrt(dim)).astype(dtype)
    loss = rt.InfoNCELoss(temperature, "none", similarity=similarity, false_negative_margin=0.0)
    if place == "own":
        values = loss.compute(a, p, p[:, None, :].copy())
    else:
        indices = {} if place == "pool" else {"negative_indices": np.arange(40)[:, None]}
        values = loss.compute(a, p, p, **indices)
    assert (values > 0.69).all()  # log 2: positive and copy


@pytest.mark.parametrize("place", ["pool", "own", "gathered"])
@pytest.mark.parametrize("dim", [7, 130, 300])
def test_guide__keeps_what_it_finds_as_good_as_the_positive(place, dim, dtype, rng):
    a, p, g, h = rng.normal(size=(4, 40, dim)).astype(dtype)
    loss = rt.InfoNCELoss(0.2, "none")
    if place == "own":
        values = loss.compute(a, p, p[:, None, :].copy(), guide=(g, h, h[:, None, :].copy()))
    else:
        indices = {} if place == "pool" else {"negative_indices": np.arange(40)[:, None]}
        values = loss.compute(a, p, p, guide=(g, h, h), **indices)
    assert (values > 0.69).all()


def test_guide__all_masked_is_no_loss(dtype, rng):
    a, p, n = rng.normal(size=(3, 8, 5)).astype(dtype)
    guide = (a, -a, a)  # the positive is the farthest
    for args, vectors, wrt in (((a, p), guide[:2], ("anchors", "temperature")), ((a, p, n), guide, "negatives")):
        value, gradients = rt.InfoNCELoss(0.1, false_negative_margin=5.0).compute_with_gradients(
            *args, guide=vectors, wrt=wrt
        )
        assert value == 0.0
        assert not any(np.any(g) for g in gradients)


def test_guide__of_other_length_and_type(dtype, rng):
    a, p = rng.normal(size=(2, 20, 5)).astype(dtype)
    g, h = rng.normal(size=(2, 20, 70))
    loss = rt.InfoNCELoss(0.1, "none")
    expected = reference_losses.infonce(a, p, None, 0.1, guide=(g, h), false_negative_margin=0.0)
    assert relative_error(loss.compute(a, p, guide=(g, h)), expected) < TOLERANCE[dtype]
    wide = g.repeat(2, axis=0)[::2], np.asfortranarray(h)
    for x in wide:
        x.flags.writeable = False
    np.testing.assert_array_equal(loss.compute(a, p, guide=wide), loss.compute(a, p, guide=(g, h)))


@pytest.mark.parametrize("directions", [DIRECTIONS[:1], DIRECTIONS], ids=["one", "all"])
def test_ids__of_the_batch_alone_leave_the_pool_alone(directions, dtype, rng):
    (a, p), n = rng.normal(size=(2, 9, 5)).astype(dtype), rng.normal(size=(4, 5)).astype(dtype)
    ids = np.array([0, 1, 2, 0, 1, 2, -1, -2, -(2**63)])
    masked = ids[:, None] == ids
    loss = rt.InfoNCELoss(0.3, "none", directions=directions)
    batch = () if len(directions) == 1 else directions
    expected = reference_losses.infonce(a, p, n, 0.3, directions=batch, batch_masked=masked)
    assert relative_error(loss.compute(a, p, n, anchor_ids=ids), expected) < TOLERANCE[dtype]
    expected = reference_losses.infonce_symmetric(a, p, n, 0.3, batch_masked=masked)
    loss = rt.InfoNCELoss(0.3, "none", symmetric=True)
    assert relative_error(loss.compute(a, p, n, positive_ids=ids), expected) < TOLERANCE[dtype]


def test_ids__several_of_a_pool_row_beside_the_batch(dtype, rng):
    (a, p), n = rng.normal(size=(2, 9, 5)).astype(dtype), rng.normal(size=(6, 5)).astype(dtype)
    ids, of_pool = rng.integers(0, 4, 9), rng.integers(0, 6, (6, 3))
    loss = rt.InfoNCELoss(0.3, "none", directions=DIRECTIONS)
    expected = reference_losses.infonce(
        a, p, n, 0.3, directions=DIRECTIONS, batch_masked=ids[:, None] == ids,
        masked=(ids[:, None, None] == of_pool).any(2),
    )  # fmt: skip
    values = loss.compute(a, p, n, anchor_ids=ids, negative_ids=of_pool)
    assert relative_error(values, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("place", PLACES)
def test_temperature__may_be_tiny_whatever_the_similarity(place, similarity, dtype, rng):
    call = Call(place, {"similarity": similarity}, 9, 6, dtype, rng, 1e-3, size=3.0)
    values, gradients = call.loss("none").compute_with_gradients(*call.args, wrt=call.names, **call.extra)
    assert relative_error(values, call.oracle()) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


def test_hardness__may_be_large(dtype, rng):
    call = Call("in_batch", {"hardness": 500.0}, 9, 6, dtype, rng, 0.1)
    values = call.loss("none").compute(*call.args)
    assert relative_error(values, call.oracle()) < TOLERANCE[dtype]


def test_log_q__of_rare_and_of_certain_negatives(dtype, rng):
    a, p, n = rng.normal(size=(3, 7, 5)).astype(dtype)
    log_q = np.array([0.0, -700.0, -5.0, 0.0, -50.0, -1.0, -2.0])
    for given in (log_q, log_q.astype(np.float32)):
        values = rt.InfoNCELoss(0.2, "none").compute(a, p, n, log_q=given)
        expected = reference_losses.infonce(a, p, n, 0.2, directions=(), log_q=log_q)
        assert relative_error(values, expected) < TOLERANCE[dtype]
    same = rt.InfoNCELoss(0.2, "none").compute(a, p, n, log_q=np.zeros(7))
    assert relative_error(same, rt.InfoNCELoss(0.2, "none").compute(a, p, n)) < TOLERANCE[dtype]


def test_euclidean__is_exact_where_rows_are_close(dtype, rng):
    """−‖a − b‖²/2 of the own positive comes from the difference, whatever the norms."""
    a = rng.normal(size=(6, 5)).astype(dtype)
    p = (a + 1e-3 * rng.normal(size=a.shape)).astype(dtype)
    expected = reference_losses.infonce(a, p, None, 0.5, similarity="euclidean")
    values = rt.InfoNCELoss(0.5, "none", similarity="euclidean").compute(a, p)
    assert np.abs(values - expected).max() < 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("place", PLACES)
def test_gradients__euclidean_and_dot_match_central_differences(place, rng):
    for similarity in ("dot", "euclidean"):
        call = Call(place, {"similarity": similarity}, 4, 3, np.float64, rng, 0.5)
        gradients = call.loss("sum").compute_with_gradients(*call.args, wrt=call.names, **call.extra)[1]
        for at, gradient in enumerate(gradients):

            def of_input(x, at=at, call=call):
                return call.oracle([*call.args[:at], x, *call.args[at + 1 :]]).sum()

            assert relative_error(gradient, reference.central_differences(of_input, call.args[at])) < 1e-6


@pytest.mark.parametrize("place", PLACES)
def test_calls__of_one_anchor(place, dtype, rng):
    call = Call(place, OPTIONS["all, cosine"], 1, 6, dtype, rng)
    right, gradients = call.loss().compute_with_gradients(*call.args, wrt=call.names, **call.extra)
    shared = {"negative_ids", "log_q"} if place in ("pool", "symmetric pool", "gathered") else set()
    extra = {k: v if k in shared else v[0] for k, v in call.extra.items() if k not in ("guide", "log_q")}
    args = [x[0] if x.ndim == 3 or i < 2 else x for i, x in enumerate(call.args)]
    extra["guide"] = tuple(x[0] if x.ndim == 3 or i < 2 else x for i, x in enumerate(call.guide))
    extra["log_q"] = call.log_q[0] if place == "own" else call.log_q
    value, alone = call.loss().compute_with_gradients(*args, wrt=call.names, **extra)
    assert value == pytest.approx(right, rel=1e-6)
    for x, one, gradient in zip(args, alone, gradients, strict=True):
        assert one.shape == x.shape
        assert relative_error(np.ravel(one), np.ravel(gradient)) < TOLERANCE[dtype]


def test_calls__leave_read_only_inputs_alone(rng):
    for place in (*PLACES, "directions"):
        for options in ("all, cosine", "all, euclidean"):
            directions = DIRECTIONS if place == "directions" else DIRECTIONS[:1]
            call = Call("pool" if place == "directions" else place, OPTIONS[options], 5, 6, np.float64, rng, 0.2,
                        directions)  # fmt: skip
            arrays = [*call.args, *(call.guide or ()), *(v for k, v in call.extra.items() if k != "guide")]
            before = [x.copy() for x in arrays]
            for x in arrays:
                x.flags.writeable = False
            call.loss().compute_with_gradients(*call.args, wrt=(*call.names, "temperature"), **call.extra)
            for x, y in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(x, y)
