"""``LaresEncoder``: from item ids to the reasoning states (LARES, arXiv 2505.16865, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lares.data.text_features import read_text_features
from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.model.text_fusion import TextFusion
from lares.plain import plain
from lares_kernels import RecurrentCore, refine_states
from lares_kernels.common.dispatcher import can_be_read, check_when_run, is_eager
from lares_kernels.common.whole import is_whole, whole_number, whole_numbers
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.noise import Site, quantised_rate, row_keep, site_word
from lares_kernels.spec.seeds import seed_for, seed_of_call, seed_tensor


class EncoderOutput(NamedTuple):
    """Hold what the encoder gives of ``B`` sequences of up to ``L`` items, width ``d``.

    With ``G > 1`` rollouts all but ``hidden`` have a dimension ``G`` after the first.

    Attributes:
        last: (B, d), ``z_T``: state of the newest item after each sequence's last step.
        trajectory: (B, T_max, d), ``z_1 .. z_T``; past a sequence's own depth its last one is
            repeated. None unless asked for, or where there is no recurrence.
        state: (B, L, d), ``s_T`` of every item, zeros at padding. None unless asked for.
        hidden: (B, L, d), the pre-block's output ``H``, zeros at padding. None unless asked for.

    Cores that mix the window compute padding too, and their ``L`` is ``max_length``.
    """

    last: Tensor
    trajectory: Tensor | None
    state: Tensor | None
    hidden: Tensor | None


class LaresEncoder(nn.Module):
    """Embedding, pre-block and recurrence.

    ``n_core_layers=0`` leaves out the recurrence: plain SASRec, whose ``last`` is the pre-block's.

    Args:
        config: of the model.
        text_features: (V, D) of the catalogue rows; None reads the file that ``config`` names, if any.

    Attributes:
        config: with ``text_width`` of the features, and no file.
    """

    def __init__(self, config: LaresConfig, text_features: Tensor | None = None) -> None:
        super().__init__()
        config, text_features = with_text(config, text_features)
        self.config = config
        self.item_embedding = nn.Embedding(config.n_items, config.d_model, padding_idx=0)
        self.position_embedding = nn.Embedding(config.max_length, config.d_model)
        self.input_norm = nn.LayerNorm(config.d_model, eps=config.eps)
        self.pre = RecurrentCore(config.pre_config()) if config.n_pre_layers else None
        self.core = RecurrentCore(config.core_config()) if config.is_recurrent else None
        self.text = TextFusion(config) if config.has_text else None
        if self.text is not None and text_features is not None:
            self.text.features.copy_(text_features)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew: normal with ``initializer_range``, as published."""
        std = self.config.initializer_range
        self.item_embedding.weight.normal_(0.0, std)
        self.position_embedding.weight.normal_(0.0, std)
        self.input_norm.reset_parameters()
        for block in (self.pre, self.core):
            if block is not None:
                block.reset_parameters(std)
        if self.text is not None:
            self.text.reset_parameters(std)

    def forward(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        num_steps: int | Tensor | None = None,
        initial_state: Tensor | None = None,
        *,
        seed: int | Tensor | None = None,
        sequence_ids: Tensor | None = None,
        rollouts: int = 1,
        return_trajectory: bool = False,
        return_state: bool = False,
    ) -> EncoderOutput:
        """Encode histories.

        Args:
            item_seq: (B, L) int64 item ids, oldest first, padded on the right with 0. Histories
                longer than ``max_length`` keep their last ``max_length`` items.
            lengths: (B,) whole numbers of at least 1.
            num_steps: reasoning depth ``T``: a number, (B,) or (B, rollouts) int32; None is
                ``mean_depth``. Without recurrence it must be None or 0.
            initial_state: (B, L, d) ``s_0``, or (B, rollouts, L, d), ``L`` being ``max_length`` for
                cores that mix the window; None draws it (or takes zero) as ``state_mode`` says.
            seed: 64-bit key of dropout and of the drawn state, as :func:`lares_kernels.refine` takes
                it: None is 0, and in training a seed drawn from torch's generator.
            sequence_ids: (B,) numbers below 2^24 that address each sequence's random draws; default
                ``0..B-1``. The same seed and id draw the same in any batch.
            rollouts: independent runs ``G`` of the recurrence over one pass of the pre-block.
            return_trajectory, return_state: what to give back besides ``last``; ``return_state``
                gives both ``state`` and ``hidden``.

        Raises:
            ValueError: ids, lengths or options do not fit; the message names value and place.
        """
        seed = self._seed(seed, initial_state is None)
        num_steps, rollouts = plain(num_steps), whole_number("rollouts", rollouts)
        item_seq, lengths = _as_tensors(item_seq, lengths)
        hidden, layout = self._hidden(item_seq, lengths, sequence_ids, seed)
        windowed, sequence_ids = layout.tokens is not None, layout.streams
        width = self.config.max_length
        if not self.config.mixes_window:
            width = min(item_seq.shape[1], width)
        padded_hidden = self._padded(hidden, layout, width) if return_state else None
        if self.core is None:
            no_steps = num_steps is None or (type(num_steps) is int and num_steps == 0)
            if initial_state is not None or rollouts != 1 or not no_steps:
                raise ValueError(
                    "this model has no recurrence (n_core_layers=0): num_steps must be None or 0, "
                    f"got {num_steps!r}, and there are no rollouts and no initial_state"
                )
            return EncoderOutput(hidden[layout.last_rows], None, padded_hidden, padded_hidden)

        n = sequence_ids.shape[0]
        groups = (n,) if rollouts == 1 else (n, rollouts)
        states = layout  # of the states' rows: those of a sequence's rollouts follow one another
        if rollouts > 1 and not windowed and (return_state or initial_state is not None):
            each = layout.streams.repeat_interleave(rollouts)
            states = Layout.from_lengths(layout.lengths.repeat_interleave(rollouts), each)
        state: Tensor | str = self._state_mode()
        if initial_state is not None:
            wanted = (*groups, width, self.config.d_model)
            if tuple(initial_state.shape) != wanted:
                raise ValueError(
                    f"initial_state has shape {tuple(initial_state.shape)}; it must be {wanted}"
                )
            state = initial_state
            if not windowed:
                state = states.unpad(initial_state.reshape(-1, width, self.config.d_model))
        out = self.core(
            **self._rows(hidden, layout),
            num_steps=self.config.mean_depth if num_steps is None else num_steps,
            state=state,
            seed=seed,
            sequence_ids=sequence_ids,
            rollouts=rollouts,
            return_trajectory=return_trajectory,
            return_state=return_state,
        )
        final_state = out.state
        if final_state is not None and not windowed:
            final_state = states.pad(final_state, width).reshape(*groups, width, -1)
        return EncoderOutput(out.last, out.trajectory, final_state, padded_hidden)

    def token_states(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        steps: Sequence[int] = (),
        num_steps: Tensor | None = None,
        *,
        seed: int | Tensor | None = None,
        sequence_ids: Tensor | None = None,
    ) -> list[Tensor]:
        """States of every item after chosen reasoning steps: with a causal mask, of every prefix.

        Args:
            item_seq, lengths, seed, sequence_ids: as in :meth:`forward`.
            steps: to read states after, ascending; none without recurrence.
            num_steps: (B,) depth of each sequence, past which its states are repeated; None runs all to
                the last of ``steps``.

        Returns:
            Packed (N, d), sequence after sequence, for each of ``steps``; without recurrence the
            pre-block's output alone.
        """
        if not self.config.prefixes_stand_alone:
            raise ConfigError(
                "a token's state is not its prefix's in this model: "
                + ("text features are" if self.config.has_text else f"core={self.config.core!r} is")
                + " mixed along the whole window"
            )
        seed = self._seed(seed)
        item_seq, lengths = _as_tensors(item_seq, lengths)
        hidden, layout = self._hidden(item_seq, lengths, sequence_ids, seed)
        if self.core is None:
            if len(steps) or num_steps is not None:
                raise ValueError(
                    "this model has no recurrence (n_core_layers=0): there are no steps to read"
                )
            return [hidden]
        return refine_states(
            self.core,
            hidden,
            self._rows(hidden, layout)["cu_seqlens"],
            steps,
            num_steps=num_steps,
            state=self._state_mode(),
            seed=seed,
            sequence_ids=layout.streams,
        )

    def _hidden(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        sequence_ids: Tensor | None,
        seed: int | Tensor,
    ) -> tuple[Tensor, Layout]:
        """``H`` (N, d) of checked histories and the layout of its rows."""
        item_seq, lengths = checked_item_ids(item_seq, lengths, self.config.n_items)
        item_seq, lengths = keep_last_items(item_seq, lengths, self.config.max_length)
        windows = self.config.mixes_window or not can_be_read(lengths)
        if windows:
            width = self.config.max_length if self.config.mixes_window else item_seq.shape[1]
            item_seq = fill_window(item_seq, lengths, width)
        if sequence_ids is None:
            sequence_ids = torch.arange(lengths.shape[0], device=item_seq.device)
        sequence_ids = whole_numbers("sequence_ids", sequence_ids, ((lengths.shape[0],),))
        streams = sequence_ids.to(torch.int64)
        # The rows that are computed: real tokens, or whole windows where cores mix these, or where
        # the sizes of what is traced must not follow from the lengths.
        layout = (
            Layout.of_windows(item_seq.shape[1], streams, tokens=lengths)
            if windows
            else Layout.from_lengths(lengths, streams)
        )
        hidden = self._embed(item_seq, lengths, layout, seed)
        if self.pre is not None:
            blocks = self.pre(
                **self._rows(hidden, layout),
                seed=seed,
                sequence_ids=layout.streams,
                return_state=True,
            )
            assert blocks.state is not None
            hidden = blocks.state.flatten(0, -2)
        return hidden, layout

    def _padded(self, rows: Tensor, layout: Layout, width: int) -> Tensor:
        """Rows (N, d) as (B, width, d), zeros at padding that no core computes."""
        if layout.after_tokens is not None and not self.config.mixes_window:
            rows = rows.masked_fill(layout.after_tokens, 0.0)
        return layout.pad(rows, width)

    def _rows(self, hidden: Tensor, layout: Layout) -> dict[str, Any]:
        """Rows (N, d) as the op takes them: packed, or as windows."""
        if layout.tokens is not None:
            return {"hidden": layout.pad(hidden), "lengths": layout.tokens}
        ends = layout.starts[-1:] + layout.lengths[-1:]
        rows = {"hidden": hidden, "cu_seqlens": torch.cat((layout.starts, ends))}
        # A GPU would be waited for. The CPU reads lengths for nothing, and knows such calls again.
        return rows if hidden.is_cpu else {**rows, "max_length": layout.max_length}

    def _embed(
        self, item_seq: Tensor, lengths: Tensor, layout: Layout, seed: int | Tensor
    ) -> Tensor:
        """``Dropout(LayerNorm(E[item] + P[position]))`` of the rows that are computed, (N, d); with
        text features ``E`` is fused with them."""
        x: Tensor
        if self.text is None:
            x = self.item_embedding(layout.unpad(item_seq))
        else:
            window = fill_window(item_seq, lengths, self.config.max_length)
            x = layout.unpad(self.text(self.item_embedding(window), window, layout.streams, seed))
        x = x + self.position_embedding(layout.position)
        x = self.input_norm(x)
        rate = self.config.dropout
        if not self.training or quantised_rate(rate) == 0.0:
            return x
        keep = row_keep(
            layout.row_streams,
            layout.position,
            site_word(Site.EMBEDDING),
            rate,
            self.config.d_model,
            seed,
        )
        return x * (keep.to(x.dtype) / (1.0 - quantised_rate(rate)))

    def _seed(self, seed: int | Tensor | None, draws_state: bool = True) -> int | Tensor:
        """The seed that all parts of a call draw by."""
        config = self.config
        drops = config.dropout > 0 or config.attn_dropout > 0 or config.has_text
        draws_state = draws_state and config.is_recurrent and self._state_mode() == "normal"
        weight = self.item_embedding.weight
        seed = seed_of_call(seed, self.training and (drops or draws_state), weight.device)
        # A number costs less to draw by; a tensor is for programs that are compiled or traced, and for
        # graphs that are captured.
        if is_eager(weight):
            return seed_for(seed, weight.device)
        return seed_tensor(seed, weight.device)

    def _state_mode(self) -> str:
        mode = self.config.state_mode
        if mode == "normal_zero":
            return "normal" if self.training else "zero"
        return mode


def _as_tensors(item_seq: object, lengths: object) -> tuple[Tensor, Tensor]:
    """Histories and lengths as tensors, of lists and NumPy's arrays too."""
    return torch.as_tensor(item_seq), torch.as_tensor(lengths)


def checked_item_ids(item_seq: Tensor, lengths: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Ids (B, L) and lengths (B,) as int64.

    Raises:
        ValueError: they do not describe real, non-empty histories.
    """
    if item_seq.dim() != 2 or not is_whole(item_seq):
        raise ValueError(
            f"item_seq must be (B, L) whole numbers; got shape {tuple(item_seq.shape)} "
            f"of {item_seq.dtype}"
        )
    if tuple(lengths.shape) != (item_seq.shape[0],) or not is_whole(lengths):
        raise ValueError(
            f"lengths must be ({len(item_seq)},) whole numbers, one a sequence; "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}"
        )
    if item_seq.shape[0] == 0:
        raise ValueError("item_seq holds no sequence")
    # First of all: narrow types wrap round in what follows, and unsigned ones cannot be compared.
    item_seq, lengths = item_seq.to(torch.int64), lengths.to(torch.int64)
    longest = item_seq.shape[1]
    bad = (lengths < 1) | (lengths > longest)
    real = torch.arange(longest, device=item_seq.device) < lengths[:, None]
    wrong = real & ((item_seq < 1) | (item_seq >= n_items))
    if not can_be_read(lengths):
        check_when_run(~bad.any(), "lengths must be in 1..L, the width of item_seq")
        check_when_run(
            ~wrong.any(),
            f"item ids run from 1 to {n_items - 1} (0 is padding)",
        )
        return item_seq, lengths
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise ValueError(
            f"sequence {where} has length {int(lengths[where])}; it must be in "
            f"1..{longest}, the width of item_seq"
        )
    if bool(wrong.any()):
        row, column = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"item id {int(item_seq[row, column])} in sequence {row}, position {column}: "
            f"ids run from 1 to {n_items - 1} (0 is padding)"
        )
    return item_seq, lengths


def with_text(
    config: LaresConfig, text_features: Tensor | None
) -> tuple[LaresConfig, Tensor | None]:
    """The configuration of a model that holds its text features, and these."""
    if text_features is None and config.text_features:
        text_features = read_text_features(config.text_features, config.n_items)
    if text_features is None:
        return config, None
    shape = tuple(text_features.shape)
    if len(shape) != 2 or shape[0] != config.n_items or config.text_width not in (0, shape[1]):
        width = config.text_width or "D"
        raise ConfigError(
            f"text_features has shape {shape}; it must be ({config.n_items}, {width})"
        )
    return replace(config, text_features="", text_width=shape[1]), text_features


def fill_window(item_seq: Tensor, lengths: Tensor, window: int) -> Tensor:
    """Ids (B, L) with ``L <= window`` as (B, window), 0 past each length."""
    real = torch.arange(item_seq.shape[1], device=item_seq.device) < lengths[:, None]
    return functional.pad(item_seq * real, (0, window - item_seq.shape[1]))


def keep_last_items(item_seq: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Drop all but the last ``longest`` items of every history (B, L)."""
    if item_seq.shape[1] <= longest:
        return item_seq, lengths
    dropped = (lengths - longest).clamp(min=0)
    columns = dropped[:, None] + torch.arange(longest, device=item_seq.device)
    kept = lengths.clamp(max=longest)
    kept_seq = item_seq.gather(1, columns.clamp(max=item_seq.shape[1] - 1))
    inside = torch.arange(longest, device=item_seq.device) < kept[:, None]
    return kept_seq * inside, kept
