"""Codes of 8 bits and of one, and the search among them."""

import numpy as np
import pytest
import reference

import rvtrain as rt

PRECISIONS = ("int8", "uint8", "binary", "ubinary")
BYTES = ("int8", "uint8")


@pytest.fixture
def ours(rng):
    """Queries near some of the documents, of different spread in each column, of which one is constant."""
    documents = (rng.normal(size=(300, 13)) * np.linspace(0.1, 3, 13) + 0.2).astype(np.float32)
    documents[:, 5] = 0.25
    return documents[:20] + rng.normal(size=(20, 13)).astype(np.float32) * 0.02, documents


def limits(x):
    return np.stack([x.min(axis=0), x.max(axis=0)])


# --- quantize --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dim", [1, 8, 13])
def test_quantize__matches_the_oracle(precision, dim, dtype, rng):
    x = rng.normal(size=(40, dim)).astype(dtype)
    x[3] = 0
    codes = rt.quantize(x, precision)
    assert codes.flags.c_contiguous
    np.testing.assert_array_equal(codes, reference.quantize(x, precision), strict=True)
    ranges = np.array([np.full(dim, -0.5), np.full(dim, 1.0)])  # many values are beyond these
    np.testing.assert_array_equal(rt.quantize(x, precision, ranges), reference.quantize(x, precision, ranges))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantize__is_that_of_sentence_transformers(precision, ours):
    library = pytest.importorskip("sentence_transformers.quantization")
    _, x = ours
    np.testing.assert_array_equal(rt.quantize(x, precision), library.quantize_embeddings(x, precision), strict=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantize__takes_other_types_strides_and_many_rows(precision, rng):
    x = rng.normal(size=(5000, 300)).astype(np.float16)  # more than one block
    np.testing.assert_array_equal(rt.quantize(x, precision), rt.quantize(x.astype(np.float32), precision))
    strided = np.asfortranarray(x.astype(np.float32))[::2, ::3]
    np.testing.assert_array_equal(rt.quantize(strided, precision), rt.quantize(strided.copy(), precision))
    assert rt.quantize(np.ones((0, 9)), precision, np.array([[0] * 9, [1] * 9])).shape[0] == 0


def test_quantize__refuses_what_it_cannot_take():
    x = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="precision must be 'int8', 'uint8', 'binary' or 'ubinary', got 'int4'"):
        rt.quantize(x, "int4")
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\)"):
        rt.quantize(x[0], "int8")
    with pytest.raises(TypeError, match="x must be an array of real numbers"):
        rt.quantize(x * 1j, "int8")
    for precision in PRECISIONS:
        with pytest.raises(ValueError, match=r"x must be finite, got nan at \[1, 0\]"):
            rt.quantize(np.array([[1.0, 2.0], [np.nan, 1.0]]), precision)
    with pytest.raises(ValueError, match="ranges must have the shape of the least and greatest"):
        rt.quantize(x, "int8", np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"ranges must not descend, got 2\.0 to 1\.0 in column 0"):
        rt.quantize(x, "int8", [[2, 0], [1, 1]])
    with pytest.raises(ValueError, match="ranges must be given where x has no row"):
        rt.quantize(x[:0], "int8")


# --- top_k_quantized -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("dim", [3, 13, 64, 130])
def test_bits__without_rescoring_match_the_oracle(precision, dim, dtype, rng):
    queries, documents = rng.normal(size=(7, dim)).astype(dtype), rng.normal(size=(150, dim)).astype(dtype)
    codes = rt.quantize(documents, precision)
    scores, indices = rt.top_k_quantized(queries, codes, 40, precision, rescore_multiplier=0)
    wanted = reference.nearest_by_bits(queries, documents, 40)
    np.testing.assert_allclose(scores, wanted[0], atol=1e-6)
    np.testing.assert_array_equal(indices, wanted[1])
    assert (scores.dtype, indices.dtype) == (dtype, np.int64)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes__that_are_all_rescored_rank_by_the_cosine_to_what_they_stand_for(precision, ours):
    queries, documents = ours
    codes = rt.quantize(documents, precision)
    if precision in BYTES:
        low, high = limits(documents)
        plain = codes.astype(np.float64) + 128 * (precision == "int8")
        stand_for = low + (plain + 0.5 * (high > low)) * (high - low) / 255
    else:
        stand_for = np.where(documents > 0, 1.0, -1.0)
    cosines = reference.cosine_similarity(queries, stand_for)
    scores, indices = rt.top_k_quantized(
        queries, codes, 9, precision, ranges=limits(documents), rescore_multiplier=1000
    )
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :9], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, indices, 1), scores, atol=2e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_documents__that_are_all_rescored_rank_as_if_there_were_no_codes(precision, ours, tmp_path):
    queries, documents = ours
    np.save(tmp_path / "documents.npy", documents.astype(np.float16))
    stored = np.load(tmp_path / "documents.npy", mmap_mode="r")
    codes = rt.quantize(stored, precision)
    options = {"ranges": limits(stored), "documents": stored}
    scores, indices = rt.top_k_quantized(queries, codes, 9, precision, rescore_multiplier=1000, **options)
    wanted = rt.top_k(queries, stored, 9)
    np.testing.assert_allclose(scores, wanted[0], atol=1e-6)
    np.testing.assert_array_equal(indices, wanted[1])
    one = rt.top_k_quantized(queries[3], codes, 9, precision, rescore_multiplier=1000, **options)
    np.testing.assert_array_equal(one[1], wanted[1][3])


def test_codes__more_rescoring_finds_more(rng):
    hidden = rng.normal(size=(3000, 16))
    documents = (hidden @ rng.normal(size=(16, 96))).astype(np.float32)
    queries = documents[:200] + rng.normal(size=(200, 96)).astype(np.float32) * 2
    exact = rt.top_k(queries, documents, 10)[1]

    def recall(precision, **options):
        codes = rt.quantize(documents, precision)
        found = rt.top_k_quantized(queries, codes, 10, precision, ranges=limits(documents), **options)[1]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])

    by_bits = recall("binary", rescore_multiplier=0)
    rescored = recall("binary")
    by_documents = recall("binary", documents=documents)
    assert by_bits + 0.02 < rescored < by_documents
    assert recall("int8") > 0.95


def test_top_k_quantized__refuses_what_does_not_fit(ours):
    queries, documents = ours
    codes = rt.quantize(documents, "int8")
    bits = rt.quantize(documents, "binary")
    ranges = limits(documents)
    for arguments, options, message in (
        ((queries, codes, 3, "int8"), {}, "ranges must be given for int8"),
        ((queries, codes, 301, "int8"), {"ranges": ranges}, r"k must be in \[1, 300\], got 301"),
        ((queries, codes, 3, "binary"), {}, r"codes must have shape \(n, 2\) for queries of 13 columns"),
        ((queries, codes[:, :5], 3, "int8"), {"ranges": ranges}, r"codes must have shape \(n, 13\)"),
        ((queries, bits, 3, "binary"), {"rescore_multiplier": -1}, "rescore_multiplier must be at least 0"),
        ((queries, bits, 3, "binary"), {"documents": documents[1:]}, "documents must have the shape of what"),
        ((queries * np.nan, bits, 3, "binary"), {}, "queries must be finite"),
        ((queries, bits[:0], 3, "binary"), {}, "codes must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            rt.top_k_quantized(*arguments, **options)
    with pytest.raises(TypeError, match="codes must be uint8 for ubinary, got int8"):
        rt.top_k_quantized(queries, bits, 3, "ubinary")


# --- Evaluation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float16", *PRECISIONS])
def test_evaluate_retrieval__ranks_the_codes(precision, ours):
    queries, documents = ours
    relevant = np.arange(20)
    metrics = ("recall@1", "mrr@10", "map@r")
    if precision == "float16":
        ranks = rt.top_k(queries, documents.astype(np.float16), 10)[1]
    else:
        codes = rt.quantize(documents, precision)
        ranks = rt.top_k_quantized(queries, codes, 10, precision, ranges=limits(documents))[1]
    found = rt.evaluate_retrieval(queries, documents, relevant=relevant, metrics=metrics, precision=precision)
    assert found["recall@1"] == (ranks[:, 0] == relevant).mean()
    assert found["mrr@10"] == pytest.approx((1 / (1 + np.nonzero(ranks == relevant[:, None])[1])).sum() / 20)
    blocks = (documents[start : start + 64] for start in range(0, 300, 64))
    again = rt.evaluate_retrieval(
        queries, blocks, relevant=relevant, metrics=metrics, precision=precision, ranges=limits(documents)
    )
    assert again == found
    some = rt.evaluate_retrieval(
        queries, documents, pairs=np.stack([relevant[::2]] * 2, axis=1), metrics=metrics, precision=precision
    )
    assert some["recall@1"] == (ranks[::2, 0] == relevant[::2]).mean()


def test_evaluate_retrieval__refuses_what_it_cannot_quantize(ours):
    queries, documents = ours
    relevant = np.arange(20)
    for options, message in (
        ({"precision": "int4"}, "precision must be 'float32', 'float16', 'int8'"),
        ({"precision": "int8", "documents": iter([documents])}, "ranges must be given for int8 where documents are"),
        ({"precision": "binary", "rescore_multiplier": -1}, "rescore_multiplier must be at least 0"),
        ({"precision": "float16", "documents": documents * 1e6}, "documents in float16 must be finite"),
        ({"precision": "binary", "documents": documents[:, :5]}, "documents must have 13 columns like queries"),
    ):
        with pytest.raises(ValueError, match=message):
            rt.evaluate_retrieval(queries, options.pop("documents", documents), relevant=relevant, **options)
