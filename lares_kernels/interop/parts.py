"""Inspect foreign layers at a call: hooks that would not run, and dropouts that are on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lares_kernels.spec.config import CoreConfig

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class UnsupportedModuleError(TypeError):
    """Report that a module computes what the op does not; the message names the attribute."""


def refuse(where: str, found: object, wanted: str) -> None:
    """Raise :class:`UnsupportedModuleError` for attribute ``where``."""
    raise UnsupportedModuleError(f"{where} is {found!r}; {wanted}")


def makes_weights(hook: object) -> bool:
    """Return True if a hook makes a weight before a forward, which ``renew_weights`` has it do."""
    if isinstance(hook, WeightNorm | SpectralNorm):
        return True
    prune = sys.modules.get("torch.nn.utils.prune")  # imported by who prunes
    return prune is not None and isinstance(hook, prune.BasePruningMethod)


def refuse_hooks(parts: Iterable[tuple[str, nn.Module]]) -> None:
    """Raise :class:`UnsupportedModuleError` if a part, by its name, has hooks that would not run."""
    for where, part in parts:
        for name in _HOOKS:
            others = [hook for hook in getattr(part, name).values() if not makes_weights(hook)]
            if others:
                refuse(f"{where}.{name}", len(others), "hooks would not run: remove them")


def parts_of(layer: nn.Module, where: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Give a layer, unless its name ``where`` is empty, and the modules in it, each with its name; but
    not what makes their weights."""
    if where:
        yield where, layer
    for name, part in layer._modules.items():
        if part is not None and name != "parametrizations":
            yield from parts_of(part, f"{where}.{name}" if where else name)


class Drops(NamedTuple):
    """Hold which dropouts of a layer are on, by the modes of the modules that have them.

    Attributes:
        attention: dropout of attention probabilities.
        mixed: dropout of the attention's output.
        fed: dropout of the feed-forward's output.
        inner: dropout inside the feed-forward.
    """

    attention: bool
    mixed: bool
    fed: bool
    inner: bool


class Stretch(NamedTuple):
    """Group layers that are run at once.

    Attributes:
        first, end: range of their numbers.
        config: their configuration.
        training: they apply dropout.
    """

    first: int
    end: int
    config: CoreConfig
    training: bool


def stretches(config: CoreConfig, drops: Sequence[Drops], training: bool) -> list[Stretch]:
    """Group layers, whose parts may be in different modes, into runs with the same dropout.

    Args:
        config: configuration of all layers.
        drops: each layer's dropouts.
        training: mode of the whole module, used where no part has dropout.

    Raises:
        UnsupportedModuleError: stretches of layers have different dropouts; or one drops the output of
            attention and not that of the feed-forward.
    """
    n = len(drops)
    modes = {mode for each in drops for mode in _modes_that_count(config, each)}
    if len(modes) < 2:
        return [Stretch(0, n, config, modes.pop() if modes else training)]
    found: list[Stretch] = []
    for effective, layers in groupby(range(n), key=lambda layer: _rates(config, drops[layer])):
        numbers = list(layers)
        mine = replace(effective, n_layers=len(numbers))
        found.append(Stretch(numbers[0], numbers[-1] + 1, mine, _can_drop(effective)))
    dropping = [stretch for stretch in found if stretch.training]
    if len(dropping) > 1:
        refuse(
            f"the mode of layer {dropping[1].first}'s dropouts",
            "another",
            f"layers that drop must be neighbours and drop alike, as layer {dropping[0].first} does",
        )
    return found


def _modes_that_count(config: CoreConfig, drops: Drops) -> Iterator[bool]:
    if config.attn_dropout:
        yield drops.attention
    if config.dropout:
        yield drops.fed
        if config.dropout_of == "both":
            yield drops.mixed
    if config.inner_dropout:
        yield drops.inner


def _rates(config: CoreConfig, drops: Drops) -> CoreConfig:
    """Return the options of a layer in which the dropouts that are off have a rate of 0."""
    rate, of = config.dropout, config.dropout_of
    if rate and of == "both" and drops.mixed != drops.fed:
        if drops.mixed:
            refuse(
                "the dropout after the attention",
                "on",
                "that after the feed-forward is off: switch both off, or that one on",
            )
        of = "feed-forward"
    return replace(
        config,
        attn_dropout=config.attn_dropout if drops.attention else 0.0,
        inner_dropout=config.inner_dropout if drops.inner else 0.0,
        dropout=rate if drops.fed else 0.0,
        dropout_of=of,
    )


def _can_drop(config: CoreConfig) -> bool:
    return bool(config.dropout or config.attn_dropout or config.inner_dropout)
