"""Transformer layers of someone else's model on the op, once or as a recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from torch import Tensor, nn

from lares.depth import sample_depth
from lares.errors import ConfigError
from lares_kernels import CoreConfig, refine
from lares_kernels.seeds import DrawSeeds, drawn_seed
from lares_kernels.torch_layers import LayerTensors, stack_layers

CORE_NORM = "lares_core_norm"  # the model's attribute that holds LayerNorm_core


@dataclass
class Recurrence:
    """Which layers reason, and how long.

    Attributes:
        n_pre: layers that run once, before; the others are the core-block.
        mean_depth: mean number of steps in training.
        depth_sampler: one of ``lares.depth.DEPTH_SAMPLERS``.
        num_steps: steps in evaluation, to be changed at will.
    """

    n_pre: int
    mean_depth: int
    depth_sampler: str
    num_steps: int


@dataclass
class SwappedLayers:
    """The layers of ``model`` as one op.

    Attributes:
        config: of all layers, run once.
        tensors: the layers' parameters, first to last, read from the model at every call.
        model: who owns them, and LayerNorm_core if there is a recurrence.
        seeds: of training forwards: dropout, depth and initial state follow from them.
        recurrence: None where all layers run once.
    """

    config: CoreConfig
    tensors: Callable[[], Sequence[LayerTensors]]
    model: nn.Module
    seeds: DrawSeeds = field(default_factory=DrawSeeds)
    recurrence: Recurrence | None = None

    def run(
        self,
        hidden: Tensor,
        lengths: Tensor | None,
        *,
        every_row: bool,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Output of the layers: newest rows (B, d), or with ``every_row`` all, like ``hidden``."""
        training = self.model.training
        layers = list(self.tensors())
        rec = self.recurrence
        seed = self.seeds.take() if training else None
        if seed is None and training and rec is not None:
            seed = drawn_seed()  # one for its layers and its depth

        def call(
            config: CoreConfig,
            parameters: dict[str, Tensor],
            x: Tensor,
            steps: int,
            every_row: bool,
        ) -> Tensor:
            out = refine(
                config,
                parameters,
                x,
                lengths=lengths,
                cu_seqlens=cu_seqlens,
                num_steps=steps,
                seed=seed,
                training=training,
                return_state=every_row,
            )
            return cast("Tensor", out.state) if every_row else out.last

        if rec is None:
            return call(self.config, stack_layers(layers), hidden, 1, every_row)
        if rec.n_pre:
            pre = replace(self.config, n_layers=rec.n_pre)
            hidden = call(pre, stack_layers(layers[: rec.n_pre]), hidden, 1, True)
        steps = rec.num_steps
        if training:
            assert seed is not None
            draws = np.random.Generator(np.random.Philox(key=int(seed) % (1 << 64)))
            steps = sample_depth(rec.depth_sampler, rec.mean_depth, draws)
        norm = cast("nn.LayerNorm", getattr(self.model, CORE_NORM))
        parameters = stack_layers(layers[rec.n_pre :])
        parameters |= {"core_norm_weight": norm.weight, "core_norm_bias": norm.bias}
        core = replace(self.config, n_layers=len(layers) - rec.n_pre, adapter="add")
        return call(core, parameters, hidden, steps, every_row)

    def make_recurrent(self, n_pre: int, mean_depth: int, depth_sampler: str) -> None:
        """Let the layers after the first ``n_pre`` reason; adds LayerNorm_core to the model.

        Raises:
            ConfigError: an option is out of range.
        """
        if not 0 <= n_pre < self.config.n_layers:
            raise ConfigError(
                f"n_pre is {n_pre}; the model has {self.config.n_layers} layers, so it must be in "
                f"0..{self.config.n_layers - 1}"
            )
        sample_depth(depth_sampler, mean_depth, np.random.default_rng(0))  # checks both
        like = self.tensors()[0]["qkv_weight"]
        norm = nn.LayerNorm(self.config.d_model, self.config.eps).to(like.device, like.dtype)
        self.model.add_module(CORE_NORM, norm)
        self.recurrence = Recurrence(n_pre, mean_depth, depth_sampler, mean_depth)


def swapped_layers(model: nn.Module) -> SwappedLayers | None:
    """Of a model that was swapped, else None."""
    return cast("SwappedLayers | None", model.__dict__.get("lares_layers"))
