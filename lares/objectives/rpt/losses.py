"""The losses of post-training, whichever way rollouts are encoded.

Every sample is encoded ``G`` times, each time to another depth and from another initial state: ``G``
rollouts of a policy whose steps each give the catalogue probabilities. A rollout is rewarded by where
its last step ranks the target; what it is worth beside the others of its sample weighs the
log-probability of the target at all its steps. A frozen copy of the model, the reference, holds the
policy back. Nothing of the size of rollouts x steps x catalogue exists.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import lares_kernels as lk
from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.model.depth import sample_depth
from lares.model.model import LaresModel
from lares.objectives.rpt.config import RptConfig

_STD_FLOOR = 1e-4  # added to a group's deviation


class _Targets(Protocol):
    """Hold what every batch has: (P,) item ids of this process, and how many all processes have."""

    @property
    def targets(self) -> Tensor: ...

    @property
    def global_size(self) -> int: ...


Samples = TypeVar("Samples", bound=_Targets)


def rewards_of(rpt: RptConfig, ranks: Tensor) -> Tensor:
    """Return the reward of each rank (0 for the best), in float32."""
    rewarded = (ranks < rpt.k).float()
    gains = 1.0 / torch.log2(ranks.float() + 2.0)
    return rewarded * (rpt.recall_reward + rpt.ndcg_reward * gains)


class Rollouts(NamedTuple):
    """Hold what an update needs of the rollouts and does not change with the policy.

    ``N`` is the number of steps of all ``G`` rollouts of a sample, rollout after rollout.

    Attributes:
        advantages, rewards: (B, G).
        old: (B, N) log-probability of the target under the policy that made the rollouts.
        reference: (B, N) the same under the reference.
    """

    advantages: Tensor
    rewards: Tensor
    old: Tensor
    reference: Tensor


class RptLosses(NamedTuple):
    """Scalars; ``total`` is differentiated, the others tell how it goes.

    Attributes:
        total: what is minimised.
        divergence: mean of ``exp(q) - q - 1``, ``q`` the reference's log-probability less the policy's.
        log_probability: mean of the target's.
        reward: mean over rollouts.
        advantage: mean absolute advantage; 0 where all rollouts of a sample fare alike.
        informative: share of samples whose rollouts do not all fare alike.
        entropy: mean of the policy's over the catalogue.
        depth: mean steps of a rollout.
        clipped: share of rollouts' steps whose ratio is cut off.
    """

    total: Tensor
    divergence: Tensor
    log_probability: Tensor
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
    """Return what each rollout is worth among those of its sample, (B, G): rewards (B, G) less their
    mean, over their (unbiased) standard deviation."""
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + _STD_FLOOR)


class _Steps:
    """Place the steps of ``G`` rollouts in padded trajectories (B, G, T_max, d)."""

    def __init__(self, depths: Sequence[int], device: torch.device) -> None:
        self.depths = tuple(depths)
        each = torch.tensor(self.depths)
        rollout = torch.arange(len(each)).repeat_interleave(each)
        step = torch.cat([torch.arange(depth) for depth in self.depths])
        self.rollout, self._step = rollout.to(device), step.to(device)
        # A step's part in the mean over the steps of its rollout, and that over rollouts.
        self._weight = (1.0 / (each * len(each)).double())[rollout].to(device)

    def take(self, trajectory: Tensor) -> Tensor:
        """(B, N, d) of the steps that were taken."""
        return trajectory[:, self.rollout, self._step]

    def mean(self, values: Tensor) -> Tensor:
        """(B,) of values (B, N): over the steps of each rollout, then over rollouts."""
        return (values * self._weight.to(values.dtype)).sum(-1)


class RptLossesOf(nn.Module, ABC, Generic[Samples]):
    """The losses of rollouts, whichever way these are encoded.

    Policy, reference and objective are one module, so that an engine that wraps modules wraps the
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

    def train(self, mode: bool = True) -> RptLossesOf[Samples]:
        """As of any module, but the reference stays in evaluation mode."""
        super().train(mode)
        self.reference.eval()
        return self

    def forward(
        self,
        batch: Samples,
        depths: Sequence[int],
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
            depths: steps of each of the ``G`` rollouts.
            seed: 64-bit key of the policy's dropout and initial states: the same in all updates, so
                that only the weights differ.
            reference_seed: of the reference's initial states.
            rollouts: of the first update, in those after it.
            initial_states: (B, G, L, d) of policy and reference, to fix them; drawn by default.
        """
        policy_states, reference_states = initial_states or (None, None)
        steps = _Steps(depths, batch.targets.device)
        shares = self.rpt.pre_block == "shared" or not self.training
        trajectory = self.encode(self.model, batch, depths, seed, policy_states, shares)
        states = steps.take(trajectory)
        catalogue = self.model.policy_catalogue
        policy = lk.catalogue_log_probability(
            states, catalogue.items, batch.targets, return_entropy=True, **catalogue.scoring
        )
        assert isinstance(policy, lk.LogProbability)
        found = policy.log_probability
        if rollouts is None:
            rollouts = self._judge(
                batch, steps, trajectory[:, :, -1], found, reference_seed, reference_states
            )

        q = rollouts.reference - found
        divergence = torch.expm1(q) - q
        if self.rpt.kind == "cross_entropy":
            gain, clipped = found, torch.zeros_like(found)
        else:
            gain, clipped = self._policy_gain(
                found, rollouts.old, rollouts.advantages[:, steps.rollout]
            )
        scale = self._n_processes / batch.global_size
        rewards = rollouts.rewards
        losses = RptLosses(
            total=steps.mean(self.rpt.beta * divergence - gain).sum() * scale,
            divergence=steps.mean(divergence.detach()).sum() * scale,
            log_probability=steps.mean(found.detach()).sum() * scale,
            reward=rewards.mean(dim=1).sum() * scale,
            advantage=rollouts.advantages.abs().mean(dim=1).sum() * scale,
            informative=(rewards != rewards[:, :1]).any(dim=1).sum() * scale,
            entropy=steps.mean(policy.entropy).sum() * scale,
            depth=found.new_tensor(sum(depths) / len(depths)),
            clipped=steps.mean(clipped).sum() * scale,
        )
        return losses, rollouts

    @torch.no_grad()
    def _judge(
        self,
        batch: Samples,
        steps: _Steps,
        last: Tensor,
        found: Tensor,
        reference_seed: int,
        reference_states: Tensor | None,
    ) -> Rollouts:
        """Rewards and advantages of rollouts that ended in ``last`` (B, G, d), and the reference's view
        of their steps."""
        n_groups = self.rpt.rollouts
        targets = batch.targets.repeat_interleave(n_groups)
        ranks = self.model.catalogue.ranks(last.flatten(0, 1), targets)
        rewards = rewards_of(self.rpt, ranks).reshape(-1, n_groups)
        # Without dropout the pre-block's output is the same for all rollouts.
        trajectory = self.encode(
            self.reference, batch, steps.depths, reference_seed, reference_states, shares=True
        )
        catalogue = self.reference.policy_catalogue
        reference = lk.catalogue_log_probability(
            steps.take(trajectory), catalogue.items, batch.targets, **catalogue.scoring
        )
        assert isinstance(reference, Tensor)
        return Rollouts(group_advantages(rewards), rewards, found.detach(), reference)

    @abstractmethod
    def encode(
        self,
        model: LaresModel,
        batch: Samples,
        depths: Sequence[int],
        seed: int,
        initial_states: Tensor | None,
        shares: bool,
    ) -> Tensor:
        """States (B, G, T_max, d) that predict each target after every step of every rollout.

        Args:
            model: the policy or the reference.
            batch: samples of this process.
            depths: steps of each of the ``G`` rollouts.
            seed: 64-bit key of dropout and initial states.
            initial_states: (B, G, L, d), to fix them.
            shares: whether rollouts of a sample may share one pass of the pre-block.
        """

    def _policy_gain(self, found: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """(surrogate of every step, 1 where its ratio is cut off), both (B, N)."""
        if self.rpt.updates == 1:
            return (found - found.detach()).exp() * advantages, torch.zeros_like(found)
        ratio = (found - old).exp()
        cut = ratio.clamp(1.0 - self.rpt.clip, 1.0 + self.rpt.clip)
        gain = torch.minimum(ratio * advantages, cut * advantages)
        return gain, (gain < ratio * advantages).to(found.dtype)
