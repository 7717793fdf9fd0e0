"""What every benchmark shares: seeded data, warm kernels, and ratios measured side by side."""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np


class Benchmark:
    """Base of all benchmarks: `setup` makes the data and calls each kernel once, so that no ``time_``
    or ``track_`` method ever measures a compilation.

    asv takes a larger figure as a worse one, whatever its unit: a ``track_`` returns times, memory, or the
    share of a peer's, never a rate or how many times faster.
    """

    warmup_time = 0.1
    timeout = 300

    def rng(self) -> np.random.Generator:
        """The same numbers in every run."""
        return np.random.default_rng(20260101)


ONCE = "RVTRAIN_BENCHMARKS_ONCE" in os.environ
"""Set by CI, which wants to see every benchmark run and believes none of its figures."""

REST = 0.0 if ONCE else 0.25
"""Seconds before each burst of calls: the threads of OpenBLAS spin for 0.1 s after a product, and torch's for a
while, and whoever runs next on a machine of few cores would pay for them."""


def median_seconds(*calls: Callable[[], object], budget: float = 2.0, rounds: int = 11) -> list[float]:
    """Median seconds of each call, interleaved (a b c, a b c, …) so that drift and neighbours hit all alike.

    A round is a burst of each call, of 20 ms or one call. Stops after `rounds` rounds, or after `budget` seconds
    spent in calls and at least three rounds.
    """
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for done in range(1 if ONCE else rounds):
        if done >= 3 and sum(map(sum, times)) > budget:
            break
        for call, spent in zip(calls, times, strict=True):
            time.sleep(REST)
            start = time.perf_counter()
            while True:
                begin = time.perf_counter()
                call()
                end = time.perf_counter()
                spent.append(end - begin)
                if ONCE or end - start > 0.02:
                    break
    return [statistics.median(spent) for spent in times]


def relative_time(ours: Callable[[], object], peer: Callable[[], object], **limits: float) -> float:
    """The time of `ours` over the time of `peer`, both measured here and now: below 1, ours is faster."""
    mine, theirs = median_seconds(ours, peer, **limits)
    return mine / theirs
