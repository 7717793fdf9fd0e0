"""Mining for datasets of texts: beside sentence-transformers, and what is not theirs."""

import contextlib
import hashlib
import io
import itertools
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import import_torch

torch = import_torch()
datasets = pytest.importorskip("datasets")

from rvtrain.torch import mine_hard_negatives  # noqa: E402

DIM = 6
FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


class Model:
    """Rows of numbers made from texts; the interface of SentenceTransformer that mining uses."""

    device = torch.device("cpu")
    model_card_data = SimpleNamespace(base_model="rows")

    def __init__(self):
        self.calls = []

    def encode_document(self, texts, prompt=None, prompt_name=None, normalize_embeddings=False, **options):
        self.calls.append(options | {"texts": texts, "prompt": prompt, "prompt_name": prompt_name})
        seeds = [hashlib.sha256(f"{prompt or prompt_name or ''}{text}".encode()).digest() for text in texts]
        rows = np.array([np.random.default_rng(list(seed)).normal(size=DIM) for seed in seeds], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize_embeddings else rows

    encode_query = encode_document

    def similarity(self, a, b):
        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a, b):
        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(1)

    def get_embedding_dimension(self):
        return DIM

    def start_multi_process_pool(self, target_devices=None):
        self.calls.append({"start": target_devices})
        return "a pool"

    def stop_multi_process_pool(self, pool):
        self.calls.append({"stop": pool})


class Judge:
    """A cross-encoder: its scores are of the characters of both texts."""

    def predict(self, pairs, batch_size=32, convert_to_tensor=False, pool=None):
        numbers = [int(hashlib.sha256(f"{a}|{b}".encode()).hexdigest()[:8], 16) for a, b in pairs]
        return torch.tensor(numbers, dtype=torch.float32) / 2**31 - 1

    start_multi_process_pool, stop_multi_process_pool = Model.start_multi_process_pool, Model.stop_multi_process_pool
    calls: list = []


def rows(count=24, queries=None, documents=None, seed=0):
    """Pairs, among them queries with several documents, documents of several queries, and repeated rows."""
    rng = random.Random(seed)
    draw = lambda kind, number: [f"{kind} {rng.randrange(number)}" for _ in range(count)]  # noqa: E731
    columns = {
        "question": draw("query", queries) if queries else [f"query {i}" for i in range(count)],
        "source": ["a page"] * count,
        "answer": draw("document", documents) if documents else [f"document {i}" for i in range(count)],
    }
    return datasets.Dataset.from_dict(columns)


def mined(function, *arguments, seed=0, **options):
    """The rows that a function mines, and what it prints."""
    random.seed(seed)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        found = function(*arguments, **options)
    return found, printed.getvalue().splitlines()


NUMBER = re.compile(r"-?\d[\d,]*\.\d+|nan|-?inf")


def assert_alike(ours, theirs, min_score):
    """Equal rows, scores to rounding; equal lines but for the last digits and for what min_score has skipped."""
    (found, printed), (expected, lines) = ours, theirs
    assert found.column_names == expected.column_names and found.num_rows == expected.num_rows
    assert found.features == expected.features
    for name in found.column_names:
        if "score" in name:
            for a, b in zip(found[name], expected[name], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert list(found[name]) == list(expected[name])
    if min_score is not None:
        printed, lines = ([line for line in x if "min_score of" not in line] for x in (printed, lines))
    assert [NUMBER.sub("#", line) for line in printed] == [NUMBER.sub("#", line) for line in lines]
    numbers = [[float(x.replace(",", "")) for x in NUMBER.findall("\n".join(text))] for text in (printed, lines)]
    np.testing.assert_allclose(*numbers, atol=2e-4)


FILTERS = {
    "none": {},
    "ranks": {"range_min": 2, "range_max": 9},
    "scores": {"max_score": 0.7, "min_score": 0.0},
    "low scores alone": {"min_score": 0.3},
    "margins": {"absolute_margin": 0.1, "relative_margin": 0.2, "range_min": 1},
    "a margin": {"relative_margin": 0.05, "max_score": 0.9},
    "all": {"absolute_margin": 0.0, "relative_margin": 0.5, "max_score": 0.5, "min_score": -0.5, "range_max": 12},
    "nothing passes": {"max_score": -2.0},
    "more than there are": {"range_max": 1000, "num_negatives": 40},
}
DATA = {
    "one row a query": lambda: rows(),
    "several": lambda: rows(30, queries=9, documents=12),
    "one query": lambda: rows(3, queries=1),
    "one row": lambda: rows(1),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("data", DATA)
def test_negatives__are_those_of_sentence_transformers(data, filters):
    theirs = pytest.importorskip("sentence_transformers").util.mine_hard_negatives
    corpus = [f"page {i}" for i in range(40)] + ["document 1", "page 3"]
    cases = itertools.product(FORMATS, (False, True), ("top", "random"), (None, corpus), (None, Judge()))
    for seed, (form, with_scores, sampling, texts, judge) in enumerate(cases):
        options = {"num_negatives": 3} | FILTERS[filters] | {
            "positive_column_name": "answer", "output_format": form, "output_scores": with_scores,
            "sampling_strategy": sampling, "corpus": texts, "cross_encoder": judge,
        }  # fmt: skip
        calls = [mined(f, DATA[data](), Model(), seed=seed, **options) for f in (mine_hard_negatives, theirs)]
        assert_alike(*calls, options.get("min_score"))
