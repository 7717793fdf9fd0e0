"""The command `mine` on corpora small enough to know the answer."""

import numpy as np

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
