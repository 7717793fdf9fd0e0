"""The commands on files, in the way that a user calls them."""

import errno
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import _progress, cli
from rvtrain._commands import _train

README = Path(__file__).parents[1] / "README.md"
STORED = {"float16": np.float16, "int8": np.int8, "big-endian": ">f4"}


@pytest.fixture(scope="module")
def vectors():
    """Queries and documents that share a hidden part, each seen through a map of its own."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(500, 10))
    return [(hidden @ rng.normal(size=(10, 20)) + rng.normal(size=(500, 20))).astype(np.float32) for _ in "qd"]


@pytest.fixture(scope="module")
def trained(vectors, tmp_path_factory):
    """A model of two adapters, trained on pairs.npz, and what was printed in JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.setenv("RVTRAIN_QUIET", "1")
        np.savez("pairs.npz", queries=vectors[0], documents=vectors[1])
        lines = []
        patch.setattr("builtins.print", lambda text, **options: lines.append(text))
        assert cli.main(["train", "pairs.npz", "-o", "a.npz", *map(str, QUICK), "--json"]) == 0
        return Path("a.npz").resolve(), json.loads(lines[-1])


@pytest.fixture
def folder(tmp_path, monkeypatch, vectors):
    """A folder with the vectors, as .npz and as .npy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVTRAIN_QUIET", "1")
    queries, documents = vectors
    np.savez("pairs.npz", queries=queries, documents=documents)
    np.save("queries.npy", queries)
    np.save("documents.npy", documents)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Exit code, output and errors of a command."""

    def call(*arguments):
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def refused(result, *words):
    """Assert that a command failed with one line that has these words in it, and printed nothing else."""
    code, out, errors = result
    assert code == 1
    assert errors.startswith("rvtrain: ") and errors.count("\n") == 1, errors
    for word in words:
        assert word in errors, errors
    assert not out


def contents(folder):
    """Every file of a folder and its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


QUICK = ("--epochs", 6, "--batch-size", 64, "--lr", 0.02, "--mine-from", 3)


def test_train_evaluate_apply_mine(folder, run):
    code, out, errors = run("train", "pairs.npz", "-o", "a.npz", *QUICK)
    assert code == 0
    told = re.search(r"recall@10 on 25 pairs held back: (0\.\d+), untrained 0\.\d+\n", out)
    assert re.search(r"best epoch: [1-6] of 6, chosen on 25 others\nwritten: a.npz\n", out)
    assert [line.split()[1] for line in errors.splitlines()] == [f"{i}/6" for i in range(1, 7)]
    assert sorted(contents(folder)) == ["a.npz", "documents.npy", "pairs.npz", "queries.npy"]

    code, out, _ = run("evaluate", "queries.npy", "documents.npy")
    untrained = float(out.splitlines()[2].split()[1])
    assert out.splitlines()[0] == "on 500 pairs"
    assert untrained < 0.2 < 0.6 < float(told[1])

    assert run("apply", "a.npz", "queries.npy", "-o", "q.npy", "--side", "query")[0] == 0
    assert run("apply", "a.npz", "documents.npy", "-o", "d.npy", "--side", "document")[0] == 0
    model = rt.load_model("a.npz")
    np.testing.assert_array_equal(np.load("d.npy"), model.document.transform(np.load("documents.npy")))
    _, out, _ = run("evaluate", "q.npy", "d.npy", "--json", "--metrics", "recall@10")
    _, all_pairs, _ = run("evaluate", "pairs.npz", "--model", "a.npz", "--json", "--metrics", "recall@10", "--all")
    assert json.loads(out)["recall@10"] == json.loads(all_pairs)["recall@10"]

    for memory in (1024, 0):
        options = ("--model", "a.npz", "-o", "n.npy", "--relative-margin", 0.01, "--memory", memory)
        assert run("mine", "pairs.npz", *options)[0] == 0
        expected = rt.HardNegativeMiner.hardest().mine(
            np.load("q.npy"), np.load("d.npy"), 4, positives=np.load("d.npy"),
            exclude=np.arange(500)[:, np.newaxis], relative_margin=0.01,
        )  # fmt: skip
        np.testing.assert_array_equal(np.load("n.npy"), expected)


def test_readme__commands_run_in_an_empty_folder(tmp_path, monkeypatch, run, rng):
    monkeypatch.chdir(tmp_path)
    hidden = rng.normal(size=(400, 8))
    queries, documents = (hidden @ rng.normal(size=(8, 24)) + rng.normal(size=(400, 24)) for _ in range(2))
    np.savez("pairs.npz", queries=queries.astype(np.float32), documents=documents.astype(np.float32))
    lines = ({"query": f"how to sort list {i}", "document": f"sort_list_{i}"} for i in range(60))
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (block,) = (
        b
        for b in re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        if "rvtrain train" in b
    )
    for command in block.splitlines():
        program, name, *arguments = shlex.split(command)
        assert program == "rvtrain"
        code, printed, errors = run(name, *arguments)
        assert code == 0, errors
    assert "sort_list" in printed and Path("report.html").stat().st_size > 10_000


def test_evaluate__ranks_what_training_held_back(trained, folder, run):
    model, told = trained
    evaluate = ("evaluate", "pairs.npz", "--model", model, "--metrics", "recall@10")
    _, out, _ = run(*evaluate, "--json")
    found = json.loads(out)
    assert found == {"recall@10": told["after"], "pairs": 25, "which": "held back"}
    assert told["pairs"] == {"train": 450, "selection": 25, "report": 25}
    assert run(*evaluate)[1].startswith("on 25 pairs that training held back (--all: all 500)\n")
    _, out, _ = run(*evaluate, "--json", "--all")
    assert json.loads(out)["pairs"] == 500
    # The same arrays in other files are the same data.
    assert "25 pairs" in run("evaluate", "queries.npy", "documents.npy", "--model", model)[1]


def test_evaluate__says_which_data_are_not_those_of_the_training(trained, folder, run):
    model = trained[0]
    np.save("other.npy", np.load("queries.npy")[::-1])
    _, out, _ = run("evaluate", "other.npy", "documents.npy", "--model", model)
    assert out.startswith(f"on 500 pairs; queries are not those that {model} was trained with\n")
    np.save("few.npy", [[3, 3], [4, 4]])
    _, out, _ = run("evaluate", "pairs.npz", "--pairs", "few.npy", "--model", model)
    assert out.startswith(f"on 2 pairs; pairs are not those that {model}")
    rt.save_model("bare.npz", rt.load_model(model))
    _, out, _ = run("evaluate", "pairs.npz", "--model", "bare.npz")
    assert out.startswith("on 500 pairs; bare.npz does not say which pairs it was trained on\n")


def test_train__holds_back_whole_queries_in_three_parts(folder, run):
    pairs = np.array([[i, j] for i in range(100) for j in (i, i + 100)])
    np.save("pairs.npy", pairs)
    options = ("--pairs", "pairs.npy", "--hold-back", 0.2, "--epochs", 1, "--seed", 3, "--negatives", 0)
    assert run("train", "queries.npy", "documents.npy", "-o", "a.npz", *options)[0] == 0
    report = rt.load_checkpoint("a.npz")["split"]["report"]
    asked = np.unique(report[:, 0])
    assert len(asked) == 10
    np.testing.assert_array_equal(report, pairs[np.isin(pairs[:, 0], asked)])
    refused(run("train", "pairs.npz", "-o", "b.npz", "--hold-back", 0.999), "--hold-back must leave queries")


def test_train__chooses_by_validation_pairs_and_says_so(folder, run, vectors):
    np.savez("v.npz", queries=vectors[0], documents=vectors[1], validation=[[i, i] for i in range(40)])
    _, out, _ = run("train", "v.npz", "-o", "a.npz", *QUICK, "--json")
    assert json.loads(out)["pairs"] == {"train": 460, "selection": 40, "report": 0}
    _, out, _ = run("evaluate", "v.npz", "--model", "a.npz")
    assert out.startswith("on 40 validation pairs, which chose the best epoch\n")
    refused(run("train", "v.npz", "-o", "b.npz", "--hold-back", 0.2), "--hold-back is for files without")
    both = [[0, 0], [1, 1], [2, 2]]
    np.savez("leak.npz", queries=vectors[0], documents=vectors[1], pairs=both, validation=both[1:])
    refused(run("train", "leak.npz", "-o", "b.npz"), "no pair that trains, got 2, such as [1, 1]")


def test_train__without_held_back_pairs_measures_nothing(folder, run):
    code, out, _ = run("train", "pairs.npz", "-o", "a.npz", "--hold-back", 0, "--epochs", 1)
    assert (code, out) == (0, "written: a.npz\n")
    assert "all of which a.npz was trained on" in run("evaluate", "pairs.npz", "--model", "a.npz")[1].splitlines()[0]


@pytest.mark.parametrize("options", [("--kind", "mlp", "--shared"), ("--rank", 4, "--dim", 20), ("--negatives", 0)])
def test_train__takes_each_kind(options, folder, run):
    code, out, _ = run("train", "pairs.npz", "-o", "a.npz", *QUICK, *options, "--json")
    found = json.loads(out)
    assert code == 0 and len(found["history"]["loss"]) == 7
    assert found["history"]["loss"][-1] < found["history"]["loss"][1]
    assert rt.load_model("a.npz").query.out_features == 20


@pytest.mark.parametrize("stored", STORED)
def test_commands__take_vectors_as_they_are_stored(stored, trained, folder, run, vectors):
    queries, documents = ((8 * x).round().astype(STORED[stored]) for x in vectors)
    wide = [x.astype(np.float32) for x in (queries, documents)]
    for names, pair in ((("s", "t"), (queries, documents)), (("u", "v"), wide)):
        for name, array in zip(names, pair, strict=True):
            np.save(f"{name}.npy", array)
    model = ("--model", trained[0])
    for memory in (1024, 0):
        for command in (
            ("evaluate", "--memory", memory, "--json"),
            ("evaluate", "--memory", memory, "--json", *model),
            ("mine", "--memory", memory, "-o", "n.npy", *model),
        ):
            results = [(run(*command, *files)[:2], contents(folder).get("n.npy")) for files in
                       (("s.npy", "t.npy"), ("u.npy", "v.npy"))]  # fmt: skip
            assert results[0] == results[1] and results[0][0][0] == 0
    for name in "su":
        assert run("apply", trained[0], f"{name}.npy", "--side", "query", "-o", f"{name}{name}.npy")[0] == 0
    assert contents(folder)["ss.npy"] == contents(folder)["uu.npy"]


@pytest.mark.parametrize("stored", STORED)
def test_train__takes_vectors_as_they_are_stored(stored, folder, run, vectors):
    queries, documents = ((8 * x).round().astype(STORED[stored]) for x in vectors)
    np.savez("stored.npz", queries=queries, documents=documents)
    np.savez("wide.npz", queries=queries.astype(np.float32), documents=documents.astype(np.float32))
    for name in ("stored", "wide"):
        assert run("train", f"{name}.npz", "-o", f"{name}.model.npz", "--epochs", 2, "--mine-from", 2)[0] == 0
    a, b = (rt.load_model(f"{name}.model.npz").params for name in ("stored", "wide"))
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key])


def test_train__interrupted_and_resumed_ends_as_if_it_had_not_been(trained, folder, run, monkeypatch):
    model, told = trained
    command = ("train", "pairs.npz", "-o", "b.npz", *QUICK)
    line = _train._print_line

    def interrupt(trainer, record):
        line(trainer, record)
        if record["epoch"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(_train, "_print_line", interrupt)
    code, out, errors = run(*command)
    assert (code, out) == (130, "")
    again = "the same command with --resume goes on after epoch 4 of 6"
    assert errors.splitlines()[-1] == f"rvtrain: interrupted: {again}"
    monkeypatch.setattr(_train, "_print_line", line)
    assert not Path("b.npz").exists()

    before = contents(folder)
    refused(run(*command), "b.npz.part is of a run that was interrupted", "--resume", "remove it")
    for options, message in (
        (("--seed", 1), "--seed was 0 in the run to resume, got 1"),
        (("--lr", 0.01), "--lr was 0.02 in the run to resume, got 0.01"),
        (("--hold-back", 0.2), "--hold-back was 0.1 in the run to resume, got 0.2"),
        (("--kind", "mlp"), "--kind was linear in the run to resume, got mlp"),
        (("--dim", 8), "--dim was 20 in the run to resume, got 8"),
        (("--patience", 2), "--patience was None in the run to resume, got 2"),
    ):
        refused(run(*command, "--resume", *options), message)
    np.savez("others.npz", queries=np.load("queries.npy")[::-1], documents=np.load("documents.npy"))
    refused(run("train", "others.npz", *command[2:], "--resume"), "queries must be those of the run to resume")
    assert contents(folder) == before | {"others.npz": Path("others.npz").read_bytes()}

    code, out, errors = run(*command, "--resume", "--json")
    assert code == 0 and [text.split()[1] for text in errors.splitlines()] == ["5/6", "6/6"]
    assert not Path("b.npz.part").exists()
    found = json.loads(out)
    found["history"]["seconds"] = told["history"]["seconds"]
    assert found == told | {"model": "b.npz"}
    whole, resumed = rt.load_model(model), rt.load_model("b.npz")
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


def test_train__resume_without_a_run_begins_one_and_says_so(folder, run):
    code, _, errors = run("train", "pairs.npz", "-o", "a.npz", "--epochs", 1, "--resume")
    assert code == 0 and "there is no a.npz.part to resume" in errors
    assert "no negatives will be mined: --mine-from 5 is above --epochs 1" in errors


def test_train__that_diverges_leaves_nothing_behind(folder, run, monkeypatch):
    def diverge(trainer, record):
        assert Path("a.npz.part").exists()
        raise ValueError("the loss diverged")

    before = contents(folder)
    monkeypatch.setattr(_train, "_print_line", diverge)
    refused(run("train", "pairs.npz", "-o", "a.npz", *QUICK), "the loss diverged")
    assert contents(folder) == before


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard"])
def test_outputs__are_never_written_over_an_input(link, trained, folder, run):
    Path("model.npz").write_bytes(trained[0].read_bytes())
    Path("lines.jsonl").write_text("text\n" * 500)
    names = {}
    for name in ("pairs.npz", "queries.npy", "documents.npy", "model.npz", "lines.jsonl"):
        names[name] = name if link == "itself" else f"link-{name}"
        if link != "itself":
            (os.symlink if link == "symbolic" else os.link)(name, names[name])
    os.symlink("pairs.npz", "b.npz.part")
    before = contents(folder)
    pairs, queries, documents, model, lines = names.values()
    with_texts = ("--texts", "lines.jsonl", "lines.jsonl")
    for command in (
        ("train", "pairs.npz", "-o", pairs),
        ("train", "pairs.npz", "-o", "b.npz"),  # its .part is a link to the input
        ("train", "queries.npy", "documents.npy", "--pairs", "queries.npy", "-o", "x.npz", "--plot", queries),
        ("mine", "queries.npy", "documents.npy", "-o", documents),
        ("mine", "pairs.npz", "--pairs", "queries.npy", "-o", queries),
        ("mine", "pairs.npz", *with_texts, "-o", lines),
        ("apply", "model.npz", "queries.npy", "-o", queries, "--side", "query"),
    ):
        refused(run(*command), "must be another file than the input")
    refused(run("train", "pairs.npz", "-o", "x.npz", "--plot", "x.npz"), "--plot must be another file than -o")
    refused(run("apply", "model.npz", "queries.npy", "-o", model), "must end in .npy")
    assert contents(folder) == before


def full(descriptor, offset, size):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_commands__that_cannot_write_leave_what_was_there(trained, folder, run, monkeypatch):
    resource = pytest.importorskip("resource")
    (folder / "t.txt").write_text("text\n" * 500)
    for name in ("out.npy", "out.jsonl", "out.npz"):
        Path(name).write_bytes(b"precious")
    before = contents(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        results = [
            run("apply", trained[0], "queries.npy", "-o", "out.npy", "--side", "query"),
            run("mine", "pairs.npz", "-o", "out.npy"),
            run("mine", "pairs.npz", "-o", "out.jsonl", "--texts", "t.txt", "t.txt"),
            run("train", "pairs.npz", "-o", "out.npz", "--epochs", 1),
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for (code, out, errors), name in zip(results, ("out.npy", "out.npy", "out.jsonl", "out.npz.part"), strict=True):
        assert code == 1 and not out
        assert errors.splitlines()[-1] == f"rvtrain: {name}: File too large"
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    refused(run("apply", trained[0], "queries.npy", "-o", "out.npy", "--side", "query"), "out.npy: No space left")
    assert contents(folder) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors__that_are_not_finite_are_refused_with_their_row(value, trained, folder, run):
    queries = np.load("queries.npy")
    queries[417, 3] = value
    np.save("bad.npy", queries)
    before = contents(folder)
    for command in (
        ("apply", trained[0], "bad.npy", "-o", "x.npy", "--side", "query"),
        ("mine", "bad.npy", "documents.npy", "-o", "x.npy"),
        ("train", "documents.npy", "bad.npy", "-o", "x.npz"),
        ("evaluate", "bad.npy", "documents.npy"),
    ):
        refused(run(*command), f"bad.npy must be finite, got {value} in row 417")
    assert contents(folder) == before


def test_apply__asks_for_the_side_where_the_model_has_two(trained, folder, run):
    refused(run("apply", trained[0], "queries.npy", "-o", "x.npy"), "--side query or --side document is needed")
    assert not Path("x.npy").exists()
    adapter = rt.LinearAdapter(20)
    for model in (adapter, rt.TwoTower(adapter)):
        rt.save_model("one.npz", model)
        assert run("apply", "one.npz", "queries.npy", "-o", "x.npy")[0] == 0
        np.testing.assert_array_equal(np.load("x.npy"), np.load("queries.npy"))
    rt.save_model("table.npz", rt.EmbeddingTable(5, 20))
    refused(run("apply", "table.npz", "queries.npy", "-o", "y.npy"), "table.npz", "EmbeddingTable")


def test_files__that_are_damaged_or_of_another_kind_are_named(trained, folder, run):
    whole, pairs = Path("queries.npy").read_bytes(), bytearray(Path("pairs.npz").read_bytes())
    pairs[len(pairs) // 3] ^= 1
    arrays = {
        "line.npy": np.ones(5), "text.npy": np.array([["a", "b"]] * 500), "rows.npy": np.empty((0, 20), np.float32),
        "objects.npy": np.array([[{}]]), "complex.npy": np.ones((3, 3), complex), "floats.npy": np.ones((3, 2)),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(name, array, allow_pickle=True)
    files = {"empty.npy": b"", "short.npy": whole[: len(whole) // 2], "header.npy": whole[:40], "note.npy": b"hello",
             "flipped.npz": bytes(pairs), "cut.npz": bytes(pairs[:5000]), "empty.npz": b""}  # fmt: skip
    for name, content in files.items():
        Path(name).write_bytes(content)
    os.mkdir("a-folder.npy")
    before = contents(folder)
    for name in (*arrays, *files, "a-folder.npy", "missing.npy", "pairs.npz"):
        if name.endswith(".npz") and name != "pairs.npz":
            refused(run("evaluate", name), name)
            refused(run("mine", name, "-o", "x.npy"), name)
        elif name != "floats.npy":
            refused(run("evaluate", name, "documents.npy"), name)
            refused(run("apply", trained[0], name, "-o", "x.npy", "--side", "query"), name)
        if name not in ("pairs.npz", "text.npy"):
            refused(run("train", "pairs.npz", "--pairs", name, "-o", "x.npz"), name)
        refused(run("apply", name, "queries.npy", "-o", "x.npy"), name)
    assert contents(folder) == before


def test_errors__are_one_line_and_name_what_is_wrong(folder, run):
    np.save("wrong.npy", np.zeros((3, 7), np.float32))
    np.savez("no-documents.npz", queries=np.zeros((2, 3)))
    np.savez("few.npz", queries=np.eye(2, 20, dtype=np.float32), documents=np.eye(2, 20, dtype=np.float32))
    np.savez("v.npz", queries=np.eye(9), documents=np.eye(9), validation=np.array([[0, 0], [1, 1]]))
    (folder / "t.txt").write_text("text\n" * 500)
    (folder / "short.txt").write_text("one line")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n" * 500)
    before = contents(folder)
    train, mine = ("train", "pairs.npz", "-o", "x.npz"), ("mine", "pairs.npz")
    for command, message in (
        (("train", "nothing.npz", "-o", "x.npz"), "nothing.npz: No such file"),
        (("train", "no-documents.npz", "-o", "x.npz"), "must hold the arrays queries and documents"),
        (("train", "queries.npy", "-o", "x.npz"), "must be an .npz"),
        (("train", "queries.npy", "wrong.npy", "-o", "x.npz"), "as many, got 500 and 3"),
        (("evaluate", "pairs.npz", "--pairs", "wrong.npy"), "wrong.npy must be integers"),
        ((*train, "--metric", "accuracy"), "accuracy"),
        ((*train, "--hold-back", 2), "--hold-back must be in [0, 1), got 2"),
        ((*train, "--hold-back", -1), "--hold-back must be in [0, 1), got -1"),
        ((*train, "--epochs", 0), "--epochs must be at least 1, got 0"),
        ((*train, "--dim", 0), "--dim must be at least 1, got 0"),
        ((*train, "--dim", -3), "--dim must be at least 1, got -3"),
        ((*train, "--lr", 0), "--lr must be"),
        ((*train, "--temperature", 0), "--temperature must be"),
        ((*train, "--weight-decay", -1), "--weight-decay must be"),
        ((*train, "--seed", -1), "--seed must be"),
        ((*train, "--memory", -1), "--memory must be"),
        ((*train, "--mine-every", 0), "--mine-every must be"),
        ((*train, "--kind", "mlp", "--rank", 4), "--rank is for --kind linear"),
        ((*train, "--hidden", 4), "--hidden is for --kind mlp"),
        ((*train, "--patience", 2, "--hold-back", 0), "--patience needs pairs to measure on"),
        ((*train, "--negatives", 100_000), "--negatives must be at most 499"),
        ((*train, "--batch-size", 1), "--batch-size must be at least 2"),
        ((*train, "--batch-size", 0, "--mine-from", 1), "--batch-size must be at least 2"),
        (("train", "few.npz", "-o", "x.npz", "--hold-back", 0, "--negatives", 2), "--negatives must be at most 1"),
        (("train", "few.npz", "-o", "x.npz", "--negatives", 0), "--hold-back must leave queries"),
        (("train", "pairs.npz", "-o", "nowhere/x.npz"), "-o must be in a folder that exists"),
        (("train", "pairs.npz", "-o", "."), "-o must end in .npz"),
        (("train", "pairs.npz", "-o", "x.bin"), "-o must end in .npz"),
        ((*mine, "-o", "x.jsonl"), "needs --texts"),
        ((*mine, "-o", "x.npy", "--texts", "t.txt", "t.txt"), "needs -o with .jsonl"),
        ((*mine, "-o", "x.txt"), "-o must end in .npy or .jsonl"),
        ((*mine, "-o", "x.npy", "-k", 100_000), "-k must be at most 499"),
        ((*mine, "-o", "x.npy", "-k", 0), "-k must be at least 1"),
        ((*mine, "-o", "x.npy", "--relative-margin", "nan"), "--relative-margin must be"),
        ((*mine, "-o", "x.jsonl", "--texts", "t.txt", "short.txt"), "short.txt must have a line for each row"),
        ((*mine, "-o", "x.jsonl", "--texts", "latin.txt", "t.txt"), "latin.txt must be text in UTF-8"),
        (("evaluate", "queries.npy", "wrong.npy", "--pairs", "wrong.npy"), "wrong.npy must be integers"),
        (("evaluate", "pairs.npz", "--metrics", "hits@k"), "hits@k"),
        (("evaluate", "pairs.npz", "--model", "v.npz"), "v.npz"),
    ):
        refused(run(*command), message)
    assert contents(folder) == before


def test_paths__that_cannot_be_written_are_told_before_the_work(folder, run, monkeypatch):
    os.mkdir("closed.npz")
    refused(run("train", "pairs.npz", "-o", "closed.npz"), "-o must be a file, got closed.npz, which is a folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused(run("train", "pairs.npz", "-o", "x.npz"), "-o must be in a place that can be written to")


def test_mine__writes_triplets_of_texts(folder, run):
    (folder / "q.txt").write_text("\n".join(f"query {i}" for i in range(500)))
    # U+2028 separates lines for str.splitlines, and for nobody else.
    (folder / "d.txt").write_text("".join(f"dokument\u2028 ‹{i}›\n" for i in range(500)), encoding="utf-8")
    np.save("some.npy", [[0, 0], [0, 1], [7, 7]])
    command = ("mine", "pairs.npz", "--pairs", "some.npy", "-k", 2, "-o", "t.jsonl", "--texts", "q.txt", "d.txt")
    assert run(*command)[0] == 0
    lines = [json.loads(line) for line in (folder / "t.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["anchor"] for line in lines] == ["query 0"] * 4 + ["query 7"] * 2
    assert [line["positive"] for line in lines[::2]] == [f"dokument\u2028 ‹{i}›" for i in (0, 1, 7)]
    assert not {line["negative"] for line in lines[:4]} & {f"dokument\u2028 ‹{i}›" for i in (0, 1)}


def test_bars__name_each_phase_on_stderr_alone(trained, folder, run, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(_progress, "is_visible", lambda: True)
    code, out, errors = run("evaluate", "pairs.npz", "--model", trained[0], "--json")
    assert code == 0 and json.loads(out) and "embedding documents" in errors and "evaluating" in errors
    code, out, errors = run("mine", "pairs.npz", "--model", trained[0], "-o", "n.npy")
    assert code == 0 and out.startswith("written:") and "mining" in errors
    code, out, errors = run("apply", trained[0], "queries.npy", "-o", "q.npy", "--side", "query")
    assert code == 0 and out.startswith("written:") and "transforming" in errors


def test_help__of_every_command_says_something(capsys):
    for command in ("demo", "train", "mine", "evaluate", "apply", "info", "warmup"):
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--help"])
        assert left.value.code == 0
        assert len(capsys.readouterr().out) > 200
