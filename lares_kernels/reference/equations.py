"""Compute the recurrence as the paper writes it (LARES, arXiv 2505.16865, section 3.2), in plain
PyTorch.

Autograd differentiates this program; ``recurrence.py`` is tested against it, and both against float64.

Shapes: ``N`` rows (tokens) of ``S`` packed sequences, width ``d``, feed-forward ``f``, ``h`` heads,
``L`` the longest sequence of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lares_kernels.reference.activations import ACTIVATIONS, Activation
from lares_kernels.reference.mixing import circular_filter, rescale_bands
from lares_kernels.spec import noise
from lares_kernels.spec.call import RefineCall
from lares_kernels.spec.errors import BackendError
from lares_kernels.spec.layout import Layout
from lares_kernels.spec.parameters import layer_parameters_of

Parameters = Mapping[str, Tensor]


class RefineResult(NamedTuple):
    """Hold ``trajectory`` (S, T, d), the last row of each step, repeated past a sequence's own
    depth, and ``state`` (N, d), s_T of every row."""

    trajectory: Tensor
    state: Tensor


def no_equations(call: RefineCall, option: str) -> BackendError:
    """Return the error of a core whose ``option``, ``adapter`` say, has a value without equations."""
    value = getattr(call.config, option)
    return BackendError(
        f"{option} is {value!r}, of which lares_kernels/reference has no equations; say there what it "
        "computes (docs/develop/adding.md)"
    )


def activation_of(call: RefineCall) -> Activation:
    """Return the feed-forward's activation."""
    if call.config.activation not in ACTIVATIONS:
        raise no_equations(call, "activation")
    return ACTIVATIONS[call.config.activation]


def linear(call: RefineCall, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``x W^T + b`` in the products' type; return it in the state's."""
    dtype = call.product_dtype
    return functional.linear(x.to(dtype), weight.to(dtype), bias.to(dtype)).to(call.state_dtype)


def matmul(call: RefineCall, a: Tensor, b: Tensor) -> Tensor:
    """Compute ``a b`` in the products' type; return it in the state's."""
    return torch.matmul(a.to(call.product_dtype), b.to(call.product_dtype)).to(call.state_dtype)


def layer_norm(call: RefineCall, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute LayerNorm over the last dimension with biased variance, in the state's type."""
    dtype = call.state_dtype
    return functional.layer_norm(x, x.shape[-1:], weight.to(dtype), bias.to(dtype), call.config.eps)


def layer_parameters(call: RefineCall, parameters: Parameters, layer: int) -> dict[str, Tensor]:
    """Return one layer's parameters out of the stacked ones."""
    return {name: parameters[name][layer] for name in layer_parameters_of(call.config)}


def dropout_scale(keep: Tensor, rate: float, dtype: torch.dtype) -> Tensor:
    """Return the factor of each element: 0 where dropped, ``1 / (1 - p)`` where kept."""
    return keep.to(dtype) * (1.0 / (1.0 - noise.quantised_rate(rate)))


def attention_dropout(call: RefineCall, layout: Layout, layer: int, step: int) -> Tensor | None:
    """Return factors (S, h, L, L) of the attention probabilities, or None where dropout is off."""
    rate = call.config.attn_dropout
    if not call.options.dropout or noise.quantised_rate(rate) == 0.0:
        return None
    keep = noise.attention_keep(
        layout.row_streams,
        layout.position,
        layer=layer,
        step=call.rng_step(step),
        rate=rate,
        n_heads=call.config.n_heads,
        n_keys=layout.max_length,
        seed=call.seed,
    )
    # Laid out like the probabilities they multiply.
    padded = layout.pad(keep).transpose(1, 2).contiguous()
    return dropout_scale(padded, rate, call.state_dtype)


def residual_dropout(
    call: RefineCall, layout: Layout, layer: int, step: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return factors (N, d) of the output of mixing (attention or filter) and of the
    feed-forward, or None where off."""
    rate = call.config.dropout
    if not call.options.dropout or noise.quantised_rate(rate) == 0.0:
        return None, None
    attention, feed_forward = noise.residual_keep(
        layout.row_streams,
        layout.position,
        layer=layer,
        step=call.rng_step(step),
        rate=rate,
        width=call.config.d_model,
        seed=call.seed,
    )
    return (
        dropout_scale(attention, rate, call.state_dtype)
        if call.config.dropout_of == "both"
        else None,
        dropout_scale(feed_forward, rate, call.state_dtype),
    )


def row_dropout(
    call: RefineCall,
    layout: Layout,
    site: noise.Site,
    layer: int,
    step: int,
    rate: float,
    width: int,
) -> Tensor | None:
    """Return factors (N, ``width``) of rows at a site of their own, or None where off."""
    if not call.options.dropout or noise.quantised_rate(rate) == 0.0:
        return None
    word = noise.site_word(site, layer, call.rng_step(step))
    keep = noise.row_keep(layout.row_streams, layout.position, word, rate, width, call.seed)
    return dropout_scale(keep, rate, call.state_dtype)


def band_dropout(call: RefineCall, layout: Layout, layer: int, step: int) -> Tensor | None:
    """Return factors (N, d) of BSARec's rescaled bands, or None where off."""
    rate = call.config.dropout if call.config.dropout_of == "both" else 0.0
    return row_dropout(call, layout, noise.Site.BANDS, layer, step, rate, call.config.d_model)


def inner_dropout(call: RefineCall, layout: Layout, layer: int, step: int) -> Tensor | None:
    """Return factors (N, f) of the feed-forward's activations, or None where off."""
    rate, width = call.config.inner_dropout, call.config.d_ff
    return row_dropout(call, layout, noise.Site.INNER, layer, step, rate, width)


def mask_padding(layout: Layout, x: Tensor) -> Tensor:
    """Return ``x`` (N, d) with zeros in padding rows."""
    return x if layout.real is None else x.masked_fill(~layout.real, 0.0)


def scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    """Return ``x * factor``, or ``x`` if there is no factor."""
    return x if factor is None else x * factor


def split_heads(call: RefineCall, layout: Layout, x: Tensor) -> Tensor:
    """Reshape rows (N, d) to heads (S, h, L, d/h)."""
    heads = x.reshape(x.shape[0], call.config.n_heads, call.config.head_dim)
    return layout.pad(heads).transpose(1, 2).contiguous()


def merge_heads(layout: Layout, x: Tensor) -> Tensor:
    """Reshape heads (S, h, L, d/h) to rows (N, d)."""
    return layout.unpad(x.transpose(1, 2).flatten(-2))


def attention_mask(layout: Layout) -> Tensor:
    """Return a bool mask (L, L), or (S, 1, L, L) where padding has rows: True where a query may not
    attend.

    Padding lies after every real row of its sequence, so that causality alone hides it from these.
    """
    length, device = layout.max_length, layout.lengths.device
    future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    if layout.tokens is None:
        return future
    padding = torch.arange(length, device=device) >= layout.tokens[:, None]
    return future | padding[:, None, None]


def attention_probabilities(call: RefineCall, layout: Layout, query: Tensor, key: Tensor) -> Tensor:
    """Compute ``softmax(Q K^T / sqrt(d/h) + mask)`` (S, h, L, L)."""
    scores = matmul(call, query, key.transpose(-1, -2)) * call.config.head_dim**-0.5
    mask = attention_mask(layout)
    return torch.softmax(scores.masked_fill(mask, float("-inf")), dim=-1)


def queries_keys_values(
    call: RefineCall, p: Parameters, x: Tensor, query_input: Tensor | None
) -> Tensor:
    """Compute queries, keys and values (N, 3 d) of ``x``; queries of ``query_input`` if given."""
    if query_input is None:
        return linear(call, x, p["qkv_weight"], p["qkv_bias"])
    weight, bias, d = p["qkv_weight"], p["qkv_bias"], call.config.d_model
    queries = linear(call, query_input, weight[:d], bias[:d])
    return torch.cat((queries, linear(call, x, weight[d:], bias[d:])), dim=-1)


def attention(
    call: RefineCall,
    layout: Layout,
    p: Parameters,
    x: Tensor,
    layer: int,
    step: int,
    query_input: Tensor | None = None,
) -> Tensor:
    """Compute ``W_o (Dropout_attn(A) V) + b_o``, (N, d) to (N, d)."""
    qkv = queries_keys_values(call, p, x, query_input)
    context = torch.zeros_like(x)
    for bucket, rows in layout.buckets:
        query, key, value = (split_heads(call, bucket, part) for part in qkv[rows].chunk(3, -1))
        probabilities = attention_probabilities(call, bucket, query, key)
        probabilities = scaled(probabilities, attention_dropout(call, bucket, layer, step))
        mixed = merge_heads(bucket, matmul(call, probabilities, value))
        context = context.index_copy(0, rows, mixed)
    return linear(call, context, p["out_weight"], p["out_bias"])


def feed_forward(call: RefineCall, p: Parameters, x: Tensor, factor: Tensor | None) -> Tensor:
    """Compute ``W_2 (factor act(W_1 x + b_1)) + b_2``, (N, d) to (N, d), ``factor`` for dropout."""
    inner = linear(call, x, p["up_weight"], p["up_bias"])
    inner = scaled(activation_of(call).value(inner), factor)
    return linear(call, inner, p["down_weight"], p["down_bias"])


def window_rows(layout: Layout, x: Tensor) -> Tensor:
    """Reshape rows (N, ...) of whole windows to (S, L, ...)."""
    return x.reshape(layout.n_sequences, layout.max_length, *x.shape[1:])


def check_mixer(call: RefineCall) -> None:
    """Raise ``BackendError`` unless the mixer of windows has equations."""
    if call.config.mixer not in ("filter", "bsarec"):
        raise no_equations(call, "mixer")


def mix_window(
    call: RefineCall, layout: Layout, p: Parameters, x: Tensor, layer: int, step: int
) -> Tensor:
    """Compute the sublayer of ``filter`` and ``bsarec`` that replaces attention, (N, d) to (N, d).

    ``LayerNorm(x + Dropout(filter(x)))``; BSARec: ``a`` times the same of its bands, plus ``1 - a``
    times attention's sublayer.
    """
    check_mixer(call)
    factor, _ = residual_dropout(call, layout, layer, step)
    norm = (p["filter_norm_weight"], p["filter_norm_bias"])
    window = window_rows(layout, x)
    if call.config.mixer == "filter":
        y = circular_filter(window, p["filter_weight"].to(call.state_dtype)).reshape_as(x)
        return layer_norm(call, x + scaled(y, factor), *norm)
    y = rescale_bands(window, p["band_scale"].to(call.state_dtype), call.config.cutoff)
    y = scaled(y.reshape_as(x), band_dropout(call, layout, layer, step))
    bands = layer_norm(call, x + y, *norm)
    branch = scaled(attention(call, layout, p, x, layer, step), factor)
    attended = layer_norm(call, x + branch, p["attn_norm_weight"], p["attn_norm_bias"])
    share = call.config.band_share
    return share * bands + (1.0 - share) * attended


def transformer_layer(
    call: RefineCall, layout: Layout, p: Parameters, x: Tensor, layer: int, step: int
) -> Tensor:
    """Compute one layer, post-, pre- or query-norm, (N, d) to (N, d)."""
    x = mask_padding(layout, x)
    attention_factor, feed_forward_factor = residual_dropout(call, layout, layer, step)
    inner_factor = inner_dropout(call, layout, layer, step)
    ffn_norm = (p["ffn_norm_weight"], p["ffn_norm_bias"])
    if call.config.mixes_window:
        u = mix_window(call, layout, p, x, layer, step)
        branch = scaled(feed_forward(call, p, u, inner_factor), feed_forward_factor)
        return layer_norm(call, u + branch, *ffn_norm)
    attn_norm = (p["attn_norm_weight"], p["attn_norm_bias"])
    if call.config.norm == "post":
        branch = attention(call, layout, p, x, layer, step)
        u = layer_norm(call, x + scaled(branch, attention_factor), *attn_norm)
        branch = feed_forward(call, p, u, inner_factor)
        return layer_norm(call, u + scaled(branch, feed_forward_factor), *ffn_norm)
    normed = layer_norm(call, x, *attn_norm)
    if call.config.norm == "query":
        branch = attention(call, layout, p, x, layer, step, query_input=normed)
        v = layer_norm(call, normed + scaled(branch, attention_factor), *ffn_norm)
        return v + scaled(feed_forward(call, p, v, inner_factor), feed_forward_factor)
    if call.config.norm != "pre":
        raise no_equations(call, "norm")
    branch = attention(call, layout, p, normed, layer, step)
    u = x + scaled(branch, attention_factor)
    branch = feed_forward(call, p, layer_norm(call, u, *ffn_norm), inner_factor)
    return u + scaled(branch, feed_forward_factor)


def adapt(call: RefineCall, p: Parameters, state: Tensor, hidden: Tensor) -> Tensor:
    """Combine the state with ``H`` by the adapter, (N, d)."""
    if call.config.adapter == "add":
        return (state + hidden) * 0.5
    if call.config.adapter == "gate":
        gate = torch.sigmoid(p["gate"].to(call.state_dtype))
        return gate * state + (1.0 - gate) * hidden
    if call.config.adapter != "concat":
        raise no_equations(call, "adapter")
    both = torch.cat((state, hidden), dim=-1)
    return linear(call, both, p["concat_weight"], p["concat_bias"])


def reasoning_step(
    call: RefineCall, layout: Layout, p: Parameters, state: Tensor, hidden: Tensor, step: int
) -> Tensor:
    """Compute ``s_t = Layers(LayerNorm_core(adapter(s_{t-1}, H)))``, (N, d)."""
    x = adapt(call, p, state, hidden)
    x = layer_norm(call, x, p["core_norm_weight"], p["core_norm_bias"])
    for layer in range(call.config.n_layers):
        x = transformer_layer(call, layout, layer_parameters(call, p, layer), x, layer, step)
    return mask_padding(layout, x)


def layers_once(call: RefineCall, p: Parameters, hidden: Tensor) -> Tensor:
    """Run the layers once on ``H`` (N, d), for adapter ``none``; their draws carry step 0."""
    x = hidden
    for layer in range(call.config.n_layers):
        x = transformer_layer(call, call.layout, layer_parameters(call, p, layer), x, layer, step=0)
    return mask_padding(call.layout, x)


def first_state(call: RefineCall, state: Tensor | None) -> Tensor:
    """Return ``s_0`` (N, d): the caller's, drawn, or zero."""
    layout, width = call.layout, call.config.d_model
    if state is not None:
        return mask_padding(layout, state.to(call.state_dtype))
    if call.options.zero_state:
        device = layout.sequence.device
        return torch.zeros(layout.n_rows, width, dtype=call.state_dtype, device=device)
    drawn = noise.initial_state(
        layout.row_streams, layout.position, width=width, scale=call.state_scale, seed=call.seed
    )
    return drawn.to(call.state_dtype)


def hidden_of_rows(call: RefineCall, hidden: Tensor) -> Tensor:
    """Return ``H`` of every row (N, d) in the state's type; rollouts share their sequence's rows."""
    hidden = hidden.to(call.state_dtype)
    return mask_padding(
        call.layout, hidden if call.hidden_rows is None else hidden[call.hidden_rows]
    )


def active_sequences(call: RefineCall, step: int) -> tuple[Layout, Tensor | None]:
    """Return the layout of the sequences active at ``step``, and their rows (None: all)."""
    if call.num_steps is None:
        return call.layout, None
    return call.layout.select(call.num_steps >= step)


def refine_equations(
    call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
) -> RefineResult:
    """Run the recurrence.

    Args:
        call: the call to run.
        hidden: (rows of the caller, d), ``H``.
        state: (N, d) s_0, or None to draw it or start from zero (``call``).
        parameters: tensors by name, stacked over layers.
    """
    hidden = hidden_of_rows(call, hidden)
    if not call.config.is_recurrent:
        final = layers_once(call, parameters, hidden)
        return RefineResult(final[call.layout.last_rows][:, None], final)
    current = first_state(call, state)
    last_rows = []
    for step in range(1, call.options.max_steps + 1):
        layout, rows = active_sequences(call, step)
        if rows is None:
            current = reasoning_step(call, layout, parameters, current, hidden, step)
        else:
            refined = reasoning_step(call, layout, parameters, current[rows], hidden[rows], step)
            current = current.index_copy(0, rows, refined)
        last_rows.append(current[call.layout.last_rows])
    return RefineResult(torch.stack(last_rows, dim=1), current)
