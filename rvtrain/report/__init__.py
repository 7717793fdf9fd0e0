"""A training in one page of HTML: curves, metrics before and after, scores, ranks, mistakes, mining, settings."""

from rvtrain.report._ranking import Ranking, rank_queries

__all__ = ["Ranking", "rank_queries"]
