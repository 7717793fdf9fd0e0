"""Matrices of scipy.sparse as rows of a training, for models that take them."""

import numpy as np
import pytest

import rvtrain as rt

WORDS, DIM = 60, 6
FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")


@pytest.fixture(scope="module")
def sparse():
    """scipy.sparse, which the package does not need."""
    return pytest.importorskip("scipy.sparse")


class Bag:
    """A bag of words: the weighted sum of the vectors of a row's words."""

    accepts_sparse = True

    def __init__(self, dtype=np.float32, seed=0):
        weights = np.random.default_rng(seed).normal(size=(WORDS, DIM))
        self.params = {"words": weights.astype(dtype)}
        self.in_features, self.out_features = WORDS, DIM
        self.given = set()

    def forward(self, x):
        is_csr = getattr(x, "format", "") == "csr"
        self.given.add((is_csr and bool(x.has_canonical_format), x.dtype.name))
        return x @ self.params["words"], x

    def backward(self, saved, grad, to_input=False):
        assert not to_input
        return {"words": saved.T @ grad}


class Untold(Bag):
    """A bag that does not say that it takes sparse rows, nor how many columns."""

    accepts_sparse = False

    def __init__(self):
        super().__init__()
        del self.in_features, self.out_features


def counts(rng, rows=90):
    """Queries and documents as counts of words, some of them shared; one document and one query have none."""
    documents = rng.poisson(0.1, (rows, WORDS))
    queries = np.where(rng.random((rows, WORDS)) < 0.7, documents, 0)
    documents[5], queries[7] = 0, 0
    return queries, documents


def trained(queries, documents, dtype=np.float32, *, validation=None, **options):
    """A trainer after its run."""
    model = rt.TwoTower(Bag(dtype), Bag(dtype, seed=1))
    given = {"epochs": 3, "batch_size": 16, "optimizer": rt.SGD(model.params, 0.5)} | options
    return rt.Trainer(model, **given).fit(queries, documents, validation=validation)


def same(a, b, tolerance=0.0):
    """Whether two trainers have the same parameters and histories."""
    for name, value in a.params.items():
        np.testing.assert_allclose(value, b.params[name], rtol=tolerance, atol=tolerance)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 7}, {"memory_limit": 0}], ids=str)
def test_fit__sparse_rows_train_as_dense_ones(sparse, rng, dtype, options):
    queries, documents = counts(rng)
    held = np.stack([np.arange(60, 90)] * 2, axis=1)
    pairs = np.stack([np.arange(60)] * 2, axis=1)
    runs = []
    for make in (sparse.csr_array, np.asarray):
        model = rt.TwoTower(Bag(dtype), Bag(dtype, seed=1))
        mining = rt.Mining(rt.HardNegativeMiner.hardest(), k=3, start=2)
        trainer = rt.Trainer(model, mining=mining, epochs=4, batch_size=16, **options)
        runs.append(trainer.fit(make(queries), make(documents), pairs, held))
    assert runs[0].history["recall@10"][-1] > runs[0].history["recall@10"][0]
    same(*runs, tolerance=1e-4 if dtype == np.float32 else 1e-11)
    assert runs[0].model.query.given == runs[0].model.document.given == {(True, np.dtype(dtype).name)}


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stored", [np.int8, np.int64, np.float32, np.float64])
def test_fit__formats_and_dtypes_train_to_the_same_bits(sparse, rng, kind, stored):
    queries, documents = counts(rng)
    expected = trained(*map(sparse.csr_matrix, (queries, documents)))
    same(trained(*(sparse.coo_array(x.astype(stored)).asformat(kind) for x in (queries, documents))), expected)


def test_fit__csr_that_is_not_canonical_is_that_with_sums_and_is_left_as_it_is(sparse, rng):
    queries, documents = counts(rng)
    plain = sparse.csr_array(documents)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(plain.indptr, plain.indptr[1:], strict=False)])
    halves = np.repeat(plain.data[order] / 2, 2)
    twice = sparse.csr_array((halves, np.repeat(plain.indices[order], 2), 2 * plain.indptr), documents.shape)
    assert not twice.has_canonical_format
    kept = twice.data.copy(), twice.indices.copy()
    same(trained(queries, twice), trained(queries, plain))
    assert np.array_equal(twice.data, kept[0]) and np.array_equal(twice.indices, kept[1])


def test_fit__sums_of_duplicates_do_not_overflow(sparse, rng):
    queries, documents = counts(rng)
    rows, columns = np.repeat(np.arange(90), 2), np.repeat(rng.integers(0, WORDS, 90), 2)
    wide = sparse.coo_array((np.full(180, 100, np.int8), (rows, columns)), documents.shape)
    added = sparse.csr_array(wide.astype(np.float32))
    narrow = sparse.csr_array((np.full(180, 100, np.int8), columns, np.arange(0, 181, 2)), documents.shape)
    expected = trained(queries, added)
    same(trained(queries, wide), expected)
    same(trained(queries, narrow), expected)


def test_fit__sparse_queries_beside_frozen_dense_documents(sparse, rng):
    queries, documents = counts(rng)
    vectors = (documents @ rng.normal(size=(WORDS, DIM))).astype(np.float32)
    runs = [
        rt.Trainer(rt.TwoTower(Bag(), "frozen"), epochs=3, batch_size=16).fit(make(queries), vectors)
        for make in (sparse.csr_array, np.asarray)
    ]
    same(*runs, tolerance=1e-4)


def test_fit__sparse_documents_of_a_side_without_parameters_are_embedded_once(sparse, rng):
    class Hashed:
        accepts_sparse = True
        params, calls = {}, 0

        def forward(self, x):
            self.calls += 1
            return (x @ projection).astype(np.float32), None

        def backward(self, saved, grad, to_input=False):
            raise AssertionError("a frozen side has no gradients")

    projection = rng.normal(size=(WORDS, DIM)).astype(np.float32)
    model = rt.TwoTower(Bag(), Hashed())
    queries, documents = (sparse.csr_array(x) for x in counts(rng))
    trainer = rt.Trainer(model, mining=rt.HardNegativeMiner.hardest(), epochs=3, batch_size=16)
    trainer.fit(queries, documents)
    assert model.document.calls <= 2  # one of them of a row, for the size


def test_fit__sequential_takes_sparse_rows_if_its_first_model_does(sparse, rng):
    queries, documents = counts(rng)
    model = rt.Sequential(Bag(), rt.LinearAdapter(DIM, 4))
    assert model.accepts_sparse and not rt.Sequential(rt.LinearAdapter(WORDS), Bag()).accepts_sparse
    before = model.encode(queries)
    np.testing.assert_allclose(model.encode(sparse.coo_array(queries)), before, rtol=1e-4, atol=1e-4)
    rt.Trainer(model, epochs=1, batch_size=16).fit(sparse.csc_array(queries), sparse.csr_array(documents))
    assert not np.allclose(model.encode(queries), before)


def test_fit_labels__sparse_rows_train_as_dense_ones(sparse, rng):
    x, y = counts(rng)[1], np.repeat(np.arange(30), 3)
    runs = []
    for make in (sparse.csc_matrix, np.asarray):
        trainer = rt.Trainer(Bag(), rt.SupConLoss(), epochs=3, batch_size=24)
        runs.append(trainer.fit_labels(make(x[:60]), y[:60], (make(x[60:]), y[60:])))
    same(*runs, tolerance=1e-3)


def test_evaluate_and_encode__take_sparse_rows(sparse, rng):
    queries, documents = counts(rng)
    trainer = rt.Trainer(rt.TwoTower(Bag(), Bag(seed=1)))
    found = trainer.evaluate(sparse.coo_matrix(queries), sparse.dok_array(documents), metrics=["recall@5", "mrr@10"])
    assert found == pytest.approx(trainer.evaluate(queries, documents, metrics=["recall@5", "mrr@10"]))
    encoded = trainer.model.encode_query(sparse.lil_array(queries))
    np.testing.assert_allclose(encoded, queries @ trainer.params["query/words"], rtol=1e-4, atol=1e-4)


def test_fit__resumed_on_sparse_rows_ends_at_the_same_bits(sparse, rng, tmp_path):
    queries, documents = (sparse.csr_array(x) for x in counts(rng))

    def trainer_of(**options):
        model, mining = rt.TwoTower(Bag(), Bag(seed=1)), rt.Mining(rt.HardNegativeMiner.random())
        return rt.Trainer(model, mining=mining, batch_size=16, **options)

    whole = trainer_of(epochs=4).fit(queries, documents)
    trainer_of(epochs=2, checkpoint=tmp_path / "run.npz").fit(queries, documents)
    trainer = trainer_of(epochs=4, checkpoint=tmp_path / "run.npz")
    other = queries.copy()
    other.data[3] += 1
    with pytest.raises(ValueError, match="queries must be as in the run"):
        trainer.fit(other, documents, resume=True)
    same(trainer.fit(queries.tocoo(), documents.astype(np.int16), resume=True), whole)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: rt.LinearAdapter(WORDS, DIM), {"queries", "documents"}),
        (lambda: rt.MLPAdapter(WORDS, DIM), {"queries", "documents"}),
        (Untold, {"queries", "documents"}),
        (lambda: rt.Sequential(rt.LinearAdapter(WORDS, DIM)), {"queries", "documents"}),
        (lambda: rt.TwoTower(Bag(), rt.LinearAdapter(WORDS, DIM)), {"documents"}),
        (lambda: rt.TwoTower(rt.LinearAdapter(WORDS, DIM), Bag()), {"queries"}),
        (lambda: rt.TwoTower(rt.LinearAdapter(WORDS, DIM), "frozen"), {"queries", "documents"}),
    ],
    ids=["linear", "mlp", "untold", "sequential", "documents", "queries", "frozen"],
)
def test_models_of_dense_rows__refuse_sparse_ones_by_name(sparse, rng, make, names):
    dense = dict(zip(("queries", "documents"), counts(rng), strict=True))
    for name in names:
        trainer = rt.Trainer(make(), epochs=1)
        before = {key: value.copy() for key, value in trainer.params.items()}
        given = dense | {name: sparse.csr_array(dense[name])}
        for method in (trainer.fit, trainer.evaluate):
            with pytest.raises(TypeError, match=rf"^{name} must be dense, .* of shape \(90, 60\)"):
                method(**given)
        assert all(np.array_equal(value, before[key]) for key, value in trainer.params.items())


def test_transform__of_a_model_of_dense_rows_refuses_sparse_ones(sparse):
    x = sparse.csr_array(np.eye(4, dtype=np.float32))
    adapter = rt.LinearAdapter(4)
    for call in (
        adapter.transform, adapter.forward, lambda x: adapter.forward_rows(x, [0]), rt.Sequential(adapter).encode,
        rt.TwoTower(adapter).encode_query, rt.TwoTower(adapter, "frozen").encode_document,
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"^x must be dense, .* got a sparse matrix of shape \(4, 4\)"):
            call(x)


def test_fit__refuses_sparse_rows_that_are_no_numbers_or_no_rows(sparse, rng):
    queries, documents = (sparse.csr_array(x.astype(np.float32)) for x in counts(rng))
    trainer = rt.Trainer(Bag())
    infinite = documents.copy()
    infinite.data[infinite.indptr[9]] = np.inf
    for given, error, message in (
        ((queries, infinite), ValueError, "documents must be finite, got a NaN or an infinity in row 9"),
        ((queries, documents[:0], [[0, 0]]), ValueError, r"documents must not be empty, got shape \(0, 60\)"),
        ((queries, documents[:, :40]), ValueError, r"documents must have 60 columns .* got \(90, 40\)"),
        ((queries, documents[:80]), ValueError, r"pairs must be given .* got 90 and 80"),
        ((queries, documents, [[0, 90]]), ValueError, r"pairs must name rows of documents, in \[0, 89\], got 90"),
        ((queries.astype(complex), documents), TypeError, "queries must be an array of real numbers"),
        ((queries > 0, documents), TypeError, "queries must be an array of real numbers .* got dtype bool"),
        ((sparse.coo_array(np.ones(3)), documents), ValueError, r"queries must have 2 dim.* got shape \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            trainer.fit(*given)
    huge = documents.astype(np.float64)
    huge.data[huge.indptr[9]] = 1e200
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match=r"^documents must be finite in float32, .* row 9"),
    ):
        trainer.fit(queries, huge)
    for name in ("pairs", "sample_weight"):
        with pytest.raises(TypeError, match=rf"^{name} must be an array, got a sparse matrix of shape \(90, 60\)"):
            trainer.fit(queries, documents, **{name: documents})
    with pytest.raises(TypeError, match="guide documents must be dense"):
        trainer.fit(queries, documents, guide=(queries.toarray(), documents))


def test_fit_labels__refuses_sparse_rows_by_name(sparse, rng):
    x, y = counts(rng)[1], np.repeat(np.arange(30), 3)
    trainer = rt.Trainer(rt.LinearAdapter(WORDS, DIM))
    with pytest.raises(TypeError, match=r"^X must be dense"):
        trainer.fit_labels(sparse.csr_array(x), y)
    with pytest.raises(TypeError, match=r"^validation\[0\] must be dense"):
        trainer.fit_labels(x, y, (sparse.csr_array(x), y))
