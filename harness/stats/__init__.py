"""Paired statistics over items and seeds: intervals, tests, verdicts and what a suite could have detected."""

from harness.stats.scoreset import ScoreSet
from harness.stats.verdict import Comparison, Interval, compare, compare_all, interval, intervals

__all__ = ["Comparison", "Interval", "ScoreSet", "compare", "compare_all", "interval", "intervals"]
