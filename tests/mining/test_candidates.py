"""Candidates from disk and from iterables: the same results as from memory, in bounded memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

import rvtrain as rt

COUNT = 700
BYTES = 8400
"""Size of a row of which a block has 256: three blocks."""


@pytest.fixture
def data(dtype, rng):
    dim = BYTES // np.dtype(dtype).itemsize
    return tuple(rng.normal(size=(count, dim)).astype(dtype) for count in (67, COUNT))


def sources(candidates, folder):
    np.save(folder / "candidates.npy", candidates)
    cuts = [0, 1, 300, 301, 650, len(candidates)]
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
        "exclude": rng.integers(-1, COUNT, size=(67, 4)),
        "anchor_ids": rng.integers(0, 5, 67),
        "candidate_ids": rng.integers(0, 5, COUNT),
        "return_scores": True,
    }
    expected = rt.HardNegativeMiner(strategy).mine(anchors, candidates, 7, **rest)
    found = rt.HardNegativeMiner(strategy).mine(anchors, sources(candidates, tmp_path)[kind], 7, **rest)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def refilled(rows):
    """Blocks in one buffer, which is full of NaN as soon as the next one is asked for."""
    buffer = np.empty((250, rows.shape[1]), rows.dtype)
    for start in range(0, len(rows), 250):
        block = buffer[: len(rows) - start]
        block[:] = rows[start : start + 250]
        yield block
        buffer[:] = np.nan


def test_search__looks_at_no_block_once_the_next_is_asked_for(data):
    queries, candidates = data
    scores, indices = rt.top_k(queries, candidates, 7)
    for found, expected in zip(rt.top_k(queries, refilled(candidates), 7), (scores, indices), strict=True):
        np.testing.assert_array_equal(found, expected)
    _, one = rt.top_k(queries[0], refilled(candidates), 7)
    np.testing.assert_array_equal(one, indices[0])
    for strategy in rt.MiningStrategy:
        expected = rt.HardNegativeMiner(strategy).mine(queries, candidates, 7)
        np.testing.assert_array_equal(rt.HardNegativeMiner(strategy).mine(queries, refilled(candidates), 7), expected)

    class Stored:
        def __iter__(self):
            return refilled(candidates)

    twice = rt.HardNegativeMiner.hardest().mine(queries, Stored(), 7, range_min=2)
    np.testing.assert_array_equal(twice, rt.HardNegativeMiner.hardest().mine(queries, candidates, 9)[:, 2:])
    wanted = np.arange(len(queries))
    measured = [rt.evaluate_retrieval(queries, x, wanted, ["ndcg@50"]) for x in (candidates, refilled(candidates))]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("stored", ["float16", "int8", "uint8", "int16", "int64", ">f4", ">f8", ">i2"])
@pytest.mark.parametrize("computed", [np.float32, np.float64])
def test_search__takes_what_embeddings_are_stored_as(stored, computed, tmp_path, rng):
    def rows(count):
        return (100 * rng.random((count, BYTES // 4))).astype(stored)

    anchors, candidates, positives = rows(20), rows(COUNT), rows(20).astype(np.float16)
    before = candidates.copy()
    if computed == np.float64:
        anchors = anchors.astype(np.float64)
    dtype = np.result_type(np.float32, anchors.dtype, candidates.dtype)
    plain = [x.astype(dtype) for x in (anchors, candidates, positives)]
    expected = rt.top_k(*plain[:2], 7)
    mined = rt.HardNegativeMiner.semi_hard().mine(*plain[:2], 7, positives=plain[2])
    for source in (candidates, *sources(candidates, tmp_path).values()):
        found = rt.top_k(anchors, source, 7)
        assert found[0].dtype == dtype
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(
        rt.HardNegativeMiner.semi_hard().mine(anchors, candidates, 7, positives=positives), mined
    )
    np.testing.assert_array_equal(candidates, before)


def test_miners_of_batches_and_graphs__take_what_embeddings_are_stored_as(rng):
    x = rng.integers(-50, 50, size=(2, 30, 6))
    edges = rng.integers(0, 30, size=(60, 2))
    for stored in (np.float16, np.int8, ">f4"):
        a, p = x.astype(stored)
        plain = [y.astype(np.float32) for y in (a, p)]
        for function in (
            lambda a, p: rt.InBatchMiner.semi_hard().mine(a, 3, positives=p, return_scores=True),
            lambda a, p: rt.GraphNegativeMiner(edges).mine(a, 3, return_scores=True),
        ):
            for found, expected in zip(function(a, p), function(*plain), strict=True):
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)


def peak(call):
    """The most memory that a call holds at once."""
    rt.release_workspaces()
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("on_disk", [False, True])
def test_top_k__converts_a_block_at_a_time(on_disk, tmp_path, rng):
    candidates = np.tile(
        rng.normal(size=(1000, 64)).astype(np.float16), (300, 1)
    )  # 77 MB, converted at once up to 67
    np.save(tmp_path / "candidates.npy", candidates)
    source = np.load(tmp_path / "candidates.npy", mmap_mode="r") if on_disk else candidates
    queries = candidates[:50]
    rt.top_k(queries, candidates[:1000], 3)
    assert peak(lambda: rt.top_k(queries, source, 3)) < candidates.nbytes / 2


@pytest.mark.parametrize("kind", ["memmap", "list", "generator"])
@pytest.mark.parametrize("strategy", list(rt.MiningStrategy))
def test_mine__of_more_than_there_are_gives_all(kind, strategy, data, tmp_path):
    anchors, candidates = data
    anchors = anchors[:9]
    expected = rt.HardNegativeMiner(strategy).mine(anchors, candidates, COUNT, return_scores=True)
    source = sources(candidates, tmp_path)[kind]
    found = rt.HardNegativeMiner(strategy).mine(anchors, source, COUNT + 500, return_scores=True)
    for actual, wanted, missing in zip(found, expected, (-1, -np.inf), strict=True):
        assert actual.shape == (9, COUNT + 500) and actual.dtype == wanted.dtype
        np.testing.assert_array_equal(actual[:, :COUNT], wanted)
        assert (actual[:, COUNT:] == missing).all()


@pytest.mark.parametrize("blocks", [False, True])
def test_search__holds_no_more_ranks_than_there_are_candidates(blocks, rng):
    queries, documents = rng.normal(size=(100, 4)), rng.normal(size=(50, 4))

    def source():
        return iter(np.split(documents, 5)) if blocks else documents

    deep, flat = [f"{kind}@100000" for kind in ("recall", "ndcg", "precision", "mrr")], ["recall@50"]
    assert rt.evaluate_retrieval(queries, source(), np.arange(100) % 50, deep)["recall@100000"] == 1.0
    measure = peak(lambda: rt.evaluate_retrieval(queries, source(), np.arange(100) % 50, deep))
    assert measure < peak(lambda: rt.evaluate_retrieval(queries, source(), np.arange(100) % 50, flat)) + (1 << 20)
    for miner in (rt.HardNegativeMiner.hardest(), rt.HardNegativeMiner.semi_hard(), rt.HardNegativeMiner.random()):
        most = peak(lambda miner=miner: miner.mine(queries, source(), 100_000))
        assert most < 1.2 * 100 * 100_000 * 8  # the result alone
    ranked = peak(lambda: rt.HardNegativeMiner.hardest().mine(queries, documents, 3, range_max=1_000_000))
    assert ranked < 1 << 20


def test_graph_miner__holds_no_more_than_there_are_nodes(rng):
    embeddings, edges = rng.normal(size=(50, 4)), rng.integers(0, 50, size=(100, 2))
    found = rt.GraphNegativeMiner(edges).mine(embeddings, 60)
    np.testing.assert_array_equal(found[:, :50], rt.GraphNegativeMiner(edges).mine(embeddings, 50))
    assert (found[:, 50:] == -1).all()
    most = peak(lambda: rt.GraphNegativeMiner(edges).mine(embeddings, 100_000))
    assert most < 1.2 * 50 * 100_000 * 8


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e200, 1e307])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_search__is_right_for_rows_of_any_length(size, rng):
    queries, candidates = rng.normal(size=(9, 5)), rng.normal(size=(60, 5))
    edges = rng.integers(0, 60, size=(100, 2))
    long = candidates * size
    scores, indices = rt.top_k(queries, candidates, 10)
    if size > 1:  # rows shorter than 1e-8 have no direction: their cosines are as small as they are
        for q in (queries, queries * size, queries[0]):
            found_scores, found = rt.top_k(q, long, 10)
            np.testing.assert_array_equal(found, indices if q.ndim == 2 else indices[0])
            np.testing.assert_allclose(found_scores, scores if q.ndim == 2 else scores[0], rtol=1e-12)
        near, cosines = rt.GraphNegativeMiner(edges).mine(long, 5, return_scores=True)
        expected, expected_cosines = rt.GraphNegativeMiner(edges).mine(candidates, 5, return_scores=True)
        np.testing.assert_array_equal(near, expected)
        np.testing.assert_allclose(cosines, expected_cosines, rtol=1e-12)
    else:
        found_scores, found = rt.top_k(queries, long, 10)
        expected = np.sort(queries / np.linalg.norm(queries, axis=1, keepdims=True) @ (long / 1e-8).T)[:, :-11:-1]
        np.testing.assert_allclose(found_scores, expected, rtol=1e-12)


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
    assert [done for done, _ in heard] == [256, 512, COUNT]
    assert {total for _, total in heard} == {COUNT}
    heard.clear()
    blocks = sources(candidates, tmp_path)["generator"]
    miner.mine(anchors, blocks, 1, progress=lambda *counts: heard.append(counts))
    assert heard[-1] == (COUNT, None)


def test_progress__true_shows_a_bar(data, capsys):
    anchors, candidates = data
    rt.HardNegativeMiner.hardest().mine(anchors, candidates, 1, progress=True)
    assert "700/700" in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress must be a callable or True, got 3"):
        rt.HardNegativeMiner.hardest().mine(anchors, candidates, 1, progress=3)


def test_mine__names_the_row_that_is_not_finite(data, tmp_path):
    anchors, candidates = data
    candidates[603, 2] = np.nan
    for source in sources(candidates, tmp_path).values():
        with pytest.raises(ValueError, match="candidates must be finite, got a NaN or an infinity in row 603"):
            rt.HardNegativeMiner.hardest().mine(anchors, source, 1)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (iter([]), ValueError, "candidates must not be empty"),
        (iter([np.ones((3, 2))]), ValueError, r"blocks of candidates must have shape \(rows, 9\), got \(3, 2\)"),
        (iter([np.ones((3, 9), complex)]), TypeError, "candidates must be an array of real numbers"),
        (7, TypeError, "candidates must be an array or an iterable of arrays, got int"),
    ],
)
def test_mine__refuses_blocks_by_name(source, error, message):
    with pytest.raises(error, match=message):
        rt.HardNegativeMiner.hardest().mine(np.ones((2, 9)), source, 1)


def test_mine__refuses_what_does_not_fit_the_blocks():
    anchors = np.ones((2, 9), np.float32)
    miner = rt.HardNegativeMiner.hardest()
    for dtype in (np.float64, np.int32):
        with pytest.raises(
            TypeError, match=f"blocks of candidates must be float32 or narrower, got {dtype.__name__}"
        ):
            miner.mine(anchors, iter([np.ones((3, 9), dtype)]), 1)
    with pytest.raises(ValueError, match=r"exclude must lie in \[-1, 2\], got 5"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, exclude=[[5], [0]])
    with pytest.raises(ValueError, match="candidate_ids must have an id for each candidate, got 2"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, anchor_ids=[1, 2], candidate_ids=[1, 2])
    with pytest.raises(ValueError, match="needs two passes"):
        miner.mine(anchors, iter([np.ones((3, 9), np.float32)]), 1, range_min=1)


def test_mine__memory_does_not_grow_with_the_candidates(tmp_path, rng):
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
@pytest.mark.parametrize("row", [0, 543, 699])
def test_top_k__of_one_query_names_the_row_that_is_not_finite(row, value, data):
    queries, candidates = data
    candidates[row, 3] = value
    with pytest.raises(ValueError, match=f"candidates must be finite, got a NaN or an infinity in row {row}$"):
        rt.top_k(queries[0], candidates, 2)


@pytest.mark.parametrize("count", [1, 4])
def test_top_k__of_a_few_queries_reads_an_array_in_one_piece(count, threads, rng):
    """The array of this size is several blocks for many queries."""
    candidates = rng.normal(size=(20_001, 64)).astype(np.float32)
    queries = rng.normal(size=(8, 64)).astype(np.float32)
    candidates[15_000:15_010] = candidates[7]  # ties
    expected = rt.top_k(queries, candidates, 25, method="float")
    found = rt.top_k(queries[:count], candidates, 25)
    strided = rt.top_k(queries[:count], np.repeat(candidates, 2, axis=1)[:, ::2], 25)
    for few in (found, strided):
        np.testing.assert_array_equal(few[0], expected[0][:count])
        np.testing.assert_array_equal(few[1], expected[1][:count])
    candidates[17_000, 5] = np.nan
    with pytest.raises(ValueError, match=r"candidates must be finite, got a NaN or an infinity in row 17000$"):
        rt.top_k(queries[:count], candidates, 25)
