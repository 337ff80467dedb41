"""Transformer layers of someone else's model on the op, once or as a recurrence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from torch import Tensor, nn

from lares.errors import ConfigError
from lares.model.depth import sample_depth
from lares.plain import plain, whole
from lares_kernels import CoreConfig, refine
from lares_kernels.interop.parts import Drops, Stretch, refuse, refuse_hooks, stretches
from lares_kernels.interop.torch_layers import LayerTensors, require_equal, stack_layers
from lares_kernels.spec.seeds import DrawSeeds, drawn_seed

Model = TypeVar("Model", bound=nn.Module)
CORE_NORM = "lares_core_norm"  # the model's attribute that holds LayerNorm_core


@dataclass
class Recurrence:
    """Which layers reason, and how long.

    Attributes:
        n_pre: layers that run once, before; the others are the core-block.
        mean_depth: mean number of steps in training.
        depth_sampler: one of ``lares.model.depth.DEPTH_SAMPLERS``.
        num_steps: steps in evaluation, to be changed at will.
    """

    n_pre: int
    mean_depth: int
    depth_sampler: str
    num_steps: int


class Layers(Protocol):
    """Give a model's layers, first to last, as they are now."""

    def __call__(self) -> Sequence[LayerTensors]:
        """Return the layers' parameters."""

    def drops(self) -> Sequence[Drops]:
        """Return which of the layers' dropouts are on."""

    def parts(self) -> Iterable[tuple[str, nn.Module]]:
        """Give the modules that nobody calls any more, or with other rows than before, by name."""


@dataclass
class SwappedLayers:
    """The layers of ``model`` as one op.

    Attributes:
        config: of all layers, run once.
        tensors: what the model has of the layers, read from it at every call.
        model: who owns them, and LayerNorm_core if there is a recurrence.
        seeds: of training forwards: dropout, depth and initial state follow from them.
        recurrence: None where all layers run once.
    """

    config: CoreConfig
    tensors: Layers
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
        """Output of the layers: newest rows (B, d), or with ``every_row`` all, like ``hidden``.

        Raises:
            UnsupportedModuleError: a layer has hooks, which would not run, or layers have modes that
                the op cannot follow.
        """
        refuse_hooks(self.tensors.parts())
        training, rec = self.model.training, self.recurrence
        layers, drops = list(self.tensors()), list(self.tensors.drops())
        n_once = len(layers) if rec is None else rec.n_pre
        once: list[Stretch] = []
        if n_once:
            config = replace(self.config, n_layers=n_once)
            once = stretches(config, drops[:n_once], training)
        reasoning = None if rec is None else self._reasoning(rec, drops, training)
        dropping = any(part.training for part in (*once, *([reasoning] if reasoning else [])))
        seed = self.seeds.take() if training or dropping else None
        if seed is None and training and rec is not None:
            seed = drawn_seed()  # one for its layers and its depth

        def call(
            part: Stretch, parameters: dict[str, Tensor], x: Tensor, steps: int, every_row: bool
        ) -> Tensor:
            out = refine(
                part.config,
                parameters,
                x,
                lengths=lengths,
                cu_seqlens=cu_seqlens,
                num_steps=steps,
                seed=seed,
                training=part.training,
                return_state=every_row,
            )
            return cast("Tensor", out.state) if every_row else out.last

        for part in once:
            last = rec is None and part is once[-1]
            parameters = stack_layers(layers[part.first : part.end])
            hidden = call(part, parameters, hidden, 1, every_row or not last)
        if rec is None or reasoning is None:
            return hidden
        steps = rec.num_steps
        if training:
            assert seed is not None
            draws = np.random.Generator(np.random.Philox(key=int(seed) % (1 << 64)))
            steps = sample_depth(rec.depth_sampler, rec.mean_depth, draws)
        norm = cast("nn.LayerNorm", getattr(self.model, CORE_NORM))
        parameters = stack_layers(layers[rec.n_pre :])
        parameters |= {"core_norm_weight": norm.weight, "core_norm_bias": norm.bias}
        return call(reasoning, parameters, hidden, steps, every_row)

    def _reasoning(self, rec: Recurrence, drops: Sequence[Drops], training: bool) -> Stretch:
        """Return how the layers that reason are run, which is all at once."""
        config = replace(self.config, n_layers=len(drops) - rec.n_pre, adapter="add")
        parts = stretches(config, drops[rec.n_pre :], training)
        if len(parts) > 1:
            refuse("the modes of the layers that reason", "several", "they must drop alike")
        return parts[0]


def config_of_layers(
    layers: Sequence[Mapping[str, tuple[str, Any]]], d_model: int, **shared: Any
) -> CoreConfig:
    """Return the configuration of layers that are alike.

    Args:
        layers: what decides what each computes, the attribute's name and its value, by the name that
            ``CoreConfig`` has for it; what it has no name for must be alike, too.
        d_model: width of a token.
        shared: options of all of them.

    Raises:
        UnsupportedModuleError: an attribute, which the message names, is not that of layer 0.
    """
    for layer in layers[1:]:
        for option, (name, value) in layer.items():
            first, wanted = layers[0][option]
            require_equal(name, value, wanted, first)
    known = [field.name for field in fields(CoreConfig)]
    options = {option: value for option, (_, value) in layers[0].items() if option in known}
    return CoreConfig(d_model=d_model, n_layers=len(layers), adapter="none", **options, **shared)


def checked_recurrence(
    config: CoreConfig, n_pre: int, mean_depth: int, depth_sampler: str
) -> Recurrence:
    """Return a recurrence of layers of that configuration.

    Raises:
        ConfigError: an option is out of range.
    """
    n_pre, mean_depth = plain(n_pre), whole("mean_depth", mean_depth, 1)
    if type(n_pre) is not int or not 0 <= n_pre < config.n_layers:
        raise ConfigError(
            f"n_pre is {n_pre!r}; the model has {config.n_layers} layers, so it must be in "
            f"0..{config.n_layers - 1}"
        )
    sample_depth(depth_sampler, mean_depth, np.random.default_rng(0))  # checks both
    return Recurrence(n_pre, mean_depth, depth_sampler, mean_depth)


def swapped_layers(model: nn.Module) -> SwappedLayers | None:
    """Return the layers of a model that was swapped, else None."""
    return cast("SwappedLayers | None", model.__dict__.get("lares_layers"))


def let_reason(model: Model, recurrence: Recurrence) -> Model:
    """Let the last layers of a model that was swapped reason; adds LayerNorm_core to it."""
    layers = swapped_layers(model)
    assert layers is not None
    like = layers.tensors()[0]["qkv_weight"]
    norm = nn.LayerNorm(layers.config.d_model, layers.config.eps).to(like.device, like.dtype)
    model.add_module(CORE_NORM, norm)
    layers.recurrence = recurrence
    return model
