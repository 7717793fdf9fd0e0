"""The loop that joins model, losses, optimizer, schedules and miner."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rvtrain import _progress
from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.checkpoint import load_checkpoint, save_checkpoint
from rvtrain.training._adapters import Adapter
from rvtrain.training._graph_task import GraphTask
from rvtrain.training._metrics import parsed
from rvtrain.training._options import (
    batches_have_negatives,
    can_be_written,
    no_miner,
    parsed_callbacks,
    parsed_losses,
    parsed_optimizer,
    parsed_schedule,
    part_with,
)
from rvtrain.training._pairs import PairData
from rvtrain.training._run import COLUMNS, Run, fits, put
from rvtrain.training._tasks import LabelTask, PairTask, Task, Weighted, divergence
from rvtrain.training._towers import EmbeddingTable, TwoTower

_PARTS = ("optimizer", "curriculum", "annealing", "miner")
_SETTINGS = ("seed", "batch_size")
"""Arguments that a saved run must share with the trainer that goes on with it."""


class Trainer:
    r"""Train a model by contrast: on pairs, on labels, or on a graph.

    Each epoch takes all samples in an order that depends on `seed` and the epoch alone; so a run that was saved and
    loaded goes on to the same bits as one that was never interrupted.

    Parameters
    ----------
    model : LinearAdapter, MLPAdapter, TwoTower or EmbeddingTable
        Changed in place. An adapter alone serves both sides; a table is for `fit_graph`.
    loss : loss, or sequence of (loss, weight), optional
        A weight is a number, or a function of the step. None: ``InfoNCELoss(0.05)``; for a table
        ``InfoNCELoss(0.2)``, which found most held-back edges of six real graphs.
    optimizer : Optimizer, optional
        Made for ``model.params``. None: ``AdamW(model.params, 1e-3, 0.01)``; for a table
        ``Adam(model.params, 0.05)``.
    schedule : callable or float, optional
        Learning rate as a function of the step, as `warmup_cosine` makes; a number is a constant rate. None: the
        optimizer's own.
    curriculum : CurriculumScheduler, optional
        Sets the temperature of all losses that have one and the number of mined negatives; advances by samples.
    annealing : TemperatureAnnealing, optional
        Sets the temperature where there is no curriculum, and advances by steps. Without either, each loss keeps
        its own temperature; with one, it has it again when `fit` returns.
    miner : HardNegativeMiner, optional
        Of `fit`: finds wrong documents near each query, which join the batches. Needs a loss that takes negatives,
        as symmetric losses do not.
    negatives : int
        How many are mined per query where no curriculum says so; in `fit_graph`, drawn per edge.
    mine_from, mine_every : int
        The epoch, from 0, that mines first, and after how many it does again.
    epochs, batch_size : int
    micro_batch_size : int, optional
        Rows that pass the model at once: less memory, the gradient of the whole batch with all its negatives.
    max_norm : float, optional
        Clip gradients to this global norm.
    metric : str
        On what is held back: "recall@k", "precision@k", "mrr@k", "ndcg@k", "map@r".
    patience : int, optional
        Stop after so many epochs without a better metric; needs `validation`.
    seed : int
    callbacks : sequence of callables
        Each is called with (trainer, record) after every epoch, the record being its line of `history`.
    checkpoint : path, optional
        Where to save after every epoch; `load` and `fit` go on from there.
    memory_limit : int
        Bytes that embeddings of all documents may take while mining and evaluating; else they pass in blocks.
    progress : bool
        Show a bar, where stderr is a terminal or in a notebook.

    Attributes
    ----------
    history : dict of arrays
        An entry per epoch of epoch, loss, temperature, learning_rate, k, seconds, metric; NaN where there is none.
        The temperature is that of the first loss that has one.
    epoch, step : int
        Done so far in this run.
    checkpoint_extra : dict
        Saved beside the run in each checkpoint, for `load_checkpoint(path)["extra"]`.

    Notes
    -----
    Each call of a ``fit`` method is a run of its own, with its own counters, history and mined negatives; curriculum
    and annealing begin again. The optimizer keeps its state. Only after `load` or `load_state_dict`, `fit` goes on
    with the run that was loaded, and refuses other data.

    With validation, the model ends with the parameters of the best epoch, or with those it had before the first
    step if no epoch was better. So it does when `fit` is interrupted or fails. What is saved then is the run as it
    stood after its last epoch, beside the best parameters.

    References
    ----------
    Karpukhin et al. (2020), Dense Passage Retrieval, arXiv:2004.04906, for in-batch and mined negatives.
    Gao et al. (2021), Scaling Deep Contrastive Learning Batch Size, arXiv:2101.06983, for micro-batches.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rng = np.random.default_rng(0)
    >>> documents = rng.normal(size=(200, 16)).astype(np.float32)
    >>> queries = documents[:, ::-1] + rng.normal(size=(200, 16)).astype(np.float32) / 2
    >>> pairs = np.stack([np.arange(200)] * 2, axis=1)
    >>> model = rt.TwoTower(rt.LinearAdapter(16), rt.LinearAdapter(16))
    >>> trainer = rt.Trainer(model, epochs=20, batch_size=50, optimizer=rt.AdamW(model.params, 0.02))
    >>> trainer.fit(queries, documents, pairs[:150], validation=pairs[150:]).history["metric"][-1] > 0.9
    np.True_
    """

    def __init__(
        self,
        model: Any,
        loss: Any = None,
        optimizer: Any = None,
        *,
        schedule: Callable[[int], float] | float | None = None,
        curriculum: Any = None,
        annealing: Any = None,
        miner: Any = None,
        negatives: int = 4,
        mine_from: int = 0,
        mine_every: int = 1,
        epochs: int = 10,
        batch_size: int = 256,
        micro_batch_size: int | None = None,
        max_norm: float | None = None,
        metric: str = "recall@10",
        patience: int | None = None,
        seed: int = 0,
        callbacks: Sequence[Callable[["Trainer", dict[str, float]], None]] = (),
        checkpoint: str | os.PathLike | None = None,
        memory_limit: int = 1 << 30,
        progress: bool = False,
    ) -> None:
        if not isinstance(model, (Adapter, TwoTower, EmbeddingTable)):
            raise TypeError(f"model must be an adapter, a TwoTower or an EmbeddingTable, got {type(model).__name__}")
        self.model = model
        self._towers: Any = TwoTower(model) if isinstance(model, Adapter) else model
        is_table, self.params = isinstance(model, EmbeddingTable), model.params
        self.losses = parsed_losses(loss, is_table)
        self.optimizer = parsed_optimizer(optimizer, self.params, is_table)
        self.schedule = parsed_schedule(schedule)
        self.curriculum = part_with("curriculum", curriculum, "current_params")
        self.annealing = part_with("annealing", annealing, "step")
        self.miner = part_with("miner", miner, "mine")
        if miner is not None and all(getattr(loss, "symmetric", False) for loss, _ in self.losses):
            raise ValueError("miner needs a loss that takes mined negatives, got only symmetric losses")
        self.negatives = check.integer("negatives", negatives, low=1)
        self.mine_from = check.integer("mine_from", mine_from, low=0)
        self.mine_every = check.integer("mine_every", mine_every, low=1)
        self.epochs = check.integer("epochs", epochs, low=1)
        self.batch_size = check.integer("batch_size", batch_size, low=1)
        micro = micro_batch_size
        self.micro_batch_size = None if micro is None else check.integer("micro_batch_size", micro, low=1)
        self.max_norm = None if max_norm is None else check.number("max_norm", max_norm, low=0.0, open_low=True)
        self.metric = next(iter(parsed([metric])))
        self.patience = None if patience is None else check.integer("patience", patience, low=1)
        self.seed = check.integer("seed", seed, low=0)
        self.callbacks, self.checkpoint = parsed_callbacks(callbacks), checkpoint
        self.checkpoint_extra: dict[str, Any] = {}
        self.memory_limit = check.integer("memory_limit", memory_limit, low=0)
        self.progress = check.flag("progress", progress)
        self._run = Run()
        self._is_loaded = False
        """Whether the next `fit` goes on with `_run`."""

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, epoch {self.epoch} of {self.epochs})"

    @property
    def epoch(self) -> int:
        """Epochs done in this run."""
        return self._run.epoch

    @property
    def step(self) -> int:
        """Optimizer steps done in this run."""
        return self._run.step

    @property
    def history(self) -> dict[str, np.ndarray]:
        """A line of numbers for each epoch of this run, as arrays by name."""
        return dict(zip(COLUMNS, np.array(self._run.lines).reshape(-1, len(COLUMNS)).T.copy(), strict=True))

    def fit(
        self, queries: Any, documents: Any, pairs: Any, validation: Any = None, *, document_ids: Any = None
    ) -> "Trainer":
        """Bring queries near their documents.

        Parameters
        ----------
        queries : array of shape (n, d)
        documents : array of shape (m, e)
            Of any real type, also float16; rows are converted to the model's as they are read. Either may be an
            ``np.memmap``, of which only the rows needed are read.
        pairs : integer array of shape (P, 2)
            Rows of queries and documents that belong together. A query may have several documents: none of them is
            a negative for it.
        validation : integer array of shape (V, 2), or (queries, documents, pairs), optional
            What `metric` is measured on: other pairs of the same arrays, or of others; before the first step and
            after each epoch. The best parameters are kept.
        document_ids : integer array of shape (m,), optional
            Documents with equal ids are the same to all: no query of one has another for a negative.

        Returns
        -------
        Trainer
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the model has not been changed.
        ValueError
            If the loss diverges: its step and learning rate are named.
        OSError
            If the checkpoint cannot be written; the model has not been changed.
        """
        if isinstance(self.model, EmbeddingTable):
            raise TypeError("fit needs an adapter or a TwoTower; an EmbeddingTable is trained by fit_graph")
        data = PairData(queries, documents, pairs, document_ids)
        held_back = None
        if isinstance(validation, tuple) and len(validation) == 3:
            held_back = PairData(*validation)
        elif validation is not None:
            held_back = PairData(queries, documents, validation)
        batches_have_negatives(self.losses, self.miner, self.batch_size, "pairs", len(data.pairs))
        return self._train(PairTask(self._towers, data, held_back, self.memory_limit, self.micro_batch_size))

    def fit_labels(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> "Trainer":
        """Bring rows of one label near each other: supervised contrast.

        Parameters
        ----------
        X : array of shape (n, d)
            Of any real type, also float16.
        y : array of shape (n,)
            Labels, of any kind that sorts. A row's positive is another of its label, drawn in each epoch.
        validation : (X, y), optional
            `metric` is measured with each row as a query among the others.

        Returns
        -------
        Trainer

        Raises
        ------
        TypeError, ValueError
            If shapes do not fit, or no label is shared.
        """
        if isinstance(self.model, EmbeddingTable):
            raise TypeError("fit_labels needs an adapter or a TwoTower; an EmbeddingTable is trained by fit_graph")
        no_miner("fit_labels", self.miner)
        batches_have_negatives(self.losses, None, self.batch_size, "y", np.size(y))
        return self._train(LabelTask(self._towers, X, y, validation, self.micro_batch_size))

    def fit_graph(self, edges: Any, n_nodes: int | None = None, validation: Any = None) -> "Trainer":
        """Bring linked nodes near each other, and `negatives` drawn for each edge away from its first node.

        A loss of pairs takes an edge's first node for the anchor and its second for the positive; negatives are the
        second nodes of the batch's other edges too.

        Parameters
        ----------
        edges : integer array of shape (E, 2)
        n_nodes : int, optional
            Checked against the table.
        validation : integer array of shape (V, 2), optional
            Edges held back, not all of them among `edges`: `metric` ranks, for each of their nodes, all nodes without
            a known link to it.

        Returns
        -------
        Trainer

        Raises
        ------
        TypeError, ValueError
            If the model is no EmbeddingTable, or an edge names a node that it does not have.
        """
        if not isinstance(self.model, EmbeddingTable):
            raise TypeError(f"fit_graph needs an EmbeddingTable, got {type(self.model).__name__}")
        count = len(self.model.weight)
        if n_nodes is not None and check.integer("n_nodes", n_nodes, low=1) != count:
            raise ValueError(f"n_nodes must be the rows of the table, {count}, got {n_nodes}")
        no_miner("fit_graph", self.miner)
        losses = [loss for loss, _ in self.losses]
        return self._train(GraphTask(self.model, edges, self.negatives, validation, losses, self._catch_up))

    def _train(self, task: Task) -> "Trainer":
        """Do the epochs that are left of a run, a new one or the one that was loaded."""
        self._begin(task)
        run, samples, visible = self._run, task.samples, self.progress and _progress.is_visible()
        patience = self.epochs if self.patience is None else self.patience
        try:
            with (
                _progress.shown(self.epochs * samples, "samples", run.epoch * samples, visible) as bar,
                divergence(task, run, self.optimizer),
                self._temperatures_kept(),
            ):
                if not run.epoch:
                    bar.phase("evaluating")
                    run.begin(task.evaluate(self.metric), self.params)
                while run.epoch < self.epochs and run.stale_epochs < patience:
                    self._one_epoch(task, bar)
        finally:
            self._catch_up()
            run.keep_best(self.params)
        return self

    def _begin(self, task: Task) -> None:
        """Check what can be known before the first step, and make the run, or put its last parameters in place."""
        if self.checkpoint is not None:
            can_be_written("checkpoint", self.checkpoint)
        if self.patience is not None and task.held_back is None:
            raise ValueError("patience needs validation, on which an epoch can be better than another, got none")
        if self.schedule is not None:
            check.number("schedule(step)", self.schedule(self._run.step if self._is_loaded else 0), low=0.0)
        data = task.fingerprints()
        if self._is_loaded:
            before = self._run.data
            other = [name for name in {**before, **data} if before and before.get(name) != data.get(name)]
            if other:
                raise ValueError(
                    f"{', '.join(other)} must be as in the run that was loaded, got other values; "
                    "a new Trainer begins a new run"
                )
            self._run.go_on(self.params)
        else:
            for part in (self.curriculum, self.annealing):
                if part is not None and self._run.step:
                    part.reset()
            self._run = Run()
        self._run.data, self._is_loaded = data, False
        task.mined = self._run.mined

    def _one_epoch(self, task: Task, bar: _progress.Bar) -> None:
        run, begin, total, k = self._run, time.perf_counter(), 0.0, 0
        run.is_whole = False
        if self.miner is not None and run.epoch >= self.mine_from:
            if (run.epoch - self.mine_from) % self.mine_every == 0:
                bar.phase("mining")
                stage = self.curriculum and self.curriculum.current_params()
                task.mine(self.miner, stage.k_neighbors if stage else self.negatives)
                run.mined = task.mined
            k = 0 if task.mined is None else task.mined.shape[1]
        bar.phase("training")
        for batch in task.batches(np.random.default_rng([self.seed, run.epoch]), self.batch_size):
            weighted = self._weighted()
            if self.schedule is not None:
                self.optimizer.learning_rate = self.schedule(run.step)
            value, grads, rows = task.gradients(batch, weighted)
            if not math.isfinite(value) and getattr(self.optimizer, "nonfinite", "raise") == "raise":
                raise NotFiniteError(f"the loss must be finite, got {value}")
            self.optimizer.step(self.params, grads, rows=rows, max_norm=self.max_norm)
            total += value * len(batch)
            run.step += 1
            if self.curriculum is not None:
                self.curriculum.step(len(batch))
            if self.annealing is not None:
                self.annealing.step()
            bar.update(len(batch), loss=value, temperature=self._temperature(), k=k)
        self._catch_up()
        bar.phase("evaluating")
        measured = task.evaluate(self.metric)
        run.epoch += 1
        line = (
            run.epoch, total / task.samples, self._temperature(), self.optimizer.learning_rate, k,
            time.perf_counter() - begin, np.nan if measured is None else measured,
        )  # fmt: skip
        run.end_epoch([float(value) for value in line], self.params)
        run.is_whole = True
        bar.update(0, **({} if measured is None else {self.metric: measured}))
        if self.checkpoint is not None:
            self.save(self.checkpoint)
        for callback in self.callbacks:
            callback(self, dict(zip(COLUMNS, run.lines[-1], strict=True)))

    def _catch_up(self, rows: np.ndarray | None = None) -> None:
        """Let idle rows of a table, or these of them, make the steps that they owe, before they are read."""
        if getattr(self.optimizer, "lazy", "idle") == "exact":
            self.optimizer.catch_up(self.params, None if rows is None else {"weight": rows})

    @contextmanager
    def _temperatures_kept(self) -> Iterator[None]:
        """Put the losses' own temperatures back, where a curriculum or an annealing has set others."""
        before = [(loss, loss.temperature) for loss, _ in self.losses if hasattr(loss, "temperature")]
        try:
            yield
        finally:
            for loss, temperature in before if self._is_scheduled else ():
                loss.temperature = temperature

    @property
    def _is_scheduled(self) -> bool:
        """Whether something sets the temperature."""
        return self.curriculum is not None or self.annealing is not None

    def _weighted(self) -> Weighted:
        """The losses at this step's temperature and weights."""
        if self._is_scheduled:
            for loss, _ in self.losses:
                if hasattr(loss, "temperature"):
                    loss.temperature = self._temperature()
        return [(loss, weight(self.step) if callable(weight) else weight) for loss, weight in self.losses]

    def _temperature(self) -> float:
        if self.curriculum is not None:
            return float(self.curriculum.current_params().temperature)
        if self.annealing is not None:
            return float(self.annealing.temperature)
        return next((float(loss.temperature) for loss, _ in self.losses if hasattr(loss, "temperature")), np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Everything a run needs to go on: parameters, the parts' states, counters, history, the best so far.

        Raises
        ------
        RuntimeError
            If the run was interrupted within an epoch: an epoch cannot be gone on with from its middle.
        """
        return self._state() | {"params": {name: value.copy() for name, value in self.params.items()}}

    def _state(self) -> dict[str, Any]:
        if not self._run.is_whole:
            raise RuntimeError(
                f"the run was interrupted within epoch {self.epoch + 1}: go on from the checkpoint of the epoch "
                "before, or keep the model alone with save_model"
            )
        parts = {name: getattr(self, name).state_dict() for name in _PARTS if getattr(self, name) is not None}
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return {"params": self.params, "parts": parts, "settings": settings} | self._run.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict` of a trainer with the same model, parts, seed and batch size; `fit` goes on.

        Raises
        ------
        ValueError
            If it is of another trainer; nothing has been changed then.
        """
        try:
            params, parts, settings = state["params"], state["parts"], state["settings"]
            fits(params, self.params)
            if set(parts) != {name for name in _PARTS if getattr(self, name) is not None}:
                raise ValueError(f"state must be of a trainer with the same parts, got one with {sorted(parts)}")
            for name in _SETTINGS:
                if settings[name] != getattr(self, name):
                    raise ValueError(
                        f"{name} must be that of the run that was saved, {settings[name]}, got {getattr(self, name)}"
                    )
            run = Run.of(state, self.params)
            before = {name: getattr(self, name).state_dict() for name in parts}
            try:
                for name, part in parts.items():
                    getattr(self, name).load_state_dict(part)
            except BaseException:
                for name, part in before.items():
                    getattr(self, name).load_state_dict(part)
                raise
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"state must be a state_dict of a Trainer: {error!r}") from None
        put(params, self.params)
        self._run, self._is_loaded = run, True

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint, atomically; `checkpoint_extra` stands in it as "extra"."""
        save_checkpoint(path, trainer=self._state(), extra=self.checkpoint_extra)

    def load(self, path: str | os.PathLike) -> "Trainer":
        """Take over a checkpoint of a trainer made with the same arguments; `fit` with the same data goes on."""
        saved = load_checkpoint(path)
        if "trainer" not in saved:
            raise ValueError(f"{os.fspath(path)!r} holds no trainer, but {sorted(saved)}")
        self.load_state_dict(saved["trainer"])
        return self
