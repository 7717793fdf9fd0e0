"""Models by what they can do: chains, frozen documents, and models of one's own."""

import copy
import pickle

import numpy as np
import pytest
from conftest import TOLERANCE, relative_error

import rvtrain as rt
import rvtrain.training  # before pytest imports its files for their doctests, as modules of their own


class Scale:
    """The least that a model is."""

    def __init__(self, features, dtype=np.float32):
        self.params = {"scale": np.linspace(1, 2, features).astype(dtype)}

    def forward(self, x):
        assert x.dtype == self.params["scale"].dtype and x.flags.c_contiguous
        return x * self.params["scale"], x

    def backward(self, saved, grad, to_input=False):
        grads = {"scale": (saved * grad).sum(axis=0)}
        return (grads, grad * self.params["scale"]) if to_input else grads


class Unit:
    """A model without parameters, that does not tell its sizes either."""

    params = {}  # noqa: RUF012

    def forward(self, x):
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        return x / norms, (x / norms, norms)

    def backward(self, saved, grad, to_input=False):
        unit, norms = saved
        return ({}, (grad - unit * (grad * unit).sum(axis=1, keepdims=True)) / norms) if to_input else {}


MODELS = {
    "linear": lambda d: rt.LinearAdapter(6, dtype=d),
    "linear, other size, bias": lambda d: rt.LinearAdapter(6, 4, bias=True, dtype=d),
    "low rank": lambda d: rt.LinearAdapter(6, rank=2, bias=True, dtype=d),
    "low rank, other size": lambda d: rt.LinearAdapter(6, 9, rank=2, dtype=d),
    "mlp": lambda d: rt.MLPAdapter(6, hidden=5, dtype=d),
    "mlp, other size": lambda d: rt.MLPAdapter(6, 4, dtype=d),
    "one in a row": lambda d: rt.Sequential(rt.LinearAdapter(6, dtype=d)),
    "three": lambda d: rt.Sequential(rt.MLPAdapter(6, 5, dtype=d), *(rt.LinearAdapter(5, dtype=d) for _ in "12")),
    "nested": lambda d: rt.Sequential(rt.Sequential(rt.LinearAdapter(6, dtype=d), Unit()), rt.MLPAdapter(6, dtype=d)),
    "own": lambda d: rt.Sequential(Scale(6, d), rt.LinearAdapter(6, 3, dtype=d), Scale(3, d)),
    "own first without parameters": lambda d: rt.Sequential(Unit(), rt.LinearAdapter(6, 3, dtype=d)),
    "frozen": lambda d: rt.TwoTower(rt.LinearAdapter(6, dtype=d), "frozen").document,
}  # fmt: skip


def moved(model, rng):
    """The model, away from where it starts."""
    for value in model.params.values():
        value += rng.normal(size=value.shape).astype(value.dtype) / 3
    return model


@pytest.mark.parametrize("count", [1, 7, 70])
@pytest.mark.parametrize("name", MODELS)
def test_backward__is_the_slope_to_inputs_and_parameters(name, count, dtype, threads, rng):
    model = moved(MODELS[name](dtype), rng)
    exact = MODELS[name](np.float64)
    for key, value in model.params.items():
        exact.params[key][...] = value
    x = rng.normal(size=(count, 6)).astype(dtype)
    y, saved = model.forward(x)
    grad = rng.normal(size=y.shape).astype(dtype)
    grads, to_x = model.backward(saved, grad, to_input=True)
    alone = model.backward(saved, grad)
    assert list(grads) == list(alone) and set(grads) == set(model.params)
    for key, value in grads.items():
        np.testing.assert_array_equal(value, alone[key])
    assert to_x.dtype == dtype and to_x.shape == x.shape

    wide, along = x.astype(np.float64), rng.normal(size=x.shape)
    value = {sign: (exact.forward(wide + sign * 1e-5 * along)[0] * grad).sum() for sign in (1, -1)}
    slope = (value[1] - value[-1]) / 2e-5
    scale = np.linalg.norm(to_x) * np.linalg.norm(along)
    assert abs((to_x * along).sum() - slope) < max(1e-8, 20 * TOLERANCE[dtype]) * scale
    for key in model.params:
        start, direction = exact.params[key].copy(), rng.normal(size=exact.params[key].shape)
        for sign in (1, -1):
            exact.params[key][...] = start + sign * 1e-5 * direction
            value[sign] = (exact.forward(wide)[0] * grad).sum()
        exact.params[key][...] = start
        scale = np.linalg.norm(grads[key]) * np.linalg.norm(direction)
        error = abs((grads[key] * direction).sum() - (value[1] - value[-1]) / 2e-5)
        assert error < max(1e-7, 20 * TOLERANCE[dtype]) * scale, key


@pytest.mark.parametrize("name", MODELS)
def test_forward_rows_and_transform__are_forward(name, dtype, rng):
    model = moved(MODELS[name](dtype), rng)
    x, rows = rng.normal(size=(50, 6)).astype(dtype), rng.integers(0, 50, 20)
    expected = model.forward(x)[0]
    if hasattr(model, "forward_rows"):
        out, saved = model.forward_rows(x, rows)
        np.testing.assert_allclose(out, expected[rows], rtol=20 * TOLERANCE[dtype], atol=20 * TOLERANCE[dtype])
        gathered = model.backward(model.forward(x[rows])[1], out)
        for key, value in model.backward(saved, out).items():
            assert relative_error(value, gathered[key]) < 20 * TOLERANCE[dtype]
    np.testing.assert_array_equal(model.transform(x), expected)


def test_sequential__is_that_of_torch(rng):
    torch = pytest.importorskip("torch")
    model = moved(rt.Sequential(rt.MLPAdapter(6, 5, hidden=8), rt.LinearAdapter(5, 3, bias=True)), rng)
    x = rng.normal(size=(9, 6)).astype(np.float32)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in model.params.items()}
    tx = torch.tensor(x, requires_grad=True)
    normal = torch.nn.functional.layer_norm(tx, (6,), p["0/gain"], p["0/shift"], 1e-5)
    h = torch.nn.functional.gelu(normal @ p["0/weight1"] + p["0/bias1"], approximate="tanh")
    expected = (h @ p["0/weight2"] + p["0/bias2"]) @ p["1/weight"] + p["1/bias"]
    y, saved = model.forward(x)
    grad = rng.normal(size=y.shape).astype(np.float32)
    expected.backward(torch.tensor(grad))
    grads, to_x = model.backward(saved, grad, to_input=True)
    assert relative_error(y, expected.detach().numpy()) < 1e-6
    assert relative_error(to_x, tx.grad.numpy()) < 1e-5
    for name, value in grads.items():
        assert relative_error(value, p[name].grad.numpy()) < 1e-5, name


def test_sequential__is_a_sequence_of_its_models():
    parts = rt.LinearAdapter(6, 5), Unit(), rt.MLPAdapter(5, 4)
    model = rt.Sequential(*parts)
    assert len(model) == 3 and list(model) == list(parts) and model[-1] is parts[2]
    assert model[1:].models == parts[1:] and model[1:].in_features is None
    assert (model.in_features, model.out_features, model.dtype) == (6, 4, np.float32)
    assert model.params["0/weight"] is parts[0].params["weight"]
    assert repr(model[::2]) == f"Sequential({parts[0]!r}, {parts[2]!r})"
    assert model.transform(np.empty((0, 6), np.float32)).shape == (0, 4)
    parts[0].params["weight"] = np.zeros((6, 5), np.float32)  # an array of one's own
    assert not model.params["0/weight"].any()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("form", ["shared", "frozen", "two", "chain"])
def test_models__can_be_copied_and_pickled(form, again, rng):
    chain = rt.Sequential(rt.LinearAdapter(6), rt.MLPAdapter(6, 4))
    document = rt.LinearAdapter(3, 4) if form == "two" else form
    model = chain if form == "chain" else rt.TwoTower(chain, document)
    other = again(model)
    assert repr(other) == repr(model) and list(other.params) == list(model.params)
    for name, value in other.params.items():
        assert value is not model.params[name]
        np.testing.assert_array_equal(value, model.params[name])
    if form != "chain":
        assert (other.is_shared, other.is_frozen) == (form == "shared", form == "frozen")
        name = next(iter(other.query.params))
        assert any(value is other.query.params[name] for value in other.params.values())


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.int8])
def test_frozen__is_the_documents_as_they_are(stored, tmp_path, rng):
    np.save(tmp_path / "documents.npy", (10 * rng.normal(size=(30, 4))).astype(stored))
    documents = np.load(tmp_path / "documents.npy", mmap_mode="r")
    model = rt.TwoTower(rt.LinearAdapter(6, 4), "frozen")
    assert model.is_frozen and not model.is_shared and not rt.TwoTower(rt.LinearAdapter(4)).is_frozen
    assert model.document.params == {} and model.document.out_features == 4
    out = model.encode_document(documents)
    assert out.dtype == np.float32 and type(out) is np.ndarray
    assert out.flags.writeable == (stored != np.float32)  # a view of the file must not be written to
    np.testing.assert_array_equal(out, documents)
    np.testing.assert_array_equal(model.document.forward_rows(documents, np.array([3, 3]))[0], documents[[3, 3]])
    assert model.params["weight"] is model.query.params["weight"] and list(model.params) == ["weight"]
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4\), got \(30, 3\)"):
        model.encode_document(documents[:, :3])


@pytest.mark.parametrize("kind", ["list", "pandas", "torch"])
def test_models__take_tables_as_users_have_them(kind, rng):
    x = rng.normal(size=(9, 6))
    table = x.tolist() if kind == "list" else None
    if kind == "pandas":
        table = pytest.importorskip("pandas").DataFrame(x)
    elif kind == "torch":
        table = pytest.importorskip("torch").tensor(x)
    models = (
        rt.LinearAdapter(6, 4),
        rt.Sequential(Unit(), Scale(6)),
        rt.TwoTower(rt.LinearAdapter(6), "frozen").document,
    )
    for model in models:
        np.testing.assert_array_equal(model.transform(table), model.transform(x))
        np.testing.assert_array_equal(model.forward(table)[0], model.forward(x)[0])
        rows = np.array([4, 4, 0])
        np.testing.assert_array_equal(model.forward_rows(table, rows)[0], model.forward_rows(x, rows)[0])


def hidden_pairs(rng, count=120):
    meaning = rng.normal(size=(count, 6))
    documents = meaning.astype(np.float32)
    queries = (meaning @ np.linalg.qr(rng.normal(size=(6, 6)))[0]).astype(np.float32)
    return queries, documents, np.stack([np.arange(count)] * 2, axis=1)


@pytest.mark.parametrize("micro", [None, 16])
def test_fit__frozen_trains_the_query_side_alone(micro, rng):
    queries, documents, pairs = hidden_pairs(rng)
    kept = documents.copy()
    results = []
    for document in ("frozen", Unit()):  # cosines do not see the difference
        model = rt.TwoTower(rt.LinearAdapter(6), document)
        optimizer = rt.AdamW(model.params, 0.05)
        trainer = rt.Trainer(model, optimizer=optimizer, epochs=20, batch_size=40, micro_batch_size=micro)
        history = trainer.fit(queries, documents, pairs[:90], pairs[90:]).history
        assert history["recall@10"][-1] > 0.9
        results.append(model.query.params["weight"])
    np.testing.assert_array_equal(documents, kept)
    assert relative_error(results[0], results[1]) < 1e-3


def test_fit__frozen_documents_may_be_stored_in_any_way(tmp_path, rng):
    queries, documents = rng.normal(size=(2, 96, 1024)).astype(np.float32)  # wide enough for several threads
    read_only, spread = documents.copy(), np.zeros((96, 2048), np.float32)
    read_only.flags.writeable = False
    spread[:, ::2] = documents
    np.save(tmp_path / "documents.npy", documents)
    stored = {
        "array": documents,
        "read-only": read_only,
        "strided": spread[:, ::2],
        "columns first": np.asfortranarray(documents),
        "file": np.load(tmp_path / "documents.npy", mmap_mode="r"),
        "float64": documents.astype(np.float64),
    }
    found = {}
    for name, given in stored.items():
        model = rt.TwoTower(rt.LinearAdapter(1024), "frozen")
        mining = rt.Mining(rt.HardNegativeMiner.hardest(), k=2, start=2)
        optimizer = rt.AdamW(model.params, 0.01)
        rt.Trainer(model, optimizer=optimizer, mining=mining, epochs=2, batch_size=48).fit(queries, given)
        found[name] = model.query.params["weight"]
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, found["array"], err_msg=name)


def test_fit__takes_chains_and_models_of_ones_own(rng):
    queries, documents, pairs = hidden_pairs(rng)
    for query in (rt.Sequential(Scale(6), rt.LinearAdapter(6)), rt.Sequential(rt.MLPAdapter(6), Scale(6)), Scale(6)):
        for document in ("frozen", Scale(6)):
            model = rt.TwoTower(query, document)
            before = {name: value.copy() for name, value in model.params.items()}
            optimizer, mining = rt.AdamW(model.params, 0.02), rt.Mining(rt.HardNegativeMiner.hardest())
            trainer = rt.Trainer(model, optimizer=optimizer, mining=mining, epochs=3, batch_size=40)
            history = trainer.fit(queries, documents.astype(np.float16), pairs).history
            assert history["loss"][-1] < history["loss"][1]
            assert any((model.params[name] != value).any() for name, value in before.items())


def test_models__name_what_is_wrong():
    linear = rt.LinearAdapter(4)
    with pytest.raises(TypeError, match="model 1 must be a model, got the class LinearAdapter"):
        rt.Sequential(linear, rt.LinearAdapter)
    with pytest.raises(TypeError, match="model 0 must be a model, got object without params"):
        rt.Sequential(object())
    with pytest.raises(ValueError, match="at least one model"):
        rt.Sequential()
    with pytest.raises(ValueError, match="model 1 must take the 4 features of model 0, got 5"):
        rt.Sequential(linear, rt.LinearAdapter(5))
    with pytest.raises(ValueError, match="one dtype"):
        rt.Sequential(linear, rt.LinearAdapter(4, dtype=np.float64))
    with pytest.raises(ValueError, match="must not share"):
        rt.Sequential(linear, linear)
    with pytest.raises(ValueError, match="must not share"):
        rt.TwoTower(rt.Sequential(linear), linear)
    with pytest.raises(ValueError, match="one size and dtype"):
        rt.TwoTower(linear, rt.LinearAdapter(4, dtype=np.float64))
    with pytest.raises(TypeError, match="document must be a model, 'shared' or 'frozen', got None"):
        rt.TwoTower(linear, None)
    with pytest.raises(
        TypeError, match=r"query must be a model, got ndarray without params \(a dict of arrays\), forw"
    ):
        rt.TwoTower(np.eye(3))
    wrong = Scale(4)
    wrong.params = {"scale": [1.0, 2.0]}
    with pytest.raises(TypeError, match=r"query.params\['scale'\] must be an array"):
        rt.TwoTower(wrong)
    with pytest.raises(TypeError, match="to_input must be True or False"):
        linear.backward(linear.forward(np.eye(4, dtype=np.float32))[1], np.eye(4), to_input="yes")
