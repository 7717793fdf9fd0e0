"""Options of the command `train`, and the figures that it writes; `evaluate` of some dimensions."""

import csv
import json

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import cli
from rvtrain._commands import _train

QUICK = ("--epochs", "3", "--batch-size", "64", "--lr", "0.02", "--mine-from", "2")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Exit code, output and errors of a command in a folder with pairs.npz: queries (300, 12), documents (300, 8)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVTRAIN_QUIET", "1")
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 6))
    parts = [(hidden @ rng.normal(size=(6, d)) + rng.normal(size=(300, d)) / 2).astype(np.float32) for d in (12, 8)]
    np.savez("pairs.npz", queries=parts[0], documents=parts[1])

    def call(*arguments):
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def test_train__of_frozen_documents_keeps_them(run):
    code, out, _ = run("train", "pairs.npz", "-o", "a.npz", *QUICK, "--frozen-documents", "--json")
    assert code == 0 and json.loads(out)["history"]["recall@10"][0] < json.loads(out)["after"]
    model = rt.load_model("a.npz")
    assert isinstance(model, rt.TwoTower) and model.is_frozen and model.query.out_features == 8
    with np.load("pairs.npz") as file:
        documents = file["documents"]
        np.save("queries.npy", file["queries"])
    np.testing.assert_array_equal(model.encode_document(documents), documents)
    np.save("documents.npy", documents)
    assert run("evaluate", "pairs.npz", "--model", "a.npz")[0] == 0
    assert run("apply", "a.npz", "queries.npy", "-o", "q.npy", "--side", "query")[0] == 0
    assert run("apply", "a.npz", "documents.npy", "-o", "d.npy", "--side", "document")[0] == 0
    np.testing.assert_array_equal(np.load("d.npy"), documents)
    assert np.load("q.npy").shape == (300, 8)


def test_train__writes_the_log_and_measures_more_metrics(run):
    for log in ("run.csv", "run.jsonl"):
        options = ("--metric", "mrr@10", "--metrics", "recall@1", "ndcg@5", "--log", log)
        code, out, _ = run("train", "pairs.npz", "-o", "a.npz", *QUICK, *options)
        assert code == 0
        assert [line.split(" on ")[0] for line in out.splitlines()[:3]] == ["mrr@10", "recall@1", "ndcg@5"]
    with open("run.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open("run.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert [int(row["epoch"]) for row in rows] == [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert [float(row["ndcg@5"]) for row in rows] == [line["ndcg@5"] for line in lines]
    options = ("--metrics", "recall@1", "--json")
    found = json.loads(run("train", "pairs.npz", "-o", "a.npz", *QUICK, *options)[1])
    assert found["metrics"]["before"] is None  # queries and documents cannot be compared as they are
    assert found["metrics"]["after"].keys() == {"recall@10", "recall@1"}
    assert found["metrics"]["after"]["recall@10"] == found["after"]


def test_train__recommended_recipe_against_false_negatives(run):
    """A relative margin of 0.05, the most similar documents below it, at most 10."""
    code, out, _ = run(
        "train", "pairs.npz", "-o", "a.npz", *QUICK, "--relative-margin", 0.05, "--negatives", 10, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["history"]["negatives"] == [0, 0, 10, 10]


def test_train__resumed_goes_on_with_its_log_and_refuses_other_filters(run, monkeypatch):
    command = ("train", "pairs.npz", "-o", "a.npz", *QUICK, "--log", "run.csv", "--metrics", "recall@1", "mrr@5")
    line = _train._print_line

    def interrupt(trainer, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_train, "_print_line", interrupt)
    assert run(*command)[0] == 130
    monkeypatch.setattr(_train, "_print_line", line)
    for options, message in (
        (("--metrics", "recall@1"), "--metrics was ['recall@1', 'mrr@5'] in the run to resume, got ['recall@1']"),
        (("--frozen-documents",), "--frozen-documents was False in the run to resume, got True"),
        (("--absolute-margin", 0.1), "--absolute-margin was None in the run to resume, got 0.1"),
        (("--sampling", "random"), "--sampling was top in the run to resume, got random"),
    ):
        code, _, errors = run(*command, "--resume", *options)
        assert code == 1 and message in errors
    assert run(*command, "--resume")[0] == 0
    with open("run.csv", encoding="utf-8") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [0, 1, 2, 3]


def test_evaluate__of_some_dimensions(run):
    run("train", "pairs.npz", "-o", "a.npz", *QUICK)
    found = [
        json.loads(run("evaluate", "pairs.npz", "--model", "a.npz", "--all", "--json", *options)[1])["recall@10"]
        for options in ((), ("--truncate-dim", 8), ("--truncate-dim", 2))
    ]
    assert found[0] == found[1] > found[2]
    model = rt.load_model("a.npz")
    with np.load("pairs.npz") as file:
        queries, documents = model.encode_query(file["queries"]), model.encode_document(file["documents"])
    pairs = np.stack([np.arange(300)] * 2, axis=1)
    assert found[2] == rt.evaluate_retrieval(queries[:, :2], documents[:, :2], pairs=pairs)["recall@10"]


def test_train_and_evaluate__refuse_options_that_do_not_go_together(run):
    train, evaluate = ("train", "pairs.npz", "-o", "a.npz"), ("evaluate", "pairs.npz")
    np.savez("square.npz", queries=np.eye(30, 8), documents=np.eye(30, 8))
    for command, message in (
        ((*train, "--frozen-documents", "--shared"), "--frozen-documents trains queries alone"),
        (
            (*train, "--frozen-documents", "--dim", 5),
            "--dim must be the size of the documents, 8, if they are frozen",
        ),
        ((*train, "--log", "run.txt"), "--log must end in .csv or .jsonl, got run.txt"),
        ((*train, "--log", "nowhere/run.csv"), "--log must be in a folder that exists"),
        ((*train, "--metrics", "recall"), "--metrics must be recall@k"),
        ((*train, "--metric", "recall@x"), "--metric must be recall@k"),
        ((*evaluate, "--metrics", "recall@0"), "--metrics must be recall@k"),
        ((*evaluate[:1], "square.npz", "--truncate-dim", 0), "--truncate-dim must be in [1, 8], got 0"),
        ((*evaluate[:1], "square.npz", "--truncate-dim", 9), "--truncate-dim must be in [1, 8], got 9"),
    ):
        code, out, errors = run(*command)
        assert (code, out) == (1, "") and errors.startswith(f"rvtrain: {message}"), errors
