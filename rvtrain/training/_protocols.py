"""What `Trainer` asks of losses, miners, optimizers and models: protocols, satisfied by members, not by classes."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain.training._models import Model, Params

__all__ = ["EmbeddingModel", "GraphLoss", "LabelLoss", "Miner", "Model", "Optimizer", "PairLoss", "TwoSidedModel"]


@runtime_checkable
class TwoSidedModel(Protocol):
    """A model with one `Model` for queries and one for documents, as `TwoTower`.

    Both may be one object. A side whose `params` are empty is frozen: its outputs are computed once in each fit. Each
    array of `params` is an array of a side, under any name.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.TwoTower(rt.LinearAdapter(4)), rt.TwoSidedModel)
    True
    """

    @property
    def params(self) -> Params:
        """All arrays that are trained, by name."""

    @property
    def query(self) -> Model:
        """The model of the queries."""

    @property
    def document(self) -> Model:
        """The model of the documents."""


@runtime_checkable
class EmbeddingModel(Protocol):
    """A table of free embeddings for `Trainer.fit_graph`, as `EmbeddingTable`.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.EmbeddingTable(5, 2), rt.EmbeddingModel)
    True
    """

    @property
    def params(self) -> Params:
        """A dict with the key ``weight``."""

    @property
    def weight(self) -> NDArray[np.floating]:
        """The table, a row for each node."""


class _Loss(Protocol):
    """The methods of every loss."""

    @property
    def compute(self) -> Callable[..., Any]:
        """The loss alone."""

    @property
    def compute_with_gradients(self) -> Callable[..., tuple[Any, Any]]:
        """The loss and its gradients."""


@runtime_checkable
class PairLoss(_Loss, Protocol):
    """A loss of pairs of embeddings.

    ``compute(anchors, positives)`` returns the loss, and ``compute_with_gradients(anchors, positives, wrt=names)``
    the loss and a tuple of gradients, one for each of the names in `wrt`: those of the first two parameters, whatever
    they are called, and "negatives". The Trainer reads the signature once and passes what it accepts of these:

    - ``negatives`` (N, d), a pool of documents that all anchors share, with ``anchor_ids`` (B,), ``positive_ids``
      (B,) and ``negative_ids`` (N,) or (N, c): a negative that shares an id with the anchor or its positive is not
      counted. Without ``negatives`` and ``negative_ids`` the loss is given the batch alone, and nothing can be mined.
    - ``sample_weight`` (B,) and ``guide``, as in `InfoNCELoss`.
    - ``scores`` (B,): a loss of graded pairs; ``teacher_scores`` (B, 1 + k) with ``negative_indices`` (B, k): a loss
      against a teacher. Both are arguments of `Trainer.fit`.

    Optional attributes: ``temperature``, which a curriculum or an annealing sets; ``learnable``, names of attributes
    that are also names of `wrt`, which the Trainer trains; ``symmetric``, whether the columns of the batch are
    contrasted too, with ``negatives`` beside them.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> class Distance:
    ...     def compute(self, anchors, positives):
    ...         return float(((anchors - positives) ** 2).sum(axis=1).mean())
    ...
    ...     def compute_with_gradients(self, anchors, positives, *, wrt):
    ...         to_anchors = 2 * (anchors - positives) / len(anchors)
    ...         gradients = {"anchors": to_anchors, "positives": -to_anchors}
    ...         return self.compute(anchors, positives), tuple(gradients[name] for name in wrt)
    >>> isinstance(Distance(), rt.PairLoss)
    True
    >>> x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    >>> trainer = rt.Trainer(rt.LinearAdapter(4), Distance(), epochs=2).fit(x, x + 1)
    """


@runtime_checkable
class LabelLoss(_Loss, Protocol):
    """A loss of labelled embeddings, as `SupConLoss`.

    ``compute(embeddings, labels)``, and ``compute_with_gradients(embeddings, labels, wrt=names)`` as in `PairLoss`,
    with the name of the first parameter in `wrt`. A loss is one of labels if its second parameter is ``labels``.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.SupConLoss(), rt.LabelLoss)
    True
    """


@runtime_checkable
class GraphLoss(_Loss, Protocol):
    """A loss of embeddings and the edges between them, as `SpectralRegularization`.

    ``compute(embeddings, graph)``, and ``compute_with_gradients(embeddings, graph, wrt=names)`` as in `PairLoss`;
    graph (E, 2) holds edges of the batch. A loss is one of graphs if its second parameter is ``graph``, or if it has
    ``compute_graph(embeddings, edges, negative_edges)`` and ``compute_graph_with_gradients``, as
    `LocalContrastiveLoss`; `Trainer.fit_graph` takes a `PairLoss` too.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.SpectralRegularization(), rt.GraphLoss)
    True
    """


@runtime_checkable
class Miner(Protocol):
    """Finds documents that are hard negatives.

    ``mine(anchors, candidates, k)`` returns indices of candidates (B, k), −1 for none. It is also given, where its
    signature accepts them, ``positives``, ``exclude``, ``anchor_ids`` and ``candidate_ids``, as in
    `HardNegativeMiner.mine`. A miner without ``exclude`` may return documents of the query itself: these are dropped.
    Candidates are an array, or an iterable of blocks where the embedded documents exceed `Trainer`'s
    ``memory_limit``.

    Optional: ``state_dict`` and ``load_state_dict``, by which a resumed run draws as the whole run would have;
    ``last_report``, which `Trainer.mining_reports` keeps; ``prepare(candidates)``, whose result takes the place of
    the candidates in all calls of a training with a frozen side.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.HardNegativeMiner.hardest(), rt.Miner)
    True
    """

    @property
    def mine(self) -> Callable[..., Any]:
        """Indices of k candidates for each anchor."""


@runtime_checkable
class Optimizer(Protocol):
    """Changes parameters in place.

    `Trainer` calls ``step(params, grads)`` with dicts of arrays, with ``rows=`` in `Trainer.fit_graph`, and with
    ``max_norm=`` where gradients are to be clipped. Optional: ``state_dict`` and ``load_state_dict``, which a
    checkpoint needs; ``train(params)`` and ``eval(params)``, called around each evaluation.

    References
    ----------
    Levkivskyi, Lehtosalo & Langa (2017), PEP 544: Protocols, structural subtyping.

    Examples
    --------
    >>> import rvtrain as rt
    >>> isinstance(rt.AdamW(3), rt.Optimizer)
    True
    """

    learning_rate: float
    """The rate of the next step, which a schedule sets."""

    @property
    def step(self) -> Callable[..., Any]:
        """One step."""


Rows = NDArray[np.int64]
"""Row numbers."""

Vectors = ArrayLike
"""Embeddings as users have them: any real dtype, in memory or in a file."""
