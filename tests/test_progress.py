"""Progress bars: who sees them, and what they say."""

import io
import sys

import numpy as np
import pytest

import rvtrain as rt
from rvtrain._kernels import _compiling

PAIRS = np.stack([np.arange(40)] * 2, axis=1)


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self):
        return True


def fitted(rng, progress="auto"):
    x = rng.normal(size=(40, 8)).astype(np.float32)
    model = rt.TwoTower(rt.LinearAdapter(8))
    mining = rt.Mining(rt.HardNegativeMiner.hardest())
    rt.Trainer(model, mining=mining, epochs=2, batch_size=8, progress=progress).fit(x, x, PAIRS[:30], PAIRS[30:])


def test_trainer__names_its_phases_on_a_terminal(rng, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    fitted(rng)
    shown = sys.stderr.getvalue()
    assert all(phase in shown for phase in ("evaluating", "mining", "training", "recall@10"))
    assert "60.0/60.0" in shown


def test_trainer__shows_nothing_where_nobody_watches(rng, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    fitted(rng)
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    fitted(rng, progress=False)
    assert sys.stderr.getvalue() == ""


def test_notebook__shows_bars_though_stderr_is_no_terminal(rng, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    fitted(rng)
    assert "training" in sys.stderr.getvalue()


@pytest.mark.parametrize("call", ["trainer", "miner"])
def test_compilation__is_a_phase_of_the_bar(rng, monkeypatch, call):
    monkeypatch.setattr(sys, "stderr", Terminal())
    x = rng.normal(size=(40, 8)).astype(np.float32)
    compilation = _compiling.announced(lambda: None)

    def compiling(*_):
        compilation()
        return 0.01

    if call == "trainer":
        model = rt.LinearAdapter(8)
        rt.Trainer(model, schedule=compiling, epochs=1, batch_size=8, progress=True).fit(x, x, PAIRS)
    else:
        blocks = (compilation() or x for _ in range(1))
        rt.HardNegativeMiner.hardest().mine(x[:2], blocks, 3, progress=True)
        assert "candidates: 40.0 rows" in sys.stderr.getvalue()
    assert "compiling" in sys.stderr.getvalue()
