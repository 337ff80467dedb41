"""``LaresEncoder``: from item ids to the reasoning states (LARES, arXiv 2505.16865, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lares.data.text_features import read_text_features
from lares.errors import ConfigError
from lares.model.config import LaresConfig
from lares.model.packed import PackedHistories
from lares.model.text_fusion import TextFusion
from lares.plain import plain
from lares_kernels import RecurrentCore, refine_states
from lares_kernels.common.dispatcher import is_eager
from lares_kernels.common.whole import whole_number
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
        item_seq: Tensor | PackedHistories,
        lengths: Tensor | None = None,
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
                longer than ``max_length`` keep their last ``max_length`` items. Or histories that are
                packed and checked already, which bring lengths and streams along.
            lengths: (B,) whole numbers of at least 1, of padded histories.
            num_steps: reasoning depth ``T``: a number, (B,) or (B, rollouts) int32; None is
                ``mean_depth``. Without recurrence it must be None or 0.
            initial_state: (B, L, d) ``s_0``, or (B, rollouts, L, d), ``L`` being ``max_length`` for
                cores that mix the window; None draws it (or takes zero) as ``state_mode`` says.
            seed: 64-bit key of dropout and of the drawn state, as :func:`lares_kernels.refine` takes
                it: None is 0, and in training a seed drawn from torch's generator.
            sequence_ids: (B,) numbers below 2^24 that address each padded sequence's random draws;
                default ``0..B-1``. The same seed and id draw the same in any batch.
            rollouts: independent runs ``G`` of the recurrence over one pass of the pre-block.
            return_trajectory, return_state: what to give back besides ``last``; ``return_state``
                gives both ``state`` and ``hidden``.

        Raises:
            ValueError: ids, lengths or options do not fit; the message names value and place.
        """
        seed = self._seed(seed, initial_state is None)
        num_steps, rollouts = plain(num_steps), whole_number("rollouts", rollouts)
        histories = self._packed(item_seq, lengths, sequence_ids)
        layout, width = histories.layout, histories.width
        hidden = self._hidden(histories, seed)
        windowed = layout.tokens is not None
        padded_hidden = self._padded(hidden, layout, width) if return_state else None
        if self.core is None:
            no_steps = num_steps is None or (type(num_steps) is int and num_steps == 0)
            if initial_state is not None or rollouts != 1 or not no_steps:
                raise ValueError(
                    "this model has no recurrence (n_core_layers=0): num_steps must be None or 0, "
                    f"got {num_steps!r}, and there are no rollouts and no initial_state"
                )
            return EncoderOutput(hidden[layout.last_rows], None, padded_hidden, padded_hidden)

        n = layout.n_sequences  # len() would make a plain number of a symbol
        groups = (n,) if rollouts == 1 else (n, rollouts)
        states = layout  # of the states' rows: those of a sequence's rollouts follow one another
        if rollouts > 1 and not windowed and (return_state or initial_state is not None):
            each = layout.streams.repeat_interleave(rollouts)
            size = layout.n_rows * rollouts, layout.max_length
            states = Layout.from_lengths(
                layout.lengths.repeat_interleave(rollouts), each, size=size
            )
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
            sequence_ids=layout.streams,
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
        item_seq: Tensor | PackedHistories,
        lengths: Tensor | None = None,
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
        histories = self._packed(item_seq, lengths, sequence_ids)
        hidden = self._hidden(histories, seed)
        if self.core is None:
            if len(steps) or num_steps is not None:
                raise ValueError(
                    "this model has no recurrence (n_core_layers=0): there are no steps to read"
                )
            return [hidden]
        return refine_states(
            self.core,
            hidden,
            None,
            steps,
            lengths=histories.lengths,
            num_steps=num_steps,
            state=self._state_mode(),
            seed=seed,
            sequence_ids=histories.layout.streams,
        )

    def _packed(
        self,
        item_seq: Tensor | PackedHistories,
        lengths: Tensor | None,
        sequence_ids: Tensor | None,
    ) -> PackedHistories:
        """Return histories as they are computed, however they were given."""
        if not isinstance(item_seq, PackedHistories):
            if lengths is None:
                raise ValueError("padded histories (B, L) need lengths (B,)")
            padded = torch.as_tensor(item_seq), torch.as_tensor(lengths)
            return PackedHistories.from_padded(self.config, *padded, sequence_ids)
        if lengths is not None or sequence_ids is not None:
            raise ValueError("packed histories have lengths and sequence_ids; give no others")
        return item_seq

    def _hidden(self, histories: PackedHistories, seed: int | Tensor) -> Tensor:
        """Return ``H`` of every row, (N, d)."""
        hidden = self._embed(histories, seed)
        if self.pre is None:
            return hidden
        blocks = self.pre(
            **self._rows(hidden, histories.layout),
            seed=seed,
            sequence_ids=histories.layout.streams,
            return_state=True,
        )
        assert blocks.state is not None
        state: Tensor = blocks.state.flatten(0, -2)
        return state

    def _padded(self, rows: Tensor, layout: Layout, width: int) -> Tensor:
        """Rows (N, d) as (B, width, d), zeros at padding that no core computes."""
        if layout.after_tokens is not None and not self.config.mixes_window:
            rows = rows.masked_fill(layout.after_tokens, 0.0)
        return layout.pad(rows, width)

    def _rows(self, hidden: Tensor, layout: Layout) -> dict[str, Any]:
        """Rows (N, d) as the op takes them: packed, or as windows."""
        if layout.tokens is not None:
            return {"hidden": layout.pad(hidden), "lengths": layout.tokens}
        rows = {"hidden": hidden, "lengths": layout.lengths}
        # A GPU would be waited for. The CPU reads lengths for nothing, and knows such calls again.
        return rows if hidden.is_cpu else {**rows, "max_length": layout.max_length}

    def _embed(self, histories: PackedHistories, seed: int | Tensor) -> Tensor:
        """``Dropout(LayerNorm(E[item] + P[position]))`` of the rows that are computed, (N, d); with
        text features ``E`` is fused with them."""
        layout = histories.layout
        x: Tensor
        if self.text is None:
            x = self.item_embedding(histories.items)
        else:
            window = layout.pad(histories.items, self.config.max_length)
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
