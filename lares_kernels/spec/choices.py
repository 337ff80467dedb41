"""Number every choice that C or device code knows, once for all.

Users write the texts (``CoreConfig(adapter="gate")``), C reads the numbers from csrc/lares_enums.h,
which ``python csrc/enums.py`` writes from this file, and Triton's kernels take them from here. A number
is its name's for good: a new name takes the next free number, wherever its line stands. Kernels refuse
what they have never heard of.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TypeVar

_AnyChoice = TypeVar("_AnyChoice", bound="Choice")


class Choice(IntEnum):
    """Hold a number, and its name where people read or write it.

    Attributes:
        text: what users write for it; of a :class:`Code`, what it means.
    """

    text: str

    def __new__(cls: type[_AnyChoice], number: int, text: str) -> _AnyChoice:
        member = int.__new__(cls, number)
        member._value_ = number
        member.text = text
        return member

    @classmethod
    def texts(cls) -> tuple[str, ...]:
        """Return the texts of all members, as they stand in this file."""
        return tuple(member.text for member in cls)

    @classmethod
    def of(cls: type[_AnyChoice], text: str) -> _AnyChoice:
        """Return the member with that text.

        Raises:
            ValueError: there is none.
        """
        for member in cls:
            if member.text == text:
                return member
        raise ValueError(f"{cls.__name__} has no {text!r}; it has {', '.join(cls.texts())}")


@unique
class Adapter(Choice):
    """Choose how the state ``s`` meets ``H``.

    ``add`` is ``(s + H) / 2``; ``gate`` is ``g s + (1 - g) H`` with ``g = sigmoid(a)``; ``concat`` is
    ``W [s ; H] + b``; ``none`` runs the layers alone, once, on ``H``: no state and no LayerNorm before
    them (the pre-block).
    """

    ADD = 0, "add"
    GATE = 1, "gate"
    CONCAT = 2, "concat"
    NONE = 3, "none"


@unique
class Mixer(Choice):
    """Choose how rows of a sequence mix: causal attention; a learned circular filter (FMLP-Rec);
    attention beside rescaled frequency bands (BSARec). The last two mix all rows of a padded
    sequence, padding too; they need post-norm and padded input."""

    ATTENTION = 0, "attention"
    FILTER = 1, "filter"
    BSAREC = 2, "bsarec"


@unique
class Activation(Choice):
    """Choose the activation of the feed-forward."""

    GELU = 0, "gelu"
    GELU_TANH = 1, "gelu_tanh"
    RELU = 2, "relu"
    SILU = 3, "silu"


@unique
class Norm(Choice):
    """Choose where a layer's LayerNorms stand."""

    POST = 0, "post"
    PRE = 1, "pre"
    QUERY = 2, "query"


@unique
class Padding(Choice):
    """Choose where padding stands in padded arrays. With left-zeros it is read as zero tokens."""

    RIGHT = 0, "right"
    LEFT = 1, "left"
    LEFT_ZEROS = 2, "left-zeros"


@unique
class DropoutOf(Choice):
    """Choose which branches' outputs are dropped; C has it as ``spares_attention``."""

    BOTH = 0, "both"
    FEED_FORWARD = 1, "feed-forward"


@unique
class StateMode(Choice):
    """Choose where the state before the first step comes from."""

    GIVEN = 0, "given"
    DRAWN = 1, "drawn"
    ZERO = 2, "zero"


@unique
class Precision(Choice):
    """Choose the type of products' factors. Those with weights, and of weight gradients, may be
    rounded to it, and are where the processor gains by it; sums, LayerNorm and the state stay
    float32."""

    FP32 = 0, "fp32"
    BF16 = 1, "bf16"
    FP16 = 2, "fp16"


@unique
class Scores(Choice):
    """Choose how a query scores an item: dot product, or cosine."""

    DOT = 0, "dot"
    COSINE = 1, "cosine"


@unique
class Code(Choice):
    """Number how a call of the CPU library ended; after an error its outputs are undefined."""

    OK = 0, "all is well"
    BAD_ARGUMENT = 1, "an option or size that the kernel does not serve"
    BAD_LENGTH = (
        2,
        "a length below 1 or above padded_length, or lengths that do not add up to n_rows",
    )
    BAD_STEPS = 3, "a depth below 1 or above max_steps"
    BAD_ID = 4, "a sequence id below 0 or above 2^24 - 1"
    NO_MEMORY = 5, "no memory for the kernel's buffers"
    BAD_ITEM = 6, "a chosen item outside the catalogue"


@unique
class NumberType(Choice):
    """Choose the type of numbers that a tensor holds."""

    FLOAT32 = 0, "float32"
    INT64 = 1, "int64"


@unique
class Function(Choice):
    """Choose an elementary function as the CPU kernel computes it."""

    EXP = 0, "exp"
    LOG = 1, "log"
    ERF_SCALED = 2, "erf_scaled"
    GELU_SLOPE = 3, "gelu_slope"
    SIGMOID = 4, "sigmoid"


# Options of a core that are choices.
OF_CORES: dict[str, type[Choice]] = {
    "adapter": Adapter,
    "mixer": Mixer,
    "activation": Activation,
    "norm": Norm,
    "padding": Padding,
    "dropout_of": DropoutOf,
}
