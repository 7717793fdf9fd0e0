"""Calls of losses with one global batch: of its arrays, each rank gives its rows."""

from typing import NamedTuple

import numpy as np

import rvtrain as rt

PAIRS = ("anchors", "positives")


class Case(NamedTuple):
    """A call: the class and arguments of the loss, the arrays of the global batch by name, and `wrt`."""

    make: type
    options: dict
    arrays: dict
    wrt: tuple

    def call(self, part=lambda x: x, **more):
        """Value and gradients by name; part cuts each array, and more is for the loss."""
        given = {k: tuple(part(x) for x in v) if isinstance(v, tuple) else part(v) for k, v in self.arrays.items()}
        value, found = self.make(**self.options, **more).compute_with_gradients(**given, wrt=self.wrt)
        return {"value": np.asarray(value), **dict(zip(self.wrt, map(np.asarray, found), strict=True))}


def cases(dtype, batch, dim):
    """Each form of each loss that takes `comm`."""
    rng = np.random.default_rng(0)
    anchors, positives, pool = rng.normal(size=(3, batch, dim)).astype(dtype)
    own, guide = rng.normal(size=(batch, 3, dim)).astype(dtype), tuple(rng.normal(size=(2, batch, 5)).astype(dtype))
    ids, labels, weights = rng.integers(0, batch, batch), rng.integers(0, batch // 3, batch), rng.random(batch)
    pairs = {"anchors": anchors, "positives": positives}
    four = ("query_to_document", "document_to_query", "query_to_query", "document_to_document")
    learnt, pooled = (*PAIRS, "temperature"), (*PAIRS, "negatives", "temperature")

    def infonce(wrt=learnt, arrays=None, **options):
        return Case(rt.InfoNCELoss, {"temperature": 0.1, **options}, pairs | (arrays or {}), wrt)

    return {
        "plain": infonce(),
        "weighted sum": infonce(arrays={"sample_weight": weights}, reduction="sum"),
        "values, maxima": infonce(arrays={"sample_weight": weights}, reduction="none", temperature=0.01),
        "ids": infonce(arrays={"anchor_ids": ids, "positive_ids": ids[::-1].copy()}),
        "symmetric": infonce(arrays={"sample_weight": weights, "anchor_ids": ids}, symmetric=True),
        "symmetric, maxima": infonce(symmetric=True, temperature=0.01),
        "log q": infonce(arrays={"log_q": -weights}, margin=0.1, hardness=0.5),
        "false negatives": infonce(false_negative_margin=0.1),
        "guide": infonce(arrays={"guide": guide}, symmetric=True),
        "four directions": infonce(directions=four),
        "distances": infonce(similarity="euclidean", directions=four[::2], temperature=2.0),
        "pool": infonce(pooled, {"negatives": pool, "anchor_ids": ids, "negative_ids": ids}),
        "symmetric, pool": infonce(pooled, {"negatives": pool}, symmetric=True),
        "own negatives": infonce(pooled, {"negatives": own}),
        "decoupled": Case(rt.DecoupledContrastiveLoss, {"temperature": 0.1}, pairs | {"anchor_ids": ids}, learnt),
        "hard": Case(rt.HardNegativeContrastiveLoss, {}, pairs | {"anchor_ids": ids}, PAIRS),
        "sigmoid": Case(rt.SigmoidLoss, {}, pairs | {"anchor_ids": ids}, (*PAIRS, "scale", "bias")),
        "labels": Case(rt.SupConLoss, {}, {"embeddings": anchors, "labels": labels}, ("embeddings",)),
        "references": Case(
            rt.SupConLoss,
            {},
            {"embeddings": anchors, "labels": labels, "references": pool, "reference_labels": labels[::-1].copy()},
            ("embeddings", "references"),
        ),
    }
