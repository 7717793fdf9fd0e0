"""Tables as towers of a model: pairs of ids, corrections of their frequency, and tables of fit_graph."""

import numpy as np
import pytest

import rvtrain as rt


def taste(rng, users=60, items=40, pairs=900):
    """Users of 4 groups and items of 4 groups: pairs within a group, more of the first items of each."""
    u = rng.integers(0, users, pairs)
    i = np.minimum(rng.geometric(0.2, pairs) - 1, items // 4 - 1) * 4 + u % 4
    return u, i


def towers(users=60, items=40, dim=8, **options):
    return rt.TwoTower(
        rt.EmbeddingTable(users, dim, seed=1, **options), rt.EmbeddingTable(items, dim, seed=2, **options)
    )


def train(model, *args, loss=None, epochs=8, **options):
    optimizer = rt.Adam(model.params, 0.05)
    trainer = rt.Trainer(model, loss or rt.InfoNCELoss(0.2), optimizer, epochs=epochs, batch_size=64, progress=False)
    return trainer.fit(*args, **options)


def test_pairs_of_ids__are_learned(rng):
    users, items = taste(rng)
    model = towers()
    trainer = train(model, users[:-100], items[:-100], validation=(users[-100:], items[-100:]))
    assert trainer.history["recall@10"][-1] > 0.8 > 0.5 > trainer.history["recall@10"][0]
    scores = rt.cosine_similarity(model.encode_query(np.arange(60)), model.encode_document(np.arange(40)))
    same = np.arange(60)[:, np.newaxis] % 4 == np.arange(40) % 4
    assert scores[same].mean() > scores[~same].mean() + 0.3
    assert trainer.evaluate(users[-100:], items[-100:])["recall@10"] == pytest.approx(
        trainer.history["recall@10"].max(), abs=1e-6
    )


def test_ids__may_be_lists_columns_and_pairs(rng):
    users, items = taste(rng, pairs=300)
    weights = []
    forms = [(users, items), (users.tolist(), items.tolist()), (users.astype(np.uint8), items.astype(np.int32))]
    forms += [(np.arange(60), np.arange(40), np.stack([users, items], axis=1))]
    for arguments in forms:
        model = towers()
        train(model, *arguments, epochs=2)
        weights.append(np.concatenate(list(model.params.values())))
    for other in weights[1:]:
        np.testing.assert_array_equal(weights[0], other)


def test_ids__may_be_columns_of_pandas(rng):
    pandas = pytest.importorskip("pandas")
    users, items = taste(rng, pairs=300)
    frame = pandas.DataFrame({"user": users, "item": items})
    models = [towers(), towers()]
    train(models[0], users, items, epochs=1)
    train(models[1], frame["user"], frame["item"].astype("Int64"), epochs=1)
    np.testing.assert_array_equal(models[0].query.weight, models[1].query.weight)


def test_unknown_ids__are_refused_by_name():
    model = towers()
    before = model.query.weight.copy()
    for arguments, options, error, message in (
        (([60], [0]), {}, ValueError, r"queries must lie in \[0, 59\], got 60"),
        (([0, 1], [0, 40]), {}, ValueError, r"documents must lie in \[0, 39\], got 40"),
        (([0, 1], [0, -1]), {}, ValueError, r"documents must lie in \[0, 39\], got -1"),
        (([0, 1], [0, 1]), {"validation": ([0], [99])}, ValueError, r"validation\[1\] must lie in \[0, 39\], got 99"),
        (([0, 1], [0, 1]), {"validation": [[0, 99]]}, ValueError, r"validation must name rows of documents"),
        (([0, 1], [0, 1, 2]), {}, ValueError, "queries and documents differ in number, got 2 and 3"),
        (([0.5, 1], [0, 1]), {}, TypeError, "queries must be integers"),
        ((["a", "b"], [0, 1]), {}, TypeError, "queries must be integers"),
        (([0, 1], [0, 1]), {"log_q": np.zeros(3)}, ValueError, r"log_q must have the shape of documents, \(40,\)"),
        (([], []), {}, ValueError, "pairs must not be empty"),
    ):
        with pytest.raises(error, match=message):
            train(model, *arguments, **options)
    with pytest.raises(ValueError, match="log_q must not be given, since no loss takes it"):
        train(model, [0, 1], [0, 1], loss=rt.LocalContrastiveLoss(), log_q=True)
    np.testing.assert_array_equal(model.query.weight, before)


def test_log_q__is_that_of_the_loss(rng):
    """A batch of all pairs: the value of the loss itself with log-frequencies, and the same ids."""
    users, items = taste(rng, pairs=64)
    model = towers(dtype=np.float64)
    loss = rt.InfoNCELoss(0.2)
    frequency = np.bincount(items, minlength=40) / 64
    with np.errstate(divide="ignore"):
        log_q = np.log(frequency)
    log_q[frequency == 0] = 7.0  # of an item without a pair nothing is read
    expected = loss.compute(
        model.encode_query(users), model.encode_document(items), log_q=log_q[items],
        anchor_ids=users + 1000, positive_ids=items,
    )  # fmt: skip
    for given in (True, log_q):
        trainer = rt.Trainer(model, loss, rt.SGD(model.params, 0.0), epochs=1, batch_size=64, progress=False)
        assert trainer.fit(users, items, log_q=given).history["loss"][1] == pytest.approx(expected, rel=1e-9)


def test_rows_of_ids_in_no_pair__keep_their_values(rng):
    model = towers()
    before = {name: value.copy() for name, value in model.params.items()}
    train(model, [3, 4, 3, 9], [1, 2, 5, 5])
    moved = {name: np.flatnonzero((model.params[name] != before[name]).any(axis=1)).tolist() for name in before}
    assert moved == {"query/weight": [3, 4, 9], "document/weight": [1, 2, 5]}


def test_exact_steps__are_those_of_whole_steps(rng):
    users, items = taste(rng, pairs=200)
    found = []
    for lazy in ("exact", "dense"):
        model = towers()
        optimizer = rt.Adam(model.params, 0.01, lazy="exact")
        if lazy == "dense":
            optimizer = Dense(rt.Adam(model.params, 0.01))
        rt.Trainer(model, rt.InfoNCELoss(0.2), optimizer, epochs=3, batch_size=20, progress=False).fit(users, items)
        found.append(model.document.weight.copy())
    np.testing.assert_allclose(*found, atol=1e-5)


class Dense:
    """An optimizer that steps all rows, with zeros for those that it is not given."""

    def __init__(self, optimizer):
        self.optimizer, self.learning_rate = optimizer, 0.01

    def step(self, params, grads, rows=None):
        whole = {name: np.zeros_like(value) for name, value in params.items()}
        for name, each in (rows or {}).items():
            whole[name][each] = grads[name]
        self.optimizer.step(params, whole)


def test_a_table_beside_vectors__takes_rows_of_ids(rng):
    users, items = taste(rng)
    vectors = np.eye(40, dtype=np.float32)
    model = rt.TwoTower(rt.EmbeddingTable(60, 8), rt.LinearAdapter(40, 8, residual=False))
    trainer = train(model, np.arange(60), vectors, np.stack([users, items], axis=1))
    assert trainer.history["loss"][-1] < 0.8 * trainer.history["loss"][1]


def test_a_table_of_a_graph__serves_as_a_tower(rng, tmp_path):
    users, items = taste(rng)
    table = rt.EmbeddingTable(40, 8)
    together = np.stack([items[:-1], items[1:]], axis=1)[np.diff(users % 4) == 0]
    rt.Trainer(table, epochs=2, progress=False).fit_graph(together)
    model = rt.TwoTower(rt.EmbeddingTable(60, 8), table)
    train(model, users, items, epochs=2)
    rt.save_model(tmp_path / "model.npz", model)
    loaded = rt.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.encode_document([3, 5]), model.encode_document([3, 5]))
    assert loaded.encode_query([]).shape == (0, 8)


def test_one_table_of_both_sides__and_a_head(rng):
    users, items = taste(rng, 40)
    shared = rt.TwoTower(rt.EmbeddingTable(40, 8))
    assert train(shared, users, items, epochs=2).history["loss"][2] < 10
    head = rt.Sequential(rt.EmbeddingTable(40, 8), rt.LinearAdapter(8))
    model = rt.TwoTower(head, rt.EmbeddingTable(40, 8))
    history = train(model, np.arange(40), np.arange(40), np.stack([users, items], axis=1)).history
    assert history["loss"][-1] < history["loss"][1]


def test_a_run_of_ids__is_resumed_to_the_same_bits(tmp_path, rng):
    users, items = taste(rng)
    ends = []
    for stops in ((4,), (2, 4)):
        model, path = towers(), tmp_path / f"{len(stops)}.npz"
        for epochs in stops:
            trainer = rt.Trainer(model, rt.InfoNCELoss(0.2), epochs=epochs, checkpoint=path, progress=False)
            trainer.fit(users, items, log_q=True, resume=True)
        ends.append(model.query.weight.tobytes())
    assert ends[0] == ends[1]
