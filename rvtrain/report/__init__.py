"""A training in one page of HTML: curves, metrics before and after, scores, ranks, mistakes, mining, settings."""

from rvtrain.report._ranking import Ranking, rank_queries
from rvtrain.report._write import write_report

__all__ = ["Ranking", "rank_queries", "write_report"]
