"""The commands on files, in the way that a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """A folder with queries and documents that share a hidden part, as .npz and as .npy."""
    monkeypatch.chdir(tmp_path)
    hidden = rng.normal(size=(500, 10))
    queries, documents = (
        (hidden @ rng.normal(size=(10, 20)) + rng.normal(size=(500, 20))).astype(np.float32) for _ in range(2)
    )
    np.savez("pairs.npz", queries=queries, documents=documents)
    np.save("queries.npy", queries)
    np.save("documents.npy", documents)
    return tmp_path


def run(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


QUICK = ("--epochs", 6, "--batch-size", 64, "--lr", 0.02, "--mine-from", 2)


def test_train_evaluate_mine_apply(folder, capsys):
    code, out, errors = run(capsys, "train", "pairs.npz", "-o", "a.npz", *QUICK, "--plot", "a.png")
    assert code == 0
    assert "recall@10 on 50 pairs held back: 0." in out and "written: a.npz" in out
    assert [line.split()[1] for line in errors.splitlines()] == [f"{i}/6" for i in range(1, 7)]
    assert (folder / "a.png").stat().st_size > 10_000
    assert not (folder / "a.npz.part").exists()

    code, out, _ = run(capsys, "evaluate", "pairs.npz", "--model", "a.npz", "--json", "--metrics", "recall@10")
    trained = json.loads(out)["recall@10"]
    code, out, _ = run(capsys, "evaluate", "queries.npy", "documents.npy")
    untrained = float(out.splitlines()[1].split()[1])
    assert untrained < 0.2 < 0.6 < trained

    assert run(capsys, "apply", "a.npz", "queries.npy", "-o", "q.npy", "--side", "query")[0] == 0
    assert run(capsys, "apply", "a.npz", "documents.npy", "-o", "d.npy")[0] == 0
    model = rt.load_model("a.npz")
    np.testing.assert_array_equal(np.load("d.npy"), model.document.transform(np.load("documents.npy")))
    code, out, _ = run(capsys, "evaluate", "q.npy", "d.npy", "--json", "--metrics", "recall@10")
    assert json.loads(out)["recall@10"] == trained

    for memory in (1024, 0):
        options = ("--model", "a.npz", "-o", "n.npy", "--relative-margin", 0.01, "--memory", memory)
        assert run(capsys, "mine", "pairs.npz", *options)[0] == 0
        expected = rt.HardNegativeMiner.hardest().mine(
            np.load("q.npy"), np.load("d.npy"), 4, positives=np.load("d.npy"),
            exclude=np.arange(500)[:, np.newaxis], relative_margin=0.01,
        )  # fmt: skip
        np.testing.assert_array_equal(np.load("n.npy"), expected)


def test_mine__writes_triplets_of_texts(folder, capsys):
    (folder / "q.txt").write_text("\n".join(f"query {i}" for i in range(500)))
    (folder / "d.txt").write_text("\n".join(f"dokument ‹{i}›" for i in range(500)), encoding="utf-8")
    np.save("some.npy", [[0, 0], [0, 1], [7, 7]])
    command = ("mine", "pairs.npz", "--pairs", "some.npy", "-k", 2, "-o", "t.jsonl", "--texts", "q.txt", "d.txt")
    assert run(capsys, *command)[0] == 0
    lines = [json.loads(line) for line in (folder / "t.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["anchor"] for line in lines] == ["query 0"] * 4 + ["query 7"] * 2
    assert [line["positive"] for line in lines[::2]] == ["dokument ‹0›", "dokument ‹1›", "dokument ‹7›"]
    assert not {line["negative"] for line in lines[:4]} & {"dokument ‹0›", "dokument ‹1›"}
    (folder / "d.txt").write_text("one line")
    code, _, errors = run(capsys, *command)
    assert code == 1 and "d.txt must have a line for each row" in errors


@pytest.mark.parametrize("options", [("--kind", "mlp", "--shared"), ("--rank", 4, "--dim", 20), ("--negatives", 0)])
def test_train__takes_each_kind(options, folder, capsys):
    code, out, _ = run(capsys, "train", "pairs.npz", "-o", "a.npz", *QUICK, *options, "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found["history"]["loss"]) == 6
    assert found["history"]["loss"][-1] < found["history"]["loss"][0]
    assert rt.load_model("a.npz").query.out_features == 20


def test_train__killed_and_resumed_ends_as_if_it_had_not_been(folder, capsys):
    command = ["train", "queries.npy", "documents.npy", "--epochs", "60", "--batch-size", "16", "--dim", "20"]
    assert run(capsys, *command, "-o", "whole.npz")[0] == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "rvtrain", *command, "-o", "killed.npz"], stderr=subprocess.PIPE, text=True
    )
    while "epoch 7/60" not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while not (folder / "killed.npz.part").exists():
        assert time.monotonic() < deadline
    assert run(capsys, *command, "-o", "killed.npz", "--resume")[0] == 0
    whole, resumed = rt.load_model("whole.npz"), rt.load_model("killed.npz")
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


def test_errors__are_one_line(folder, capsys):
    np.save("wrong.npy", np.zeros((3, 7), np.float32))
    np.savez("empty.npz", queries=np.zeros((2, 3)))
    for command, message in (
        (("train", "nothing.npz", "-o", "x.npz"), "nothing.npz"),
        (("train", "empty.npz", "-o", "x.npz"), "must hold the arrays queries and documents"),
        (("train", "queries.npy", "-o", "x.npz"), "must be an .npz"),
        (("train", "queries.npy", "wrong.npy", "-o", "x.npz"), "as many, got 500 and 3"),
        (("train", "pairs.npz", "-o", "x.npz", "--metric", "accuracy"), "metrics must be"),
        (("train", "pairs.npz", "-o", "x.npz", "--hold-back", 2), "--hold-back must be in"),
        (("train", "pairs.npz", "-o", "x.npz", "--epochs", 0), "epochs must be"),
        (("apply", "pairs.npz", "queries.npy", "-o", "x.npy"), "pairs.npz"),
        (("evaluate", "pairs.npz", "--pairs", "wrong.npy"), "pairs"),
    ):
        code, out, errors = run(capsys, *command)
        assert code == 1, command
        assert errors.startswith("rvtrain: ") and message in errors and errors.count("\n") == 1, errors
        assert not out
        assert not (folder / "x.npz").exists()


def test_help__of_every_command_says_something(capsys):
    for command in ("demo", "train", "mine", "evaluate", "apply", "info", "warmup"):
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert len(capsys.readouterr().out) > 200
    with pytest.raises(SystemExit) as left:
        main(["nonsense"])
    assert left.value.code == 2
