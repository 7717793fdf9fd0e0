"""The order of things in a training: epochs, steps, evaluations, callbacks, checkpoints, and its end."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.training import _checkpoint as checkpoints
from rvtrain.training._callbacks import Hooks, Record, check_callbacks
from rvtrain.training._learned import LearnedParameters
from rvtrain.training._logging import Log
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._options import can_be_written
from rvtrain.training._run import COLUMNS, Run, copied, put
from rvtrain.training._shared import agree, agree_on_parameters
from rvtrain.training._task import Rows, Task, divergence

if TYPE_CHECKING:
    from rvtrain.training._trainer import Trainer


class Loop:
    """One call of a `fit` method, by a trainer on a task."""

    def __init__(self, trainer: "Trainer", task: Task, calls: list[LossCall]) -> None:
        self.trainer, self.task, self.calls = trainer, task, calls
        self.hooks = Hooks(trainer, check_callbacks(trainer.callbacks))
        self.learned = LearnedParameters(calls, trainer.loss_learning_rate)
        self.settings = checkpoints.settings_of(trainer)
        self._with_temperature = [loss for loss, _ in trainer.losses if hasattr(loss, "temperature")]
        self._is_scheduled = trainer.curriculum is not None or trainer.annealing is not None
        if self._is_scheduled and any("temperature" in call.learnable for call in calls):
            part = "curriculum" if trainer.curriculum is not None else "annealing"
            raise ValueError(f"{part} sets the temperature, which a loss is to learn: give one of them")
        columns: tuple[str, ...] = COLUMNS
        monitored = None
        if task.has_validation:
            columns = (*COLUMNS, "val_loss", *trainer.metrics)
            monitored = trainer.metrics[0] if trainer.metrics else "val_loss"
            if not trainer.metrics and all(call.kind in ("graded", "teacher") for call in calls):
                raise ValueError("metrics must not be empty: the losses have no value on validation pairs alone")
        self.run = Run(columns, monitored)
        self.run.data = task.fingerprints()
        ranks = trainer._ranks
        self._writes = ranks is None or ranks.rank == 0
        self._log = Log(trainer.log, columns) if trainer.log is not None and self._writes else None
        self._miner = None if trainer.mining is None else MiningCall(trainer.mining.miner)
        self._bar = _progress.Bar()
        self._is_stopped = False
        """Whether a callback has asked to end, of any rank."""
        self._clock, self._loss, self._samples = 0.0, 0.0, 0
        """Time and summed loss since the last record, and samples in it."""

    def start(self, resume: bool) -> None:
        """Check what can be known before the first step, and begin a new run or take over the saved one."""
        trainer = self.trainer
        for name, path in (("checkpoint", trainer.checkpoint), ("log", trainer.log)):
            if path is not None and self._writes:
                can_be_written(name, path)
        if resume and trainer.checkpoint is None:
            raise ValueError("resume needs checkpoint, the file of the run to go on with, got None")
        if trainer.checkpoint is not None and not hasattr(trainer.optimizer, "state_dict"):
            raise TypeError(
                f"optimizer must have a state_dict where there is a checkpoint, got {trainer.optimizer!r}"
            )
        if trainer.patience is not None and not self.task.has_validation:
            raise ValueError("patience needs validation, on which an epoch can be better than another, got none")
        if trainer.mining is not None and trainer.mining.start > trainer.epochs and trainer.checkpoint is None:
            start, epochs = trainer.mining.start, trainer.epochs
            warnings.warn(
                f"no negatives will be mined: mining.start is {start}, epochs is {epochs}", UserWarning, stacklevel=4
            )
        if trainer.schedule is not None:
            check.number("schedule(0)", trainer.schedule(0), low=0.0)
        exists = resume and Path(trainer.checkpoint or "").exists()
        if trainer._ranks is not None:
            lengths = {name: getattr(trainer, name) for name in ("epochs", "patience", "memory_limit")}
            agree(trainer._ranks, self.settings | lengths, trainer.params, exists)
        if exists:
            checkpoints.resume(trainer.checkpoint or "", self)
        else:
            for part in (trainer.curriculum, trainer.annealing):
                if part is not None and trainer._run.step:
                    part.reset()
        trainer._run = self.run
        self.task.mined = self.run.mined

    def go(self) -> None:
        """Do the epochs that are left, and put the best parameters into the model, whatever happens."""
        trainer, run, samples = self.trainer, self.run, self.task.samples
        visible = _progress.is_visible() if trainer.progress is None else trainer.progress
        visible = visible and self._writes
        started = False
        total, done = trainer.epochs * samples, run.epoch * samples
        with _progress.shown(total, "samples", done, visible) as self._bar:
            try:
                with divergence(self.task, run, trainer.optimizer), self._temperatures_kept():
                    self._mode("train")
                    self._clock = time.perf_counter()
                    self._bar.phase("evaluating")
                    self.task.prepare()
                    if not run.records:
                        self._record(0.0)
                    elif self._log is not None:
                        self._log.begin(run.records)
                    started = True
                    self.hooks.call("on_fit_start", run.records[-1])
                    self._hear()
                    while not self._is_done():
                        self._epoch()
            finally:
                self._end(started)

    def _is_done(self) -> bool:
        trainer, run = self.trainer, self.run
        stale = trainer.patience is not None and run.stale >= trainer.patience
        return self._is_stopped or stale or run.epoch >= trainer.epochs

    def _hear(self) -> None:
        """Learn whether a callback has asked to end; ranks ask each other, because all make the same steps."""
        trainer = self.trainer
        self._is_stopped = trainer._stopping if trainer._ranks is None else trainer._ranks.any(trainer._stopping)

    def _end(self, started: bool) -> None:
        """The best parameters, or without validation those that would be evaluated now."""
        self._catch_up()
        if self.run.best is not None:
            put(self.run.best, self.trainer.params)
            self.learned.put(self.run.best_learned)
        else:
            self._mode("eval")
            put(self._average() or {}, self.trainer.params)
        if started:
            self.hooks.call("on_fit_end", self.run.records[-1])

    def _epoch(self) -> None:
        trainer, run, task = self.trainer, self.run, self.task
        self._mine()
        self._bar.phase("training")
        done, recorded, every = 0, -1, trainer.eval_every
        for batch in task.batches(np.random.default_rng([trainer.seed, run.epoch]), trainer.batch_size):
            self._step(batch)
            done += len(batch)
            if every and run.step % every == 0 and done < task.samples:
                self._record(run.epoch + done / task.samples)
                recorded = run.step
                self._bar.phase("training")
            self._hear()
            if self._is_stopped or (recorded == run.step and self._is_done()):
                break
        is_whole = done == task.samples
        run.epoch += int(is_whole)
        if recorded != run.step:
            self._record(run.epoch if is_whole else run.epoch + done / task.samples)
        if is_whole and trainer.checkpoint is not None and self._writes:
            checkpoints.save(trainer.checkpoint, self)
        self.hooks.call("on_epoch_end", run.records[-1])
        self._hear()

    def _mine(self) -> None:
        trainer, run = self.trainer, self.run
        if trainer.mining is None or self._miner is None or not trainer.mining.is_due(run.epoch + 1):
            return
        self._bar.phase("mining")
        k = trainer.mining.k if trainer.curriculum is None else trainer.curriculum.current_params().k_neighbors
        self._catch_up()
        self.task.mine(self._miner, k)
        run.mined = self.task.mined
        report = getattr(trainer.mining.miner, "last_report", None)
        if report is not None:
            run.reports[run.epoch + 1] = report

    def _step(self, batch: Rows) -> None:
        trainer, run = self.trainer, self.run
        if trainer.schedule is not None:
            rate = check.number(f"schedule({run.step})", trainer.schedule(run.step), low=0.0)
            trainer.optimizer.learning_rate = rate
        weighted = self._weighted()
        value = None if trainer.max_grad_norm is not None else self.task.step(batch, weighted, trainer.optimizer)
        if value is None:
            value = self._apart(batch, weighted)
        self._loss += value * len(batch)
        self._samples += len(batch)
        run.step += 1
        if trainer.curriculum is not None:
            trainer.curriculum.step(len(batch))
        if trainer.annealing is not None:
            trainer.annealing.step()
        if self.hooks.hears("on_step_end"):
            step = {"step": float(run.step), "loss": value, "temperature": self._temperature()}
            self.hooks.call("on_step_end", step | {"learning_rate": float(trainer.optimizer.learning_rate)})
        self._bar.update(len(batch), loss=value, temperature=self._temperature(), negatives=self.task.negatives)

    def _apart(self, batch: Rows, weighted: list[Weighted]) -> float:
        """A step by gradients that are computed before it; the value of the losses."""
        trainer = self.trainer
        value, grads, learned, rows = self.task.gradients(batch, weighted)
        if not math.isfinite(value) and getattr(trainer.optimizer, "nonfinite", "raise") == "raise":
            raise NotFiniteError(f"the loss must be finite, got {value}")
        options: dict[str, Any] = {} if rows is None else {"rows": rows}
        if trainer.max_grad_norm is not None:
            options["max_norm"] = trainer.max_grad_norm
        trainer.optimizer.step(trainer.params, grads, **options)
        if self.learned:
            self.learned.step(learned)
        return value

    def _record(self, epoch: float) -> None:
        """Evaluate the parameters as they are, and add a record to the history."""
        trainer, run = self.trainer, self.run
        self._catch_up()
        if trainer._ranks is not None:
            agree_on_parameters(trainer._ranks, trainer.params)
        record: Record = {
            "epoch": float(epoch),
            "step": float(run.step),
            "loss": self._loss / self._samples if self._samples else np.nan,
            "temperature": self._temperature(),
            "learning_rate": float(trainer.optimizer.learning_rate),
            "negatives": float(self.task.negatives if run.step else 0),
            "seconds": 0.0,
        }
        with self._evaluating():
            if self.task.has_validation:
                self._bar.phase("evaluating")
                weighted = self._weighted()
                record["val_loss"] = self.task.validation_loss(weighted, trainer.batch_size)
                record |= self.task.metrics(trainer.metrics) if trainer.metrics else {}
            now = time.perf_counter()
            record["seconds"] = now - self._clock
            run.add(record, trainer.params, self.learned.values())
        self._clock, self._loss, self._samples = now, 0.0, 0
        if self._log is not None:
            self._log.begin([record]) if len(run.records) == 1 else self._log.add(record)
        self._bar.update(0, **{name: record[name] for name in run.columns[len(COLUMNS) :]})

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Parameters as they are evaluated: an average of a callback's, or those of the optimizer's `eval`."""
        average, params = self._average(), self.trainer.params
        training = None if average is None else copied(params)
        self._mode("eval")
        try:
            if average is not None:
                put(average, params)
            yield
        finally:
            if training is not None:
                put(training, params)
            self._mode("train")

    def _average(self) -> Any:
        return next((found for get in self.hooks.averages if (found := get()) is not None), None)

    def _mode(self, name: str) -> None:
        """Tell an optimizer that has two sets of parameters which one the model is to have."""
        method = getattr(self.trainer.optimizer, name, None)
        if callable(method):
            method(self.trainer.params)

    def _catch_up(self) -> None:
        self.trainer._catch_up(None)

    @contextmanager
    def _temperatures_kept(self) -> Iterator[None]:
        """Put the losses' own temperatures back, where a curriculum or an annealing has set others."""
        before = [loss.temperature for loss in self._with_temperature]
        try:
            yield
        finally:
            if self._is_scheduled:
                for loss, temperature in zip(self._with_temperature, before, strict=True):
                    loss.temperature = temperature

    def _weighted(self) -> list[Weighted]:
        """The losses at this step's temperature and weights."""
        if self._is_scheduled:
            temperature = self._temperature()
            for loss in self._with_temperature:
                loss.temperature = temperature
        step = self.run.step
        return [Weighted(call, call.weight(step) if callable(call.weight) else call.weight) for call in self.calls]

    def _temperature(self) -> float:
        trainer = self.trainer
        if trainer.curriculum is not None:
            return float(trainer.curriculum.current_params().temperature)
        if trainer.annealing is not None:
            return float(trainer.annealing.temperature)
        return float(self._with_temperature[0].temperature) if self._with_temperature else np.nan
