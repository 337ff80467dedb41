"""Options of post-training; as :mod:`lares.training.config`, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lares.errors import ConfigError
from lares.plain import not_negative, option, settle_options, whole_in

MOST_RANK = 2**31 - 1  # of any catalogue: its items are numbered in 32 bits


@dataclass(frozen=True)
class RptConfig:
    """Rollouts, their rewards and the objective.

    Attributes:
        rollouts: Number of rollouts G of every sample, at least 2.
        beta: Weight of the divergence from the reference.
        k: Cut-off of the rewards: targets that rank among the first k are rewarded.
        recall_reward: Weight of the reward Recall@k.
        ndcg_reward: Weight of the reward NDCG@k.
        kind: Kind of objective: by default the paper's; cross_entropy is the target's negative
            log-probability at all steps of the same rollouts, which shows what the same compute does
            without rewards (beta still holds it to the reference).
        updates: Number of optimizer steps on the same rollouts.
        clip: Bound of the ratio of new to old probabilities with several updates: it counts within
            1 - clip .. 1 + clip.
        pre_block: Dropout before the recurrence: for every rollout anew, as published, or for all of a
            sample once, which then have one pre-block output H.
        filter_top: Leave out samples whose target the model to start from never ranks among this many;
            0 keeps all.
        filter_passes: Number of evaluation passes of that filter, each from other initial states.
    """

    rollouts: int = option(4, whole_in(2))
    beta: float = option(1.0, not_negative)
    k: int = option(10, whole_in(1, MOST_RANK))
    recall_reward: float = option(1.0, not_negative)
    ndcg_reward: float = option(0.0, not_negative)
    kind: Literal["policy", "cross_entropy"] = "policy"
    updates: int = option(1, whole_in(1))
    clip: float = 0.2
    pre_block: Literal["redrawn", "shared"] = "redrawn"
    filter_top: int = option(100, whole_in(0, MOST_RANK))
    filter_passes: int = option(3, whole_in(1))

    def __post_init__(self) -> None:
        settle_options(self, "objective.")
        if not 0 < self.clip < 1:
            raise ConfigError(f"objective.clip is {self.clip!r}; it must lie between 0 and 1")
        if self.kind == "policy" and self.recall_reward + self.ndcg_reward == 0:
            raise ConfigError("objective.recall_reward and objective.ndcg_reward are both 0")
