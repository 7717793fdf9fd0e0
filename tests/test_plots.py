"""Pictures of a training: what is drawn, and that nothing is drawn that was not measured."""

import numpy as np
import pytest

import rvtrain as rt
from rvtrain import _plots, cli
from rvtrain._commands import _files, _split

pytest.importorskip("matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    saved = []
    monkeypatch.setattr(_plots, "save", lambda path, figure: saved.append(figure))
    return saved


def a_run(rng, held_back=True, k=(0, 0, 4), before=0.1, after=0.8):
    tables = rng.normal(size=(2, 60, 20)).astype(np.float32)
    data = _files.Inputs(*tables, np.repeat(np.arange(60)[:, np.newaxis], 2, axis=1), None)
    split = _split.split(data, 0.2 if held_back else 0.0, 0)
    measured = {"recall@10": [0.5, 0.7, 0.8]} if held_back else {}
    # The loss of a guess: among 16 documents, and with 4 mined negatives for each pair among all 60.
    loss = np.log(np.where(np.array(k) > 0, 60, 16))
    history = {"epoch": [1, 2, 3], "loss": loss.tolist(), "negatives": list(k)} | measured
    return _plots.Run(
        rt.TwoTower(rt.LinearAdapter(20)), data, split, history, "recall@10", before if held_back else None,
        after if held_back else None, 3, 16,
    )  # fmt: skip


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_draw__marks_where_mining_starts_and_makes_losses_comparable(figures, rng):
    _plots.draw("a.png", a_run(rng))
    curves, metric, bars, scores = (figures[0].axes[i] for i in (0, 3, 1, 2))
    assert labels(curves) == ["loss", "recall@10, pairs that choose the epoch", "mining starts"]
    loss, mark = curves.get_lines()
    np.testing.assert_allclose(loss.get_ydata(), 1.0)  # a guess is a guess, before and after mining starts
    assert list(mark.get_xdata()) == [2.5, 2.5]
    assert list(metric.get_lines()[0].get_ydata()) == [0.5, 0.7, 0.8]
    assert [bar.get_height() for bar in bars.patches] == [0.1, 0.8]
    assert labels(scores) == ["positives", "hardest negatives"]


def test_draw__leaves_out_what_was_not_measured(figures, rng):
    _plots.draw("a.png", a_run(rng, before=None, k=(0, 0, 0)))
    curves, bars = figures[0].axes[:2]
    assert len(bars.patches) == 1 and [text.get_text() for text in bars.get_xticklabels()] == ["trained"]
    assert "mining starts" not in labels(curves)
    _plots.draw("a.png", a_run(rng, held_back=False))
    assert len(figures[1].axes) == 2
    assert labels(figures[1].axes[0]) == ["loss", "mining starts"]


def test_draw__writes_whole_pictures(tmp_path, rng, monkeypatch):
    path = str(tmp_path / "a.png")
    _plots.draw(path, a_run(rng))
    whole = (tmp_path / "a.png").read_bytes()
    assert whole.startswith(b"\x89PNG")

    def full(path, mode, encoding=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rvtrain._commands._outputs.open", full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.png'"):
        _plots.draw(path, a_run(rng))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == whole


def test_plot__of_a_format_that_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_files, "inputs", lambda options: pytest.fail("files were read"))
    for name in ("a.xyz", "a", "a.pgf"):
        assert cli.main(["train", "p.npz", "-o", "a.npz", "--plot", name]) == 1
        assert "--plot must end in .png" in capsys.readouterr().err
    assert cli.main(["demo", "--plot", "nowhere/a.png"]) == 1
    assert "--plot must be in a folder that exists" in capsys.readouterr().err
