"""The loop that joins model, losses, optimizer, schedules and miner."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.checkpoint import load_checkpoint, save_checkpoint
from rvtrain.losses import InfoNCELoss, LocalContrastiveLoss, SpectralRegularization
from rvtrain.optimizers import AdamW
from rvtrain.training._adapters import Adapter
from rvtrain.training._metrics import parsed
from rvtrain.training._pairs import PairData
from rvtrain.training._tasks import GraphTask, LabelTask, PairTask, Task, Weighted
from rvtrain.training._towers import EmbeddingTable, TwoTower

_COLUMNS = ("epoch", "loss", "temperature", "learning_rate", "k", "seconds", "metric")
_PARTS = ("optimizer", "curriculum", "annealing", "miner")


class Trainer:
    r"""Train a model by contrast: on pairs, on labels, or on a graph.

    Each epoch takes all samples in an order that depends on `seed` and the epoch alone; so a run that was saved and
    loaded goes on to the same bits as one that was never interrupted.

    Parameters
    ----------
    model : LinearAdapter, MLPAdapter, TwoTower or EmbeddingTable
        Changed in place. An adapter alone serves both sides; a table is for `fit_graph`.
    loss : loss, or sequence of (loss, weight), optional
        A weight is a number, or a function of the step. None: ``InfoNCELoss(0.05)``; for a graph
        ``LocalContrastiveLoss()`` and ``(SpectralRegularization(), 1.0)``.
    optimizer : Optimizer, optional
        Made for ``model.params``. None: ``AdamW(model.params, 1e-3, 0.01)``.
    schedule : callable, optional
        Learning rate as a function of the step, as `warmup_cosine` makes.
    curriculum : CurriculumScheduler, optional
        Sets temperature and number of mined negatives, and advances by samples.
    annealing : TemperatureAnnealing, optional
        Sets the temperature where there is no curriculum, and advances by steps.
    miner : HardNegativeMiner, optional
        Of `fit`: finds wrong documents near each query, which join the batches.
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
        Stop after so many epochs without a better metric.
    seed : int
    callbacks : sequence of callables
        Each is called with (trainer, record) after every epoch, the record being its line of `history`.
    checkpoint : path, optional
        Where to save after every epoch.
    memory_limit : int
        Bytes that embeddings of all documents may take while mining and evaluating; else they pass in blocks.
    progress : bool
        Show a bar, where the output is a terminal (needs tqdm).

    Attributes
    ----------
    history : dict of arrays
        An entry per epoch of epoch, loss, temperature, learning_rate, k, seconds, metric; NaN where there is none.
    epoch, step : int
        Done so far.

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
        schedule: Callable[[int], float] | None = None,
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
        self.losses = _losses(loss, isinstance(model, EmbeddingTable))
        self.params = model.params
        self.optimizer = AdamW(self.params, 1e-3, 0.01) if optimizer is None else optimizer
        self.schedule, self.curriculum, self.annealing, self.miner = schedule, curriculum, annealing, miner
        self.negatives = check.integer("negatives", negatives, low=1)
        self.mine_from = check.integer("mine_from", mine_from, low=0)
        self.mine_every = check.integer("mine_every", mine_every, low=1)
        self.epochs = check.integer("epochs", epochs, low=1)
        self.batch_size = check.integer("batch_size", batch_size, low=1)
        self.micro_batch_size = (
            None if micro_batch_size is None else check.integer("micro_batch_size", micro_batch_size, low=1)
        )
        self.max_norm = None if max_norm is None else check.number("max_norm", max_norm, low=0.0, open_low=True)
        self.metric = next(iter(parsed([metric])))
        self.patience = None if patience is None else check.integer("patience", patience, low=1)
        self.seed = check.integer("seed", seed, low=0)
        self.callbacks, self.checkpoint = tuple(callbacks), checkpoint
        self.memory_limit = check.integer("memory_limit", memory_limit, low=0)
        self.progress = check.flag("progress", progress)
        self.epoch = self.step = 0
        self._lines: list[list[float]] = []
        self._best: dict[str, np.ndarray] | None = None
        self._mined: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, epoch {self.epoch} of {self.epochs})"

    @property
    def history(self) -> dict[str, np.ndarray]:
        """What each epoch was like, as arrays by name."""
        return dict(zip(_COLUMNS, np.array(self._lines).reshape(-1, len(_COLUMNS)).T.copy(), strict=True))

    def fit(
        self, queries: Any, documents: Any, pairs: Any, validation: Any = None, *, document_ids: Any = None
    ) -> "Trainer":
        """Bring queries near their documents.

        Parameters
        ----------
        queries : array of shape (n, d), float32 or float64
        documents : array of shape (m, e)
            Either may be an ``np.memmap``, of which only the rows needed are read.
        pairs : integer array of shape (P, 2)
            Rows of queries and documents that belong together. A query may have several documents: none of them is
            a negative for it.
        validation : integer array of shape (V, 2), or (queries, documents, pairs), optional
            What `metric` is measured on: other pairs of the same arrays, or of others. The best epoch's parameters
            are kept.
        document_ids : integer array of shape (m,), optional
            Documents with equal ids are the same to all: never negatives of each other's queries.

        Returns
        -------
        Trainer
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the model has not been changed.
        """
        if isinstance(self.model, EmbeddingTable):
            raise TypeError("fit needs an adapter or a TwoTower; an EmbeddingTable is trained by fit_graph")
        data = PairData(queries, documents, pairs, document_ids)
        held_back = None
        if isinstance(validation, tuple):
            held_back = PairData(*validation)
        elif validation is not None:
            held_back = PairData(queries, documents, validation)
        return self._run(PairTask(self._towers, data, held_back, self.memory_limit, self.micro_batch_size))

    def fit_labels(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> "Trainer":
        """Bring rows of one label near each other: supervised contrast.

        Parameters
        ----------
        X : array of shape (n, d), float32 or float64
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
        return self._run(LabelTask(self._towers, X, y, validation, self.micro_batch_size))

    def fit_graph(self, edges: Any, n_nodes: int | None = None, validation: Any = None) -> "Trainer":
        """Bring linked nodes near each other, and draw `negatives` others away from each.

        Parameters
        ----------
        edges : integer array of shape (E, 2)
        n_nodes : int, optional
            Checked against the table.
        validation : integer array of shape (V, 2), optional
            Edges held back: `metric` ranks, for each of their nodes, all nodes without a known link to it.

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
        return self._run(GraphTask(self.model, edges, self.negatives, validation))

    def _run(self, task: Task) -> "Trainer":
        task.mined = self._mined
        with self._bar(task.samples) as report:
            while self.epoch < self.epochs and not self._is_stale():
                self._one_epoch(task, report)
        if self._best is not None:
            for name, value in self._best.items():
                self.params[name][...] = value
        return self

    def _one_epoch(self, task: Task, report: Callable[..., None]) -> None:
        begin, total = time.perf_counter(), 0.0
        k = 0
        if self.miner is not None and self.epoch >= self.mine_from:
            if (self.epoch - self.mine_from) % self.mine_every == 0:
                stage = self.curriculum and self.curriculum.current_params()
                task.mine(self.miner, stage.k_neighbors if stage else self.negatives)
                self._mined = task.mined
            k = 0 if task.mined is None else task.mined.shape[1]
        for batch in task.batches(np.random.default_rng([self.seed, self.epoch]), self.batch_size):
            weighted = self._weighted()
            if self.schedule is not None:
                self.optimizer.learning_rate = self.schedule(self.step)
            value, grads, rows = task.gradients(batch, weighted)
            self.optimizer.step(self.params, grads, rows=rows, max_norm=self.max_norm)
            total += value * len(batch)
            self.step += 1
            if self.curriculum is not None:
                self.curriculum.step(len(batch))
            if self.annealing is not None:
                self.annealing.step()
            report(len(batch), loss=value, temperature=self._temperature(), k=k)
        measured = task.evaluate(self.metric)
        self.epoch += 1
        line = (
            self.epoch, total / task.samples, self._temperature(), self.optimizer.learning_rate, k,
            time.perf_counter() - begin, np.nan if measured is None else measured,
        )  # fmt: skip
        earlier = [values[-1] for values in self._lines]
        self._lines.append([float(value) for value in line])
        if measured is not None and (not earlier or measured > max(earlier)):
            self._best = {name: value.copy() for name, value in self.params.items()}
        report(0, **({} if measured is None else {self.metric: measured}))
        if self.checkpoint is not None:
            self.save(self.checkpoint)
        for callback in self.callbacks:
            callback(self, dict(zip(_COLUMNS, self._lines[-1], strict=True)))

    def _weighted(self) -> Weighted:
        """The losses at this step's temperature and weights."""
        temperature = self._temperature()
        for loss, _ in self.losses:
            if hasattr(loss, "temperature") and not np.isnan(temperature):
                loss.temperature = temperature
        return [(loss, weight(self.step) if callable(weight) else weight) for loss, weight in self.losses]

    def _temperature(self) -> float:
        if self.curriculum is not None:
            return float(self.curriculum.current_params().temperature)
        if self.annealing is not None:
            return float(self.annealing.temperature)
        return next((float(loss.temperature) for loss, _ in self.losses if hasattr(loss, "temperature")), np.nan)

    def _is_stale(self) -> bool:
        """Whether the last `patience` epochs have brought nothing better."""
        measured = [line[-1] for line in self._lines]
        return self.patience is not None and len(measured) - 1 - int(np.argmax(measured or [0])) >= self.patience

    @contextmanager
    def _bar(self, samples: int) -> Iterator[Callable[..., None]]:
        if not self.progress:
            yield lambda count, **values: None
            return
        from tqdm import tqdm

        shown: dict[str, str] = {}
        total, done = self.epochs * samples, self.epoch * samples
        with tqdm(total=total, initial=done, unit=" samples", unit_scale=True, mininterval=0.5, disable=None) as bar:

            def report(count: int, **values: float) -> None:
                shown.update({name: f"{value:.4g}" for name, value in values.items()})
                bar.set_postfix(shown, refresh=False)
                bar.update(count)

            yield report

    def state_dict(self) -> dict[str, Any]:
        """Everything a run needs to go on: parameters, the parts' states, counters, history, the best so far."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS if getattr(self, name) is not None}
        return {
            "params": dict(self.params), "parts": parts, "epoch": self.epoch, "step": self.step,
            "lines": np.array(self._lines).reshape(-1, len(_COLUMNS)), "best": self._best, "mined": self._mined,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a trainer with the same model and parts; ValueError if it is of another."""
        try:
            params, parts = state["params"], state["parts"]
            if {n: v.shape for n, v in params.items()} != {n: v.shape for n, v in self.params.items()}:
                raise ValueError("state must be of a model with the same parameters")
            if set(parts) != {name for name in _PARTS if getattr(self, name) is not None}:
                raise ValueError(f"state must be of a trainer with the same parts, got one with {sorted(parts)}")
            for name, part in parts.items():
                getattr(self, name).load_state_dict(part)
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self._lines, self._best, self._mined = state["lines"].tolist(), state["best"], state["mined"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"state must be a state_dict of a Trainer: {error!r}") from None
        for name, value in params.items():
            self.params[name][...] = value

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint, atomically."""
        save_checkpoint(path, trainer=self.state_dict())

    def load(self, path: str | os.PathLike) -> "Trainer":
        """Go on from a checkpoint of a trainer made with the same arguments; call `fit` with the same data next."""
        saved = load_checkpoint(path)
        if "trainer" not in saved:
            raise ValueError(f"{os.fspath(path)!r} holds no trainer, but {sorted(saved)}")
        self.load_state_dict(saved["trainer"])
        return self


def _losses(loss: Any, graph: bool) -> list[tuple[Any, Any]]:
    """Pairs of a loss and its weight."""
    if loss is None:
        loss = [(LocalContrastiveLoss(), 1.0), (SpectralRegularization(), 1.0)] if graph else InfoNCELoss(0.05)
    pairs = list(loss) if isinstance(loss, (list, tuple)) else [(loss, 1.0)]
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not hasattr(pair[0], "compute_with_gradients"):
            raise TypeError(f"loss must be a loss or pairs of a loss and its weight, got {pair!r}")
        if getattr(pair[0], "reduction", "mean") == "none":
            raise ValueError(f"loss must have reduction 'mean' or 'sum', got {pair[0]!r}")
        if not callable(pair[1]):
            check.number("loss weight", pair[1])
    return pairs
