"""Compute a layer that mixes the whole window (FMLP-Rec, BSARec) and its hand-written backward.

Names as in ``backward.py``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lares_kernels.reference import equations as eq
from lares_kernels.reference.backward import (
    AttentionTape,
    FeedForwardTape,
    Gradients,
    NormTape,
    accumulate_norm_backward,
    attention_backward,
    attention_forward,
    ffn_backward,
    ffn_forward,
    norm_forward,
)
from lares_kernels.reference.equations import Parameters
from lares_kernels.reference.mixing import (
    circular_filter,
    circular_filter_backward,
    rescale_bands,
    rescale_bands_backward,
)
from lares_kernels.spec.call import RefineCall
from lares_kernels.spec.layout import Layout


class WindowTape(NamedTuple):
    """Save what the backward of ``equations.mix_window`` needs."""

    window: Tensor  # (S, L, d) input of the sublayer
    filter_norm: NormTape
    filter_factor: Tensor | None  # (N, d), of the filter or the bands
    attention: tuple[NormTape, AttentionTape, Tensor | None] | None  # of BSARec


class WindowLayerTape(NamedTuple):
    """Save what the backward of a ``filter`` or ``bsarec`` layer needs."""

    mixing: WindowTape
    ffn_norm: NormTape
    feed_forward: FeedForwardTape
    feed_forward_factor: Tensor | None  # (N, d)


def mix_window_forward(
    call: RefineCall, layout: Layout, p: Parameters, x: Tensor, layer: int, step: int
) -> tuple[Tensor, WindowTape]:
    """Compute ``equations.mix_window`` and its tape."""
    eq.check_mixer(call)
    factor, _ = eq.residual_dropout(call, layout, layer, step)
    norm = (p["filter_norm_weight"], p["filter_norm_bias"])
    window = eq.window_rows(layout, x)
    if call.config.mixer == "filter":
        y = circular_filter(window, p["filter_weight"].to(call.state_dtype)).reshape_as(x)
        u, filter_norm = norm_forward(call, x + eq.scaled(y, factor), *norm)
        return u, WindowTape(window, filter_norm, factor, None)
    y = rescale_bands(window, p["band_scale"].to(call.state_dtype), call.config.cutoff)
    band_factor = eq.band_dropout(call, layout, layer, step)
    bands, filter_norm = norm_forward(call, x + eq.scaled(y.reshape_as(x), band_factor), *norm)
    branch, attention = attention_forward(call, layout, p, x, layer, step)
    attended, attn_norm = norm_forward(
        call, x + eq.scaled(branch, factor), p["attn_norm_weight"], p["attn_norm_bias"]
    )
    share = call.config.band_share
    u = share * bands + (1.0 - share) * attended
    return u, WindowTape(window, filter_norm, band_factor, (attn_norm, attention, factor))


def mix_window_backward(
    call: RefineCall, p: Parameters, g_u: Tensor, tape: WindowTape, grads: Gradients
) -> Tensor:
    """Return the gradient by the sublayer's input; add the parameters' to ``grads``."""
    share = call.config.band_share if tape.attention else 1.0
    g_x = accumulate_norm_backward(call, p, "filter_norm", share * g_u, tape.filter_norm, grads)
    g_y = eq.scaled(g_x, tape.filter_factor).reshape_as(tape.window)
    if tape.attention is None:
        weight = p["filter_weight"].to(call.state_dtype)
        g_window, g_weight = circular_filter_backward(g_y, tape.window, weight)
        grads["filter_weight"] += g_weight
        return g_x + g_window.reshape_as(g_x)
    scale = p["band_scale"].to(call.state_dtype)
    g_window, g_scale = rescale_bands_backward(g_y, tape.window, scale, call.config.cutoff)
    grads["band_scale"] += g_scale
    norm, attention, factor = tape.attention
    g_sum = accumulate_norm_backward(call, p, "attn_norm", (1.0 - share) * g_u, norm, grads)
    g_branch, _ = attention_backward(call, p, eq.scaled(g_sum, factor), attention, grads)
    return g_x + g_window.reshape_as(g_x) + g_sum + g_branch


def window_layer_forward(
    call: RefineCall, layout: Layout, p: Parameters, x: Tensor, layer: int, step: int
) -> tuple[Tensor, WindowLayerTape]:
    """Compute ``equations.transformer_layer`` of ``filter`` or ``bsarec`` and its tape."""
    _, factor = eq.residual_dropout(call, layout, layer, step)
    inner_factor = eq.inner_dropout(call, layout, layer, step)
    u, mixing = mix_window_forward(call, layout, p, x, layer, step)
    branch, feed_forward = ffn_forward(call, p, u, inner_factor)
    norm = (p["ffn_norm_weight"], p["ffn_norm_bias"])
    y, ffn_norm = norm_forward(call, u + eq.scaled(branch, factor), *norm)
    return y, WindowLayerTape(mixing, ffn_norm, feed_forward, factor)


def window_layer_backward(
    call: RefineCall, p: Parameters, g_y: Tensor, tape: WindowLayerTape, grads: Gradients
) -> Tensor:
    """Return the gradient by the layer's input; add the parameters' to ``grads``."""
    g_sum = accumulate_norm_backward(call, p, "ffn_norm", g_y, tape.ffn_norm, grads)
    g_branch = eq.scaled(g_sum, tape.feed_forward_factor)
    g_u = g_sum + ffn_backward(call, p, g_branch, tape.feed_forward, grads)
    return mix_window_backward(call, p, g_u, tape.mixing, grads)
