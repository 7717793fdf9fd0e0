"""The command `mine` on corpora small enough to know the answer."""

import numpy as np
import pytest

from rvtrain import cli


def test_small_corpora__get_as_many_negatives_as_there_are(tmp_path):
    x = np.eye(3, 8, dtype=np.float32)
    np.savez(tmp_path / "pairs.npz", queries=x, documents=x)
    assert cli.main(["mine", str(tmp_path / "pairs.npz"), "-o", str(tmp_path / "found.npy")]) == 0
    assert np.sort(np.load(tmp_path / "found.npy")).tolist() == [[1, 2], [0, 2], [0, 1]]


def test_mine__measures_margins_from_the_least_of_a_querys_documents(tmp_path):
    queries = np.array([[1.0, 0.0]], np.float32)
    cosines = np.array([0.9, 0.5, 0.8, 0.46, 0.3], np.float32)
    documents = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    pairs = np.array([[0, 0], [0, 1]])
    np.savez(tmp_path / "pairs.npz", queries=queries, documents=documents, pairs=pairs)
    for memory in ("1024", "0"):
        arguments = ["-o", str(tmp_path / "found.npy"), "--relative-margin", "0.05", "-k", "2", "--memory", memory]
        assert cli.main(["mine", str(tmp_path / "pairs.npz"), *arguments]) == 0
        assert np.load(tmp_path / "found.npy").tolist() == [[3, 4]] * 2


@pytest.fixture
def ranked(tmp_path, monkeypatch):
    """A query, and documents with cosines 0.9 (the positive), 0.88, 0.8, 0.6 and 0.3 to it."""
    monkeypatch.chdir(tmp_path)
    cosines = np.array([0.9, 0.88, 0.8, 0.6, 0.3], np.float32)
    documents = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    np.savez("pairs.npz", queries=np.array([[1.0, 0.0]], np.float32), documents=documents, pairs=np.array([[0, 0]]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", [1, 2]),
        ("--relative-margin 0.05", [2, 3]),
        ("--absolute-margin 0.2", [3, 4]),
        ("--max-score 0.85", [2, 3]),
        ("--min-score 0.5 --max-score 0.7", [3, -1]),
        ("--range-min 1", [2, 3]),
        ("--range-min 1 --range-max 2", [2, -1]),
        ("--range-min 2 --sampling random", [3, 4]),
    ],
)
def test_mine__takes_the_filters_of_the_miner(ranked, options, expected):
    assert cli.main(["mine", "pairs.npz", "-o", "found.npy", "-k", "2", *options.split()]) == 0
    assert sorted(np.load("found.npy")[0]) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--range-min -1", "--range-min must be at least 0, got -1"),
        ("--range-min 3 --range-max 3", "--range-max must be at least 4, got 3"),
        ("--range-max 3 --strategy random", "--range-max is for hardest and semi_hard, got random"),
        ("--relative-margin nan", "--relative-margin must be a finite number"),
        ("--absolute-margin inf", "--absolute-margin must be a finite number"),
        ("--min-score 0.5 --max-score 0.4", "--min-score must be at most --max-score, 0.4, got 0.5"),
        ("--seed -1", "--seed must be at least 0, got -1"),
    ],
)
def test_filters__that_are_not_possible_are_refused_by_their_flags(ranked, capsys, options, message):
    for command in (["mine", "pairs.npz", "-o", "found.npy"], ["train", "pairs.npz", "-o", "model.npz"]):
        assert cli.main([*command, *options.split()]) == 1
        assert capsys.readouterr().err.startswith(f"rvtrain: {message}")
