"""What every benchmark shares: seeded data, warm kernels, and ratios measured side by side."""

import statistics
import time
from collections.abc import Callable

import numpy as np


class Benchmark:
    """Base of all benchmarks: `setup` makes the data and calls each kernel once, so that no ``time_``
    or ``track_`` method ever measures a compilation."""

    warmup_time = 0.1
    timeout = 300

    def rng(self) -> np.random.Generator:
        """The same numbers in every run."""
        return np.random.default_rng(20260101)


def median_seconds(*calls: Callable[[], object], budget: float = 2.0, rounds: int = 21) -> list[float]:
    """Median seconds of each call, interleaved (a b c, a b c, …) so that drift and neighbours hit all alike.

    Stops after `rounds` rounds, or after `budget` seconds and at least three rounds.
    """
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - start > budget:
            break
        for call, spent in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            spent.append(time.perf_counter() - begin)
    return [statistics.median(spent) for spent in times]


def speedup(ours: Callable[[], object], peer: Callable[[], object], **limits: float) -> float:
    """How many times faster `ours` is than `peer`, both measured here and now."""
    mine, theirs = median_seconds(ours, peer, **limits)
    return theirs / mine
