"""Define a call's non-differentiable arguments once: fields, schema, order.

An operator's schema holds plain values and cannot nest them. So its arguments are the fields of
:class:`CallTensors` and :class:`CallOptions`, one after the other: a new option is a new field here,
and a line where ``refine`` passes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SymInt = int  # in a schema: a number that may be a symbol while a program is traced


class CallTensors(NamedTuple):
    """Hold a call's tensors that have no gradients.

    ``B`` sequences of ``hidden``, ``G`` rollouts of each: ``S = B G``.

    Attributes:
        lengths: (B,) integers.
        num_steps: (S,) integers, the depth of each sequence; None: all run ``max_steps``.
        sequence_ids: (B,) integers that address the random draws; None for ``0..B-1``.
        seed: 64-bit key of all draws: () int64, or an int where no dispatch is needed.
    """

    lengths: Tensor
    num_steps: Tensor | None
    sequence_ids: Tensor | None
    seed: Any  # Tensor, or int


class CallOptions(NamedTuple):
    """Hold a call's options.

    Attributes:
        config: ``key`` of the core's configuration.
        backend: name of the backend to run, by :func:`lares_kernels.registry.backends.operators_name`.
        precision: of the matrix products, one of ``PRECISIONS``; all else is at least float32.
        rollouts: ``G``, runs of every sequence.
        max_steps: ``T``, the greatest depth.
        steps_done: steps that led to a given state; draws are numbered on from there.
        dropout: apply dropout.
        zero_state: without a given state, start from zero instead of drawing one.
        wants_state: return the final state of every row, not only the trajectory.
        differentiates: save in forward what backward needs.
        keeps_padding: save padded rows too, so that the saved size depends on shapes only (needed
            under torch.compile and on a GPU).
        max_length: the caller's upper bound of packed sequences' lengths; 0: none.
    """

    config: str
    backend: str
    precision: str
    rollouts: int = 1
    max_steps: SymInt = 1
    steps_done: SymInt = 0
    dropout: bool = False
    zero_state: bool = False
    wants_state: bool = False
    differentiates: bool = False
    keeps_padding: bool = False
    max_length: SymInt = 0


def schema_of(options: type[tuple[Any, ...]]) -> str:
    """Return the part of an operator's schema that a NamedTuple's fields are."""
    kinds = options.__annotations__.items()  # which NamedTuple keeps as references to names
    return ", ".join(f"{getattr(kind, '__forward_arg__', kind)} {name}" for name, kind in kinds)


SCHEMA = "Tensor lengths, Tensor? num_steps, Tensor? sequence_ids, Tensor seed, " + schema_of(
    CallOptions
)
_N_TENSORS = len(CallTensors._fields)
# What comes before: hidden, state and parameters.
SEED_PLACE = 3 + CallTensors._fields.index("seed")


def unpack(arguments: Sequence[Any]) -> tuple[CallTensors, CallOptions]:
    """Return tensors and options from an operator's arguments, without those before them."""
    return CallTensors(*arguments[:_N_TENSORS]), CallOptions(*arguments[_N_TENSORS:])
