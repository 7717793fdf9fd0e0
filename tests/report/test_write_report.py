"""Reports: a page that is complete in itself, whose numbers are those of the training, whatever the training was."""

import errno
import html
import itertools
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_trainings import queries_and_documents

import rvtrain as rt
from rvtrain.report import rank_queries, write_report

VOID = {"meta", "br", "hr", "col"}
METRICS = ["recall@1", "recall@10", "mrr@10"]


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps texts, attributes, and the tables by their id."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.tables, self.words = [], [], {}, []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag == "table":
            self.tables[attributes.get("id")] = self.table = []
        elif tag == "tr":
            self.table.append([])
        elif tag in ("th", "td"):
            self.table[-1].append([])
        elif tag == "data" and {"td", "th"} & set(self.open):
            self.table[-1][-1].append(float(attributes["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if "th" in self.open and "data" not in self.open and "table" in self.open:
            self.table[-1][-1].append(data)

    @property
    def text(self):
        """The text of the page without its style."""
        return " ".join(" ".join(self.words).split())

    def numbers(self, name):
        """The rows of a table, numbers as floats."""
        return self.tables[name][1:]

    def names(self, tag):
        """The attributes of all elements of a kind."""
        return [attributes for kind, attributes in self.elements if kind == tag]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


def trained(rng, **options):
    queries, documents, train, held_back = queries_and_documents(rng)
    model = rt.TwoTower(rt.LinearAdapter(8), rt.LinearAdapter(8))
    before = rank_queries(model, queries, documents, held_back, METRICS, known=train)
    mining = rt.Mining(rt.HardNegativeMiner.hardest(relative_margin=0.05), k=2, start=2)
    options = {"epochs": 3, "mining": mining, "metrics": METRICS[1:], "batch_size": 20} | options
    trainer = rt.Trainer(model, optimizer=rt.AdamW(model.params, 0.02), **options)
    trainer.fit(queries, documents, train, validation=held_back)
    return trainer, before, rank_queries(model, queries, documents, held_back, METRICS, known=train)


def test_write_report__is_complete_in_itself_and_readable(rng, path):
    write_report(path, *trained(rng), title="A <small> training", command="rvtrain train pairs.npz --lr 0.1")
    page = Page(path)
    assert page.source.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|//|url\(|@import|src=|href=|<script|javascript:", page.source)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.names("meta")
    assert page.names("html") == [{"lang": "en"}]
    kinds = [kind for kind, _ in page.elements]
    assert kinds.count("h1") == 1 and kinds.count("main") == 1
    levels = [int(kind[1]) for kind in kinds if re.fullmatch("h[1-6]", kind)]
    assert all(level - before <= 1 for before, level in itertools.pairwise(levels))
    assert page.names("svg") and all(svg["role"] == "img" and svg["aria-label"] for svg in page.names("svg"))
    assert kinds.count("figcaption") == kinds.count("figure") == kinds.count("svg")
    assert len(re.findall(r"<svg[^>]*><title>[^<]+</title><desc>[^<]+</desc>", page.source)) == kinds.count("svg")
    assert kinds.count("caption") == kinds.count("table")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "A <small> training" in page.text and "rvtrain train pairs.npz --lr 0.1" in page.text


def test_write_report__has_the_numbers_of_the_history(rng, path):
    trainer, before, after = trained(rng)
    write_report(path, trainer, before, after)
    rows = Page(path).numbers("history")
    columns = list(trainer.history.values())
    assert len(rows) == 4
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        np.testing.assert_array_equal([cell[0] for cell in row], values)


def test_write_report__has_the_metrics_and_the_test_of_the_library(rng, path):
    trainer, before, after = trained(rng)
    write_report(path, trainer, before, after)
    rows = {row[0][0]: row[1:] for row in Page(path).numbers("metrics")}
    for name in METRICS:
        test = rt.paired_test(after.metrics[name], before.metrics[name])
        first, last, difference, p_value = rows[name]
        assert (first[0], last[0]) == (before.metrics[name].mean(), after.metrics[name].mean())
        assert difference[0] == pytest.approx(test.difference) and p_value == [test.p_value]
        for mean, *interval in (first, last, difference):
            assert not interval or interval[0] <= mean <= interval[1]
    same = path.with_name("again.html")
    write_report(same, trainer, before, after)
    assert Page(same).tables["metrics"] == Page(path).tables["metrics"]  # intervals are drawn from the seed


def test_write_report__counts_moves_of_ranks(rng, path):
    trainer, before, after = trained(rng)
    write_report(path, trainer, before, after)
    page = Page(path)
    counts = np.array([[cell[0] for cell in row[1:]] for row in page.numbers("ranks")])
    assert counts.sum() == 20
    assert counts[:, 0].sum() == (after.ranks == 1).sum() and counts[0].sum() == (before.ranks == 1).sum()
    assert f"better for {(after.ranks < before.ranks).sum()} of 20 queries" in page.text


def test_write_report__has_the_mining_reports(rng, path):
    trainer, *rankings = trained(rng)
    write_report(path, trainer, *rankings)
    rows = Page(path).numbers("mining")
    assert [row[0] for row in rows] == [[2.0], [3.0]]
    for row, report in zip(rows, trainer.mining_reports.values(), strict=True):
        low, median, high = report.differences
        assert [cell[0] for cell in row[1:4]] == [report.rows, report.negatives, report.short]
        assert row[6] == [median, low, high]
        assert row[7:] == [[count] for count in report.dropped.values()]


def test_write_report__names_mistakes_by_their_texts_and_escapes_them(rng, path):
    trainer, before, _ = trained(rng)
    nasty = "<script>alert(\"1\")</script> & 'quotes' </style> \u202eright\x00\ud800"
    texts = [f"query number {i}" for i in range(60)], [f"document number {i}" for i in range(60)]
    worst = int(np.nanargmax(before.found_scores - before.expected_scores))
    texts[0][before.query_rows[worst]] = nasty + "x" * 5000
    write_report(path, trainer, before, query_texts=texts[0], document_texts=texts[1])
    page = Page(path)
    assert "script" not in {kind for kind, _ in page.elements}
    assert html.escape('<script>alert("1")</script>') in page.source
    assert "\x00" not in page.source and "of 5,0" in page.text
    assert f"document number {before.expected[worst]}" in page.text
    assert f"document number {before.found[worst]}" in page.text
    assert all(attributes["dir"] == "auto" for attributes in page.names("bdi") if attributes)


def test_write_report__shows_numbers_that_are_none_as_such(path):
    history = {
        "epoch": [0, 1, 2, 3, 4], "loss": [np.nan, 1.0, np.inf, -np.inf, 1e305],
        "recall@10": [0.1, np.nan, 0.2, 0.2, 0.2], "temperature": [np.nan] * 5,
    }  # fmt: skip
    write_report(path, history)
    page = Page(path)
    np.testing.assert_array_equal([cell[0] for row in page.numbers("history") for cell in row[1:2]], history["loss"])
    assert "No point for recall@10 at epoch 1: no value (NaN)." in page.text
    assert "No point for loss at epoch 2, 3, 4: infinite, too large to draw." in page.text
    assert "∞" in page.text and "−∞" in page.text
    assert "Without any value: temperature." in page.text
    assert "nan" not in re.sub(r'value="nan"', "", page.source).lower().replace("(nan)", "")


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_write_report__of_few_epochs(path, epochs):
    write_report(path, {"epoch": np.arange(epochs), "loss": np.ones(epochs), "recall@10": np.full(epochs, 0.5)})
    page = Page(path)
    assert len(page.tables.get("history", [None])) == epochs + 1
    assert ("the model has not been trained" in page.text) == (epochs == 0)


def test_write_report__of_a_trainer_that_has_not_been_fitted(path):
    write_report(path, rt.Trainer(rt.LinearAdapter(3)))
    assert "No negatives were mined" in Page(path).text


def test_write_report__without_validation_or_mining(rng, path):
    queries, documents, train, _ = queries_and_documents(rng)
    trainer = rt.Trainer(rt.LinearAdapter(8), epochs=1, schedule=lambda step: 0.1).fit(queries, documents, train)
    write_report(path, trainer, settings={"hold_back": 0.0, "note": "<b>"})
    page = Page(path)
    assert "No rankings of queries were given." in page.text and "No negatives were mined" in page.text
    assert "hold back" in page.text and " at 0x" not in page.text and "The parameters kept" not in page.text


@pytest.mark.parametrize("documents", [1, 2])
def test_write_report__of_one_query_and_few_documents(path, documents):
    ranking = rank_queries(None, np.eye(1, 4), np.eye(documents, 4), [[0, 0]])
    write_report(path, {"epoch": [0]}, ranking, ranking)
    page = Page(path)
    assert np.array([row[1:] for row in page.numbers("ranks")]).sum() == 1
    assert "1 query" in page.text and "No query has another document above its own." in page.text


def test_write_report__replaces_a_file_only_when_the_page_is_complete(rng, path, monkeypatch):
    path.write_text("old")
    history = {"epoch": [0, 1], "loss": [np.nan, 1.0]}
    for error in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):

        def fail(_, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(type(error)) as caught:
                write_report(path, history)
        assert getattr(caught.value, "filename", str(path)) == str(path)
        assert path.read_text() == "old" and os.listdir(path.parent) == ["report.html"]
    path.chmod(0o640)
    write_report(path, history)
    assert path.stat().st_mode & 0o777 == 0o640 and Page(path).tables


def test_write_report__refuses_what_does_not_fit(rng, path):
    queries, documents, train, held_back = queries_and_documents(rng)
    a, b = (rank_queries(None, queries, documents, pairs) for pairs in (train, held_back))
    history = {"epoch": [0]}
    for error, message, arguments, options in (
        (TypeError, "training must be a Trainer or a dict of arrays, got list", ([],), {}),
        (ValueError, "training must have a column 'epoch'", ({"loss": [1]},), {}),
        (ValueError, r"training\['loss'\] must have a number for each epoch", ({"epoch": [0], "loss": [1, 2]},), {}),
        (ValueError, r"training\['loss'\] must be numbers", ({"epoch": [0], "loss": ["a"]},), {}),
        (TypeError, "before must be a Ranking, as rank_queries returns, got dict", (history, {}), {}),
        (ValueError, "before and after must be rankings of the same queries", (history, a, b), {}),
        (ValueError, "query_texts must have a text for each query, 60, got 1", (history, a), {"query_texts": ["a"]}),
        (
            TypeError,
            "document_texts must be a sequence of strings, got str",
            (history, a),
            {"document_texts": "a" * 60},
        ),
        (ValueError, "mistakes must be", (history,), {"mistakes": -1}),
    ):
        with pytest.raises(error, match=message):
            write_report(path, *arguments, **options)
    assert not path.exists()
    for place, error in ((path / "nowhere" / "report.html", FileNotFoundError), (path.parent, OSError)):
        with pytest.raises(error) as caught:
            write_report(place, history)
        assert caught.value.filename == str(place)


def test_write_report__of_many_queries_has_the_same_figures_faster(rng, path):
    values = {count: rng.random((count, 2)) < [0.5, 0.512] for count in (4_900, 5_000)}
    rows = []
    for count, (before, after) in ((count, both.T.astype(float)) for count, both in values.items()):
        ranking = rank_queries(None, np.eye(1, 3), np.eye(2, 3), [[0, 0]])
        scores = [np.repeat(each, count) for each in ranking[:6]]
        many = [type(ranking)(*scores, {"recall@1": each}, *ranking[7:]) for each in (before, after)]
        write_report(path, {"epoch": [0]}, *many)
        rows.append(Page(path).numbers("metrics")[0][1:])
        test = rt.paired_test(after, before)
        assert rows[-1][2][0] == pytest.approx(test.difference)
        assert rows[-1][3][0] == pytest.approx(test.p_value, abs=0.02)
    np.testing.assert_allclose(np.ptp(rows[0][0][1:]), np.ptp(rows[1][0][1:]), rtol=0.1)
    assert "in its normal limit" in Page(path).text
