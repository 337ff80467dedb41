"""Calls of the recurrence as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lares_kernels import CoreConfig


@st.composite
def calls(
    draw: Any, head_widths: list[int], most_inner: int, most_tokens: int, most_sequences: int
) -> tuple[CoreConfig, list[int], list[int], int]:
    """(configuration, lengths, depths, seed), the widths and the batch within what is given."""
    heads = draw(st.sampled_from([1, 2, 3]))
    config = CoreConfig(
        d_model=heads * draw(st.sampled_from(head_widths)),
        n_heads=heads,
        d_ff=draw(st.integers(1, most_inner)),
        n_layers=draw(st.integers(1, 3)),
        adapter=draw(st.sampled_from(["add", "gate", "concat"])),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        norm=draw(st.sampled_from(["post", "pre"])),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.5])),
        attn_dropout=draw(st.sampled_from([0.0, 0.25, 0.9])),
    )
    lengths = draw(st.lists(st.integers(1, most_tokens), min_size=1, max_size=most_sequences))
    depths = draw(st.lists(st.integers(1, 3), min_size=len(lengths), max_size=len(lengths)))
    return config, lengths, depths, draw(st.integers(0, 2**64 - 1))
