"""Candidates from disk and from iterables: the same results as from memory, in bounded memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.mining import _candidates


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_candidates, "_BLOCK_BYTES", 0)  # 256 rows, so that there are several


@pytest.fixture
def data(dtype, rng):
    return rng.normal(size=(67, 9)).astype(dtype), rng.normal(size=(1500, 9)).astype(dtype)


def sources(candidates, folder):
    np.save(folder / "candidates.npy", candidates)
    cuts = [0, 1, 300, 301, 1100, len(candidates)]
    blocks = [candidates[a:b] for a, b in itertools.pairwise(cuts)]
    return {
        "memmap": np.load(folder / "candidates.npy", mmap_mode="r"),
        "list": blocks,
        "generator": (block for block in blocks),
        "strided": np.repeat(candidates, 2, axis=0)[::2],
    }


@pytest.mark.parametrize("kind", ["memmap", "list", "generator", "strided"])
@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_mine__gives_the_same_from_anywhere(kind, strategy, data, threads, tmp_path, rng):
    anchors, candidates = data
    rest = {
        "exclude": rng.integers(-1, 1500, size=(67, 4)),
        "anchor_ids": rng.integers(0, 5, 67),
        "candidate_ids": rng.integers(0, 5, 1500),
        "return_scores": True,
    }
    expected = rt.HardNegativeMiner(strategy).mine(anchors, candidates, 7, **rest)
    found = rt.HardNegativeMiner(strategy).mine(anchors, sources(candidates, tmp_path)[kind], 7, **rest)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_top_k__gives_the_same_for_one_query_as_for_many(data, tmp_path):
    queries, candidates = data
    scores, indices = rt.top_k(queries, candidates, 20)
    one_scores, one = rt.top_k(queries[3], sources(candidates, tmp_path)["memmap"], 20)
    np.testing.assert_array_equal(one, indices[3])
    np.testing.assert_array_equal(one_scores, scores[3])


def test_progress__hears_of_every_block(data, tmp_path):
    anchors, candidates = data
    heard = []
    miner = rt.HardNegativeMiner.hardest()
    miner.mine(anchors, candidates, 1, progress=lambda *counts: heard.append(counts))
    assert [done for done, _ in heard] == [256, 512, 768, 1024, 1280, 1500]
    assert {total for _, total in heard} == {1500}
    heard.clear()
    blocks = sources(candidates, tmp_path)["generator"]
    miner.mine(anchors, blocks, 1, progress=lambda *counts: heard.append(counts))
    assert heard[-1] == (1500, None)


def test_progress__true_shows_a_bar(data, capsys):
    anchors, candidates = data
    rt.HardNegativeMiner.hardest().mine(anchors, candidates, 1, progress=True)
    assert "1.50k/1.50k" in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress must be a callable or True, got 3"):
        rt.HardNegativeMiner.hardest().mine(anchors, candidates, 1, progress=3)


def test_mine__names_the_row_that_is_not_finite(data, tmp_path):
    anchors, candidates = data
    candidates[1203, 2] = np.nan
    for source in sources(candidates, tmp_path).values():
        with pytest.raises(ValueError, match="candidates must be finite, got a NaN or an infinity in row 1203"):
            rt.HardNegativeMiner.hardest().mine(anchors, source, 1)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (iter([]), ValueError, "candidates must not be empty"),
        (iter([np.ones((3, 2))]), ValueError, r"blocks of candidates must have shape \(rows, 9\), got \(3, 2\)"),
        (iter([np.ones((3, 9), int)]), TypeError, "candidates must be float32 or float64"),
        (7, TypeError, "candidates must be an array or an iterable of arrays, got int"),
    ],
)
def test_mine__refuses_blocks_by_name(source, error, message):
    with pytest.raises(error, match=message):
        rt.HardNegativeMiner.hardest().mine(np.ones((2, 9)), source, 1)


def test_mine__refuses_what_does_not_fit_the_blocks():
    anchors = np.ones((2, 9), np.float32)
    miner = rt.HardNegativeMiner.hardest()
    with pytest.raises(TypeError, match="blocks of candidates must be float32 or narrower, got float64"):
        miner.mine(anchors, iter([np.ones((3, 9))]), 1)
    with pytest.raises(ValueError, match=r"exclude must lie in \[-1, 2\], got 5"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, exclude=[[5], [0]])
    with pytest.raises(ValueError, match="candidate_ids must have an id for each candidate, got 2"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, anchor_ids=[1, 2], candidate_ids=[1, 2])
    with pytest.raises(ValueError, match="needs two passes"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, range_min=1)


def test_mine__memory_does_not_grow_with_the_candidates(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(_candidates, "_BLOCK_BYTES", 1 << 20)
    anchors, row = rng.normal(size=(100, 32)).astype(np.float32), rng.normal(size=(1, 32)).astype(np.float32)
    peaks = []
    for blocks in (4, 40):
        rt.release_workspaces()
        stream = (np.tile(row, (8192, 1)) for _ in range(blocks))
        tracemalloc.start()
        rt.HardNegativeMiner.hardest().mine(anchors, stream, 5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The block being read may or may not be whole when the one before is done with: one more or less of 40.
    assert peaks[1] < peaks[0] + 2 * 8192 * row.nbytes


@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
@pytest.mark.parametrize("dim", [1, 100, 300])
def test_mine__gives_a_few_anchors_the_bits_of_many(dim, strategy, dtype, threads, rng):
    anchors, candidates = rng.normal(size=(40, dim)).astype(dtype), rng.normal(size=(700, dim)).astype(dtype)
    exclude = rng.integers(-1, 700, size=(40, 3))
    many = rt.HardNegativeMiner(strategy).mine(anchors, candidates, 6, exclude=exclude, return_scores=True)
    for count in (1, 3, 4, 5):
        few = rt.HardNegativeMiner(strategy).mine(
            anchors[:count], candidates, 6, exclude=exclude[:count], return_scores=True
        )
        np.testing.assert_array_equal(few[0], many[0][:count])
        np.testing.assert_array_equal(few[1], many[1][:count])


def hard_to_screen(kind, rng, dtype):
    """Candidates of which a bound in the wrong place loses one, and a query."""
    x = rng.normal(size=(3000, 37))
    query = rng.normal(size=37)
    if kind == "near":  # all scores within a few ulp
        x = query + 1e-6 * x
    elif kind == "tiny":  # below and around the smallest norm that is divided by
        x *= 10.0 ** rng.uniform(-12, -5, size=(3000, 1))
    elif kind == "huge":
        x *= 10.0 ** rng.uniform(10, 30, size=(3000, 1))
    elif kind == "opposite":  # all negative, some of them too short to reach length one
        x = -abs(x) * 10.0 ** rng.uniform(-10, 1, size=(3000, 1))
        query = abs(query)
    elif kind == "rising":  # each beats the one before
        x = query + np.linspace(9, 0, 3000)[:, np.newaxis] * x
    return x.astype(dtype), query.astype(dtype)


@pytest.mark.parametrize("kind", ["near", "tiny", "huge", "opposite", "rising"])
def test_top_k__screens_out_nothing_that_one_query_finds_among_many(kind, dtype, threads, rng):
    candidates, query = hard_to_screen(kind, rng, dtype)
    queries = np.concatenate([query[np.newaxis], rng.normal(size=(20, 37)).astype(dtype)])
    scores, indices = rt.top_k(queries, candidates, 15)
    one_scores, one = rt.top_k(query, candidates, 15)
    np.testing.assert_array_equal(one, indices[0])
    np.testing.assert_array_equal(one_scores, scores[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 1043, 1499])
def test_top_k__of_one_query_names_the_row_that_is_not_finite(row, value, data):
    queries, candidates = data
    candidates[row, 3] = value
    with pytest.raises(ValueError, match=f"candidates must be finite, got a NaN or an infinity in row {row}$"):
        rt.top_k(queries[0], candidates, 2)
