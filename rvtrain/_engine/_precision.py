"""The precision of products of float32: of all, or of one object."""

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._amx import has_amx
from rvtrain._engine._bfloat16 import TILED, WORD, Operand, has_bfloat16

PRECISIONS = ("highest", "high", "medium")

_chosen = PRECISIONS[0]


def set_float32_precision(precision: str) -> None:
    """Choose how products of float32 matrices are computed where an object does not choose.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        "highest": in float32. "medium": operands are rounded to bfloat16, of 8 bits of precision, and products are
        summed in float32, where the processor has instructions for that (AMX or AVX-512 BF16), else as "highest".
        "high": each operand is the sum of two bfloat16 numbers, 16 bits of precision, and each product the sum of
        three, where the processor has AMX, else as "highest", because with AVX-512 BF16 it would be slower. The words
        are those of ``torch.set_float32_matmul_precision``.

    Raises
    ------
    ValueError
        If precision is none of these.

    See Also
    --------
    get_float32_precision

    Notes
    -----
    It holds for the whole process, for losses over all pairs of a batch or of a pool, and for adapters. Scores,
    exponentials, sums, norms, parameters and optimizers stay in float32 or float64, as do arrays of float64, search
    and mining. At a temperature of 0.05, errors of gradients are about 2e-3 of the largest in "medium", and below
    1e-5 in "high"; they grow with 1 / τ.

    References
    ----------
    Kalamkar et al. (2019), A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.set_float32_precision("medium")
    >>> rt.get_float32_precision()
    'medium'
    >>> rt.set_float32_precision("highest")
    """
    global _chosen
    _chosen = check.choice("precision", precision, PRECISIONS)


def get_float32_precision() -> str:
    """The precision chosen by `set_float32_precision`.

    Returns
    -------
    {"highest", "high", "medium"}

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.get_float32_precision()
    'highest'
    """
    return _chosen


def precision_used(precision: str | None) -> str:
    """The precision that products of float32 have on this processor."""
    chosen = precision or _chosen
    possible = {"high": has_amx, "medium": has_bfloat16}.get(chosen)
    return chosen if possible is not None and possible() else "highest"


def operand_for(precision: str | None, dtype: np.dtype) -> Operand:
    """The packed operands of products of arrays of this type: of their own type, or of words of bfloat16."""
    used = precision_used(precision) if dtype == np.float32 else "highest"
    if used == "highest":
        return Operand(np.dtype(dtype))
    return Operand(TILED if has_amx() else WORD, used == "high")
