"""The option --report of the command `train`."""

import errno
import json
import os

import numpy as np
import pytest

from rvtrain import cli, report

QUICK = ("--epochs", "3", "--batch-size", "64", "--lr", "0.02", "--mine-from", "2")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, rng):
    """Exit code, output and errors of `train` in a folder with pairs.npz: queries (200, 8), documents (200, 8)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVTRAIN_QUIET", "1")
    documents = rng.normal(size=(200, 8)).astype(np.float32)
    np.savez("pairs.npz", queries=documents[:, ::-1], documents=documents)
    np.savez("sizes.npz", queries=documents[:, :6], documents=documents)

    def call(*arguments):
        code = cli.main(["train", *map(str, arguments), "-o", "a.npz", *QUICK])
        return code, *capsys.readouterr()

    return call


def read():
    with open("report.html", encoding="utf-8") as file:
        return file.read()


def test_report__has_the_metrics_that_the_command_prints(run):
    code, out, _ = run("pairs.npz", "--report", "report.html", "--json", "--metrics", "mrr@10")
    page, metrics = read(), json.loads(out)["metrics"]
    assert code == 0
    for name in ("recall@10", "mrr@10"):
        for when in ("before", "after"):
            assert f'<data value="{metrics[when][name]!r}">{metrics[when][name]:.3f}</data>' in page
    assert "rvtrain train pairs.npz --report report.html" in page and "Training of a.npz" in page
    assert "digests of the data" in page


@pytest.mark.parametrize("data", [("sizes.npz",), ("pairs.npz", "--hold-back", 0)])
def test_report__of_a_training_without_figures_from_before(run, data):
    code, out, _ = run(*data, "--report", "report.html")
    assert code == 0 and "written: report.html" in out
    assert ("No rankings of queries were given." in read()) == ("--hold-back" in data)


def test_report__is_refused_before_the_work(run):
    for path, message in (
        ("report.txt", "--report must end in .html or .htm, got report.txt"),
        ("nowhere/report.html", "--report must be in a folder that exists"),
    ):
        code, _, errors = run("pairs.npz", "--report", path)
        assert code == 1 and message in errors
    assert not os.path.exists("a.npz")


def test_report__that_fails_leaves_the_model(run, monkeypatch):
    def fail(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(report, "write_report", fail)
    code, _, errors = run("pairs.npz", "--report", "report.html")
    assert (code, errors.splitlines()[-1]) == (1, "rvtrain: report.html: No space left on device")
    assert os.path.exists("a.npz") and not os.path.exists("report.html")
