"""The trainer: what a training is made of, and the three kinds of data that it learns from."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.curriculum import CurriculumScheduler, TemperatureAnnealing
from rvtrain.distributed._ranks import Communicator, Ranks
from rvtrain.text._texts import Texts
from rvtrain.training import _label_task, _options, _pair_task
from rvtrain.training._callbacks import Callback, Record, check_callbacks
from rvtrain.training._embedding import Sides
from rvtrain.training._featurizing import features_fitted, featurized
from rvtrain.training._fit_graph import FitGraph
from rvtrain.training._ids import ids_as_rows
from rvtrain.training._loop import Loop
from rvtrain.training._losses import LossCall
from rvtrain.training._mining import Mining
from rvtrain.training._pair_data import PairData
from rvtrain.training._protocols import (
    EmbeddingModel,
    GraphLoss,
    LabelLoss,
    Miner,
    Model,
    Optimizer,
    PairLoss,
    TwoSidedModel,
)
from rvtrain.training._run import Run
from rvtrain.training._sampling import MPerClass
from rvtrain.training._shared_labels import shared_labels
from rvtrain.training._shared_pairs import shared_pairs
from rvtrain.training._sparse import SparseRows
from rvtrain.training._task import BeforeReading, Task

Loss = PairLoss | LabelLoss | GraphLoss
AnyModel = Model | TwoSidedModel | EmbeddingModel
Path = str | os.PathLike[str]


class Trainer(FitGraph):
    r"""Train a model by contrast: on pairs, on labels, or on a graph.

    Parameters
    ----------
    model : Model, TwoSidedModel or EmbeddingModel
        Changed in place: a `LinearAdapter`, an `MLPAdapter`, a `Sequential`, a `TwoTower`, or any object with the
        members of these protocols. A model of one side serves queries and documents. An `EmbeddingTable` is for
        `fit_graph`.
    loss : loss, or sequence of losses or of (loss, weight), optional
        A weight is a number, or a function of the step. None: ``InfoNCELoss(0.05, symmetric=True)``; for a table
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
        Sets the temperature where there is no curriculum, and advances by steps. With either, each loss has its own
        temperature again when `fit` returns.
    mining : Mining or Miner, optional
        Of `fit`: finds hard negatives of each query, which join the batches. Needs a loss that takes negatives.
    epochs, batch_size : int
        Number of epochs, and of samples in a batch.
    micro_batch_size : int, optional
        Number of rows that pass the model at once: less memory, and the gradient of the whole batch with all its
        negatives.
    max_grad_norm : float, optional
        Clip gradients to this global norm.
    metrics : sequence of str
        Measured on validation data: "recall@k" and others of `evaluate_retrieval`. The first decides which epoch is
        best; without any, the validation loss does.
    patience : int, optional
        Stop after this number of evaluations without a better one; needs `validation`.
    callbacks : sequence of Callback or callables
        Objects with some of ``on_fit_start``, ``on_step_end``, ``on_epoch_end`` and ``on_fit_end``, each called with
        (trainer, record); a plain function is an ``on_epoch_end``.
    checkpoint : path, optional
        File in which the run is saved after every epoch.
    memory_limit : int
        Bytes that embeddings of all documents may take for mining and evaluating; otherwise they pass in blocks.
    comm : mpi4py.MPI.Comm, optional
        The processes of this communicator train one model together, each on its part of every batch; see the guide to
        clusters. Rank 0 writes files.
    seed : int
        Each epoch takes all samples in an order that depends on the seed and the epoch alone.
    progress : {"auto", True, False}
        Show a bar; "auto": if stderr is a terminal, or in a notebook.
    eval_every : int, optional
        Evaluate after every so many steps, and not only after each epoch.
    log : path, optional
        A .csv or .jsonl file, which gets a line for each record of the history as it is made.
    loss_learning_rate : float
        Learning rate of the losses' own parameters, such as a temperature with ``learn_temperature=True``. They have
        an Adam of their own, which steps log(1/τ) with τ ≥ 0.01.

    Attributes
    ----------
    history : dict of arrays
    best_epoch : float
    epoch, step : int
    mining_reports : dict
    checkpoint_extra : dict
        Saved beside the run in each checkpoint, for ``load_checkpoint(path)["extra"]``.

    Notes
    -----
    Each call of a ``fit`` method is a run of its own, with its own counters, history and mined negatives; curriculum
    and annealing begin again. The model and the optimizer's state are as the last run left them.

    A query may have several documents, and each pair is a term of the loss, in which none of the query's other
    documents is a negative. With `InfoNCELoss`, P the pairs of the batch, D its documents with mined and given
    negatives, D(q) all documents of query q, and s = cos/τ:

    .. math:: L = \frac{1}{|P|} \sum_{(q, p) \in P}
        -\log \frac{e^{s_{qp}}}{e^{s_{qp}} + \sum_{n \in D \setminus D(q)} e^{s_{qn}}}.

    Positives of a query are averaged outside of the logarithm, as in SupCon's L_out, but are not in the denominators
    of each other. ``symmetric=True`` is the mean of this and of the same for each document, whose negatives are the
    queries of the batch that it does not belong to.

    With validation data the untrained model is epoch 0 of the history, and the model ends with the parameters of the
    best epoch, which may be 0: a training leaves no model worse on these data than it was. So it does when `fit` is
    interrupted by Ctrl-C, which is raised again, or fails.

    With ``resume=True``, `fit` goes on with the run in `checkpoint` to the bits of a run that was never interrupted.
    A run of other data, or of another seed, batch size, learning rate, loss, optimizer or mining is refused by name;
    epochs and patience may differ. Functions and callbacks are not compared. If the file does not exist yet, a new
    run begins, so that a job that is restarted need not know whether it is the first.

    References
    ----------
    Karpukhin et al. (2020), Dense Passage Retrieval, arXiv:2004.04906, for in-batch and mined negatives.
    Khosla et al. (2020), Supervised Contrastive Learning, arXiv:2004.11362, for several positives.
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
    >>> trainer.fit(queries, documents, pairs[:150], validation=pairs[150:]).history["recall@10"][-1] > 0.9
    np.True_
    """

    def __init__(
        self,
        model: AnyModel,
        loss: Loss | Sequence[Loss | tuple[Loss, float | Callable[[int], float]]] | None = None,
        optimizer: Optimizer | None = None,
        *,
        schedule: Callable[[int], float] | float | None = None,
        curriculum: CurriculumScheduler | None = None,
        annealing: TemperatureAnnealing | None = None,
        mining: Mining | Miner | None = None,
        epochs: int = 10,
        batch_size: int = 256,
        micro_batch_size: int | None = None,
        max_grad_norm: float | None = None,
        metrics: str | Sequence[str] = ("recall@10",),
        patience: int | None = None,
        callbacks: Sequence[Callback | Callable[["Trainer", Record], object]] = (),
        checkpoint: Path | None = None,
        memory_limit: int = 1 << 30,
        comm: Communicator | None = None,
        seed: int = 0,
        progress: str | bool = "auto",
        eval_every: int | None = None,
        log: Path | None = None,
        loss_learning_rate: float = 0.01,
    ) -> None:
        self._is_table = _options.check_model(model)
        params: Any = model.params
        self.model, self.params = model, params
        self.losses = _options.parsed_losses(loss, self._is_table)
        self.optimizer = _options.parsed_optimizer(optimizer, self.params, self._is_table)
        self.schedule = _options.parsed_schedule(schedule)
        self.curriculum = _options.part_with("curriculum", curriculum, "current_params")
        self.annealing = _options.part_with("annealing", annealing, "step")
        self.mining = _options.parsed_mining(mining)
        self.epochs = check.integer("epochs", epochs, low=1)
        self.batch_size = check.integer("batch_size", batch_size, low=1)
        self.micro_batch_size = _options.optional_integer("micro_batch_size", micro_batch_size)
        norm = max_grad_norm
        self.max_grad_norm = None if norm is None else check.number("max_grad_norm", norm, low=0.0, open_low=True)
        if norm is not None:
            _options.check_clipping(self.optimizer)
        self.metrics = _options.parsed_metrics(metrics)
        self.patience = _options.optional_integer("patience", patience)
        self.callbacks = check_callbacks(callbacks)
        self.checkpoint, self.log = _options.parsed_path("checkpoint", checkpoint), _options.parsed_log(log)
        self.checkpoint_extra: dict[str, Any] = {}
        self.memory_limit = check.integer("memory_limit", memory_limit, low=0)
        self._ranks = None if comm is None else Ranks(comm)
        self.seed = check.integer("seed", seed, low=0)
        self.progress = _options.parsed_progress(progress)
        self.eval_every = _options.optional_integer("eval_every", eval_every)
        self.loss_learning_rate = check.number("loss_learning_rate", loss_learning_rate, low=0.0)
        self._run, self._stopping, self._is_running = Run(), False, False

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, epoch {self.epoch} of {self.epochs})"

    @property
    def epoch(self) -> int:
        """Whole epochs done in this run."""
        return self._run.epoch

    @property
    def step(self) -> int:
        """Optimizer steps done in this run."""
        return self._run.step

    @property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """Numbers of this run by column: an entry before training, epoch 0, and one after each epoch.

        The columns are epoch, step, loss (mean over the samples since the entry before), temperature (of the first
        loss that has one), learning_rate, negatives (given, mined or drawn for each sample), seconds (since the entry
        before) and, with validation data, val_loss and each metric by its name. A number that does not exist is NaN.
        With `eval_every` there are entries within epochs, whose epoch is a fraction.
        """
        return self._run.history

    @property
    def best_epoch(self) -> float:
        """Epoch of the best entry of the history, whose parameters the model has after `fit`; the last one without
        validation data.
        """
        if not self._run.records:
            return 0
        epoch = self._run.records[self._run.best_record]["epoch"]
        return int(epoch) if epoch.is_integer() else epoch

    @property
    def mining_reports(self) -> dict[int, object]:
        """The miner's `MiningReport` of each search, by the epoch that it began; of a resumed run, those since."""
        return dict(self._run.reports)

    def stop(self) -> None:
        """End the training after this step, from a callback. The part of the epoch that was done is evaluated too."""
        self._stopping = True

    def fit(
        self,
        queries: ArrayLike | SparseRows | Texts,
        documents: ArrayLike | SparseRows | Texts,
        pairs: ArrayLike | None = None,
        validation: ArrayLike | tuple[ArrayLike | SparseRows | Texts, ...] | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        document_ids: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        negatives: ArrayLike | None = None,
        teacher_scores: ArrayLike | None = None,
        guide: tuple[ArrayLike, ArrayLike] | None = None,
        log_q: ArrayLike | bool | None = None,
        resume: bool = False,
    ) -> "Trainer":
        """Bring queries near their documents.

        Parameters
        ----------
        queries : array of shape (n, d)
        documents : array of shape (m, e)
            Of any real type, also float16: lists, arrays, data frames, CPU tensors. Rows are converted to the model's
            dtype as they are read. Of an ``np.memmap``, only the rows needed are read. A side of the model that has
            ``accepts_sparse = True`` (see `Model`) also takes matrices of scipy.sparse, of any format; one with
            features, as `BagEncoder`, takes strings, which are featurised once. An `EmbeddingTable` takes ids (n,).
        pairs : integer array of shape (P, 2), optional
            Rows of queries and documents that belong together. A query may have several documents: none of them is
            a negative for it, see the Notes. None: row i of one belongs to row i of the other. Of two tables these
            are pairs of ids, like those of `validation`; queries and documents are then all ids of the tables.
        validation : integer array of shape (V, 2), or tuple (queries, documents[, pairs]), optional
            Other pairs of the same arrays, or of others, on which each epoch is measured.
        sample_weight : array of shape (P,), optional
            Weight of each pair, ≥ 0: the loss of a batch is a weighted mean. Pairs of weight 0 take no part.
        document_ids : integer array of shape (m,), optional
            Documents with equal ids are the same to all: no query of one has another for a negative.
        scores : array of shape (P,), optional
            How similar each pair is, for losses of graded pairs, as `CoSENTLoss`.
        negatives : integer array of shape (P, k), optional
            Rows of documents that are negatives of each pair, −1 for none; they join the batch as mined ones do.
        teacher_scores : array of shape (P, 1 + k), optional
            Scores by another model of each pair and its `negatives`, for losses such as `MarginMSELoss`.
        guide : tuple of arrays of shapes (n, g) and (m, g), optional
            Vectors of another model for queries and documents, by which a loss such as `InfoNCELoss` finds negatives
            that are none.
        log_q : True, or array of shape (m,), optional
            Log-probability of each document to come in a pair, which `InfoNCELoss` subtracts from its logits. True:
            of its frequency in `pairs`. The negatives are then the documents of the batch's other pairs, as often as
            they come.
        resume : bool
            Go on with the run in `checkpoint`, if there is one.

        Returns
        -------
        Trainer
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the model has not been changed.
        ValueError
            If the loss diverges: the message has the step and the learning rate.
        OSError
            If a file cannot be written; the model has not been changed.
        """
        if self._is_table:
            raise TypeError("fit needs a model with forward and backward; a table is for fit_graph")
        sides, calls = Sides(self.model), self._calls()
        queries, documents, pairs, validation = ids_as_rows(sides, queries, documents, pairs, validation)
        with features_fitted(sides, queries, documents, pairs):
            rows = featurized(sides.query, "queries", queries), featurized(sides.document, "documents", documents)
            data = PairData(*rows, pairs, document_ids)
            held_back = None if validation is None else _pair_task.validation_data(sides, *rows, validation)
            extra = _pair_task.PerPair(
                data, sample_weight=sample_weight, scores=scores, teacher_scores=teacher_scores, negatives=negatives,
                guide=guide, log_q=log_q,
            )  # fmt: skip
            _pair_task.check_losses(calls, extra, self.mining is not None)
            if self.mining is None and extra.negatives is None:
                _options.batches_have_negatives(calls, self.batch_size, "pairs", len(data.pairs))
                _pair_task.check_negatives(calls, data, extra)
            given = sides, data, held_back, self.memory_limit, self.micro_batch_size, extra, self._before_reading()
            task = _pair_task.PairTask(*given) if self._ranks is None else shared_pairs(self._ranks, calls, *given)
            loop = self._started(task, calls, resume)
        return self._train(loop)

    def fit_labels(
        self,
        X: ArrayLike | SparseRows | Texts,
        y: ArrayLike,
        validation: tuple[ArrayLike | SparseRows | Texts, ArrayLike] | None = None,
        *,
        sampler: MPerClass | None = None,
        resume: bool = False,
    ) -> "Trainer":
        """Bring rows of one label near each other: supervised contrast.

        A loss of labels, as `SupConLoss`, is given the rows of a batch and their labels. A loss of pairs is given
        each row with another one of its label, drawn in each epoch.

        Parameters
        ----------
        X : array of shape (n, d)
            Of any real type, sparse, or strings, as in `fit`.
        y : array of shape (n,)
            Labels, of any kind that sorts.
        validation : (X, y), optional
            Measured with each row as a query among the others.
        sampler : MPerClass, optional
            What makes the batches. None: ``MPerClass(4)`` for losses of labels, else all rows in random order.
        resume : bool
            As in `fit`.

        Returns
        -------
        Trainer

        Raises
        ------
        TypeError, ValueError
            If shapes do not fit, or no label is shared.
        """
        if self._is_table:
            raise TypeError(
                "fit_labels needs a model with forward and backward; a table of embeddings is for fit_graph"
            )
        _options.no_mining("fit_labels", self.mining)
        if validation is not None and (not isinstance(validation, (tuple, list)) or len(validation) != 2):
            raise TypeError(f"validation must be a tuple (X, y), got {type(validation).__name__}")
        if sampler is not None and not hasattr(sampler, "batches"):
            raise TypeError(f"sampler must have a method 'batches', as MPerClass(4), got {sampler!r}")
        calls, sides = self._calls(), Sides(self.model)
        _label_task.check_losses(calls, sides)
        with features_fitted(sides, X, None, names=("X", "")):
            data = _label_task.Labelled(("X", "y"), featurized(sides.query, "X", X), y)
            _options.batches_have_negatives(calls, self.batch_size, "y", len(data.rows))
            _label_task.check_negatives(calls, data)
            held_back = None
            if validation is not None:
                names, (x, held_y) = ("validation[0]", "validation[1]"), validation
                held_back = _label_task.Labelled(names, featurized(sides.query, names[0], x), held_y)
            groups = any(call.kind == "labels" for call in calls)
            extra = sampler, groups, self.batch_size, self._before_reading()
            given = sides, data, held_back, self.micro_batch_size, *extra
            task = _label_task.LabelTask(*given) if self._ranks is None else shared_labels(self._ranks, calls, *given)
            loop = self._started(task, calls, resume)
        return self._train(loop)

    def evaluate(
        self,
        queries: ArrayLike | SparseRows | Texts,
        documents: ArrayLike | SparseRows | Texts,
        pairs: ArrayLike | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Measure the model as it is: rank all documents for each query that has a pair.

        Parameters
        ----------
        queries, documents, pairs
            As in `fit`.
        metrics : sequence of str, optional
            As in `evaluate_retrieval`. None: those of the trainer.

        Returns
        -------
        dict of floats, by the names of the metrics

        Raises
        ------
        TypeError, ValueError
            If shapes do not fit, or a metric is unknown.
        """
        if self._is_table:
            raise TypeError("evaluate needs a model with forward and backward, got a table of embeddings")
        names = self.metrics if metrics is None else _options.parsed_metrics(metrics)
        if not names:
            raise ValueError("metrics must not be empty")
        sides = Sides(self.model)
        queries, documents, pairs, _ = ids_as_rows(sides, queries, documents, pairs)
        rows = featurized(sides.query, "queries", queries), featurized(sides.document, "documents", documents)
        task = _pair_task.PairTask(sides, PairData(*rows, pairs), None, self.memory_limit, None)
        return task.measured(task.data, names)

    def _calls(self) -> list[LossCall]:
        return [LossCall(loss, weight) for loss, weight in self.losses]

    def _started(self, task: Task, calls: list[LossCall], resume: bool) -> Loop:
        if self._is_running:
            raise RuntimeError("fit must not be called from a callback of the same trainer: use another Trainer")
        loop = Loop(self, task, calls)
        loop.start(check.flag("resume", resume))
        return loop

    def _train(self, loop: Loop) -> "Trainer":
        self._stopping, self._is_running = False, True
        try:
            loop.go()
        finally:
            self._is_running = False
        return self

    def _catch_up(self, rows: NDArray[np.int64] | dict[str, NDArray[np.int64]] | None = None) -> None:
        """Let idle rows of tables, or these of them, make the steps that they owe, before they are read."""
        if getattr(self.optimizer, "lazy", "idle") == "exact":
            self.optimizer.catch_up(self.params, {"weight": rows} if isinstance(rows, np.ndarray) else rows)

    def _before_reading(self) -> BeforeReading | None:
        """`_catch_up`, where it has something to do."""
        return self._catch_up if getattr(self.optimizer, "lazy", "idle") == "exact" else None
