"""The strategies by which negatives are chosen."""

import enum


class MiningStrategy(enum.Enum):
    """How negatives are chosen among the candidates, by cosine similarity s to the anchor.

    ================= ==================================================================================
    HARDEST           the k most similar
    SEMI_HARD         the most similar with s⁺ − margin < s < s⁺ (Schroff et al. 2015)
    DISTANCE_WEIGHTED k drawn without replacement, with weights that depend on s (Wu et al. 2017)
    RANDOM            k drawn uniformly without replacement
    ================= ==================================================================================

    References
    ----------
    Schroff, Kalenichenko & Philbin (2015), FaceNet, arXiv:1503.03832.
    Wu, Manmatha, Smola & Krähenbühl (2017), Sampling Matters in Deep Embedding Learning, arXiv:1706.07567.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.HardNegativeMiner(rt.MiningStrategy.HARDEST)
    HardNegativeMiner(hardest)
    """

    HARDEST = "hardest"
    SEMI_HARD = "semi_hard"
    DISTANCE_WEIGHTED = "distance_weighted"
    RANDOM = "random"

    @property
    def draws(self) -> bool:
        """Whether candidates are drawn at random."""
        return self in (MiningStrategy.DISTANCE_WEIGHTED, MiningStrategy.RANDOM)
