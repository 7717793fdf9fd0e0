"""The commands apply and evaluate at lower precision."""

import json

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import cli


@pytest.fixture
def run(capsys, tmp_path, monkeypatch, rng):
    """A folder with a model and vectors, and a function that runs a command: exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVTRAIN_QUIET", "1")
    model = rt.LinearAdapter(12, 10, seed=3)
    rt.save_model("model.npz", model)
    documents = rng.normal(size=(9000, 12)).astype(np.float32)  # more than one block
    np.save("documents.npy", documents)
    np.savez("pairs.npz", queries=documents[:40] + rng.normal(size=(40, 12)) * 0.3, documents=documents,
             pairs=np.stack([np.arange(40)] * 2, axis=1))  # fmt: skip

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_apply__writes_each_precision(run):
    expected = rt.load_model("model.npz").transform(np.load("documents.npy"))
    for precision, wanted in (
        ("float32", expected),
        ("float16", expected.astype(np.float16)),
        ("binary", rt.quantize(expected, "binary")),
        ("int8", rt.quantize(expected, "int8")),  # fewer rows than are taken for ranges, so all of them are
    ):
        ranges = ("--ranges", "ranges.npy") if precision == "int8" else ()
        code, out, errors = run(
            "apply", "model.npz", "documents.npy", "-o", "out.npy", "--precision", precision, *ranges
        )
        assert (code, errors) == (0, "")
        assert out == f"written: out.npy, 9000 × {wanted.shape[1]} {wanted.dtype}\n"
        np.testing.assert_array_equal(np.load("out.npy"), wanted, strict=True)
    assert np.load("ranges.npy").shape == (2, 10)
    wide = np.stack([np.full(10, -9.0), np.full(10, 9.0)])
    np.save("ranges.npy", wide)
    run("apply", "model.npz", "documents.npy", "-o", "out.npy", "--precision", "int8", "--ranges", "ranges.npy")
    np.testing.assert_array_equal(np.load("out.npy"), rt.quantize(expected, "int8", wide))


def test_apply__refuses_in_one_line(run, tmp_path):
    np.save("narrow.npy", np.zeros((2, 3)))
    np.save("large.npy", np.full((2, 12), 1e6))
    before = sorted(tmp_path.iterdir())
    for source, options, words in (
        ("documents.npy", ("--precision", "int8"), "--ranges is needed for --precision int8"),
        ("documents.npy", ("--precision", "binary", "--ranges", "r.npy"), "--ranges is for --precision int8"),
        ("documents.npy", ("--precision", "int8", "--ranges", "narrow.npy"), "narrow.npy must have the shape of"),
        ("documents.npy", ("--precision", "int8", "--ranges", "none/r.npy"), "--ranges must be in a folder"),
        ("documents.npy", ("--precision", "int8", "--ranges", "r.txt"), "--ranges must end in .npy"),
        ("large.npy", ("--precision", "float16"), "embeddings in float16 must be finite"),
    ):
        code, out, errors = run("apply", "model.npz", source, "-o", "out.npy", *options)
        assert (code, out, errors.count("\n")) == (1, "", 1)
        assert words in errors
        assert sorted(tmp_path.iterdir()) == before


def test_evaluate__at_each_precision(run):
    model = rt.load_model("model.npz")
    with np.load("pairs.npz") as pairs:
        queries, documents = (model.transform(pairs[name]) for name in ("queries", "documents"))
    found = {}
    for precision in ("float32", "float16", "int8", "binary"):
        code, out, _ = run("evaluate", "pairs.npz", "--model", "model.npz", "--precision", precision, "--json")
        assert code == 0
        wanted = rt.evaluate_retrieval(
            queries, documents, relevant=np.arange(40), metrics=["recall@10", "mrr@10"], precision=precision
        )
        found[precision] = json.loads(out)
        assert {name: found[precision][name] for name in wanted} == wanted
    assert found["binary"]["mrr@10"] < found["int8"]["mrr@10"]
    arguments = ("evaluate", "pairs.npz", "--model", "model.npz", "--precision", "binary", "--json")
    by_bits = rt.evaluate_retrieval(
        queries, documents, relevant=np.arange(40), metrics="mrr@10", precision="binary", rescore_multiplier=0
    )
    assert json.loads(run(*arguments, "--rescore", 0)[1])["mrr@10"] == by_bits["mrr@10"] != found["binary"]["mrr@10"]
    assert json.loads(run(*arguments, "--memory", 0)[1]) == found["binary"]
    code, out, errors = run("evaluate", "pairs.npz", "--rescore", "2")
    assert (code, out) == (1, "")
    assert errors == "rvtrain: --rescore is for --precision binary, got float32\n"
