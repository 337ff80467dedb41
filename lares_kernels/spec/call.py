"""Define a call of the recurrence as every backend takes it: checks, shapes, results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.dispatcher import can_be_read, check_when_run
from lares_kernels.common.kept_property import kept_property
from lares_kernels.common.whole import whole_number, whole_numbers
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.handover import Handover
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.lengths import check_lengths, check_lengths_given, check_packed
from lares_kernels.spec.noise import MAX_ROLLOUTS, MAX_SEQUENCES, MAX_STEPS, STREAM_BITS
from lares_kernels.spec.options import CallOptions
from lares_kernels.spec.seeds import seed_memory

PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
FLOAT_TYPES = tuple(PRECISIONS.values())


class Request(NamedTuple):
    """Describe a call before there are any values, for the choice of a backend.

    Attributes:
        config: of the core.
        device_type: of the tensors.
        product_dtype: of the factors of products.
        options: names of the call's options that are not at their defaults (``options_of``).
    """

    config: CoreConfig
    device_type: str
    product_dtype: torch.dtype
    options: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Return the width of a row."""
        return self.config.d_model

    @property
    def width_in_words(self) -> str:
        """Describe the width as a part of a sentence."""
        return f"d_model is {self.width}"


class Given(NamedTuple):
    """Hold the inputs of forward: hidden, first state if given, parameters in order."""

    hidden: Tensor
    state: Tensor | None
    parameters: list[Tensor]


class GivenBackward(NamedTuple):
    """Hold the inputs of backward: :class:`Given`'s, what forward saved, gradients of outputs."""

    hidden: Tensor
    state: Tensor | None
    parameters: list[Tensor]
    kept: Tensor
    g_trajectory: Tensor | None
    g_state: Tensor | None


@dataclass(eq=False)  # not frozen: that would triple the cost of making one
class RefineCall:
    """Describe a call without its differentiable tensors, as backends take it.

    ``B`` sequences of ``hidden``, ``G`` rollouts of each: ``S = B G`` sequences to refine, the rollouts
    of one after the other, ``N`` rows in all.

    Attributes:
        options: as the operator received them.
        config: of the core.
        lengths: (B,) int64.
        padded_length: ``L`` of padded ``hidden``; 0 for packed.
        n_hidden_rows: rows of ``hidden``, padding included.
        sequence_ids: (B,) int64 that address the random draws, or None for ``0..B-1``.
        num_steps: (S,) int64 depth of each sequence, or None where all run ``max_steps``.
        seed: 64-bit key of all draws: an int, or a tensor () int64 if the call is traced or the seed
            is on its GPU.
        product_dtype: type of matrix products; everything else is at least float32.
        state_dtype: float64 for float64 input, else float32.
        traced: no shape may depend on a tensor's values, which are not known yet. Padding right of
            the tokens is computed too, from zeros, and is zero in the results.
        handover: what forward leaves for backward; None if nothing passes it on.
    """

    options: CallOptions
    config: CoreConfig
    lengths: Tensor
    padded_length: int
    n_hidden_rows: int
    sequence_ids: Tensor | None
    num_steps: Tensor | None
    seed: Any  # int, or Tensor
    product_dtype: torch.dtype
    state_dtype: torch.dtype
    traced: bool = False
    handover: Handover | None = None

    def handover_of(self, backend: str) -> Handover | None:
        """Return what forward of that backend handed over, or None."""
        return self.handover if self.handover is not None and self.handover.by == backend else None

    def rng_step(self, step: int) -> int:
        """Return the step that addresses the draws of the call's ``step``; 0 outside the recurrence."""
        return step + self.options.steps_done if step else 0

    @property
    def state_scale(self) -> float:
        """Return the scale of a drawn first state, ``omega sigma``."""
        return self.config.state_omega * self.config.state_sigma

    @property
    def n_sequences(self) -> int:
        """Return ``S``, the number of sequences times rollouts."""
        return self.lengths.shape[0] * self.options.rollouts

    @kept_property
    def n_rows(self) -> int:
        """Return ``N``, the number of rows."""
        if self.padded_length and not self.has_whole_windows:
            tokens = int(self.lengths.sum())
            if not 0 < tokens <= self.n_hidden_rows:
                self.check_values()
            return tokens * self.options.rollouts
        return self.n_hidden_rows * self.options.rollouts

    @property
    def left(self) -> bool:
        """Return True if padding precedes the tokens."""
        return self.config.padding != "right"

    @property
    def pads_with_zero_tokens(self) -> bool:
        """Return True if padding counts among the rows, as zero tokens."""
        return self.config.padding == "left-zeros"

    @property
    def computes_padding(self) -> bool:
        """Return True if padding counts among the rows, as zero tokens or for the mixer."""
        return self.pads_with_zero_tokens or self.config.mixes_window

    @property
    def has_whole_windows(self) -> bool:
        """Return True if padding has rows, whether or not it counts."""
        return self.computes_padding or (self.traced and self.padded_length > 0)

    @kept_property
    def row_lengths(self) -> Tensor:
        """Return the rows of each sequence, (B,) int64, including padding where that has rows."""
        if self.has_whole_windows:
            return torch.full_like(self.lengths, self.padded_length)
        return self.lengths

    @kept_property
    def seed_memory(self) -> Tensor:
        """Return the seed, () int64, in memory that kernels on the call's device read when they
        run."""
        return seed_memory(self.seed, self.lengths.device)

    @property
    def kept_rows(self) -> int:
        """Return the number of rows saved of each step for backward."""
        if self.options.keeps_padding:
            return self.n_hidden_rows * self.options.rollouts
        return self.n_rows

    @kept_property
    def kept_order(self) -> Tensor | None:
        """Return the index of each saved row among the rows, (N,): GPUs take the deepest
        sequences first. Return None if all are equally deep."""
        if self.num_steps is None:
            return None
        order = torch.argsort(self.num_steps, descending=True, stable=True)
        lengths = self.row_lengths.repeat_interleave(self.options.rollouts)
        ordered = lengths[order]
        moved = (lengths.cumsum(0) - lengths)[order] - (ordered.cumsum(0) - ordered)
        rows = torch.arange(self.n_rows, device=order.device)
        return rows + moved.repeat_interleave(ordered, output_size=self.n_rows)

    @property
    def kept_size(self) -> int:
        """Count the numbers saved for backward: a row of ``d`` and one more for every row and
        step."""
        if not (self.options.differentiates and self.config.is_recurrent):
            return 0
        return self.options.max_steps * self.kept_rows * (self.config.d_model + 1)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Return the shape of given and returned states."""
        d = self.config.d_model
        if not self.padded_length:
            return (self.n_hidden_rows * self.options.rollouts, d)
        n = self.lengths.shape[0]
        groups = (n,) if self.options.rollouts == 1 else (n, self.options.rollouts)
        return (*groups, self.padded_length, d)

    @kept_property
    def layout(self) -> Layout:
        """Return the packed layout of the ``S`` sequences."""
        ids, device = self.sequence_ids, self.lengths.device
        if ids is None:
            ids = torch.arange(self.lengths.shape[0], device=device)
        rollout = torch.arange(self.options.rollouts, device=device) << STREAM_BITS
        streams = (ids[:, None] | rollout[None, :]).reshape(-1)
        return self._layout_of(streams, self.options.rollouts)

    def _layout_of(self, streams: Tensor, rollouts: int) -> Layout:
        """Return the packed layout of every sequence, ``rollouts`` times."""
        real = self.lengths.repeat_interleave(rollouts)
        if self.has_whole_windows:
            leading = self.padded_length - real if self.pads_with_zero_tokens else None
            tokens = None if self.pads_with_zero_tokens else real
            return Layout.of_windows(self.padded_length, streams, leading, tokens)
        if self.traced:
            return Layout.of_rows(self.n_hidden_rows * rollouts, real, streams)
        return Layout.from_lengths(real, streams)

    @kept_property
    def hidden_rows(self) -> Tensor | None:
        """Return the packed row of ``hidden`` that each row reads, (N,); None for ``G = 1``."""
        if self.options.rollouts == 1:
            return None
        lengths = self.row_lengths
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(self.options.rollouts)
        return starts[self.layout.sequence] + self.layout.position

    @kept_property
    def _layout_of_hidden(self) -> Layout:
        """Return the packed layout of the ``B`` sequences."""
        return self.layout if self.options.rollouts == 1 else self._layout_of(self.lengths, 1)

    def _pack(self, layout: Layout, padded: Tensor) -> Tensor:
        """Pack arrays (S, L, d) to rows (N, d)."""
        return self._without_padding(layout, layout.unpad(padded, self.left))

    def _unpack(self, layout: Layout, rows: Tensor) -> Tensor:
        """Unpack rows (N, d) to arrays (S, L, d), with zeros at padding."""
        return layout.pad(self._without_padding(layout, rows), self.padded_length, self.left)

    def _without_padding(self, layout: Layout, rows: Tensor) -> Tensor:
        """Return ``rows`` (N, d) with zeros in padding that has rows but does not count."""
        after = None if self.computes_padding else layout.after_tokens
        return rows if after is None else rows.masked_fill(after, 0.0)

    def pack_hidden(self, hidden: Tensor) -> Tensor:
        """Pack ``hidden`` without padding to (N / G, d)."""
        return self._pack(self._layout_of_hidden, hidden) if self.padded_length else hidden

    def unpack_hidden(self, rows: Tensor) -> Tensor:
        """Unpack rows (N / G, d) to the caller's shape, with zeros at padding."""
        return self._unpack(self._layout_of_hidden, rows) if self.padded_length else rows

    def pack_state(self, state: Tensor) -> Tensor:
        """Pack a state of ``state_shape`` without padding to (N, d)."""
        if not self.padded_length:
            return state
        return self._pack(self.layout, state.reshape(self.n_sequences, *state.shape[-2:]))

    def unpack_state(self, rows: Tensor) -> Tensor:
        """Unpack rows (N, d) to ``state_shape``, with zeros at padding."""
        if not self.padded_length:
            return rows
        return self._unpack(self.layout, rows).reshape(self.state_shape)

    def check_values(self) -> None:
        """Raise ``ValueError`` unless lengths, depths and ids are in range; reads the tensors."""
        check_lengths(self.lengths, self.padded_length or None)
        check_lengths_given(self.lengths, self.options.max_length)
        self._check_padding()
        if not self.padded_length:
            check_packed(self.lengths, self.n_hidden_rows)
        if self.num_steps is not None:
            check_depth(int(self.num_steps.min()))
            most = int(self.num_steps.max())
            if most != self.options.max_steps:
                raise ValueError(
                    f"num_steps is at most {most}; the call's max_steps, {self.options.max_steps}, "
                    "must be that"
                )
        if self.sequence_ids is not None:
            low, high = int(self.sequence_ids.min()), int(self.sequence_ids.max())
            if low < 0 or high >= MAX_SEQUENCES:
                raise ValueError(
                    f"sequence_ids run from {low} to {high}; they must be in 0..{MAX_SEQUENCES - 1}"
                )

    def _check_padding(self) -> None:
        if self.pads_with_zero_tokens and not self.padded_length:
            raise ValueError(
                "padding='left-zeros' says what stands left of the tokens in padded hidden (B, L, d); "
                "hidden is packed"
            )

    def check_values_when_run(self) -> None:
        """Let the program that is traced raise ``RuntimeError`` where :meth:`check_values` would raise;
        depths are numbers there."""
        self._check_padding()
        longest = self.padded_length or self.n_hidden_rows
        fits = (self.lengths >= 1).all() & (self.lengths <= longest).all()
        check_when_run(fits, "lengths must be in 1..L, the tokens given")
        if not self.padded_length:
            fits = self.lengths.sum() == self.n_hidden_rows
            check_when_run(fits, "lengths of packed sequences must add up to the rows of hidden")
        if self.sequence_ids is not None:
            fits = ((self.sequence_ids >= 0) & (self.sequence_ids < MAX_SEQUENCES)).all()
            check_when_run(fits, f"sequence_ids must be in 0..{MAX_SEQUENCES - 1}")


class RefineOutput(NamedTuple):
    """Hold the results of :func:`lares_kernels.refine` for ``B`` sequences and ``G`` rollouts.

    Attributes:
        last: (B, d), or (B, G, d) for ``rollouts > 1``: each sequence's newest token after its own
            last step.
        trajectory: (B, T_max, d) or (B, G, T_max, d): that token after every step; past a
            sequence's own depth its last one is repeated. None unless requested.
        state: final state of every token, if requested: (B, L, d), zeros at padding (unless the
            mixer computes it), or packed (N, d); with rollouts (B, G, L, d), or packed (G N, d) with
            the rollouts of a sequence one after the other.
    """

    last: Tensor
    trajectory: Tensor | None
    state: Tensor | None


_PRECISION_OF = {dtype: name for name, dtype in PRECISIONS.items()}


def product_precision(precision: str | None, dtype: torch.dtype, device_type: str) -> str:
    """Return the precision of products: as requested, else autocast's, else ``hidden``'s."""
    if precision is not None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}"
            )
        return precision
    may_cast = dtype == torch.float32 and device_type != "meta"
    if may_cast and torch.is_autocast_enabled(device_type):
        return _PRECISION_OF[torch.get_autocast_dtype(device_type)]
    return _PRECISION_OF[dtype]


def check_depth(steps: int) -> None:
    """Raise ``ValueError`` unless ``steps`` is a depth that a call can have."""
    if steps < 1 or steps > MAX_STEPS:
        raise ValueError(f"num_steps is {steps}; it must be in 1..{MAX_STEPS}")


def check_steps_done(steps_done: int, max_steps: int, has_state: bool) -> None:
    """Raise ``ValueError`` unless a call of ``max_steps`` can go on after ``steps_done`` steps."""
    if steps_done == 0:
        return
    if not has_state:
        raise ValueError(
            f"steps_done is {steps_done}, but no state is given that has these steps behind it"
        )
    if steps_done < 0 or steps_done + max_steps > MAX_STEPS:
        raise ValueError(
            f"steps_done is {steps_done} and num_steps {max_steps}; steps_done must be at least 0, "
            f"and both together at most {MAX_STEPS}"
        )


def depths(
    config: CoreConfig, num_steps: int | Tensor, n_sequences: int, rollouts: int
) -> tuple[Tensor | None, int]:
    """Return (depths (S,) contiguous int64, or None if all are equal; greatest depth)."""
    steps = None
    if isinstance(num_steps, Tensor) and num_steps.dim() > 0:
        shapes = ((n_sequences,), (n_sequences, rollouts))
        steps = whole_numbers("num_steps", num_steps, shapes)
        if rollouts > 1 and steps.dim() == 1:
            steps = steps.repeat_interleave(rollouts)
        steps = steps.reshape(-1)
        if not can_be_read(steps):
            return steps, _greatest_when_run(config, steps)
        most = int(steps.max())
    else:
        most = whole_number("num_steps", num_steps)
    check_max_steps(config, most)
    return steps, most


def _greatest_when_run(config: CoreConfig, steps: Tensor) -> int:
    """Return the greatest depth as a symbol, which the traced program computes at each run."""
    if steps.is_meta:
        raise ValueError(
            "num_steps is a tensor on meta, without the numbers that shapes follow from: give a number"
        )
    if not config.is_recurrent:
        return 1  # the operator looks
    most = steps.max().item()
    torch._check(most >= 1)
    torch._check(most <= MAX_STEPS)
    return most  # type: ignore[return-value]


def check_max_steps(config: CoreConfig, steps: int) -> None:
    """Raise ``ValueError`` unless ``steps`` is a depth that a call of this core can have."""
    check_depth(steps)
    if not config.is_recurrent and steps != 1:
        raise ValueError(
            f"num_steps is {steps}; with adapter='none' the layers run once, so it must be 1"
        )


def check_rollouts(config: CoreConfig, rollouts: int) -> None:
    """Raise ``ValueError`` unless a core can have that many rollouts."""
    if not 1 <= rollouts <= MAX_ROLLOUTS:
        raise ValueError(f"rollouts is {rollouts}; it must be in 1..{MAX_ROLLOUTS}")
    if not config.is_recurrent and rollouts != 1:
        raise ValueError(
            f"rollouts is {rollouts}; with adapter='none' there is nothing to roll out"
        )


def has_dropout(config: CoreConfig) -> bool:
    """Return True if a core has any dropout in training."""
    return config.dropout > 0 or config.attn_dropout > 0 or config.inner_dropout > 0


def draws(config: CoreConfig, state: Tensor | str | None, dropout: bool) -> bool:
    """Return True if a call draws random numbers: for dropout, or for its first state."""
    return dropout or (config.is_recurrent and not isinstance(state, Tensor) and state != "zero")


def check_hidden(config: CoreConfig, hidden: Tensor) -> None:
    """Raise unless ``hidden`` is (B, L, d) or (N, d), not empty, of a floating type we serve."""
    if not isinstance(hidden, Tensor):
        raise TypeError(f"hidden is of type {type(hidden).__name__}; it must be a tensor")
    if hidden.dim() not in (2, 3) or hidden.shape[-1] != config.d_model:
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}; it must be (B, L, {config.d_model}), "
            f"or packed (N, {config.d_model})"
        )
    if config.mixes_window and (hidden.dim() == 2 or hidden.shape[1] != config.window):
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}; mixer={config.mixer!r} mixes the whole padded "
            f"window, so that padding is part of the computation and a packed or shorter input would "
            f"be another model: it must be (B, {config.window}, {config.d_model}), with lengths"
        )
    if hidden.numel() == 0:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}: there is nothing to refine")
    check_floating("hidden", hidden.dtype)
    if hidden.layout is not torch.strided:
        raise TypeError(f"hidden is {hidden.layout}; it must be a dense tensor")


def check_floating(name: str, dtype: torch.dtype) -> None:
    """Raise ``TypeError`` unless ``dtype``, which the message calls ``name``, is one that we serve."""
    if dtype not in FLOAT_TYPES:
        raise TypeError(f"{name} is {dtype}; it must be float64, float32, bfloat16 or float16")


def check_state(
    config: CoreConfig, state: Tensor, device: torch.device, shape: tuple[int, ...]
) -> None:
    """Raise unless ``state`` is one that a call of this core can start from."""
    if not config.is_recurrent:
        raise ValueError("state was given, but with adapter='none' there is no state")
    check_floats("state", state, device, shape)


def check_floats(name: str, value: Tensor, device: torch.device, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` holds real numbers of ``shape`` on ``device``."""
    if value.device != device or value.dtype not in FLOAT_TYPES:
        raise ValueError(
            f"{name} must be floating point on {device}; got {value.dtype} on {value.device}"
        )
    if value.layout is not torch.strided:
        raise ValueError(f"{name} is {value.layout}; it must be a dense tensor")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be {shape}")
