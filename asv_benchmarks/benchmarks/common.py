"""The base of all benchmarks: seeded data, compiled kernels, a number of threads, and the clock that suits it."""

import functools
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

ONCE = "RVTRAIN_BENCHMARKS_ONCE" in os.environ
"""Set by CI, which wants to see every benchmark run and believes none of its figures."""


def all_threads() -> int:
    """Number of threads of this process: no more than the processors that it is pinned to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(numba.config.NUMBA_NUM_THREADS, cores)


class Neighbours:
    """Tells whether someone else slows this core down just now: another thread of the core, or a guest of its host.

    They share its arithmetic units and its caches. So the maximum of 200 KB takes 1.4 to 1.6 times as long as on a
    core of one's own, and never a time between. The least time of the last hour is kept in a file, for new processes.
    """

    tolerance = 1.15

    def __init__(self, folder: Path) -> None:
        self.numbers = np.ones(50_000, np.float32)
        self.file = folder / f"rvtrain-benchmarks-{os.getuid() if hasattr(os, 'getuid') else 0}"

    def probe(self) -> float:
        """The least time of a maximum, of some milliseconds."""
        least, end = math.inf, time.perf_counter() + 0.004
        while time.perf_counter() < end:
            begin = time.perf_counter()
            self.numbers.max()
            least = min(least, time.perf_counter() - begin)
        return least

    def least(self) -> float:
        """The time on a core of one's own, as far as this hour has shown."""
        try:
            recent = time.time() - self.file.stat().st_mtime < 3600
            return float(self.file.read_text("utf-8")) if recent else math.inf
        except (OSError, ValueError):
            return math.inf

    def disturb(self) -> bool:
        """Measure, and compare with the least time."""
        now, least = self.probe(), self.least()
        if now < least:
            partial = self.file.with_name(f"{self.file.name}-{os.getpid()}")
            partial.write_text(repr(now), "utf-8")
            partial.replace(self.file)
        return now > self.tolerance * least


NEIGHBOURS = Neighbours(Path(tempfile.gettempdir()))


def sampled(method: Callable) -> Callable:
    """A ``time_`` method, called for `window` seconds; `timer` advances by the least of the times of its calls.

    While neighbours disturb, the window is begun again, until `patience` seconds have passed.
    """

    @functools.wraps(method)
    def sample(self, *parameters):
        if not self.measuring:  # the call of `prepare`
            return method(self, *parameters)
        clock, least, begun = self.clock, math.inf, time.perf_counter()
        while True:
            end = time.perf_counter() + self.window
            while True:
                begin = clock()
                method(self, *parameters)
                least = min(least, clock() - begin)
                if time.perf_counter() >= end:
                    break
            if end - begun > self.patience or not NEIGHBOURS.disturb():
                self.elapsed += least
                return None

    return sample


class Benchmark:
    """Base of all benchmarks. A subclass has `prepare` in place of asv's `setup`.

    `prepare` makes the data. It runs once a process, because asv calls `setup` before every sample. Its warm-up makes
    the first call, and so no figure contains a compilation. A parameter named "threads" is 1 or "all"; without it a
    benchmark runs with one thread.

    A sample is the least time of the calls in `window` seconds. A call can take half as long again while another
    process, or another virtual machine, uses the same core or its cache, and such phases last from microseconds to
    minutes. The mean and the median contain the short ones, the least time hardly does. So a short call is better
    than a loop of calls, and a cost that only some calls have belongs into a loop.

    A process takes as many samples as `repeat` says while nobody disturbs. Else it waits, and as the time for all
    samples is limited, takes one or two. So asv's median is one of undisturbed processes if there are any.

    The clock of one thread is the processor time of the process, which stands still while others have the core. All
    threads are timed by the wall clock, because idle threads are part of the figure; they do not wait.

    asv takes a larger figure as a worse one, whatever its unit.
    """

    version = "1"
    """A subclass whose work changes gets another, and asv starts a new graph."""
    timeout = 300
    rounds = 1
    repeat = (1, 1, 0) if ONCE else (2, 5, 0.4)
    number = 1
    window = 0.0 if ONCE else 0.1
    patience = 0.0 if ONCE else 0.4
    warmup_time = 0
    param_names: tuple[str, ...] = ()
    clock: Callable[[], float] = time.process_time
    measuring = False
    elapsed = 0.0
    _prepared: tuple | None = None

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if name.startswith("time_"):
                setattr(cls, name, sampled(method))

    def timer(self) -> float:
        """Seconds of all samples, the clock that asv reads before and after each."""
        return self.elapsed

    def setup(self, *parameters: object) -> None:
        if self._prepared != parameters:
            self.measuring = False
            threads = dict(zip(self.param_names, parameters, strict=True)).get("threads", 1)
            numba.set_num_threads(all_threads() if threads == "all" else 1)
            self.clock = time.perf_counter if threads == "all" else time.process_time
            if threads == "all":
                self.patience = 0.0
            self.prepare(*parameters)
            self._prepared, self.measuring = parameters, True

    def prepare(self, *parameters: object) -> None:
        raise NotImplementedError

    def rng(self) -> np.random.Generator:
        """The same numbers in every run."""
        return np.random.default_rng(20260101)

    def normal(self, *shape: int, dtype: str = "float32") -> np.ndarray:
        """Gaussian numbers, the same in every process."""
        return self.rng().standard_normal(shape).astype(dtype)


class Headline(Benchmark):
    """Base of the kernels that most users wait for, by one thread: more processes, and more samples in each."""

    rounds = 1 if ONCE else 4
    repeat = (1, 1, 0) if ONCE else (1, 6, 0.8)
    patience = 0.0 if ONCE else 0.8
