"""Candidates that are prepared once for many calls."""

import pickle

import numpy as np
import pytest

import rvtrain as rt


@pytest.fixture
def data(rng):
    return rng.normal(size=(130, 12)), rng.normal(size=(9000, 12))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("method", ["auto", "float", "bounds"])
@pytest.mark.parametrize("strategy", ["hardest", "semi_hard", "random"])
def test_prepare__changes_no_result(strategy, method, dtype, data):
    queries, candidates = (x.astype(dtype) for x in data)
    miner = rt.HardNegativeMiner(strategy)
    expected = miner.mine(queries, candidates, 5, return_scores=True, method=method)
    prepared = miner.prepare(candidates)
    for _ in range(2):
        miner.reset()
        found = miner.mine(queries, prepared, 5, return_scores=True, method=method)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_prepare__serves_searches_with_and_without_ceilings_in_turn(data):
    """They use different codes, which are kept both."""
    queries, candidates = (x.astype(np.float32) for x in data)
    miner = rt.HardNegativeMiner.hardest()
    prepared = miner.prepare(candidates)
    for max_score in (None, 0.1, None, 0.2):
        expected = miner.mine(queries, candidates, 5, max_score=max_score, method="float")
        np.testing.assert_array_equal(
            miner.mine(queries, prepared, 5, max_score=max_score, method="bounds"), expected
        )


def test_prepare__serves_top_k_positives_ids_strided_rows_and_wider_queries(data):
    queries, candidates = data[0].astype(np.float32), np.asfortranarray(data[1].astype(np.float32))
    miner = rt.HardNegativeMiner.hardest(relative_margin=0.05)
    prepared = miner.prepare(candidates[::2])
    rows = np.arange(len(candidates[::2]))
    given = {"positives": rows[: len(queries)], "anchor_ids": rows[: len(queries)] % 7, "candidate_ids": rows % 7}
    for one in (queries, queries.astype(np.float64)):
        expected = miner.mine(one, candidates[::2], 3, **given)
        np.testing.assert_array_equal(miner.mine(one, prepared, 3, **given), expected)
        for found, wanted in zip(rt.top_k(one, prepared, 4), rt.top_k(one, candidates[::2], 4), strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
    assert len(prepared) == len(rows) and "(4500, 12)" in repr(prepared)


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ([[1.0, np.nan]], ValueError, "candidates"),
        ([["a"]], TypeError, "candidates"),
        ([1.0, 2.0], ValueError, "candidates"),
        (np.empty((0, 3)), ValueError, "candidates"),
        (iter([np.ones((2, 2))]), TypeError, "candidates"),
    ],
)
def test_prepare__refuses(bad, error, says):
    with pytest.raises(error, match=says):
        rt.HardNegativeMiner.hardest().prepare(bad)


def test_prepare__refuses_files_and_queries_of_another_dimension(tmp_path):
    stored = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(3, 2))
    stored[:] = 1
    miner = rt.HardNegativeMiner.hardest()
    with pytest.raises(TypeError, match="candidates must be an array in memory"):
        miner.prepare(stored)
    with pytest.raises(ValueError, match=r"candidates must have 5 columns like anchors, got shape \(3, 2\)"):
        miner.mine(np.ones((1, 5)), miner.prepare(np.array(stored)), 1)


def test_miner_and_prepared__are_pickled(data):
    queries, candidates = (x.astype(np.float32) for x in data)
    miner = rt.HardNegativeMiner.random(seed=3)
    prepared = miner.prepare(candidates)
    miner.mine(queries, prepared, 4, method="float")
    other, copied = pickle.loads(pickle.dumps((miner, prepared)))
    np.testing.assert_array_equal(other.mine(queries, copied, 4), miner.mine(queries, prepared, 4))


class Preparing:
    """A miner that counts what the Trainer asks of it."""

    def __init__(self):
        self.prepared, self.mined = 0, []

    def prepare(self, candidates):
        self.prepared += 1
        return {"all": candidates}

    def mine(self, anchors, candidates, k):
        self.mined.append(type(candidates))
        return np.tile(np.arange(k), (len(anchors), 1))


@pytest.mark.parametrize("document", ["frozen", "shared"])
def test_trainer__prepares_the_documents_of_a_frozen_side_once(document, rng):
    queries, documents = rng.normal(size=(2, 40, 6)).astype(np.float32)
    miner = Preparing()
    model = rt.TwoTower(rt.LinearAdapter(6), document)
    trainer = rt.Trainer(model, rt.InfoNCELoss(), epochs=3, batch_size=20, mining=rt.Mining(miner, 2))
    trainer.fit(queries, documents)
    frozen = document == "frozen"
    assert miner.prepared == frozen
    assert miner.mined == [dict if frozen else np.ndarray] * 3


def test_trainer__with_prepared_documents_trains_as_without(rng):
    class Plain:
        """The same miner, which prepares nothing."""

        def __init__(self):
            self.miner = rt.HardNegativeMiner.hardest()

        def mine(self, anchors, candidates, k, *, exclude=None, positives=None, anchor_ids=None, candidate_ids=None):
            return self.miner.mine(
                anchors, candidates, k, exclude=exclude, positives=positives, anchor_ids=anchor_ids,
                candidate_ids=candidate_ids,
            )  # fmt: skip

    queries, documents = rng.normal(size=(2, 150, 6)).astype(np.float32)
    weights = []
    for miner in (Plain(), rt.HardNegativeMiner.hardest()):
        model = rt.TwoTower(rt.LinearAdapter(6), "frozen")
        mining = rt.Mining(miner, 2)
        trainer = rt.Trainer(model, rt.InfoNCELoss(), epochs=2, batch_size=50, mining=mining)
        trainer.fit(queries, documents)
        weights.append({name: value.copy() for name, value in model.params.items()})
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_prepare__twice__is_the_same(data):
    prepared = rt.HardNegativeMiner.prepare(data[1])
    assert rt.HardNegativeMiner.prepare(prepared) is prepared
