"""Paired statistics over items and seeds: intervals, tests, verdicts and what a suite could have detected."""

from harness.stats.pareto import Membership, pareto_front
from harness.stats.profiles import performance_profile, profile_scores
from harness.stats.ranks import Ranking, SignedRank, bayesian_signed_rank, rank
from harness.stats.ratio import Ratio, paired_ratio
from harness.stats.scoreset import ScoreSet
from harness.stats.verdict import Comparison, Interval, compare, compare_all, correlation, interval, intervals

__all__ = [
    "Comparison",
    "Interval",
    "Membership",
    "Ranking",
    "Ratio",
    "ScoreSet",
    "SignedRank",
    "bayesian_signed_rank",
    "compare",
    "compare_all",
    "correlation",
    "interval",
    "intervals",
    "paired_ratio",
    "pareto_front",
    "performance_profile",
    "profile_scores",
    "rank",
]
