"""Linear adapters as transforms of faiss."""

import importlib
from typing import Any

import numpy as np

from rvtrain.export._arrays import linear_map, towers


def to_faiss(model: Any, side: str | None = None) -> Any:
    r"""A linear model as a ``faiss.LinearTransform``, the transform of an ``IndexPreTransform``.

    An index whose transform this is embeds the vectors that it is given. For cosines, as everywhere in rvtrain, a
    ``NormalizationTransform`` stands behind it.

    Parameters
    ----------
    model : LinearAdapter, Sequential of linear adapters, or TwoTower of these
    side : {"query", "document"}, optional
        The tower of a `TwoTower` of two models.

    Returns
    -------
    faiss.LinearTransform
        In float32.

    Raises
    ------
    ImportError
        If faiss is not installed.
    TypeError
        If the model is none of these.
    ValueError
        If it is not linear, or has two sides and none is chosen.

    References
    ----------
    Johnson, Douze & Jégou (2021), Billion-scale similarity search with GPUs, arXiv:1702.08734.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> from rvtrain.export import to_faiss
    >>> import faiss  # doctest: +SKIP
    >>> adapter, vectors = rt.LinearAdapter(8, 4), np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    >>> index = faiss.IndexPreTransform(faiss.NormalizationTransform(4, 2.0), faiss.IndexFlatIP(4))  # doctest: +SKIP
    >>> index.prepend_transform(to_faiss(adapter))  # doctest: +SKIP
    >>> index.add(vectors)  # doctest: +SKIP
    >>> scores, indices = index.search(vectors[:1], 3)  # doctest: +SKIP
    """
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        raise ImportError("to_faiss needs faiss: pip install faiss-cpu") from None
    found = towers(model, side)
    if len(found) > 1:
        raise ValueError("side must be 'query' or 'document' for a model of two sides, got None")
    weight, bias = linear_map(*found.values())
    transform = faiss.LinearTransform(*weight.shape, bool(bias.any()))
    faiss.copy_array_to_vector(np.ascontiguousarray(weight.T, np.float32).ravel(), transform.A)
    if bias.any():
        faiss.copy_array_to_vector(np.ascontiguousarray(bias, np.float32), transform.b)
    transform.is_trained = True
    transform.set_is_orthonormal()
    return transform
