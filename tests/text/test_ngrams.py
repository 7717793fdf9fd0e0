"""Hashed n-grams: the oracle in plain Python, weights, alphabets, kinds of collections, and states."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import reference

import rvtrain as rt

TEXTS = [
    "The cat sat on the mat, and THE DOG on the cat.",
    "",
    " \t\n",
    "!?",
    "a",
    "snake_case camelCase HTTPServer XMLHttpRequest2 iPhone A B",
    "Größe straße ÎLE İstanbul ǅungla",
    "Ελληνικά κείμενα ΣΊΣΥΦΟΣ",
    "Русский текст и ещё текст",
    "日本語のテキスト 中文文本",
    "नमस्ते दुनिया क्षत्रिय",
    "مرحبا بالعالم می‌خواهم",
    "😀👩‍🚀 emoji 😀 ½ ² ٣",
    "e\u0301 é \ud800 lone surrogate \U000e0001 \U0010ffff",
    "x" * 3000 + " y" * 500,
]
OPTIONS = [
    {},
    {"words": None},
    {"characters": None},
    {"words": (2, 3), "characters": (1, 2)},
    {"words": (1, 4), "characters": (5, 5), "lowercase": False},
    {"split_case": True},
]


def counted(texts, n_rows=1000, **options):
    """Bags whose weights are counts."""
    plain = {"use_idf": False, "sublinear_tf": False, "norm": None}
    return rt.HashedNgrams(n_rows, **{**plain, **options}).transform(texts)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("n_rows", [1, 7, 256, 1000, 2**31 - 1])
def test_transform__counts_what_the_oracle_counts(options, n_rows, threads):
    bags = counted(TEXTS, n_rows, **options)
    assert bags.shape == (len(TEXTS), n_rows)
    for text, start, stop in zip(TEXTS, bags.offsets, bags.offsets[1:], strict=False):
        wanted = reference.hashed_ngrams(text, n_rows, **options)
        rows = bags.indices[start:stop].tolist()
        assert rows == sorted(wanted)
        assert bags.weights[start:stop].tolist() == [wanted[row] for row in rows]


def test_transform__weighs_by_tf_idf(dtype, threads):
    ngrams = rt.HashedNgrams(300, dtype=dtype)
    bags = ngrams.fit_transform(TEXTS)
    counts = [reference.hashed_ngrams(text, 300) for text in TEXTS]
    idf = [np.log((1 + len(TEXTS)) / (1 + sum(r in c for c in counts))) + 1 for r in range(300)]
    np.testing.assert_allclose(ngrams.idf_, idf, rtol=1e-12)
    wanted = np.zeros((len(TEXTS), 300))
    for row, count in zip(wanted, counts, strict=True):
        for r, times in count.items():
            row[r] = (1 + np.log(times)) * idf[r]
        row /= np.linalg.norm(row) or 1
    np.testing.assert_allclose(bags.toarray(), wanted, rtol=1e-6 if dtype == np.float32 else 1e-12)
    assert bags.dtype == dtype
    again = ngrams.transform(TEXTS)
    assert np.array_equal(again.indices, bags.indices) and np.array_equal(again.weights, bags.weights)


def test_transform__agrees_with_the_weights_of_scikit_learn():
    vectorizers = pytest.importorskip("sklearn.feature_extraction.text")
    texts = ["the cat sat", "the dog sat on the mat", "cat cat cat dog"]
    peer = vectorizers.TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    ours = rt.HashedNgrams(2**20, words=(1, 1), characters=None, dtype=np.float64).fit_transform(texts)
    np.testing.assert_allclose((ours.to_scipy() @ ours.to_scipy().T).toarray(), (peer @ peer.T).toarray(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "words"),
    [("XMLHttpRequest2", "xml http request2"), ("camelCase", "camel case"), ("HTTP", "http"), ("a1B", "a1 b")],
)
def test_split_case__lets_capitals_begin_words(name, words):
    split, plain = counted([name, words], split_case=True), counted([name.lower(), name])
    for same in (split, plain):
        assert np.array_equal(same.toarray()[0], same.toarray()[1])


def test_transform__is_the_same_for_one_text_and_for_many_and_for_blocks(monkeypatch):
    whole = counted(TEXTS)
    for i, text in enumerate(TEXTS):
        assert np.array_equal(counted([text]).toarray()[0], whole.toarray()[i])
    from rvtrain.text import _ngrams

    monkeypatch.setattr(_ngrams, "_BLOCK", 20)
    assert np.array_equal(counted(TEXTS).toarray(), whole.toarray())


def test_transform__takes_a_very_long_text():
    text = "ab cd " * 200_000
    bags = counted([text, "ab"], words=(1, 1), characters=None)
    assert bags.weights.tolist() == [200_000.0, 200_000.0, 1.0]


def test_hashes__are_the_same_in_every_process():
    code = (
        "from rvtrain import HashedNgrams; "
        "print(HashedNgrams(10**6, use_idf=False).transform(['Hellö 日本']).indices.tolist())"
    )
    options = {"check": True, "capture_output": True, "text": True}
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, **options).stdout
    assert found == f"{sorted(reference.hashed_ngrams('Hellö 日本', 10**6))}\n"


def test_texts__come_in_any_ordered_collection():
    wanted = counted(["ab cd", "", "é"]).toarray()
    for texts in (
        ("ab cd", "", "é"), np.array(["ab cd", "", "é"]), np.array(["ab cd", "", "é"], object),
        (text for text in ("ab cd", "", "é")), [np.str_("ab cd"), "", "é"],
    ):  # fmt: skip
        assert np.array_equal(counted(texts).toarray(), wanted)
    assert counted([]).shape == (0, 1000) and counted(np.array([], str)).nnz == 0


def test_texts__come_as_a_pandas_series():
    pandas = pytest.importorskip("pandas")
    wanted = counted(["ab cd", "", "é"]).toarray()
    for dtype in (object, "str", "string", "category"):
        series = pandas.Series(["ab cd", "", "é"], index=[5, 3, 9], dtype=dtype)
        assert np.array_equal(counted(series).toarray(), wanted)
    with pytest.raises(TypeError, match=r"texts must be a sequence of strings, got nan at \[1\]"):
        counted(pandas.Series(["a", None], dtype="str"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", r"got str: give \[texts\]"),
        (b"a text", "got bytes"),
        (None, "got NoneType"),
        (3, "got int"),
        ({"a": 1}, "got dict"),
        ({"a"}, "got set"),
        (["a", None], r"got None at \[1\]"),
        (["a", b"b"], r"got b'b' at \[1\]"),
        ([1.5], r"got 1.5 at \[0\]"),
    ],
)
def test_texts__of_other_types_are_refused_by_name(texts, message):
    with pytest.raises(TypeError, match=f"texts must be a sequence of strings, {message}"):
        counted(texts)


def test_texts__of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"texts must have 1 dimension, got shape \(1, 2\)"):
        counted(np.array([["a", "b"]]))


def test_transform__needs_a_fit_and_fit_needs_texts():
    with pytest.raises(ValueError, match="features must be fitted"):
        rt.HashedNgrams(10).transform(["a"])
    for method in ("fit", "fit_transform"):
        with pytest.raises(ValueError, match="texts must not be empty"):
            getattr(rt.HashedNgrams(10), method)([])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_rows": 0}, ValueError, "n_rows must be in"),
        ({"n_rows": 2**31}, ValueError, "n_rows must be in"),
        ({"n_rows": 1.5}, TypeError, "n_rows must be an integer"),
        ({"words": 2}, TypeError, "words must be None or a tuple"),
        ({"words": (0, 1)}, ValueError, r"words\[0\] must be"),
        ({"characters": (4, 3)}, ValueError, r"characters\[1\] must be"),
        ({"words": None, "characters": None}, ValueError, "words and characters must not both be None"),
        ({"lowercase": 1}, TypeError, "lowercase must be True or False"),
        ({"norm": "l1"}, ValueError, "norm must be 'l2'"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64"),
    ],
    ids=str,
)
def test_options__are_checked(options, error, message):
    with pytest.raises(error, match=message):
        rt.HashedNgrams(**options)


def test_states__go_on(tmp_path):
    ngrams = rt.HashedNgrams(500, words=(1, 1), characters=(2, 3)).fit(TEXTS)
    wanted = ngrams.transform(TEXTS).weights
    rt.save_checkpoint(tmp_path / "features.npz", features=ngrams)
    fresh = rt.HashedNgrams(500, words=(1, 1), characters=(2, 3))
    fresh.load_state_dict(rt.load_checkpoint(tmp_path / "features.npz")["features"])
    for other in (fresh, copy.deepcopy(ngrams), pickle.loads(pickle.dumps(ngrams))):
        assert np.array_equal(other.transform(TEXTS).weights, wanted)
        assert repr(other) == repr(ngrams)
    with pytest.raises(ValueError, match="state must be of the same n_rows"):
        rt.HashedNgrams(501, words=(1, 1), characters=(2, 3)).load_state_dict(ngrams.state_dict())
