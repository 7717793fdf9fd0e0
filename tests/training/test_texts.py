"""Texts in, retriever out: strings, bags and sparse matrices through the Trainer."""

import copy
import os
from importlib import import_module
from importlib.util import find_spec

import numba
import numpy as np
import processes
import pytest
from conftest import relative_error

import rvtrain as rt

N, ROWS, DIM = 90, 512, 12
WORDS = ["sort", "list", "file", "open", "join", "string", "number", "date", "parse", "read", "lock", "tree", "map"]


@pytest.fixture(scope="module")
def texts():
    """Queries that have the words of their documents spelled backwards; one of each has no words."""
    rng = np.random.default_rng(5)
    documents = [" ".join(rng.choice(WORDS, 4, replace=False)) + f" n{i}" for i in range(N)]
    queries = [" ".join(word[::-1] for word in text.split()[:4]) for text in documents]
    documents[7], queries[8] = "", "?!"
    return queries, documents


def pairs_of(start, stop):
    return np.stack([np.arange(start, stop)] * 2, axis=1)


def towers(kind="shared", dtype=np.float32, features=None, **options):
    """A model of this kind, with features that have not been fitted."""
    made = rt.HashedNgrams(ROWS) if features is None else features
    encoders = [rt.BagEncoder(ROWS, DIM, features=made, seed=0, dtype=dtype, **options) for _ in "qd"]
    if kind == "head":
        return rt.TwoTower(*(rt.Sequential(each, rt.LinearAdapter(DIM, 8, dtype=dtype)) for each in encoders))
    return rt.TwoTower(encoders[0], "shared" if kind == "shared" else encoders[1])


def trained(
    model, queries, documents, *, optimizer=rt.SGD, rate=2.0, lazy="idle", pairs=None, validation=None, **more
):
    options = {"epochs": 3, "batch_size": 16, "progress": False} | more
    return rt.Trainer(model, optimizer=optimizer(model.params, rate, lazy=lazy), **options).fit(
        queries, documents, pairs, validation
    )


def same(a, b, tolerance=0.0):
    for name, value in a.params.items():
        np.testing.assert_allclose(value, b.params[name], rtol=tolerance, atol=tolerance)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=10 * tolerance, atol=tolerance)


class Dense:
    """The mean of rows of a table as a product of dense rows, with the whole gradient."""

    def __init__(self, encoder):
        self.params = {"table": encoder.params["table"].copy()}
        self.in_features, self.out_features = encoder.in_features, encoder.out_features

    def forward(self, x):
        total = np.abs(x).sum(axis=1, keepdims=True)
        mean = x / np.where(total > 0, total, 1)
        return mean @ self.params["table"], mean

    def backward(self, saved, grad, to_input=False):
        return {"table": saved.T @ grad}


@pytest.mark.parametrize("kind", ["shared", "two"])
@pytest.mark.parametrize(
    "options",
    [{}, {"lazy": "exact"}, {"micro_batch_size": 5}, {"max_grad_norm": 0.1}, {"memory_limit": 0, "mines": True}],
    ids=str,
)
def test_fit__on_strings_is_the_training_of_the_dense_product(texts, kind, options):
    queries, documents = texts
    options = dict(options)
    features = rt.HashedNgrams(ROWS).fit(queries + documents)
    model = towers(kind, np.float64, features)
    dense = Dense(model.query) if kind == "shared" else rt.TwoTower(Dense(model.query), Dense(model.document))
    mines, optimizer = options.pop("mines", False), rt.Adam if "lazy" in options else rt.SGD
    rate = 0.01 if optimizer is rt.Adam else 2.0
    runs = []
    for each, as_given in ((model, list), (dense, lambda x: features.transform(x).toarray().astype(np.float64))):
        more = dict(options)
        if mines:
            more["mining"] = rt.Mining(rt.HardNegativeMiner.hardest(), k=2, start=2)
        given = as_given(queries), as_given(documents), pairs_of(0, 60), pairs_of(60, N)
        lazy = more.pop("lazy", "idle")
        runs.append(
            trained(each, *given[:2], pairs=given[2], validation=given[3], optimizer=optimizer, rate=rate, lazy=lazy,
                    **more)
        )  # fmt: skip
    assert len(runs[0].history["loss"]) == 4 and runs[0].history["loss"][-1] < runs[0].history["loss"][1]
    for name, value in model.params.items():
        assert relative_error(value, dense.params[name]) < 1e-9
    np.testing.assert_allclose(runs[0].history["val_loss"], runs[1].history["val_loss"], rtol=1e-9)


@pytest.mark.parametrize("kind", ["shared", "two", "head"])
def test_fit__learns_to_retrieve(texts, kind, dtype):
    model = towers(kind, dtype)
    options = {"optimizer": rt.Adam, "rate": 0.02, "epochs": 8}
    trainer = trained(model, *texts, pairs=pairs_of(0, 60), validation=pairs_of(60, N), **options)
    found = trainer.history["recall@10"]
    assert found.max() > max(found[0] + 0.3, 0.6)
    again = trainer.evaluate(*texts, pairs_of(60, N))
    assert again["recall@10"] == pytest.approx(found.max())
    assert model.encode_query(["how to sort", ""]).shape == (2, 8 if kind == "head" else DIM)
    assert model.encode_document(texts[1]).dtype == dtype


def test_fit__has_the_same_bits_for_any_threads(texts):
    before, runs = numba.get_num_threads(), []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        runs.append(trained(towers("two"), *texts, optimizer=rt.Adam, rate=0.02))
    numba.set_num_threads(before)
    same(*runs)


def test_fit__takes_strings_in_any_collection_bags_and_scipy(texts):
    queries, documents = texts
    expected = trained(towers(), queries, documents)
    features = expected.model.query.features
    forms = [tuple, np.array, lambda x: np.array(x, object), features.transform]
    if find_spec("scipy"):
        forms.append(lambda x: features.transform(x).to_scipy().tocoo())
    if find_spec("pandas"):
        forms.append(lambda x: import_module("pandas").Series(x, index=range(9, 9 + len(x))))
    for form in forms:
        fitted = rt.HashedNgrams(ROWS).fit(queries + documents)
        same(trained(towers(features=fitted), form(queries), form(documents)), expected)


def test_fit__fits_features_on_what_is_trained_on(texts):
    queries, documents = texts
    model = towers()
    trained(model, queries, documents, pairs=pairs_of(0, 60), validation=pairs_of(60, N))
    wanted = rt.HashedNgrams(ROWS).fit(queries[:60] + documents).idf_
    assert np.array_equal(model.query.features.idf_, wanted)
    trained(model, queries[:30], documents[:30])
    assert np.array_equal(model.query.features.idf_, wanted)
    apart = rt.TwoTower(*(rt.BagEncoder(ROWS, DIM, features=rt.HashedNgrams(ROWS)) for _ in "qd"))
    trained(apart, queries, documents)
    for side, fitted in ((apart.query, queries), (apart.document, documents)):
        assert np.array_equal(side.features.idf_, rt.HashedNgrams(ROWS).fit(fitted).idf_)


def test_fit__that_is_refused_leaves_features_and_model_as_they_were(texts):
    queries, documents = texts
    for given, error, message in (
        ((queries, documents[:-1]), ValueError, "pairs must be given where queries and documents differ"),
        ((queries, documents, [[0, N]]), ValueError, "pairs must name rows of documents"),
        ((queries, [*documents[:-1], None]), TypeError, rf"documents must be .* strings, got None at \[{N - 1}\]"),
        (("one text", documents), TypeError, r"queries must be a sequence of strings, got str: give \[queries\]"),
        ((np.ones((N, ROWS)), documents), TypeError, "queries must be a sequence of strings, Bags, .* got ndarray"),
        ((queries, documents, pairs_of(0, 9), (queries, [1] * N)), TypeError, r"validation\[1\] must be a sequence"),
        (([], documents), ValueError, "queries must not be empty"),
    ):
        model = towers()
        before = model.params["table"].copy()
        with pytest.raises(error, match=message):
            rt.Trainer(model).fit(*given)
        assert model.query.features.idf_ is None and np.array_equal(model.params["table"], before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rt.LinearAdapter(4),
        lambda: rt.TwoTower(rt.LinearAdapter(4)),
        lambda: rt.Sequential(rt.LinearAdapter(4)),
        lambda: rt.TwoTower(rt.LinearAdapter(4), "frozen"),
    ],
    ids=["adapter", "towers", "chain", "frozen"],
)
def test_models_of_numbers__refuse_strings_by_name(make):
    x, words = np.ones((3, 4), np.float32), ["a", "b", "c"]
    for given, name in (((words, x), "queries"), ((x, words), "documents")):
        for method in ("fit", "evaluate"):
            with pytest.raises(TypeError, match=f"^{name} must be rows of numbers, since .* takes no strings"):
                getattr(rt.Trainer(make()), method)(*given)
    with pytest.raises(TypeError, match=r"X must be a sequence of strings, got None at \[1\]"):
        rt.Trainer(towers()).fit_labels(["a", None, "b"], [0, 0, 1])
    with pytest.raises(TypeError, match="X must be rows of numbers"):
        rt.Trainer(rt.LinearAdapter(4)).fit_labels(words, [0, 0, 1])


def test_fit__validation_may_be_other_strings(texts):
    queries, documents = texts
    model = towers()
    other = (queries[60:], tuple(documents[60:]))
    trainer = trained(model, queries[:60], documents[:60], validation=other)
    wanted = trainer.evaluate(*other)["recall@10"]
    assert trainer.history["recall@10"][trainer.best_epoch] == pytest.approx(wanted)


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_fit__resumed_ends_at_the_same_bits(texts, tmp_path, lazy):
    def run(model, **options):
        mining = rt.Mining(rt.HardNegativeMiner.random(), k=2)
        optimizer = rt.Adam(model.params, 0.02, lazy=lazy)
        trainer = rt.Trainer(model, optimizer=optimizer, mining=mining, batch_size=16, progress=False, **options)
        return trainer, {"pairs": pairs_of(0, 60), "validation": pairs_of(60, N)}

    whole, data = run(towers("two"), epochs=4)
    whole.fit(*texts, **data)
    first, _ = run(towers("two"), epochs=2, checkpoint=tmp_path / "run.npz")
    first.fit(*texts, **data)
    rest, _ = run(towers("two"), epochs=4, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match="queries, documents must be as in the run"):
        rest.fit([f"{text} more" for text in texts[0]], texts[1], resume=True, **data)
    same(rest.fit(*texts, resume=True, **data), whole)


@pytest.mark.parametrize("kind", ["shared", "two", "head"])
def test_save_model__keeps_a_retriever(texts, tmp_path, kind):
    trainer = trained(towers(kind), *texts)
    rt.save_model(tmp_path / "retriever.npz", trainer.model)
    loaded = rt.load_model(tmp_path / "retriever.npz")
    for method in ("encode_query", "encode_document"):
        assert np.array_equal(getattr(loaded, method)(texts[0]), getattr(trainer.model, method)(texts[0]))


@pytest.mark.parametrize("loss", [rt.SupConLoss(), rt.InfoNCELoss(0.1)], ids=["labels", "pairs"])
@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_fit_labels__takes_strings(texts, loss, lazy):
    documents = texts[1]
    labels = [text.split()[0] if text else "none" for text in documents]
    model = towers().query
    optimizer = rt.Adam(model.params, 0.02, lazy=lazy)
    trainer = rt.Trainer(model, loss, optimizer, epochs=4, batch_size=32, metrics="recall@5", progress=False)
    trainer.fit_labels(documents, labels, (documents[:40], labels[:40]))
    assert trainer.history["recall@5"].max() > trainer.history["recall@5"][0]
    assert np.array_equal(model.features.idf_, rt.HashedNgrams(ROWS).fit(documents).idf_)


def test_fit__may_have_batches_of_empty_bags():
    model = towers()
    before = copy.deepcopy(model.params)
    trained(model, ["!", "?", "a b", "c d"], ["", " ", "e f", "g h"], batch_size=2, epochs=6)
    assert np.isfinite(model.params["table"]).all() and not np.array_equal(model.params["table"], before["table"])


class Looked:
    """A model of one's own: a table that is looked up by the number in each row."""

    def __init__(self):
        self.params = {"table": np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)}

    def forward(self, x):
        rows = x[:, 0].astype(np.int64)
        return self.params["table"][rows], rows

    def backward(self, saved, grad, to_input=False):
        return {"table": rt.RowGradient((50, 4), saved, grad)}


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_fit__takes_row_gradients_of_models_of_ones_own(lazy):
    x = np.arange(50, dtype=np.float32)[:, np.newaxis]
    model, dense = Looked(), Looked()
    dense.backward = lambda saved, grad: {"table": rt.RowGradient((50, 4), saved, grad).toarray()}
    runs = [trained(each, x, x[::-1], lazy=lazy, rate=0.1) for each in (model, dense)]
    same(*runs, tolerance=1e-5)


def test_texts__need_neither_scipy_nor_pandas():
    code = """
import sys
for name in ("scipy", "pandas", "sklearn", "torch"):
    sys.modules[name] = None
import rvtrain as rt
model = rt.TwoTower(rt.BagEncoder(64, 4, features=rt.HashedNgrams(64)), "shared")
rt.Trainer(model, epochs=1, progress=False).fit(["a b", "c d", "e f"], ["a", "c", "e"])
print(model.encode_query(["a"]).shape)
try:
    rt.HashedNgrams(64, use_idf=False).transform(["a"]).to_scipy()
except ImportError:
    print("no scipy")
"""
    result = processes.run(code, env=dict(os.environ))
    assert result.stdout.splitlines() == ["(1, 4)", "no scipy"], result.stderr
