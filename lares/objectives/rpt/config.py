"""Options of post-training; as :mod:`lares.training.config`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from lares.errors import ConfigError
from lares.plain import not_negative, one_of, settle_options, whole

KINDS = ("policy", "cross_entropy")
PRE_BLOCKS = ("redrawn", "shared")


@dataclass(frozen=True)
class RptConfig:
    """How rollouts are made and what they are worth.

    Attributes:
        rollouts: ``G`` of every sample, at least 2.
        beta: weight of the divergence from the reference.
        k: ranks below it are rewarded.
        recall_reward: weight of the reward Recall@k.
        ndcg_reward: weight of the reward NDCG@k.
        kind: of objective: ``policy``, the paper's; or ``cross_entropy``, the target's negative
            log-probability at all steps of the same rollouts: what the same compute does without
            rewards (``beta`` still holds it to the reference).
        updates: optimiser steps on the same rollouts.
        clip: with several updates, how far the ratio of new to old probabilities counts: within
            ``1 - clip .. 1 + clip``.
        pre_block: dropout before the recurrence is ``redrawn`` for every rollout, as published, or
            ``shared`` by those of a sample, which then share its ``H``.
        filter_top: samples whose target the model to start from never ranks among so many are left
            out; 0 keeps all.
        filter_passes: evaluation passes, each from other initial states, that a target may rank in.
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
