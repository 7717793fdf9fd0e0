"""Learning from pairs: one epoch, one batch, the search for negatives, and the validation."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.text._texts import are_texts
from rvtrain.training import _metrics as metrics
from rvtrain.training._embedding import (
    Sides,
    as_array,
    check_table,
    embed,
    embed_distinct,
    embedded,
    plain,
    stored_table,
    taken,
)
from rvtrain.training._featurizing import featurized
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._models import dtype_of, forward_rows
from rvtrain.training._options import all_contrast
from rvtrain.training._pair_data import PairData, Pool, Rows
from rvtrain.training._pair_losses import PairBatch, Sums, evaluate
from rvtrain.training._row_gradient import by_rows
from rvtrain.training._run import fingerprint
from rvtrain.training._sparse import SparseRows, dense_only, is_sparse
from rvtrain.training._task import BeforeReading, Gradients, Task


def validation_data(
    sides: Sides, queries: ArrayLike | SparseRows, documents: ArrayLike | SparseRows, validation: Any
) -> PairData:
    """The validation data of `Trainer.fit`: pairs of the same arrays, or a tuple (queries, documents[, pairs])."""
    wanted = "validation must be pairs (V, 2), or a tuple (queries, documents[, pairs])"
    if not is_sparse(validation) and _dimensions(validation) == 0:
        raise TypeError(f"{wanted}, got {type(validation).__name__}")
    few = isinstance(validation, tuple) or (isinstance(validation, list) and len(validation) <= 4)
    if few and any(are_texts(part) or _dimensions(part) == 2 for part in validation):
        if len(validation) not in (2, 3):
            raise ValueError(f"{wanted}, got {len(validation)} arrays")
        names = ("validation[0]", "validation[1]", "validation[2]")
        pairs = validation[2] if len(validation) == 3 else None
        asking = featurized(sides.query, names[0], validation[0])
        return PairData(asking, featurized(sides.document, names[1], validation[1]), pairs, names=names)
    return PairData(queries, documents, validation, names=("queries", "documents", "validation"))


def _dimensions(value: Any) -> int:
    try:
        return int(np.ndim(plain(value)))
    except ValueError:  # rows of several lengths
        return 2


class PerPair:
    """What `Trainer.fit` may be given for each pair, and vectors of a guide; None for each that was not given."""

    def __init__(
        self, data: PairData, *, sample_weight: ArrayLike | None = None, scores: ArrayLike | None = None,
        teacher_scores: ArrayLike | None = None, negatives: ArrayLike | None = None,
        guide: tuple[ArrayLike, ArrayLike] | None = None, log_q: ArrayLike | bool | None = None,
    ) -> None:  # fmt: skip
        count = len(data.pairs)
        self.sample_weight = _numbers("sample_weight", sample_weight, (count,))
        weight = self.sample_weight
        if weight is not None and ((weight < 0).any() or not weight.any()):
            raise ValueError(f"sample_weight must be at least 0, and not all 0, got a minimum of {weight.min()}")
        self.counting = np.arange(count) if weight is None else np.flatnonzero(weight)
        self.scores = _numbers("scores", scores, (count,))
        self.negatives: Rows | None = None
        if negatives is not None:
            documents = data.documents.shape[0]
            self.negatives = check.indices(
                "negatives", as_array("negatives", negatives), (count, None), documents, missing=True
            )
        listed = None if self.negatives is None else self.negatives.shape[1]
        if teacher_scores is not None and listed is None:
            raise ValueError("teacher_scores needs negatives, the documents that the teacher has scored, got None")
        self.teacher_scores = _numbers("teacher_scores", teacher_scores, (count, 1 + (listed or 0)))
        self.log_q = _log_q(data, log_q)
        if self.log_q is not None and self.negatives is not None:
            raise ValueError("log_q must not be given beside negatives: it is of documents of the batch's pairs")
        self.guide: tuple[NDArray[Any], NDArray[Any]] | None = None
        if guide is not None:
            if not isinstance(guide, (tuple, list)) or len(guide) != 2:
                raise TypeError(f"guide must be a tuple (queries, documents) of vectors, got {type(guide).__name__}")
            tables = tuple(
                stored_table(f"guide {name}", x) for name, x in zip(("queries", "documents"), guide, strict=True)
            )
            for name, table, like in zip(
                ("queries", "documents"), tables, (data.queries, data.documents), strict=True
            ):
                if is_sparse(table):
                    dense_only(f"guide {name}", table, "a loss")
                if len(table) != like.shape[0]:
                    raise ValueError(f"guide {name} must have {like.shape[0]} rows like {name}, got {table.shape}")
            if tables[0].shape[1] != tables[1].shape[1]:
                wide = tables[0].shape[1]
                raise ValueError(
                    f"guide documents must have {wide} columns like guide queries, got {tables[1].shape}"
                )
            self.guide = tables[0], tables[1]

    def given(self) -> dict[str, NDArray[Any]]:
        """The arrays that were given, by name."""
        named = {
            "sample_weight": self.sample_weight, "scores": self.scores, "teacher_scores": self.teacher_scores,
            "negatives": self.negatives, "log_q": self.log_q,
        }  # fmt: skip
        guide = {} if self.guide is None else {"guide queries": self.guide[0], "guide documents": self.guide[1]}
        return {name: value for name, value in named.items() if value is not None} | guide


class PairTask(Task):
    """Queries near their documents, and far from other documents of the batch and from mined ones.

    A *sample* is the number of a pair among those that count, which are all but those of weight 0.
    """

    def __init__(
        self, sides: Sides, data: PairData, validation: PairData | None, limit: int, micro: int | None,
        extra: PerPair | None = None, before_reading: BeforeReading | None = None,
    ) -> None:  # fmt: skip
        self.before_reading = before_reading
        self.sides, self.data, self.validation, self.limit, self.micro = sides, data, validation, limit, micro
        self.extra = PerPair(data) if extra is None else extra
        self.samples, self.has_validation = len(self.extra.counting), validation is not None
        self._fixed: dict[int, Any] = {}
        self._prepared: Any = None
        for each in (data,) if validation is None else (data, validation):
            check_table(each.names[0], each.queries, sides.query)
            check_table(each.names[1], each.documents, sides.document)

    @property
    def negatives(self) -> int:
        """Of a pair: those given to `fit`, and those mined."""
        return super().negatives + (0 if self.extra.negatives is None else self.extra.negatives.shape[1])

    def mine(self, miner: MiningCall, k: int) -> None:
        """Search all documents, except those of the query and copies of these."""
        data = self.data
        queries = np.unique(data.query_rows)
        near = self._near(miner, self._all_documents(data), queries, k)
        near = check.indices("the miner's result", near, (None, None), data.documents.shape[0], missing=True)
        self.mined = near[np.searchsorted(queries, data.query_rows)]

    def _near(self, miner: MiningCall, documents: Any, queries: Rows, k: int) -> Rows:
        """(Q, k) documents that the miner finds for these queries."""
        data, sides = self.data, self.sides
        own, ids = data.documents_of(queries), data.ids_of_documents_of(queries)
        if data.most == 1:
            positives, ids = self._embedded(data.documents, own[:, 0]), ids[:, 0]
        elif isinstance(documents, np.ndarray):
            positives = own
        else:
            filled = np.where(own >= 0, own, own[:, :1])
            positives = self._embedded(data.documents, filled.ravel()).reshape(*filled.shape, -1)
        return miner(
            forward_rows(sides.query, data.queries, queries)[0], self._prepared_for(miner, documents), k,
            positives=positives, exclude=own, anchor_ids=ids, candidate_ids=data.ids,
        )  # fmt: skip

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Each distinct document of the batch is embedded once, and each distinct query if some have several."""
        numbers = self.extra.counting[batch]
        pairs, back_to_queries, back_to_documents = self._batch(self.data, numbers, self.extra, self.mined)
        sums = Sums(pairs, self.sides.trains_queries, self.sides.trains_documents)
        value, learned = evaluate(pairs, losses, sums)
        to_query = back_to_queries(sums.anchors) if sums.wants_anchors else {}
        to_document = back_to_documents(sums.documents) if sums.wants_documents else {}
        grads, rows = by_rows(self.sides.collect(to_query, to_document))
        return Gradients(value, grads, learned, rows)

    def _batch(self, data: PairData, batch: Rows, extra: PerPair | None, mined: Rows | None) -> Any:
        """The pairs of these numbers, embedded, and the ways back to the parameters of both sides."""
        query_rows, document_rows = data.query_rows[batch], data.document_rows[batch]
        listed = None if extra is None or extra.negatives is None else extra.negatives[batch]
        negatives = [x for x in (listed, None if mined is None else mined.take(batch, axis=0)) if x is not None]
        pool = Pool(document_rows, np.concatenate(negatives, axis=1) if negatives else None)
        if extra is not None and self.before_reading is not None:
            documents_read = pool.rows if self.sides.trains_documents else None
            self.before_reading(self.sides.rows_read(data.queries, query_rows, data.documents, documents_read))
        embed_queries = embed_distinct if data.most > 1 else embed
        anchors, back_to_queries = embed_queries(self.sides.query, data.queries, query_rows, self.micro)
        if self.sides.trains_documents:
            documents, back_to_documents = embed(self.sides.document, data.documents, pool.rows, self.micro)
        else:
            documents, back_to_documents = self._embedded(data.documents, pool.rows), None
        pairs = PairBatch(data, query_rows, document_rows, pool, anchors, documents)
        if extra is not None:
            pairs.listed = listed
            for name in ("sample_weight", "scores", "teacher_scores"):
                values = getattr(extra, name)
                setattr(pairs, name, None if values is None else values[batch])
            pairs.log_q = None if extra.log_q is None else extra.log_q[document_rows]
            if extra.guide is not None:
                dtype = anchors.dtype
                pairs.guide = extra.guide[0][query_rows].astype(dtype), extra.guide[1][pool.rows].astype(dtype)
        return pairs, back_to_queries, back_to_documents

    def _all_documents(self, data: PairData) -> Any:
        """All documents embedded, an array or blocks; of a frozen side computed once."""
        if self.sides.trains_documents:
            return self._embedded_whole(data.documents)
        found = self._fixed.get(id(data.documents))
        if found is None:
            found = self._embedded_whole(data.documents)
            if isinstance(found, np.ndarray):
                self._fixed[id(data.documents)] = found
        return found

    def _embedded_whole(self, table: Any) -> Any:
        return embedded(self.sides.document, table, self.limit)

    def _prepared_for(self, miner: MiningCall, documents: Any) -> Any:
        """All documents for the miner; those of a frozen side are prepared once."""
        if self.sides.trains_documents or not isinstance(documents, np.ndarray) or isinstance(documents, np.memmap):
            return documents
        if self._prepared is None:
            self._prepared = miner.prepared(documents)
        return self._prepared

    def _embedded(self, table: Any, rows: Rows) -> Any:
        """Embeddings of these documents, taken from those of a frozen side if they are there."""
        found = self._fixed.get(id(table))
        return forward_rows(self.sides.document, table, rows)[0] if found is None else taken(found, rows)

    def prepare(self) -> None:
        """Embed the documents of a frozen side."""
        if not self.sides.trains_documents:
            self._all_documents(self.data)

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """Rank all documents of the validation data for its queries."""
        assert self.validation is not None
        return self.measured(self.validation, names)

    def measured(self, data: PairData, names: tuple[str, ...]) -> dict[str, float]:
        """Rank all documents for the queries that have a pair."""
        return self._ranked(data, self._all_documents(data), np.unique(data.query_rows), names)

    def _ranked(self, data: PairData, documents: Any, queries: Rows, names: tuple[str, ...], **options: Any) -> Any:
        anchors = forward_rows(self.sides.query, data.queries, queries)[0]
        relevant = data.documents_of(queries)
        return metrics.evaluate_retrieval(anchors, documents, relevant=relevant, metrics=names, **options)

    def validation_loss(self, losses: list[Weighted], size: int) -> float:
        """In-batch, in the order of the validation pairs; losses that need more than pairs do not count."""
        data = self.validation
        assert data is not None
        used = [each for each in losses if each.call.kind in ("pairs", "embeddings")]
        if not used:
            return np.nan
        total = 0.0
        for start in range(0, len(data.pairs), size):
            batch = np.arange(start, min(start + size, len(data.pairs)))
            total += self._loss_on_validation(data, batch, used) * len(batch)
        return total / len(data.pairs)

    def _loss_on_validation(self, data: PairData, batch: Rows, losses: list[Weighted]) -> float:
        return evaluate(self._batch(data, batch, None, None)[0], losses, None)[0]

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of queries, documents, pairs, document_ids, validation, and what else was given."""
        own = self.data.fingerprints()
        other = {} if self.validation is None else self.validation.fingerprints()
        more = {name: fingerprint(value) for name, value in self.extra.given().items()}
        validation = [found for name, found in other.items() if name == "pairs" or found != own[name]]
        return own | more | {"validation": " ".join(validation)}

    def check_finite(self) -> None:
        """Read files as a whole."""
        for data in (self.data,) if self.validation is None else (self.data, self.validation):
            data.check_finite(dtype_of(self.sides.query), dtype_of(self.sides.document))


def check_losses(calls: list[LossCall], extra: PerPair, mines: bool) -> None:
    """Raise unless the losses can be given all that they need, and take all that was given."""
    for call in calls:
        shown = type(call.loss).__name__
        if call.kind in ("labels", "graph"):
            method = "fit_labels" if call.kind == "labels" else "fit_graph"
            raise TypeError(f"loss must take pairs in fit, got {call.loss!r}, which is for {method}")
        if call.kind == "graded" and extra.scores is None:
            raise ValueError(f"scores must be given, since {shown} needs the score of each pair, got None")
        if call.kind == "teacher" and extra.teacher_scores is None:
            raise ValueError(f"teacher_scores must be given, since {shown} needs them, got None")
        if extra.sample_weight is not None and call.kind != "embeddings" and not call.accepts("sample_weight"):
            raise ValueError(f"sample_weight must not be given, since {shown} does not take it")
    if extra.log_q is not None and (mines or not any(call.accepts("log_q") for call in calls)):
        reason = "negatives are mined" if mines else "no loss takes it"
        raise ValueError(f"log_q must not be given, since {reason}")
    for name, kind in (("scores", "graded"), ("teacher_scores", "teacher")):
        if getattr(extra, name) is not None and all(call.kind != kind for call in calls):
            raise ValueError(f"{name} must not be given, since no loss takes them")
    if extra.guide is not None and not any(call.kind == "pairs" and call.accepts("guide") for call in calls):
        raise ValueError("guide must not be given, since no loss takes it")
    takes = any(call.takes_pool for call in calls)
    if mines and not takes:
        raise ValueError("mining needs a loss that takes negatives and negative_ids, got none")
    if extra.negatives is not None and not takes and extra.teacher_scores is None:
        raise ValueError("negatives needs a loss that takes negatives and negative_ids, got none")


def check_negatives(calls: list[LossCall], data: PairData, extra: PerPair) -> None:
    """Raise if no pair has a negative among the documents of the others, which a softmax compares it with."""
    if any(call.keeps_batch and not call.is_symmetric for call in calls):  # queries are negatives of queries
        return
    if all_contrast(calls) and not data.has_negatives(extra.counting):
        of = "pairs" if extra.sample_weight is None else "pairs of a sample_weight above 0"
        raise ValueError(
            f"{of} must have negatives without mining, got {len(extra.counting)} in which each query has all of the "
            "documents, so that the loss is 0 whatever the model"
        )


def _numbers(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Finite numbers of this shape as float64."""
    if value is None:
        return None
    array = check.stored_array(name, as_array(name, value), len(shape)).astype(np.float64)
    check.same_shape(name, array, "pairs", shape) if len(shape) == 1 else _same(name, array, shape)
    check.finite(name, array)
    return array


def _same(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, the pair's score and its negatives', got {array.shape}")


def _log_q(data: PairData, log_q: Any) -> NDArray[np.float64] | None:
    """Log-probabilities of the documents (m,), from their frequency in the pairs if True; finite where in a pair."""
    if log_q is None or log_q is False:
        return None
    count, used = data.documents.shape[0], np.unique(data.document_rows)
    if log_q is True:
        given = np.zeros(count)
        given[used] = np.log(np.bincount(data.document_rows, minlength=count)[used] / len(data.pairs))
        return given
    given = check.stored_array("log_q", as_array("log_q", log_q), 1).astype(np.float64)
    check.same_shape("log_q", given, "documents", (count,))
    check.finite("log_q", given[used])
    return given
