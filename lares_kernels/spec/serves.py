"""Declare what a backend has code for; any other call is refused, with the reason.

``verify`` reads the declaration, for every op and backend alike, and docs/reference/support.md is
generated from it. A choice or an option that is added to the specification later is refused by a
backend until it has the code and declares it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lares_kernels.spec.choices import Activation, Adapter, Choice, DropoutOf, Mixer, Norm, Padding
from lares_kernels.spec.errors import BackendError

if TYPE_CHECKING:
    import torch

    from lares_kernels.spec.call import Request

Widths = range | tuple[int, ...]
ANY_WIDTH = range(1, sys.maxsize)


@dataclass(frozen=True)
class Serves:
    """Declare what a backend of any op serves.

    Attributes:
        widths: supported widths of rows, by the products' type.
    """

    widths: Mapping[torch.dtype, Widths]

    def reason(self, asked: Any) -> str | None:
        """Return why calls are not served, of a (catalogue's) request; None if they are."""
        widths = self.widths.get(asked.product_dtype)
        if widths is None:
            served = ", ".join(map(str, self.widths))
            return f"products in {asked.product_dtype}; it serves {served}"
        if asked.width not in widths:
            served = f"up to {widths.stop - 1}" if isinstance(widths, range) else _listed(widths)
            if len(set(self.widths.values())) > 1:
                served += f" with products in {asked.product_dtype}"
            return f"{asked.width_in_words}; it serves {served}"
        return None


@dataclass(frozen=True, kw_only=True)
class ServesCores(Serves):
    """Declare which cores and calls a backend of ``refine`` serves. None: all that there are.

    Attributes:
        adapters, activations, norms, mixers, paddings, dropout_of: choices that cores may have.
        inner_dropout: cores may have dropout inside the feed-forward.
        widest_head: greatest width of an attention head.
        longest: greatest length of a sequence, checked at launch.
        longest_dropping: the same with attention dropout.
        options: supported options of a call, fields of ``CallOptions``; others keep their defaults.
    """

    adapters: tuple[Adapter, ...] | None = None
    activations: tuple[Activation, ...] | None = None
    norms: tuple[Norm, ...] | None = None
    mixers: tuple[Mixer, ...] | None = None
    paddings: tuple[Padding, ...] | None = None
    dropout_of: tuple[DropoutOf, ...] | None = None
    inner_dropout: bool = True
    widest_head: int | None = None
    longest: int | None = None
    longest_dropping: int | None = None
    options: tuple[str, ...] | None = None

    def reason(self, asked: Request) -> str | None:
        """Return why such calls are not served, or None if they are."""
        return super().reason(asked) or self._reason_of_core(asked) or self._reason_of_call(asked)

    def _reason_of_core(self, asked: Request) -> str | None:
        config = asked.config
        choices: tuple[tuple[str, str, tuple[Choice, ...] | None], ...] = (
            ("adapter", config.adapter, self.adapters),
            ("activation", config.activation, self.activations),
            ("norm", config.norm, self.norms),
            ("mixer", config.mixer, self.mixers),
            ("padding", config.padding, self.paddings),
            ("dropout_of", config.dropout_of, self.dropout_of),
        )
        for name, value, served in choices:
            texts = None if served is None else [choice.text for choice in served]
            if texts is not None and value not in texts:
                return f"{name} is {value!r}; it serves {', '.join(texts)}"
        if config.inner_dropout and not self.inner_dropout:
            return f"inner_dropout is {config.inner_dropout}; it serves 0"
        head = config.head_dim if config.attends else 0
        if self.widest_head is not None and head > self.widest_head:
            return f"heads are {head} wide; it serves up to {self.widest_head}"
        return None

    def _reason_of_call(self, asked: Request) -> str | None:
        for name in asked.options:
            if self.options is not None and name not in self.options:
                return f"the call has {name}; of its options it serves {', '.join(self.options)}"
        return None

    def length_reason(self, longest: int, attn_dropout: bool) -> str | None:
        """Return why sequences of ``longest`` tokens are not served, or None if they are."""
        most = self.longest_dropping if attn_dropout else self.longest
        if most is not None and longest > most:
            what = " with attention dropout" if attn_dropout else ""
            return f"sequences of up to {longest} tokens; it holds {most} in a tile{what}"
        return None


@dataclass(frozen=True, kw_only=True)
class ServesCatalogues(Serves):
    """Declare which catalogues a backend of the catalogue ops serves.

    Attributes:
        most_items: greatest size of a catalogue, checked at launch; None: any.
    """

    most_items: int | None = None


def check_items(name: str, n_items: int, most: int) -> None:
    """Raise ``BackendError`` if there are more items than backend ``name`` has numbers for."""
    if n_items > most:
        raise BackendError(f"the catalogue has {n_items} items; {name} serves {most}")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
