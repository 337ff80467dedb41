"""Compute window-mixing layers (FMLP-Rec, BSARec) in the layered plan, and their backward.

The order of operations is that of ``reference/window_backward.py``. All rows of a window mix,
padding too; if only the newest rows of a step are read, what follows the mixing runs on those only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import unfilled_like
from lares_kernels.triton.layered.call import AttentionTape, FeedForwardTape, Layered, Site
from lares_kernels.triton.layered.gradients import (
    Gradients,
    TwoParts,
    attention_backward,
    feed_forward_backward,
    spread,
    through_sum,
)
from lares_kernels.triton.layered.kernels.branches import BANDS, FEED_FORWARD, MIXING
from lares_kernels.triton.layered.mixing import filter_gradient, filtered, rescaled, spectrum_of


class BesideTape(NamedTuple):
    """Save what BSARec alone has beside the filter.

    ``high`` (n, d) float32 is the window without its low band; ``attn_sum`` attention's residual sum.
    """

    high: Tensor
    attention: AttentionTape
    attn_sum: Tensor


class WindowTape(NamedTuple):
    """Save what a window layer's backward needs.

    ``*_sum`` are the residual sums, float32, on the rows of ``site``.
    ``spectrum`` is that of ``x``.
    """

    site: Site
    x: Tensor
    spectrum: Tensor
    filter_sum: Tensor
    beside: BesideTape | None
    feed_forward: FeedForwardTape
    ffn_sum: Tensor


def window_layer(
    run: Layered, x: Tensor, x_in: Tensor, site: Site, taped: bool
) -> tuple[Tensor, Tensor, WindowTape | None]:
    """Compute one layer; arguments and results as of ``attention_layer`` of forward.py."""
    d, layer, newest = run.config.d_model, site.layer, site.newest
    filters = run.c.filters
    assert filters or run.c.bands, run.config.mixer

    def chosen(rows: Tensor) -> Tensor:
        return rows if newest is None else rows.index_select(0, newest)

    spectrum = spectrum_of(run, x)
    high = unfilled_like(x) if taped and not filters else None
    mixed = filtered(run, spectrum, layer) if filters else rescaled(run, x, spectrum, layer, high)
    before, mixed = chosen(x), chosen(mixed)
    n_rows = len(before)

    def total() -> Tensor | None:
        return run.new(n_rows, d) if taped else None

    norm, filter_sum, attn_sum = run.norm_of("filter_norm", layer), total(), None
    u, rounded = run.new(n_rows, d), run.for_products(n_rows)
    if filters:
        attention = None
        run.residual(before, mixed, norm, filter_sum, u, rounded, site, MIXING)
    else:
        bands, attn_sum = run.new(n_rows, d), total()
        run.residual(before, mixed, norm, filter_sum, bands, None, site, BANDS)
        branch, attention = run.attention(x_in, None, site, taped)
        norm = run.norm_of("attn_norm", layer)
        run.residual(before, branch, norm, attn_sum, u, rounded, site, MIXING, bands)

    branch, feed_forward = run.feed_forward(u if rounded is None else rounded, site, taped)
    out, out_in, ffn_sum = run.new(n_rows, d), run.for_products(n_rows), total()
    norm = run.norm_of("ffn_norm", layer)
    run.residual(u, branch, norm, ffn_sum, out, out_in, site, FEED_FORWARD)
    tape = None
    if feed_forward is not None:
        assert filter_sum is not None
        assert ffn_sum is not None
        beside = None
        if attention is not None:
            assert high is not None
            assert attn_sum is not None
            beside = BesideTape(high, attention, attn_sum)
        tape = WindowTape(site, x, spectrum, filter_sum, beside, feed_forward, ffn_sum)
    return out, out if out_in is None else out_in, tape


def window_layer_backward(
    run: Layered, grads: Gradients, tape: WindowTape, g_sum: Tensor, g_input: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of the layer's input in two terms, as that of its output is given."""
    site, layer = tape.site, tape.site.layer

    def everywhere(g: Tensor) -> Tensor:
        return spread(g, site.newest, len(tape.x))

    def of_filter(g_u: TwoParts, branch: int, share: float = 1.0) -> tuple[Tensor, Tensor]:
        name = "filter_norm"
        return through_sum(grads, site, g_u, tape.filter_sum, name, branch, torch.float32, share)

    g_total, g_branch = through_sum(
        grads, site, (g_sum, g_input), tape.ffn_sum, "ffn_norm", FEED_FORWARD
    )
    g_u = (g_total, feed_forward_backward(run, grads, tape.feed_forward, site, g_branch))
    if tape.beside is None:
        g_x, g_y = of_filter(g_u, MIXING)
        g_spectrum = spectrum_of(run, everywhere(g_y))
        grads.by_name["filter_weight"][layer] += filter_gradient(tape.spectrum, g_spectrum, run)
        return everywhere(g_x), filtered(run, g_spectrum, layer, sign=-1.0)

    share, (high, attention, attn_sum) = run.config.band_share, tape.beside
    g_bands, g_y = of_filter(g_u, BANDS, share)
    g_y = everywhere(g_y)
    scale = run.vectors["band_scale"][layer].to(torch.float32)
    grads.by_name["band_scale"][layer] += 2.0 * scale * (g_y * high).sum(0)
    g_windows = rescaled(run, g_y, spectrum_of(run, g_y), layer)
    g_attended, g_branch = through_sum(
        grads, site, g_u, attn_sum, "attn_norm", MIXING, share=1.0 - share
    )
    g_x = everywhere(g_bands + g_attended) + g_windows
    return g_x, attention_backward(run, grads, attention, site, g_branch)
