"""Options of post-training; as :mod:`lares.training.config`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from lares.errors import ConfigError
from lares.plain import not_negative, one_of, settle_options, whole

KINDS = ("policy", "cross_entropy")
PRE_BLOCKS = ("redrawn", "shared")


@dataclass(frozen=True)
class RptConfig:
    """Rollouts, their rewards and the objective.

    Attributes:
        rollouts: Number of rollouts G of every sample, at least 2.
        beta: Weight of the divergence from the reference.
        k: Cut-off of the rewards: targets that rank among the first k are rewarded.
        recall_reward: Weight of the reward Recall@k.
        ndcg_reward: Weight of the reward NDCG@k.
        kind: Kind of objective: policy, the paper's; or cross_entropy, the target's negative
            log-probability at all steps of the same rollouts, which shows what the same compute does
            without rewards (beta still holds it to the reference).
        updates: Number of optimizer steps on the same rollouts.
        clip: Bound of the ratio of new to old probabilities with several updates: it counts within
            1 - clip .. 1 + clip.
        pre_block: Dropout before the recurrence: redrawn for every rollout, as published, or shared by
            the rollouts of a sample, which then share its pre-block output H.
        filter_top: Leave out samples whose target the model to start from never ranks among this many;
            0 keeps all.
        filter_passes: Number of evaluation passes of that filter, each from other initial states.
    """

    rollouts: int = 4
    beta: float = 1.0
    k: int = 10
    recall_reward: float = 1.0
    ndcg_reward: float = 0.0
    kind: str = "policy"
    updates: int = 1
    clip: float = 0.2
    pre_block: str = "redrawn"
    filter_top: int = 100
    filter_passes: int = 3

    def __post_init__(self) -> None:
        settle_options(self, "objective")
        least_of = {"rollouts": 2, "k": 1, "updates": 1, "filter_top": 0, "filter_passes": 1}
        for name, least in least_of.items():
            whole(f"objective.{name}", getattr(self, name), least)
        for name in ("beta", "recall_reward", "ndcg_reward"):
            not_negative(f"objective.{name}", getattr(self, name))
        if not 0 < self.clip < 1:
            raise ConfigError(f"objective.clip is {self.clip!r}; it must lie between 0 and 1")
        one_of("objective.kind", self.kind, KINDS)
        one_of("objective.pre_block", self.pre_block, PRE_BLOCKS)
        if self.kind == "policy" and self.recall_reward + self.ndcg_reward == 0:
            raise ConfigError("objective.recall_reward and objective.ndcg_reward are both 0")
