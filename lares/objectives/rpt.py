"""The reinforcement post-training objective (LARES, arXiv 2505.16865, section 3.4).

Every sample is encoded ``G`` times, each time to another depth and from another initial state: ``G``
rollouts of a policy whose steps each give the catalogue probabilities. A rollout is rewarded by where
its last step ranks the target; what it is worth beside the others of its sample weighs the
log-probability of the target at all its steps. A frozen copy of the model, the reference, holds the
policy back. Nothing of the size of rollouts x steps x catalogue exists.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lares.config import LaresConfig
from lares.depth import sample_depth
from lares.errors import ConfigError
from lares.evaluation.ranking import target_ranks
from lares.model import LaresModel

OBJECTIVES = ("policy", "cross_entropy")
PRE_BLOCKS = ("redrawn", "shared")
_STD_FLOOR = 1e-4  # added to a group's deviation


@dataclass(frozen=True)
class RptConfig:
    """How rollouts are made and what they are worth.

    Attributes:
        rollouts: ``G`` of every sample, at least 2.
        beta: weight of the divergence from the reference.
        k: ranks below it are rewarded.
        recall_reward: weight of the reward Recall@k.
        ndcg_reward: weight of the reward NDCG@k.
        objective: ``policy``, the paper's; or ``cross_entropy``, the target's negative
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
    objective: str = "policy"
    updates: int = 1
    clip: float = 0.2
    pre_block: str = "redrawn"
    filter_top: int = 100
    filter_passes: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("rollouts", 2),
            ("k", 1),
            ("updates", 1),
            ("filter_top", 0),
            ("filter_passes", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    f"objective.{name} is {value!r}; it must be a whole number of at least {least}"
                )
        for name in ("beta", "recall_reward", "ndcg_reward"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"objective.{name} is {value!r}; it must be zero or more")
        if not 0 < self.clip < 1:
            raise ConfigError(f"objective.clip is {self.clip!r}; it must lie between 0 and 1")
        for name, choices in (("objective", OBJECTIVES), ("pre_block", PRE_BLOCKS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"objective.{name} is {getattr(self, name)!r}; "
                    f"it must be one of {', '.join(choices)}"
                )
        if self.objective == "policy" and self.recall_reward + self.ndcg_reward == 0:
            raise ConfigError("objective.recall_reward and objective.ndcg_reward are both 0")

    def rewards(self, ranks: Tensor) -> Tensor:
        """Reward of each rank (0 for the best), in float32."""
        rewarded = (ranks < self.k).float()
        gains = 1.0 / torch.log2(ranks.float() + 2.0)
        return rewarded * (self.recall_reward + self.ndcg_reward * gains)


class RptBatch(NamedTuple):
    """Samples of one step, or this process's part of them.

    Attributes:
        item_seq: (B, L) int64, right padded; lengths: (B,); targets: (B,).
        depths: (G,) int64 steps of each rollout.
        sequence_ids: (B,) place in the whole batch, which addresses the random draws.
        global_size: samples in the whole batch.
    """

    item_seq: Tensor
    lengths: Tensor
    targets: Tensor
    depths: Tensor
    sequence_ids: Tensor
    global_size: int


class Rollouts(NamedTuple):
    """What an update needs of the rollouts and does not change with the policy.

    Attributes:
        advantages: (B, G).
        old: (B, G, T_max) log-probability of the target under the policy that made the rollouts.
        reference: (B, G, T_max) the same under the reference.
        rewards: (B, G).
    """

    advantages: Tensor
    old: Tensor
    reference: Tensor
    rewards: Tensor


class RptLosses(NamedTuple):
    """Scalars; ``total`` is differentiated, the others tell how it goes.

    Attributes:
        total: what is minimised.
        divergence: mean of ``exp(q) - q - 1``, ``q`` the reference's log-probability less the policy's.
        reward: mean over rollouts.
        advantage: mean absolute advantage; 0 where all rollouts of a sample fare alike.
        informative: share of samples whose rollouts do not all fare alike.
        entropy: of the policy's last step over the catalogue, of the first rollouts.
        depth: mean steps of a rollout.
        clipped: share of rollouts' steps whose ratio is cut off.
    """

    total: Tensor
    divergence: Tensor
    reward: Tensor
    advantage: Tensor
    informative: Tensor
    entropy: Tensor
    depth: Tensor
    clipped: Tensor


def draw_rollout_depths(
    config: LaresConfig, rollouts: int, generator: np.random.Generator
) -> list[int]:
    """Depth of each of ``rollouts``, drawn as in training."""
    return [
        sample_depth(config.depth_sampler, config.mean_depth, generator) for _ in range(rollouts)
    ]


def group_advantages(rewards: Tensor) -> Tensor:
    """What each rollout is worth among those of its sample: rewards (B, G) less their mean, over their
    (unbiased) standard deviation."""
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + _STD_FLOOR)


def target_log_probabilities(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of a target after every state, from plain dot products whatever the scores.

    Args:
        states: (B, ..., d).
        items: (V, d).
        targets: (B,).

    Returns:
        (B, ...).
    """
    scores = (states @ items.mT).log_softmax(dim=-1)
    index = targets.reshape(-1, *(1,) * (states.dim() - 1)).expand(*states.shape[:-1], 1)
    return scores.gather(-1, index).squeeze(-1)


def catalogue_entropy(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Mean entropy of the catalogue probabilities after states (B, d), without gradients.

    The gradient of a log-probability by its state is the target's embedding less the mean embedding,
    which gives the mean score: the entropy is the normaliser's logarithm less that.
    """
    with torch.enable_grad():
        rows = states.detach().requires_grad_()
        found = target_log_probabilities(rows, items.detach(), targets)
        (slope,) = torch.autograd.grad(found.sum(), rows)
    wanted = items.detach()[targets]
    normaliser = (rows.detach() * wanted).sum(-1) - found.detach()
    return (normaliser - (rows.detach() * (wanted - slope)).sum(-1)).mean()


class RptObjective(nn.Module):
    """Policy, reference and objective as one module, so that an engine that wraps modules wraps the
    whole step.

    Args:
        model: the policy; it must be recurrent.
        rpt: the objective.
        n_processes: that share a batch.
        reference: frozen; by default a copy of ``model`` as it is now.
    """

    def __init__(
        self,
        model: LaresModel,
        rpt: RptConfig,
        n_processes: int = 1,
        reference: LaresModel | None = None,
    ) -> None:
        super().__init__()
        if not model.config.is_recurrent:
            raise ConfigError(
                "this model has no recurrence (n_core_layers=0): it has no rollouts to learn from"
            )
        self.model = model
        self.reference = copy.deepcopy(model) if reference is None else reference
        self.reference.requires_grad_(False)
        self.rpt = rpt
        self._n_processes = n_processes

    def train(self, mode: bool = True) -> RptObjective:
        """As of any module, but the reference stays in evaluation mode."""
        super().train(mode)
        self.reference.eval()
        return self

    @torch.no_grad()
    def roll_out(
        self,
        batch: RptBatch,
        states: Tensor,
        seed: int,
        initial_states: Tensor | None = None,
    ) -> Rollouts:
        """Judge the rollouts whose steps ended in ``states`` (B, G, T_max, d), which
        :meth:`trajectory` gave; ``seed`` and ``initial_states`` are the reference's own."""
        items = self.model.encoder.item_embedding.weight
        n_groups = self.rpt.rollouts
        ranks = target_ranks(
            self.model.score_states(states[:, :, -1].flatten(0, 1)),
            batch.targets.repeat_interleave(n_groups),
        )
        rewards = self.rpt.rewards(ranks).reshape(-1, n_groups)
        # Without dropout the pre-block's output is the same for all rollouts.
        reference = self._encode(self.reference, batch, seed, initial_states, shares=True)
        reference_items = self.reference.encoder.item_embedding.weight
        return Rollouts(
            group_advantages(rewards),
            target_log_probabilities(states, items, batch.targets),
            target_log_probabilities(reference, reference_items, batch.targets),
            rewards,
        )

    def trajectory(
        self, batch: RptBatch, seed: int, initial_states: Tensor | None = None
    ) -> Tensor:
        """States (B, G, T_max, d) of the newest item after every step of every rollout."""
        shares = self.rpt.pre_block == "shared" or not self.model.training
        return self._encode(self.model, batch, seed, initial_states, shares)

    def _encode(
        self,
        model: LaresModel,
        batch: RptBatch,
        seed: int,
        initial_states: Tensor | None,
        shares: bool,
    ) -> Tensor:
        size, n_groups = len(batch.targets), self.rpt.rollouts
        depths = batch.depths.expand(size, -1)
        if shares:
            out = model.encoder(
                batch.item_seq,
                batch.lengths,
                depths,
                initial_states,
                seed=seed,
                sequence_ids=batch.sequence_ids,
                rollouts=n_groups,
                return_trajectory=True,
            )
            assert out.trajectory is not None
            return out.trajectory
        # Sequences of their own, next to each other, with random numbers of their own.
        rollout = torch.arange(n_groups, device=batch.sequence_ids.device)
        ids = batch.sequence_ids[:, None] + rollout * batch.global_size
        out = model.encoder(
            batch.item_seq.repeat_interleave(n_groups, dim=0),
            batch.lengths.repeat_interleave(n_groups),
            depths.reshape(-1),
            None if initial_states is None else initial_states.flatten(0, 1),
            seed=seed,
            sequence_ids=ids.reshape(-1),
            return_trajectory=True,
        )
        assert out.trajectory is not None
        return out.trajectory.unflatten(0, (size, n_groups))

    def forward(
        self,
        batch: RptBatch,
        seed: int,
        reference_seed: int,
        rollouts: Rollouts | None = None,
        initial_states: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[RptLosses, Rollouts]:
        """Losses of a batch, and its rollouts, which the next update on them takes.

        Scaled so that the average over processes of their gradients is the gradient of the whole
        batch.

        Args:
            batch: samples of this process.
            seed: 64-bit key of the policy's dropout and initial states: the same in all updates, so
                that only the weights differ.
            reference_seed: of the reference's initial states.
            rollouts: of the first update, in those after it.
            initial_states: (B, G, L, d) of policy and reference, to fix them; drawn by default.
        """
        policy_states, reference_states = initial_states or (None, None)
        states = self.trajectory(batch, seed, policy_states)
        if rollouts is None:
            rollouts = self.roll_out(batch, states.detach(), reference_seed, reference_states)
        items = self.model.encoder.item_embedding.weight
        found = target_log_probabilities(states, items, batch.targets)
        steps = torch.arange(found.shape[-1], device=found.device)
        taken = steps < batch.depths[:, None]  # (G, T_max)

        q = rollouts.reference - found
        divergence = torch.expm1(q) - q
        if self.rpt.objective == "cross_entropy":
            gain, clipped = found, torch.zeros_like(found)
        else:
            gain, clipped = self._policy_gain(found, rollouts)
        loss = self.rpt.beta * divergence - gain

        scale = self._n_processes / (batch.global_size * self.rpt.rollouts)

        def mean(values: Tensor) -> Tensor:
            """Over steps of each rollout, then over the rollouts of the whole batch."""
            of_rollouts = (values * taken).sum(-1) / batch.depths
            return of_rollouts.sum() * scale

        total = mean(loss)
        with torch.no_grad():
            uneven = (rollouts.rewards != rollouts.rewards[:, :1]).any(dim=1)
            losses = RptLosses(
                total=total,
                divergence=mean(divergence.detach()),
                reward=rollouts.rewards.sum() * scale,
                advantage=rollouts.advantages.abs().sum() * scale,
                informative=uneven.sum() * (scale * self.rpt.rollouts),
                entropy=catalogue_entropy(states[:, 0, -1], items, batch.targets),
                depth=batch.depths.double().mean(),
                clipped=mean(clipped),
            )
        return losses, rollouts

    def _policy_gain(self, found: Tensor, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """(surrogate of every step, 1 where its ratio is cut off), both (B, G, T_max)."""
        advantages = rollouts.advantages[..., None]
        if self.rpt.updates == 1:
            return (found - found.detach()).exp() * advantages, torch.zeros_like(found)
        ratio = (found - rollouts.old).exp()
        cut = ratio.clamp(1.0 - self.rpt.clip, 1.0 + self.rpt.clip)
        gain = torch.minimum(ratio * advantages, cut * advantages)
        return gain, (gain < ratio * advantages).to(found.dtype)
