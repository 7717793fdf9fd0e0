"""Pairs of ids for a model of two tables, as rows and pairs that `Trainer.fit` knows."""

from typing import Any

import numpy as np

from rvtrain.training._embedding import Sides, as_array


def ids_as_rows(
    sides: Sides, queries: Any, documents: Any, pairs: Any, validation: Any = None
) -> tuple[Any, Any, Any, Any]:
    """queries, documents, pairs and validation, where rows are ids if both sides are tables and pairs is None.

    Row i of queries and row i of documents are then a pair of ids, and all ids of the tables are queries and
    documents: an id that comes often is one row, and none of its pairs is a negative of another.
    """
    models = sides.query, sides.document
    if pairs is not None or not all(getattr(model, "accepts_ids", False) for model in models):
        return queries, documents, pairs, validation
    pairs = _pairs(models, ("queries", "documents"), queries, documents)
    if isinstance(validation, (tuple, list)) and len(validation) == 2 and np.ndim(validation[0]) == 1:
        columns = [as_array(f"validation[{side}]", each) for side, each in enumerate(validation)]
        if isinstance(validation, tuple) or len(columns[0]) != 2:
            validation = _pairs(models, ("validation[0]", "validation[1]"), *columns)
    asking, wanted = (np.arange(len(model.params["weight"])) for model in models)
    return asking, wanted, pairs, validation


def _pairs(models: tuple[Any, Any], names: tuple[str, str], queries: Any, documents: Any) -> Any:
    """The pairs (P, 2) of two columns of ids, each within its table."""
    columns = [
        model.featurize(x, name)[:, 0] for model, name, x in zip(models, names, (queries, documents), strict=True)
    ]
    if len(columns[0]) != len(columns[1]):
        raise ValueError(
            f"pairs must be given where {names[0]} and {names[1]} differ in number, got {len(columns[0])} and "
            f"{len(columns[1])}"
        )
    return np.stack(columns, axis=1)
