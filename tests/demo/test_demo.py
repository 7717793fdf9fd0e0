"""The demo: its data and features, and that it learns; the command line around it."""

import subprocess
import sys

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import cli
from rvtrain.demo import _data, _plot, _train, build_data


def test_build_data__reads_docstrings_without_importing(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""A package of things. More."""\nraise SystemExit\n')
    (tmp_path / "package" / "tools.py").write_text(
        "class Saw:\n"
        '    """Cuts wood\n    into halves.\n\n    Details."""\n'
        "    def cut(self):\n"
        '        """Cut one piece of wood! Carefully."""\n'
        "    def _hidden(self):\n"
        '        """Never seen by anybody."""\n'
        "def short():\n"
        '    """Too short."""\n'
        "def twin():\n"
        '    """Shared by two functions."""\n'
        "def other():\n"
        '    """Shared by two functions."""\n'
    )
    (tmp_path / "package" / "_private.py").write_text('"""A private module of things."""\n')
    (tmp_path / "test" / "test_x.py").write_text('"""Tests of all the things."""\n')
    (tmp_path / "broken.py").write_text("def (:\n")
    assert build_data.pairs(tmp_path) == [
        ("package", "A package of things."),
        ("package.tools.Saw", "Cuts wood into halves."),
        ("package.tools.Saw.cut", "Cut one piece of wood!"),
    ]


def test_build_data__writes_the_same_bytes_each_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_data, "pairs", lambda root: [("a.b", "Does this and that.")])
    for name in ("one", "two"):
        build_data.main(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "1 pairs" in capsys.readouterr().out


def test_shipped_data__are_whole_and_split_without_overlap():
    pairs = _data.load(0)
    assert 4000 < len(pairs.names) == len(pairs.sentences) < 6000
    assert len(set(pairs.names)) == len(set(pairs.sentences)) == len(pairs.names)
    assert len(pairs.held_back) == _data.HELD_BACK
    assert sorted([*pairs.train, *pairs.held_back]) == list(range(len(pairs.names)))
    assert (_data.load(0).train == pairs.train).all() and (_data.load(1).train != pairs.train).any()


def test_features__are_fitted_on_the_texts_to_train_on_alone():
    pairs = _data.load(0)
    other = pairs._replace(
        sentences=["" if i in set(pairs.held_back) else text for i, text in enumerate(pairs.sentences)]
    )
    np.testing.assert_array_equal(_train.featured(pairs).features.idf_, _train.featured(other).features.idf_)


def test_nearest__is_the_order_of_the_products_of_bags():
    features = rt.HashedNgrams(512).fit(["join two paths", "open a file", "close the file"])
    queries = features.transform(["opened files", "joined", ""])
    documents = features.transform(["open a file", "join", "two paths", "close the file", "x"])
    expected = np.argsort(-(queries.toarray() @ documents.toarray().T), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(_train.nearest(queries, documents, 3), expected)


@pytest.fixture(scope="module")
def result():
    return _train.run(0, lambda n: None, lambda text: None)


def test_training__beats_untrained_features(result):
    features, untrained, in_batch, hard = (row.quality for row in result.rows)
    assert features.recall_10 > untrained.recall_10 > 0.4
    assert in_batch.recall_10 >= 0.78
    assert min(in_batch.recall_10, hard.recall_10) > features.recall_10 + 0.1
    assert min(in_batch.recall_1, hard.recall_1) > features.recall_1 + 0.03
    assert hard.ndcg_10 > in_batch.ndcg_10 - 0.02
    assert [len(curve) for curve in result.curves.values()] == [_train.EPOCHS] * 2
    assert [curve[-1] for curve in result.curves.values()] == [in_batch.recall_10, hard.recall_10]


def test_training__of_another_split_finds_as_much():
    """Recall@10 is at least .78 for seeds 0 to 4, of which seed 3 has the least."""
    data = _train.featured(_data.load(3))
    warm = _train.warm_up(data, 3)
    _train.fit(warm, data, lambda samples: None, lambda text: None, "")
    late = _train.rest(warm, data, hard=False)
    assert _train.fit(late, data, lambda samples: None, lambda text: None, "")[-1] >= 0.78


def test_training__with_compact_state_finds_as_much():
    """Recall@10 with moments in 16 and 8 bits within half a point of float32, from the same seed."""
    data = _train.featured(_data.load(0))
    recall = {}
    for state_dtype in ("float32", "bfloat16", "int8"):
        trainer = _train.warm_up(data, 0)
        trainer.optimizer = rt.Adam(trainer.model.params, 0.005, state_dtype=state_dtype)
        trainer.schedule = None
        recall[state_dtype] = _train.fit(trainer, data, lambda samples: None, lambda text: None, "")[-1]
    assert abs(recall["bfloat16"] - recall["float32"]) <= 0.005
    assert abs(recall["int8"] - recall["float32"]) <= 0.005


def test_plot__draws_a_picture(result, tmp_path):
    pytest.importorskip("matplotlib")
    figure = _plot.drawn(result)
    curves, bars = figure.axes
    assert {"in-batch only", "with hard negatives", "untrained: n-grams by tf-idf", "mining starts"} == labels(curves)
    assert {"Recall@1", "Recall@10"} == labels(bars) and len(bars.patches) == 8
    figure.savefig(tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def labels(axis):
    return {text.get_text() for text in axis.get_legend().get_texts()}


def test_command__prints_the_table(result, monkeypatch, capsys):
    monkeypatch.setattr(_train, "run", lambda *arguments: result)
    assert cli.main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("trained" in line for line in lines) == 4 and "Recall@10" in "".join(lines)


def test_command__tells_errors_in_one_line(capsys, monkeypatch):
    assert cli.main(["demo", "--seed", "-1"]) == 1
    assert capsys.readouterr().err == "rvtrain: --seed must not be negative, got -1\n"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["demo", "--plot", "x.png"]) == 1
    assert "--plot needs matplotlib" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        cli.main(["dance"])
    assert wrong.value.code == 2


def test_command__runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "rvtrain", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("rvtrain 0.")
