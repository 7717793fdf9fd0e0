"""Optimizer steps, clipping, averages and schedules."""

import numpy as np

import rvtrain as rt

from . import optimizer_table
from .common import ONCE, Benchmark, Headline
from .optimizer_table import OPTIMIZERS, make

LARGE = 2_000_000
USUAL = ["SGD", "Adam", "AdamW", "Lion"]


class Steps(Benchmark):
    """One step of two million parameters, which no cache of a core holds, by rule, dtype and format of the state.

    They are one parameter, because asv starts a process for each combination, also for those that do not exist.
    """

    version = "3"
    repeat = (1, 1, 0) if ONCE else (1, 3, 0.2)
    params = ([f"{name}, {dtype}, {format_}" for name, dtype, format_ in optimizer_table.cases()],)
    param_names = ("step",)

    def prepare(self, case):
        name, dtype, format_ = case.split(", ")
        self.p, self.g = self.normal(2, *optimizer_table.shape(name, LARGE), dtype=dtype)
        self.optimizer = make(name, self.p, format_)
        self.time_step()

    def time_step(self, *parameters):
        self.optimizer.step(self.p, self.g)

    time_step.pretty_name = "optimizer step"


class StepsThreads(Steps):
    """The same by all threads, in the usual format."""

    params = ([f"{name}, float32, full" for name in USUAL], ["all"])
    param_names = ("step", "threads")

    def prepare(self, case, threads):
        super().prepare(case)


class Bound(Benchmark):
    """2,000 steps of 512 parameters: nearly all of it is the call, plain or bound."""

    params = (USUAL, ["plain", "bound"])
    param_names = ("optimizer", "call")

    def prepare(self, name, call):
        self.p, self.g = self.normal(2, *optimizer_table.shape(name, 512))
        optimizer = make(name, self.p)
        bound = optimizer.bind(self.p, self.g)
        self.step = bound.step if call == "bound" else lambda: optimizer.step(self.p, self.g)
        self.time_steps()

    def time_steps(self, *parameters):
        for _ in range(2000):
            self.step()

    time_steps.pretty_name = "2,000 optimizer steps of 512 parameters"


class StepsInCache(Headline):
    """A step of 10,000 parameters: they and their moments lie in a core's own cache."""

    params = (["SGD", "AdamW", "Lion"],)
    param_names = ("optimizer",)

    def prepare(self, kind):
        self.p, self.g = self.normal(2, 10_000)
        self.optimizer = make(kind, self.p)
        self.time_step()

    def time_step(self, *parameters):
        self.optimizer.step(self.p, self.g)

    time_step.pretty_name = "optimizer step in cache"


class Rows(Benchmark):
    """4,096 random rows of a table of 100,000 × 128, others each time; and a step that clips and zeroes."""

    params = (["SGD", "Adam idle", "Adam exact", "Adagrad rowwise"],)
    param_names = ("optimizer",)

    def prepare(self, kind):
        self.table = np.zeros((100_000, 128), np.float32)
        self.rows = self.rng().integers(0, len(self.table), (32, 4096))
        self.turn, self.g = 0, self.normal(4096, 128)
        if kind == "SGD":
            self.optimizer = rt.SGD(self.table, lr=0.1)
        elif kind in OPTIMIZERS:
            self.optimizer = make(kind, self.table)
        else:
            self.optimizer = rt.Adam(self.table, lazy=kind.split()[1])
        for _ in self.rows:
            self.time_step()

    def time_step(self, *parameters):
        self.turn = (self.turn + 1) % len(self.rows)
        self.optimizer.step(self.table, self.g, rows=self.rows[self.turn])

    time_step.pretty_name = "optimizer step of rows"


class Clip(Headline):
    """The norm of gradients too short to be scaled, of gradients that are scaled each time, and both in a step.

    512 and 50,000 numbers lie in a core's own cache, two million do not.
    """

    params = ([512, 50_000, LARGE], [1])
    param_names = ("count", "threads")

    def prepare(self, count, threads):
        self.p, self.g = self.normal(2, count)
        self.optimizer = rt.AdamW(count)
        self.limit = float(np.linalg.norm(self.g))
        self.time_norm()
        self.time_scaled()
        self.time_step()

    def time_norm(self, *parameters):
        rt.clip_grad_norm(self.g, 1e9)

    time_norm.pretty_name = "clip_grad_norm that only reads"

    def time_scaled(self, *parameters):
        self.limit *= 0.9999
        rt.clip_grad_norm(self.g, self.limit)

    time_scaled.pretty_name = "clip_grad_norm that scales"
    time_scaled.rounds = 1

    def time_step(self, *parameters):
        self.optimizer.step(self.p, self.g, max_norm=1.0)

    time_step.pretty_name = "AdamW step that clips"
    time_step.rounds = 1


class ClipThreads(Clip):
    """The same of two million by all threads."""

    rounds, repeat = Benchmark.rounds, Benchmark.repeat
    params = ([LARGE], ["all"])


class Average(Benchmark):
    """EMA of two million parameters."""

    def prepare(self):
        self.p = self.normal(LARGE)
        self.average = rt.EMA(self.p)
        self.time_update()

    def time_update(self):
        self.average.update(self.p)

    time_update.pretty_name = "EMA update"


class Schedules(Benchmark):
    """1,000 steps of each schedule, of the annealing and of a curriculum."""

    def prepare(self):
        self.schedules = (
            rt.constant(0.1),
            rt.exponential_decay(0.1, 0.9),
            rt.step_decay(0.1, 0.5, 10),
            rt.warmup_cosine(0.1, 100, 1000),
            rt.warmup_linear(0.1, 100, 1000),
        )
        self.annealing = rt.TemperatureAnnealing(steps=1000)
        self.curriculum = rt.CurriculumScheduler.linear(3, 1000, 5, 20, 1.0, 0.1)

    def time_schedules(self):
        for schedule in self.schedules:
            for step in range(1000):
                schedule(step)

    time_schedules.pretty_name = "1,000 steps of five schedules"

    def time_annealing(self):
        self.annealing.reset()
        for _ in range(1000):
            self.annealing.step()

    time_annealing.pretty_name = "1,000 steps of a temperature"

    def time_curriculum(self):
        self.curriculum.reset()
        for _ in range(1000):
            self.curriculum.step(3)
            self.curriculum.current_params()

    time_curriculum.pretty_name = "1,000 steps of a curriculum"
