"""Name what is said of a ranking: metrics, and which of them are means.

All but one are means of one number a sample, and have a standard error; coverage is of all lists
together, and has none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lares.plain import one_of

RANK_METRICS = ("recall", "ndcg", "mrr")  # of the target's rank
LIST_METRICS = ("coverage", "repeats")  # of the best items themselves
METRICS = (*RANK_METRICS, *LIST_METRICS)
USUAL = ("recall", "ndcg")
MEANS = ("recall", "ndcg", "mrr", "repeats")  # of one number a sample
ERROR = "_error"  # ends the name of a mean's standard error


def chosen_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return metrics as asked for, each once.

    Raises:
        ConfigError: there is no such metric, or none is asked for.
    """
    if isinstance(metrics, str) or not metrics:
        one_of("metrics", metrics, METRICS)
        return (str(metrics),)
    for name in metrics:
        one_of("metrics", name, METRICS)
    return tuple(dict.fromkeys(metrics))


def wants_lists(metrics: Collection[str]) -> bool:
    """Return whether a metric is among them that takes the best items themselves."""
    return any(name in LIST_METRICS for name in metrics)
