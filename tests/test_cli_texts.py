"""The commands on files of texts: pairs of them in, a retriever and its answers out."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import cli
from rvtrain._commands import _text_files, _train

QUICK = ("--epochs", "3", "--rows", "1024", "--dim", "16", "--batch-size", "32")
VERBS = ("open", "close", "read", "write", "copy", "move", "sort", "join", "split", "parse")
THINGS = ("file", "list", "path", "string", "socket", "table", "image", "date", "array", "queue", "thread", "lock")
PAIRS = [(f"how to {verb} a {thing}", f"{thing}.{verb}") for verb in VERBS for thing in THINGS]


def write(path, rows, ending="\n", encoding="utf-8"):
    """A file of pairs in the format that its name tells."""
    if path.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(("query", "document", "score"), row, strict=False))) for row in rows]
    else:
        names = ("query", "document", "score")[: len(rows[0])]
        lines = [("\t" if path.endswith(".tsv") else ",").join(map(str, row)) for row in (names, *rows)]
    with open(path, "w", encoding=encoding, newline="") as file:
        file.write(ending.join(lines) + ending)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Exit code, output and errors of a command in a folder with texts.jsonl."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVTRAIN_QUIET", "1")
    write("texts.jsonl", PAIRS)

    def call(*arguments):
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def model(run):
    """A retriever of the texts, in m.npz."""
    assert run("train", "texts.jsonl", "-o", "m.npz", *QUICK)[0] == 0
    return "m.npz"


def refused(result, *words):
    """Assert that a command failed with one line that has these words, and printed nothing else."""
    code, out, errors = result
    assert code == 1 and not out and errors.startswith("rvtrain: ") and errors.count("\n") == 1, errors
    for word in words:
        assert word in errors, errors


def test_train_search_evaluate_apply(run, tmp_path):
    code, out, errors = run("train", "texts.jsonl", "-o", "m.npz", *QUICK)
    assert code == 0 and errors.count("epoch ") == 3
    assert out.startswith("recall@10 on 6 pairs held back: ") and out.endswith("written: m.npz\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.npz", "texts.jsonl"]
    code, out, _ = run("search", "m.npz", "sort a list", "-k", 3, "--documents", "texts.jsonl")
    assert code == 0 and out.splitlines()[0].split()[::2] == ["1", "list.sort"] and len(out.splitlines()) == 3
    found = [
        json.loads(line)
        for line in run("search", "m.npz", "sort a list", "--documents", "texts.jsonl", "--json")[1].splitlines()
    ]
    loaded = rt.load_model("m.npz")
    documents = [document for _, document in PAIRS]
    scores, rows = rt.top_k(loaded.encode_query(["sort a list"]), loaded.encode_document(documents), 10)
    assert [hit["text"] for hit in found] == [documents[row] for row in rows[0]]
    np.testing.assert_allclose([hit["score"] for hit in found], scores[0], rtol=1e-6)
    assert [hit["rank"] for hit in found] == list(range(1, 11))
    code, out, _ = run("evaluate", "texts.jsonl", "--model", "m.npz")
    assert code == 0 and out.startswith("on 6 pairs that training held back") and "ndcg@10" in out
    assert run("apply", "m.npz", "texts.jsonl", "-o", "d.npy")[0] == 0
    np.testing.assert_array_equal(np.load("d.npy"), loaded.encode_document(documents))
    assert run("apply", "m.npz", "texts.jsonl", "-o", "q.npy", "--side", "query")[0] == 0
    np.testing.assert_array_equal(np.load("q.npy"), loaded.encode_query([query for query, _ in PAIRS]))
    code, out, _ = run("mine", "texts.jsonl", "--model", "m.npz", "-o", "n.npy", "-k", 2)
    assert code == 0 and np.load("n.npy").shape == (120, 2)
    assert run("mine", "texts.jsonl", "--model", "m.npz", "-o", "n.jsonl", "-k", 2)[0] == 0
    with open("n.jsonl", encoding="utf-8") as file:
        triplets = [json.loads(line) for line in file]
    assert [hit["negative"] for hit in triplets] == [documents[row] for row in np.load("n.npy").ravel()]
    assert [(hit["anchor"], hit["positive"]) for hit in triplets[::2]] == PAIRS
    assert run("train", "n.jsonl", "-o", "again.npz", *QUICK)[0] == 0  # negatives are passed over


def test_train__reports_on_texts_by_the_texts(run, tmp_path):
    code, out, _ = run("train", "texts.jsonl", "-o", "m.npz", *QUICK, "--epochs", "1", "--report", "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert code == 0 and "written: report.html" in out
    assert any(query in page for query, _ in PAIRS)
    assert "pairs to train" in page and "pairs to weights" not in page


def test_train__twice_gives_the_same_model(run):
    tables = []
    for name in ("a.npz", "b.npz"):
        assert run("train", "texts.jsonl", "-o", name, *QUICK, "--json")[0] == 0
        tables.append(rt.load_model(name).params["table"])
    np.testing.assert_array_equal(*tables)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "A.CSV"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_pairs__are_the_same_in_each_format(name, ending, encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("größer ⊂", "b\u2028c"), ("d", "e"), ("d", "b\u2028c"), ("d", "e")]
    write(name, rows, ending, encoding)
    found = _text_files.pairs(name)
    assert found.queries.tolist() == ["größer ⊂", "d"] and found.documents.tolist() == ["b\u2028c", "e"]
    assert found.pairs.tolist() == [[0, 0], [1, 1], [1, 0]] and found.weights is None


def test_pairs__of_csv_with_quotes_and_columns_in_another_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,Document,query\r\n1,"says ""a, b""","two\r\nlines"\r\n\r\n2,c,d\r\n', newline="")
    found = _text_files.pairs(str(path))
    assert found.queries.tolist() == ["two\nlines", "d"] and found.documents.tolist() == ['says "a, b"', "c"]


def test_pairs__with_scores(run):
    write("s.csv", [("a", "b", 1), ("a", "c", 0), ("d", "e", 0.5)])
    found = _text_files.pairs("s.csv")
    assert found.documents.tolist() == ["b", "c", "e"]  # c can be searched, but belongs to no query
    assert found.pairs.tolist() == [[0, 0], [1, 2]] and found.weights.tolist() == [1, 0.5]
    rng = np.random.default_rng(0)
    write("s.jsonl", [(*pair, rng.uniform(0.5, 1)) for pair in PAIRS])
    for name, source in (("plain.npz", "texts.jsonl"), ("scored.npz", "s.jsonl")):
        assert run("train", source, "-o", name, *QUICK)[0] == 0
    plain, scored = (rt.load_model(name).params["table"] for name in ("plain.npz", "scored.npz"))
    assert np.abs(plain - scored).max() > 1e-4


BAD = {
    "json.jsonl": (b'{"query": "a", "document": "b"}\n{"query": }\n', "json.jsonl, line 2: not JSON"),
    "list.jsonl": (b'["a", "b"]\n', "list.jsonl, line 1: must be an object"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "deep.jsonl, line 1"),
    "key.jsonl": (b'{"query": "a", "answer": "b"}\n', "key.jsonl, line 1: document is missing, got query, answer"),
    "type.jsonl": (b'{"query": "a", "document": 3}\n', "type.jsonl, line 1: document must be a text, got int"),
    "blank.jsonl": (b'\n{"query": " ", "document": "b"}\n', "blank.jsonl, line 2: query must not be empty"),
    "half.jsonl": (b'{"query": "\\ud800", "document": "b"}\n', "half.jsonl, line 1: query must be text"),
    "score.jsonl": (
        b'{"query": "a", "document": "b", "score": -1}\n',
        "line 1: score must be a number of at least 0",
    ),
    "nan.jsonl": (b'{"query": "a", "document": "b", "score": NaN}\n', "line 1: score must be a number"),
    "some.csv": (b"query,document,score\na,b,1\nc,d,\n", "some.csv must have a score for each pair or for none"),
    "zero.csv": (b"query,document,score\na,b,0\n", "zero.csv must have a score above 0"),
    "column.csv": (b"query,answer\na,b\n", "column.csv, line 2: document is missing, got query, answer"),
    "wide.csv": (b"query,document\na,b,c\n", "wide.csv, line 2: expected 2 columns, got 3"),
    "quote.csv": (b'query,document\na,"b\n', "quote.csv, line "),
    "late.csv": (b'query,document\na,b\nc,"d"e\n', "late.csv, line 3: "),
    "header.csv": (b"query,document\n", "header.csv must hold pairs of texts, got none"),
    "empty.csv": (b"", "empty.csv is empty"),
    "empty.tsv": (b"\n\n", "empty.tsv must hold pairs of texts, got none"),
    "empty.jsonl": (b"", "empty.jsonl is empty"),
    "binary.jsonl": (b"PK\x03\x04\0\0", "binary.jsonl must be text in UTF-8, got a binary file"),
    "latin.csv": ("query,document\na,größe\n".encode("latin-1"), "latin.csv, line 2: must be text in UTF-8"),
    "wide.jsonl": ("x".encode("utf-16"), "wide.jsonl must be text in UTF-8, got UTF-16"),
}


@pytest.mark.parametrize("name", BAD)
def test_train__tells_what_is_wrong_in_a_file(name, run, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    refused(run("train", name, "-o", "m.npz", *QUICK), message)
    assert {path.name for path in tmp_path.iterdir()} == {name, "texts.jsonl"}


def test_train__refuses_what_does_not_go_with_texts(run):
    write("two.jsonl", PAIRS[:2])
    train = ("train", "texts.jsonl", "-o", "m.npz")
    np.savez("pairs.npz", queries=np.eye(30, 8), documents=np.eye(30, 8))
    for command, message in (
        ((*train, "--kind", "mlp"), "--kind is for vectors, got texts in texts.jsonl"),
        ((*train, "--shared"), "--shared is for vectors"),
        ((*train, "--weight-decay", "0.1"), "--weight-decay is for vectors"),
        ((*train, "--pairs", "p.npy"), "--pairs is for vectors"),
        ((*train, "--rows", "0"), "--rows must be at least 1"),
        (("train", "texts.jsonl", "two.jsonl", "-o", "m.npz"), "expected one file of texts, got 2 files"),
        (("train", "two.jsonl", "-o", "m.npz"), "--hold-back must leave queries to train on"),
        (("train", "nowhere.jsonl", "-o", "m.npz"), "nowhere.jsonl: No such file or directory"),
        (("train", "texts.jsonl", "-o", "texts.jsonl"), "-o must end in .npz"),
        (("train", "pairs.npz", "-o", "m.npz", "--rows", "8"), "--rows is for texts, got vectors in pairs.npz"),
        (("evaluate", "texts.jsonl"), "--model is needed for texts"),
        (
            ("mine", "texts.jsonl", "-o", "n.jsonl", "--texts", "a.txt", "b.txt"),
            "--texts is for vectors, got texts in texts.jsonl",
        ),
    ):
        refused(run(*command), message)


def test_commands__tell_models_of_texts_from_those_of_vectors(run, model):
    np.savez("pairs.npz", queries=np.eye(30, 8), documents=np.eye(30, 8))
    np.save("v.npy", np.eye(30, 8))
    rt.save_model("v.npz", rt.TwoTower(rt.LinearAdapter(8)))
    refused(run("search", "v.npz", "a", "--documents", "texts.jsonl"), "v.npz must be a model of texts")
    refused(run("evaluate", "texts.jsonl", "--model", "v.npz"), "v.npz must be a model of texts")
    refused(run("evaluate", "pairs.npz", "--model", model), "m.npz must be a model of vectors, got one of texts")
    refused(run("apply", model, "v.npy", "-o", "o.npy"), "m.npz must be a model of vectors, got one of texts")
    refused(run("apply", "v.npz", "texts.jsonl", "-o", "o.npy"), "v.npz must be a model of texts")


def test_search__takes_each_kind_of_file(run, model, tmp_path):
    documents = ["list.sort", "file.open", "list.sort"]
    (tmp_path / "d.txt").write_bytes("\ufeff{}\r\n\r\n{}\r\n{}".format(*documents).encode())
    write("d.csv", [("-", text) for text in documents])
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    printed = {
        run("search", model, "open the file", "--documents", f"d.{kind}")[1] for kind in ("txt", "csv", "jsonl")
    }
    assert len(printed) == 1
    lines = printed.pop().splitlines()
    assert [line.split()[::2] for line in lines] == [["1", "file.open"], ["2", "list.sort"]]


@pytest.mark.skipif(os.name == "nt", reason="no pipes of POSIX")
def test_output_that_nobody_reads__ends_a_command_quietly(model):
    search = ("search", model, "a", "--documents", "texts.jsonl")
    call = [sys.executable, "-c", "import sys; from rvtrain import cli; sys.exit(cli.main())", *search]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(call, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_search__is_told_what_is_wrong(run, model, tmp_path):
    (tmp_path / "e.txt").write_text("\n \n")
    (tmp_path / "d.doc").write_text("a\n")
    search = ("search", model, "sort a list", "--documents")
    refused(run(*search, "e.txt"), "e.txt must hold texts, got none")
    refused(run(*search, "d.doc"), "d.doc must end in .txt, .jsonl, .csv or .tsv")
    refused(run(*search, "nowhere.txt"), "nowhere.txt: No such file")
    refused(run(*search, "texts.jsonl", "-k", 0), "-k must be at least 1, got 0")
    refused(run("search", model, "?!", "--documents", "texts.jsonl"), "QUERY must have words, got '?!'")
    refused(run("search", "texts.jsonl", "a", "--documents", "texts.jsonl"), "texts.jsonl")
    with pytest.raises(SystemExit) as left:
        cli.main(["search", model, "sort"])
    assert left.value.code == 2


def test_train__interrupted_goes_on_with_resume(run, model, tmp_path, monkeypatch):
    command = ("train", "texts.jsonl", "-o", "n.npz", *QUICK)
    line = _train._print_line

    def interrupt(trainer, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_train, "_print_line", interrupt)
    code, out, errors = run(*command)
    assert code == 130 and not out
    assert errors.endswith("interrupted: the same command with --resume goes on after epoch 2 of 3\n")
    assert not (tmp_path / "n.npz").exists()
    monkeypatch.setattr(_train, "_print_line", line)
    write("texts.jsonl", [*PAIRS[:-1], ("how to do this", "that")])
    refused(run(*command, "--resume"), "must be those of the run to resume")
    write("texts.jsonl", PAIRS)
    refused(run(*command, "--resume", "--split-case"), "--split-case was False in the run to resume, got True")
    assert run(*command, "--resume")[0] == 0
    np.testing.assert_array_equal(*(rt.load_model(name).params["table"] for name in (model, "n.npz")))


def test_outputs__on_a_full_disk_are_not_half_written(run, model, tmp_path, monkeypatch):
    before = (tmp_path / "m.npz").read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rvtrain._commands._outputs.open", full, raising=False)
    refused(run("apply", model, "texts.jsonl", "-o", "d.npy"), "d.npy: No space left on device")
    monkeypatch.setattr(rt, "save_checkpoint", full)
    code, _, errors = run("train", "texts.jsonl", "-o", "m.npz", *QUICK)
    assert code == 1 and errors.endswith("rvtrain: m.npz: No space left on device\n")
    assert (tmp_path / "m.npz").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"m.npz", "m.npz.part", "texts.jsonl"}


def test_help__has_an_example_for_each_command(capsys):
    for command in ("demo", "train", "search", "mine", "evaluate", "apply", "info", "warmup"):
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--help"])
        assert left.value.code == 0
        assert f"\n  rvtrain {command}" in capsys.readouterr().out
