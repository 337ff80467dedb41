"""Full-ranking evaluation."""

from lares.evaluation.evaluate import evaluate
from lares.evaluation.popularity import evaluate_popularity, popularity_tenths
from lares.evaluation.ranking import DEFAULT_KS, metrics_from_ranks, target_ranks

__all__ = [
    "DEFAULT_KS",
    "evaluate",
    "evaluate_popularity",
    "metrics_from_ranks",
    "popularity_tenths",
    "target_ranks",
]
