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

    def __init__(self):
        self.calls = []


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


# As they print scores; counts have no point.
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
    "one row": lambda: rows(1),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("data", DATA)
def test_negatives__are_those_of_sentence_transformers(data, filters):
    theirs = pytest.importorskip("sentence_transformers").util.mine_hard_negatives
    corpus = [f"page {i}" for i in range(40)] + ["document 1", "page 3"]
    draw = random.Random(f"{data} {filters}")
    for seed, (form, with_scores) in enumerate(itertools.product(FORMATS, (False, True))):
        options = {"num_negatives": 3} | FILTERS[filters] | {
            "positive_column_name": "answer", "output_format": form, "output_scores": with_scores,
            "sampling_strategy": draw.choice(["top", "random"]), "corpus": draw.choice([None, corpus]),
            "cross_encoder": draw.choice([None, Judge()]),
        }  # fmt: skip
        calls = [mined(f, DATA[data](), Model(), seed=seed, **options) for f in (mine_hard_negatives, theirs)]
        assert_alike(*calls, options.get("min_score"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"include_positives": True},
        {"include_positives": True, "output_format": "n-tuple", "max_score": 0.5, "num_negatives": 2},
        {"output_format": "n-tuple-scores"},
        {"as_triplets": True, "output_format": "n-tuple"},
        {"as_triplets": False},
        {"margin": 0.2},
        {"query_prompt": "ask: ", "corpus_prompt_name": "page"},
        {"anchor_column_name": "answer", "positive_column_name": "question"},
        {"use_faiss": True, "corpus": ["page 1"], "num_negatives": 2},
    ],
    ids=str,
)
def test_other_arguments__mean_what_they_mean_in_sentence_transformers(options):
    theirs = pytest.importorskip("sentence_transformers").util.mine_hard_negatives
    if "use_faiss" in options:
        pytest.importorskip("faiss")
    options = {"positive_column_name": "answer"} | options
    calls = [mined(f, rows(20, 7, 9), Model(), **options) for f in (mine_hard_negatives, theirs)]
    assert_alike(*calls, None)


@pytest.mark.filterwarnings("ignore")
def test_cache__has_the_files_of_sentence_transformers(tmp_path):
    theirs = pytest.importorskip("sentence_transformers").util.mine_hard_negatives
    options = {"positive_column_name": "answer", "query_prompt": "ask: "}
    found = []
    for i, writer in enumerate((mine_hard_negatives, theirs)):
        options["cache_folder"] = str(tmp_path / str(i) / "new")
        found.append(mined(writer, rows(), Model(), **options))
        for reader in (theirs, mine_hard_negatives):
            model = Model()
            found.append(mined(reader, rows(), model, **options))
            assert model.calls == []
    names = [[path.name for path in sorted((tmp_path / str(i) / "new").iterdir())] for i in range(2)]
    assert names[0] == names[1] and len(names[0]) == 2
    told = [[line.replace("/1/new", "/0/new") for line in lines] for _, lines in found]
    assert told[0] == told[3] and told[1] == told[2] == told[4] == told[5] != told[0]
    assert all(rows.to_dict() == found[0][0].to_dict() for rows, _ in found)


def test_cache__reads_what_is_there_and_computes_what_is_not(tmp_path):
    options = {"positive_column_name": "answer", "cache_folder": tmp_path}
    mined(mine_hard_negatives, rows(), Model(), **options)
    model = Model()
    mined(mine_hard_negatives, rows(), model, corpus=["page 1"], **options)
    assert [call["texts"][0] for call in model.calls] == ["page 1"]


def test_negatives__are_the_most_similar_that_pass_and_never_a_positive():
    data = rows(30, queries=9, documents=12)
    options = {"positive_column_name": "answer", "relative_margin": 0.1, "num_negatives": 2, "output_scores": True}
    found, _ = mined(mine_hard_negatives, data, Model(), corpus=["page 1"], **options)
    vector = lambda text: Model().encode_query([text], normalize_embeddings=True)[0].astype(np.float64)  # noqa: E731
    expected = []
    for query in dict.fromkeys(data["question"]):
        own = [a for q, a in zip(data["question"], data["answer"], strict=True) if q == query]
        least = min(vector(query) @ vector(a) for a in own)
        scores = {text: vector(query) @ vector(text) for text in {*data["answer"], "page 1"} - {*own}}
        left = sorted((t for t in scores if scores[t] <= least - 0.1 * abs(least)), key=lambda t: -scores[t])
        for answer in dict.fromkeys(own):
            expected += [(query, answer, text, vector(query) @ vector(answer), scores[text]) for text in left[:2]]
    assert [(*row.values(),)[:3] for row in found] == [row[:3] for row in expected]
    np.testing.assert_allclose(found["scores"], [row[3:] for row in expected], rtol=1e-5, atol=1e-6)


def test_skipped__counts_each_candidate_for_one_filter():
    options = {"positive_column_name": "answer", "range_max": 30, "num_negatives": 1}
    _, lines = mined(mine_hard_negatives, rows(), Model(), max_score=0.2, min_score=0.1, **options)
    numbers = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("Skipped")]
    a, b = (Model().encode_query(rows()[name], normalize_embeddings=True) for name in ("question", "answer"))
    others = (a @ b.T)[~np.eye(24, dtype=bool)]
    assert numbers == [(others > 0.2).sum(), (others < 0.1).sum()]


@pytest.mark.parametrize("asked", [False, True, ["cpu", "cpu"]])
def test_processes__are_those_of_the_model_and_stopped(asked):
    model, judge = Model(), Judge()
    mined(mine_hard_negatives, rows(), model, cross_encoder=judge, max_score=0.0, use_multi_process=asked)
    started = [call["start"] for call in model.calls + judge.calls if "start" in call]
    assert started == [] if not asked else started == [None if asked is True else asked] * 2
    assert [call["pool"] for call in model.calls if "texts" in call] == [("a pool" if asked else None)] * 2
    assert [call for call in model.calls + judge.calls if "stop" in call] == [{"stop": "a pool"}] * len(started)


def test_quiet__prints_nothing(capsys):
    mine_hard_negatives(rows(queries=5), Model(), verbose=False)
    assert capsys.readouterr().out == ""


def test_deprecated_and_doubtful_arguments__are_told():
    for options, match in (({"margin": 0.1}, "absolute_margin"), ({"as_triplets": False}, "n-tuple"),
                           ({"output_format": "n-tuple-scores"}, "output_scores=True")):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=match):
            mine_hard_negatives(rows(), Model(), verbose=False, **options)
    with pytest.warns(UserWarning, match="may leave positives out"):
        mine_hard_negatives(rows(), Model(), verbose=False, include_positives=True, range_min=1)


def test_refused__by_the_name_of_the_argument(monkeypatch):
    data, model = rows(), Model()
    for error, match, options in (
        (ValueError, "output_format must be 'triplet'", {"output_format": "pairs"}),
        (ValueError, "sampling_strategy must be", {"sampling_strategy": "first"}),
        (ValueError, "num_negatives must be", {"num_negatives": 0}),
        (ValueError, r"num_negatives must be at most range_max − range_min = 4 − 2 = 2, got 3",
         {"range_min": 2, "range_max": 4}),
        (ValueError, "range_min must be", {"range_min": -1}),
        (ValueError, "range_max must be", {"range_min": 3, "range_max": 3}),
        (ValueError, "max_score must be a finite number", {"max_score": float("nan")}),
        (TypeError, "relative_margin must be a number", {"relative_margin": "0.1"}),
        (ValueError, "anchor_column_name must be one of the columns.*got 'anchor'", {"anchor_column_name": "anchor"}),
        (ValueError, "batch_size must be", {"batch_size": 0}),
        (TypeError, "use_faiss must be", {"use_faiss": "yes"}),
        (ValueError, "faiss_batch_size must be", {"faiss_batch_size": 0}),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            mine_hard_negatives(data, model, **options)
    assert model.calls == []
    with pytest.raises(ValueError, match="dataset must not be empty"):
        mine_hard_negatives(data.select([]), model)
    with pytest.raises(ValueError, match="positive_column_name must be one of the columns"):
        mine_hard_negatives(data.select_columns("question"), model)
    model.similarity_fn_name = "euclidean"
    with pytest.raises(ValueError, match="similarity 'cosine' or 'dot', got 'euclidean'"):
        mine_hard_negatives(data, model)
    with pytest.raises(ValueError, match=r"cross_encoder must give a finite score for each of \d+ pairs, got \(2,\)"):
        judge = SimpleNamespace(predict=lambda pairs, **options: torch.zeros(2))
        mine_hard_negatives(data, Model(), cross_encoder=judge, max_score=0.5, verbose=False)
    short = SimpleNamespace(encode_query=lambda texts, **o: np.ones((2, 3)), encode_document=Model().encode_document)
    with pytest.raises(ValueError, match=r"a row for each of 24 texts \(query\), got shape \(2, 3\)"):
        mine_hard_negatives(data, short, verbose=False)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match="needs datasets: pip install datasets"):
        mine_hard_negatives(data, Model())
