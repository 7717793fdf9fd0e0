"""Blocks follow the caches of the machine, and results do not depend on them."""

import numpy as np
import pytest

import rvtrain as rt
from rvtrain._engine import _blocks, _layout
from rvtrain._engine._blocks import block_panels
from rvtrain._engine._layout import Layout
from rvtrain._kernels._caches import Caches

KIB, MIB = 1 << 10, 1 << 20
SIZES = [
    Caches(16 * KIB, 16 * KIB, 64 * KIB),
    Caches(32 * KIB, 512 * KIB, 32 * MIB),
    Caches(48 * KIB, 2 * MIB, 105 * MIB),
]


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the caches from which blocks are derived."""

    def set_caches(caches):
        for module in (_blocks, _layout):
            monkeypatch.setattr(module, "cache_sizes", lambda: caches)
        _layout._facts.cache_clear()

    yield set_caches
    monkeypatch.undo()
    _layout._facts.cache_clear()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("count", "dim"), [(300, 100), (517, 384)])
def test_results_are_the_same_bits_for_any_caches(machine, rng, dtype, count, dim, symmetric):
    a, p = rng.normal(size=(2, count, dim)).astype(dtype)
    loss, found = rt.InfoNCELoss(0.1, symmetric=symmetric), []
    for caches in SIZES:
        machine(caches)
        value, gradients = loss.compute_with_gradients(a, p, wrt=("anchors", "positives"))
        found.append((value, *(g.tobytes() for g in gradients)))
    assert found[0] == found[1] == found[2]


def test_a_block_takes_a_quarter_of_the_second_cache(machine, dtype):
    for caches in SIZES[1:]:
        machine(caches)
        for dim in (64, 100, 128):
            layout = Layout(dim, dtype)
            size = block_panels(dim, dtype) * layout.nr * dim * np.dtype(dtype).itemsize
            chunk = _blocks.CHUNK * dim * np.dtype(dtype).itemsize
            assert caches.second / 4 - chunk < size <= caches.second / 4 or size <= chunk


def test_a_slab_takes_a_quarter_of_the_third_cache(machine, dtype):
    for caches in SIZES[1:]:
        machine(caches)
        layout = Layout(128, dtype)
        across = layout.panels(4000)
        row = across * layout.nr * layout.dtype.itemsize
        rows = layout.slab_rows(across, 1 << 20, threads=2)
        assert caches.third / 4 - _blocks.CHUNK * row < rows * row <= caches.third / 4
