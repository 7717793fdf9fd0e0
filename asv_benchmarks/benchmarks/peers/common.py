"""Ratios measured side by side, with the same number of threads on both sides."""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import numba
import numpy as np

from ..common import ONCE, all_threads

REST = 0.0 if ONCE else 0.15
"""Seconds before each burst of calls: the threads of OpenBLAS spin for 0.1 s after a product, and torch's for a
while, and on a machine of few cores the next call would pay for them."""
WAKING = 0.0 if ONCE else 0.015
"""Seconds of calls before a burst of short ones."""


class Benchmark:
    """Base of the ratios. A subclass has `prepare` in place of asv's `setup`.

    asv takes a larger figure as a worse one, whatever its unit: a ``track_`` returns our time over another, never a
    rate or how many times faster.
    """

    version = "3"
    timeout = 300
    params: tuple = ()

    def setup(self, *parameters: object) -> None:
        equal_threads()
        self.prepare(*parameters)

    def prepare(self, *parameters: object) -> None:
        raise NotImplementedError

    def rng(self) -> np.random.Generator:
        """The same numbers in every run."""
        return np.random.default_rng(20260101)


def ratio(unit: str) -> Callable:
    """Give a ``track_`` method its unit."""

    def decorate(method):
        method.unit = unit
        method.pretty_name = method.__name__.removeprefix("track_").replace("_", " ")
        return method

    return decorate


def beside(package: str, unit: str) -> Callable:
    """Give a ``track_`` method its unit, and skip it where the peer is not installed."""

    def decorate(method):
        def setup(*parameters):
            if importlib.util.find_spec(package) is None:
                raise NotImplementedError(f"{package} is not installed")

        method.setup = setup
        return ratio(unit)(method)

    return decorate


def equal_threads() -> int:
    """Give rvtrain, and each peer that is imported, as many threads as the process has processors."""
    threads = all_threads()
    numba.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(threads)
    return threads


def median_seconds(*calls: Callable[[], object], budget: float = 1.5, rounds: int = 9) -> list[float]:
    """Median seconds of each call, interleaved (a b c, a b c, …) so that drift and neighbours hit all alike.

    A round is a burst of each call, of 20 ms or one call. A call shorter than 50 ms is made for 15 ms before its
    burst: after a rest Linux runs the threads of a call on one processor for up to 10 ms, which doubles its time.
    Stops after `rounds` rounds, or after `budget` seconds spent in calls and at least three rounds.
    """
    equal_threads()
    if not ONCE:
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    for done in range(1 if ONCE else rounds):
        if done >= 3 and sum(map(sum, times)) > budget:
            break
        for call, spent in zip(calls, times, strict=True):
            time.sleep(REST)
            if spent and spent[-1] < 0.05:
                awake = time.perf_counter() + WAKING
                while time.perf_counter() < awake:
                    call()
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
