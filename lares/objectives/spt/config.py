"""Options of pre-training; as :mod:`lares.training.config`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.plain import not_negative, option, settle_options, whole_in


@dataclass(frozen=True)
class SptConfig:
    """Weights of the losses beside the recommendation loss.

    Attributes:
        alpha: Weight of trajectory-level alignment; 0 leaves it out.
        gamma: Weight of step-level alignment; 0 leaves it out.
        deep_supervision: Weight of the recommendation loss after an earlier step, drawn for each batch
            from those before the last, so that every step learns to recommend (Lee et al., AISTATS
            2015); 0, as published, leaves it out.
        align_warmup: Number of steps over which the weights of alignment grow linearly from nothing; 0,
            as published, has them whole from the first. Early states are hard to tell apart, and trying
            delays the recommendation loss.
        align_short_only: Have 'lares train' leave alignment out where histories are long, 20 training
            samples a user or more: there it takes many times as long to gain anything.
        one_encoding: Align the states that recommend. As published, alignment encodes a second time,
            with dropout, noise and a depth of its own.
        same_step: Let the partner reason to the same depth as the sequence it is aligned with.
        mask_same_target: Do not take samples of a batch that have the same target for negatives of each
            other. The authors do.
    """

    alpha: float = option(0.1, not_negative)
    gamma: float = option(0.5, not_negative)
    deep_supervision: float = option(0.0, not_negative)
    align_warmup: int = option(0, whole_in(0))
    align_short_only: bool = False
    one_encoding: bool = False
    same_step: bool = True
    mask_same_target: bool = False

    def __post_init__(self) -> None:
        settle_options(self, "objective.")

    @property
    def aligns(self) -> bool:
        """Tell whether alignment is wanted."""
        return self.alpha > 0 or self.gamma > 0

    def warmth(self, step: int) -> float:
        """Share of the weights of alignment that the update ``step`` (from 0) has."""
        return min(1.0, (step + 1) / (self.align_warmup + 1))


def check_has_steps(config: LaresConfig, spt: SptConfig) -> None:
    """Raise ``ConfigError`` if the losses ask for steps of a model that has none."""
    if config.is_recurrent:
        return
    for name in ("gamma", "deep_supervision"):
        if getattr(spt, name) > 0:
            raise ConfigError(
                f"objective.{name} is {getattr(spt, name)}, but a model without recurrence "
                f"(model.n_core_layers=0) has no steps to learn from; set objective.{name}=0 "
                "(the recipe 'sasrec' does)"
            )
