"""The ranking loss of sentence-transformers, computed by InfoNCE.

# Design: row i of the loss is −s⁺ + log Σ, where the sum has the terms of the directions asked for. A term is a set
# of columns for the rows of one side, with one hardness, and each is a call of InfoNCELoss:
#
#     one term                    InfoNCELoss(reduction="mean"): value and gradients in one call
#     both ways, per direction    InfoNCELoss(symmetric=True)
#     several terms               ℓ_k = log(1 + Σ_k / e^{s⁺}) of each term, by reduction="none", joined by torch:
#                                 log(1 + Σ_k (e^{ℓ_k} − 1))
#
# Ids exclude pairs: row i has the id i, as have its own documents where they are no negatives; −1 is no row's id.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from rvtrain import _validation as check
from rvtrain.torch._losses import InfoNCELoss

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
_SAME_SIDE = {"query_to_query", "doc_to_doc"}
PARTITIONS = ("joint", "per_direction")
HARDNESS_MODES = ("in_batch_negatives", "hard_negatives", "all_negatives")
_SIMILARITIES = {"cos_sim": "cosine", "pytorch_cos_sim": "cosine", "dot_score": "dot"}
"""Similarities of `InfoNCELoss` by the names of functions of sentence-transformers."""


class Term(NamedTuple):
    """A part of the denominator's sum, of which each row has one."""

    anchors: torch.Tensor
    positives: torch.Tensor
    negatives: torch.Tensor | None
    """None: the other rows' positives; (N, d) or (B, N, d)"""
    ids: torch.Tensor | None
    """(N,) for a pool (N, d): row i does not count columns of id i"""
    hardness: float = 0.0


class MultipleNegativesRankingLoss(nn.Module):
    r"""The loss of this name of sentence-transformers, computed on the CPU without a matrix of all scores.

    .. math:: L = -\frac{1}{B} \sum_i \Big( s^+_i - \log \sum_j e^{s_{ij}} \Big), \qquad s = \text{scale} \cdot \cos

    The columns j are those of the directions. The arguments have the names, the defaults and the meaning of
    sentence-transformers 6.2, and the values and gradients are equal to rounding. It is given to
    ``SentenceTransformerTrainer(loss=…)``, or called in a loop of one's own.

    Parameters
    ----------
    model : nn.Module
        Called with the features of each column; returns a dict with "sentence_embedding" (B, d), on the CPU.
    scale : float
        1 / temperature, > 0.
    similarity_fct : {"cosine", "dot"}, or ``util.cos_sim`` or ``util.dot_score`` of sentence-transformers
        Other functions are refused.
    gather_across_devices : bool
        Only False: the loss is of one process.
    directions : tuple of {"query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"}
        The scores in the sum of row i: of its query with all documents (required), with the other queries; of its
        positive with all queries, with the documents of other queries.
    partition_mode : {"joint", "per_direction"}
        One sum for all directions, or the mean of a loss for each of query_to_doc and doc_to_query.
    hardness_mode : {None, "in_batch_negatives", "hard_negatives", "all_negatives"}
        The negatives of query_to_doc with the logit s + hardness_strength · cos, where the second term is a constant
        for the gradient: the documents of other queries, the query's own hard negatives, or both.
    hardness_strength : float
        ≥ 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of those above; and if the embeddings are not on the CPU or do not fit.

    References
    ----------
    Henderson et al. (2017), arXiv:1705.00652; directions of Li et al. (2023), arXiv:2308.03281; hardness of
    Lan et al. (2025), arXiv:2503.04812, and Schechter Vera et al. (2025), arXiv:2509.20354.

    Examples
    --------
    >>> import torch
    >>> from rvtrain.torch import MultipleNegativesRankingLoss
    >>> class Model(torch.nn.Module):
    ...     def forward(self, features):
    ...         return {"sentence_embedding": features["x"]}
    >>> loss = MultipleNegativesRankingLoss(Model(), scale=1.0)
    >>> columns = [{"x": torch.eye(2)}, {"x": torch.eye(2)}]  # anchors, positives; then hard negatives
    >>> round(loss(columns).item(), 4)
    0.3133
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: str | Callable[..., Any] = "cosine",
        gather_across_devices: bool = False,
        directions: Iterable[str] = ("query_to_doc",),
        partition_mode: str = "joint",
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.scale = check.number("scale", scale, low=0.0, open_low=True)
        self.similarity = _similarity_of(similarity_fct)
        if gather_across_devices:
            raise ValueError("gather_across_devices must be False: this loss is computed in one process, on its CPU")
        self.directions = check.choices("directions", directions, DIRECTIONS)
        if "query_to_doc" not in self.directions:
            raise ValueError(f"directions must contain 'query_to_doc', got {self.directions}")
        self.partition_mode = check.choice("partition_mode", partition_mode, PARTITIONS)
        if self.partition_mode == "per_direction" and _SAME_SIDE & {*self.directions}:
            raise ValueError(
                "partition_mode 'per_direction' is for query_to_doc and doc_to_query, "
                f"got directions {self.directions}"
            )
        if hardness_mode is not None:
            hardness_mode = check.choice("hardness_mode", hardness_mode, HARDNESS_MODES)
        self.hardness_mode = hardness_mode
        self.hardness_strength = check.number("hardness_strength", hardness_strength, low=0.0)

    @property
    def temperature(self) -> float:
        """1 / scale."""
        return 1.0 / self.scale

    def get_config_dict(self) -> dict[str, Any]:
        """The arguments, as sentence-transformers writes them to the card of a model."""
        return {
            "scale": self.scale,
            "similarity_fct": {"cosine": "cos_sim", "dot": "dot_score"}[self.similarity],
            "gather_across_devices": False,
            "directions": self.directions,
            "partition_mode": self.partition_mode,
            "hardness_mode": self.hardness_mode,
            "hardness_strength": self.hardness_strength,
        }

    def forward(self, sentence_features: Iterable[Mapping[str, Any]], labels: Any = None) -> torch.Tensor:
        """The loss of the columns (anchors, positives, hard negatives …); `labels` are not used."""
        return self.compute_loss_from_embeddings(
            [self.model(features)["sentence_embedding"] for features in sentence_features]
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def compute_loss_from_embeddings(self, embeddings: Iterable[torch.Tensor], labels: Any = None) -> torch.Tensor:
        """The loss of the embeddings (B, d) of each column."""
        columns = list(embeddings)
        if len(columns) < 2:
            raise ValueError(f"columns must be anchors, positives and any number of negatives, got {len(columns)}")
        if unlike := [tuple(x.shape) for x in columns if x.shape != columns[0].shape or x.ndim != 2]:
            raise ValueError(f"embeddings must have the shape (B, d) of the first column, got {unlike[0]}")
        queries, positives, *hard = columns
        terms = self._from_queries(queries, positives, hard)
        if self.partition_mode == "joint":
            return self._softmax(terms + self._from_documents(queries, positives, hard), self._twice)
        if not self._twice:
            return self._softmax(terms)
        if len(terms) == 1 and not terms[0].hardness:
            return self._loss("mean", symmetric=True)(queries, positives, torch.cat(hard) if hard else None)
        return (self._softmax(terms) + self._softmax(self._from_documents(queries, positives, hard))) / 2

    @property
    def _twice(self) -> bool:
        """Whether both directions of a pair are asked for, so that a joint sum has the positive twice."""
        return "doc_to_query" in self.directions

    def _from_queries(self, queries: torch.Tensor, positives: torch.Tensor, hard: list[torch.Tensor]) -> list[Term]:
        """The terms whose rows are queries."""
        rows, documents = torch.arange(len(queries)), [positives, *hard]
        strength = 0.0 if self.hardness_mode is None else self.hardness_strength
        if strength and hard and self.hardness_mode != "all_negatives":
            in_batch = self.hardness_mode == "in_batch_negatives"
            others = Term(queries, positives, torch.cat(documents), rows.repeat(len(documents)), strength * in_batch)
            own = Term(queries, positives, torch.stack(hard, 1), None, strength * (not in_batch))
            terms = [others, own]
        else:
            if not hard and self.hardness_mode == "hard_negatives":
                strength = 0.0
            ids = torch.cat([rows, rows.new_full((len(queries) * len(hard),), -1)])
            terms = [Term(queries, positives, torch.cat(documents), ids, strength)]
            if not hard and (strength or "query_to_query" not in self.directions):
                terms = [Term(queries, positives, None, None, strength)]
        if "query_to_query" in self.directions:
            first, *rest = terms
            if first.hardness == 0.0 and first.negatives is not None and first.ids is not None:
                pool, ids = torch.cat([first.negatives, queries]), torch.cat([first.ids, rows])
                return [first._replace(negatives=pool, ids=ids), *rest]
            terms.append(Term(queries, positives, queries, rows))
        return terms

    def _from_documents(self, queries: torch.Tensor, positives: torch.Tensor, hard: list[torch.Tensor]) -> list[Term]:
        """The term whose rows are the positives, if there is one."""
        parts = [queries] if "doc_to_query" in self.directions else []
        if "doc_to_doc" in self.directions:
            parts += [positives, *hard]
        if not parts:
            return []
        if len(parts) == 1 and parts[0] is queries:
            return [Term(positives, queries, None, None)]
        return [Term(positives, queries, torch.cat(parts), torch.arange(len(queries)).repeat(len(parts)))]

    def _softmax(self, terms: list[Term], twice: bool = False) -> torch.Tensor:
        """The mean over the rows of −s⁺ + log(e^{s⁺} + the sums of all terms); e^{s⁺} counts twice with `twice`."""
        alone = len(terms) == 1 and not twice
        values = [self._value(term, "mean" if alone else "none") for term in terms]
        if alone:
            return values[0]
        each = torch.stack(values).double()
        highest = each.detach().amax(0)
        one = torch.exp(-highest)
        total = (torch.exp(each - highest) - one).sum(0) + one * (2 if twice else 1)
        return (highest + torch.log(total)).mean().to(values[0].dtype)

    def _value(self, term: Term, reduction: str) -> torch.Tensor:
        ids = {}
        if term.ids is not None:
            ids = {"anchor_ids": torch.arange(len(term.anchors)), "negative_ids": term.ids}
        loss = self._loss(reduction, hardness=term.hardness)
        return loss(term.anchors, term.positives, term.negatives, **ids)

    def _loss(self, reduction: str, symmetric: bool = False, hardness: float = 0.0) -> Any:
        return InfoNCELoss(self.temperature, reduction, symmetric, similarity=self.similarity, hardness=hardness)


def _similarity_of(similarity_fct: Any) -> str:
    """The similarity of `InfoNCELoss` that a function of sentence-transformers computes."""
    name = similarity_fct
    if callable(similarity_fct):
        home = str(getattr(similarity_fct, "__module__", ""))
        name = getattr(similarity_fct, "__name__", None) if home.startswith("sentence_transformers.") else None
    found = _SIMILARITIES.get(name, name) if isinstance(name, str) else None
    if found not in ("cosine", "dot"):
        raise ValueError(
            "similarity_fct must be 'cosine', 'dot', or cos_sim or dot_score of sentence_transformers.util, "
            f"got {similarity_fct!r}"
        )
    return found
