"""InfoNCE returns what it returned before the engine was opened, to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import softmax_bits

KEPT = json.loads(Path(softmax_bits.__file__).with_suffix(".json").read_text(encoding="utf-8"))


def test_results__have_the_bits_of_69434a3():
    if softmax_bits.machine() not in KEPT:
        pytest.skip(f"no hashes of {softmax_bits.machine()}")
    kept = KEPT[softmax_bits.machine()]
    other = set(kept["other last digits"])
    now = softmax_bits.hashes()
    assert sorted(now) == sorted(kept["hashes"])
    assert {name for name in now if now[name] != kept["hashes"][name]} <= other


@pytest.mark.parametrize("kind", softmax_bits.KINDS)
def test_results__repeat(kind):
    first, second = (softmax_bits.results(kind, 101, 31, np.float32, 0.07) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
