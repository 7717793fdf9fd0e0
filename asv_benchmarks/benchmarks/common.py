"""The base of all benchmarks: seeded data, compiled kernels, a number of threads, and the clock that suits it."""

import os
import time

import numba
import numpy as np

ONCE = "RVTRAIN_BENCHMARKS_ONCE" in os.environ
"""Set by CI, which wants to see every benchmark run and believes none of its figures."""


HEADLINE = 1 if ONCE else 4
"""Rounds, each a process, of the kernels that most users wait for; two of the rest."""


def all_threads() -> int:
    """Number of threads of this process: no more than the processors that it is pinned to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(numba.config.NUMBA_NUM_THREADS, cores)


class Benchmark:
    """Base of all benchmarks. A subclass has `prepare` in place of asv's `setup`.

    `prepare` makes the data. It runs once a process, because asv calls `setup` before every sample. Its warm-up makes
    the first call, and so no figure contains a compilation. A parameter named "threads" is 1 or "all"; without it a
    benchmark runs with one thread.

    The clock of one thread is the processor time of the process: what other processes do to a shared machine is
    hardly in it. All threads are timed by the wall clock, because idle threads are part of the figure.

    asv takes a larger figure as a worse one, whatever its unit.
    """

    version = "1"
    """A subclass whose work changes gets another, and asv starts a new graph."""
    timeout = 300
    rounds = 1 if ONCE else 2
    repeat = (1, 1, 0) if ONCE else (10, 25, 0.2)
    number = 1
    warmup_time = 0 if ONCE else 0.05
    param_names: tuple[str, ...] = ()
    _prepared: tuple | None = None

    def setup(self, *parameters: object) -> None:
        if self._prepared != parameters:
            threads = dict(zip(self.param_names, parameters, strict=True)).get("threads", 1)
            numba.set_num_threads(all_threads() if threads == "all" else 1)
            self.timer = time.perf_counter if threads == "all" else time.process_time
            self.prepare(*parameters)
            self._prepared = parameters

    def prepare(self, *parameters: object) -> None:
        raise NotImplementedError

    def rng(self) -> np.random.Generator:
        """The same numbers in every run."""
        return np.random.default_rng(20260101)

    def normal(self, *shape: int, dtype: str = "float32") -> np.ndarray:
        """Gaussian numbers, the same in every process."""
        return self.rng().standard_normal(shape).astype(dtype)
