"""Define the shape and arithmetic of a recurrent core (LARES, arXiv 2505.16865, section 3.2)."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from lares_kernels.common.one_number import real_number, whole_number
from lares_kernels.spec.choices import (
    OF_CORES,
    Activation,
    Adapter,
    DropoutOf,
    Mixer,
    Norm,
    Padding,
)

ADAPTERS = Adapter.texts()
MIXERS = Mixer.texts()
ACTIVATIONS = Activation.texts()
NORMS = Norm.texts()
PADDINGS = Padding.texts()
DROPOUT_OF = DropoutOf.texts()
MAX_LAYERS = 1 << 8  # a draw's address has 8 bits for its layer
MAX_STATE_SCALE = 1e15  # float32 holds the sum of squares of states this large, and their LayerNorm
DROPOUT_LEVELS = 256  # a dropout decision compares one 8-bit number with round(256 p)


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"CoreConfig.{name} is {value!r}; it must be one of {', '.join(choices)}")


def _require_positive_int(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"CoreConfig.{name} is {value!r}; it must be a whole number of at least 1")


def _require_rate(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0 or round(DROPOUT_LEVELS * value) >= DROPOUT_LEVELS:
        raise ValueError(
            f"CoreConfig.{name} is {value!r}; it must lie in [0, 1) and, rounded to a multiple of "
            f"1/{DROPOUT_LEVELS}, stay below 1"
        )


def _plain_number(name: str, kind: str, value: Any) -> int | float:
    try:
        return whole_number(name, value) if kind == "int" else real_number(name, value)
    except TypeError:
        wanted = "a whole number of at least 1" if kind == "int" else "a number"
        raise ValueError(f"CoreConfig.{name} is {value!r}; it must be {wanted}") from None


@dataclass(frozen=True, eq=False)
class CoreConfig:
    """Configure one step of the recurrence: ``s_t = Layers(LayerNorm(adapter(s_{t-1}, H)))``.

    Attributes:
        d_model: width ``d`` of a token.
        n_heads: attention heads ``h``; must divide ``d_model``.
        d_ff: width ``f`` of the feed-forward.
        n_layers: layers in the core-block, shared by all steps.
        adapter: how the state meets ``H``, as :class:`lares_kernels.spec.choices.Adapter` has it.
        mixer: how tokens of a sequence mix. ``attention``: causal softmax attention. ``filter``: a
            learned circular filter along the window (FMLP-Rec). ``bsarec``: attention beside
            rescaled frequency bands of the window (BSARec). The last two mix all rows of the padded
            window, so padding is part of their input; their norm is ``post``.
        activation: of the feed-forward, as :class:`lares_kernels.spec.choices.Activation` has it.
        norm: ``post`` normalises each residual sum, ``pre`` each branch's input. ``query`` is the first
            SASRec's: ``q = LN(x)``, ``u = q + Attention(queries of q, keys and values of x)``,
            ``v = LN(u)``, ``y = v + FeedForward(v)``.
        eps: added to the variance in every LayerNorm.
        dropout: rate on the output of attention (or filter) and of the feed-forward, rounded to a
            multiple of 1/256.
        attn_dropout: rate on the attention probabilities, rounded likewise.
        state_omega, state_sigma: scale of the drawn initial state,
            ``s_0 = omega * TruncatedNormal(0, sigma^2)``, truncated at three sigma; their product is
            at most 1e15.
        window: rows ``L`` of every sequence, for ``filter`` and ``bsarec``; 0 for ``attention``, which
            takes any length.
        band_share: of ``bsarec``: ``a`` in ``a bands + (1 - a) attention``.
        cutoff: of ``bsarec``: ``c``; the first ``c // 2 + 1`` frequencies are the low band.
        inner_dropout: rate inside the feed-forward, after the activation, rounded likewise.
        dropout_of: branches to whose output ``dropout`` applies: ``both``, or only ``feed-forward``.
        padding: where the padding of padded ``hidden`` stands: ``right`` of the tokens or ``left`` of
            them, where no token sees it; or ``left-zeros``: left, as tokens like any other, except that
            they are zero wherever a layer reads them. Draws count positions from the first token,
            which there is the first of padding.

    Raises:
        ValueError: an option is unknown or out of range; the message names it.
    """

    d_model: int = 64
    n_heads: int = 2
    d_ff: int = 256
    n_layers: int = 2
    adapter: str = "add"
    mixer: str = "attention"
    activation: str = "gelu"
    norm: str = "post"
    eps: float = 1e-12
    dropout: float = 0.0
    attn_dropout: float = 0.0
    state_omega: float = 3.0
    state_sigma: float = 1.0
    window: int = 0
    band_share: float = 0.7
    cutoff: int = 3
    inner_dropout: float = 0.0
    dropout_of: str = "both"
    padding: str = "right"

    def __post_init__(self) -> None:
        # Plain numbers, of NumPy's and 0-d tensors too: equal options have one key.
        for field in dataclasses.fields(self):
            if field.type in ("int", "float"):
                number = _plain_number(field.name, str(field.type), getattr(self, field.name))
                object.__setattr__(self, field.name, number)
        for name in ("d_model", "n_heads", "d_ff", "n_layers"):
            _require_positive_int(name, getattr(self, name))
        if self.n_layers > MAX_LAYERS:
            raise ValueError(f"CoreConfig.n_layers is {self.n_layers}; the most is {MAX_LAYERS}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"CoreConfig.n_heads is {self.n_heads}, which does not divide d_model={self.d_model}"
            )
        _require_choice("adapter", self.adapter, ADAPTERS)
        _require_choice("mixer", self.mixer, MIXERS)
        _require_choice("activation", self.activation, ACTIVATIONS)
        _require_choice("norm", self.norm, NORMS)
        _require_choice("dropout_of", self.dropout_of, DROPOUT_OF)
        _require_choice("padding", self.padding, PADDINGS)
        self._check_window()
        _require_rate("dropout", self.dropout)
        _require_rate("attn_dropout", self.attn_dropout)
        _require_rate("inner_dropout", self.inner_dropout)
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"CoreConfig.eps is {self.eps!r}; it must be a positive number")
        for name in ("state_omega", "state_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"CoreConfig.{name} is {value!r}; it must be zero or more")
        if self.state_omega * self.state_sigma > MAX_STATE_SCALE:
            raise ValueError(
                f"CoreConfig.state_omega is {self.state_omega!r} and state_sigma {self.state_sigma!r}; "
                f"their product may be {MAX_STATE_SCALE:g} at most"
            )
        _ = self.key  # found now: a compiler would stop where it is

    def _check_window(self) -> None:
        if not self.mixes_window:
            if self.window != 0:
                raise ValueError(
                    f"CoreConfig.window is {self.window!r}; mixer='attention' takes sequences of any "
                    "length, so it must be 0"
                )
            return
        _require_positive_int("window", self.window)
        _require_positive_int("cutoff", self.cutoff)
        if not 0.0 <= self.band_share <= 1.0:
            raise ValueError(f"CoreConfig.band_share is {self.band_share!r}; it must lie in [0, 1]")
        if self.norm != "post":
            raise ValueError(
                f"CoreConfig.norm is {self.norm!r}; mixer={self.mixer!r} is defined for 'post' alone"
            )
        if self.padding != "right":
            raise ValueError(
                f"CoreConfig.padding is {self.padding!r}; mixer={self.mixer!r} takes it on the right"
            )

    # Every call looks things up by its configuration: one string is compared and hashed, not a tuple
    # made of all options.
    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, CoreConfig) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """Return the options as one string, from which :meth:`from_key` makes an equal
        configuration."""
        return json.dumps(self.to_dict())

    @staticmethod
    @cache
    def from_key(key: str) -> CoreConfig:
        """Return the configuration whose :attr:`key` is ``key``."""
        return CoreConfig(**json.loads(key))

    def number(self, name: str) -> int | float:
        """Return an option as kernels know it: a number, of a choice that of ``choices.py``."""
        value: Any = getattr(self, name)
        return OF_CORES[name].of(value) if name in OF_CORES else value

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head, ``d / h``."""
        return self.d_model // self.n_heads

    @property
    def is_recurrent(self) -> bool:
        """Return True if there is a state at all (every adapter but ``none``)."""
        return self.adapter != "none"

    @property
    def mixes_window(self) -> bool:
        """Return True if all rows of the padded window mix, so that padding is computed with."""
        return self.mixer != "attention"

    @property
    def attends(self) -> bool:
        """Return True if a layer has attention."""
        return self.mixer != "filter"

    def to_dict(self) -> dict[str, object]:
        """Return the options as plain values, in declaration order."""
        return dataclasses.asdict(self)
