"""Compute a layer with attention and its hand-written backward, in plain PyTorch.

``recurrence.py`` runs steps of such layers; ``window_backward.py`` has those of the other mixers.

Names: ``g_x`` is the gradient of the loss with respect to ``x``; a tape is what one part of a step
saves in forward for its backward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.reference import equations as eq
from lares_kernels.reference.equations import Parameters
from lares_kernels.spec.call import RefineCall
from lares_kernels.spec.layout import Layout

Gradients = dict[str, Tensor]


class NormTape(NamedTuple):
    """Save what a LayerNorm's backward needs."""

    normalised: Tensor  # (N, d), mean 0 and variance 1
    inverse_std: Tensor  # (N, 1)


class BucketTape(NamedTuple):
    """Save what the backward of attention needs, for one group of sequences of similar length."""

    layout: Layout  # of sequences of similar length
    rows: Tensor  # their rows
    query: Tensor  # (S, h, L, d/h), as are key and value
    key: Tensor
    value: Tensor
    probabilities: Tensor  # (S, h, L, L) before dropout
    factor: Tensor | None  # (S, h, L, L) dropout factors


class AttentionTape(NamedTuple):
    """Save what an attention branch's backward needs."""

    x: Tensor  # (N, d) input of the branch
    query_input: Tensor | None  # (N, d) input of the queries where they have their own
    buckets: list[BucketTape]
    context: Tensor  # (N, d) input of the output product


class FeedForwardTape(NamedTuple):
    """Save what a feed-forward branch's backward needs."""

    x: Tensor  # (N, d) input of the branch
    inner: Tensor  # (N, f) before the activation
    activated: Tensor  # (N, f) after dropout
    factor: Tensor | None  # (N, f) dropout factors


class LayerTape(NamedTuple):
    """Save what a layer's backward needs."""

    attn_norm: NormTape
    attention: AttentionTape
    attention_factor: Tensor | None  # (N, d)
    ffn_norm: NormTape
    feed_forward: FeedForwardTape
    feed_forward_factor: Tensor | None  # (N, d)


# --- products and LayerNorm -----------------------------------------------------------------------


def linear_backward(
    call: RefineCall, g_y: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of ``y = x W^T + b``: (g_x, g_weight, g_bias)."""
    return eq.matmul(call, g_y, weight), eq.matmul(call, g_y.mT, x), g_y.sum(0)


def norm_forward(
    call: RefineCall, x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, NormTape]:
    """Compute LayerNorm and the tape of its backward."""
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    inverse_std = torch.rsqrt(variance + call.config.eps)
    normalised = (x - mean) * inverse_std
    dtype = call.state_dtype
    return normalised * weight.to(dtype) + bias.to(dtype), NormTape(normalised, inverse_std)


def norm_backward(
    call: RefineCall, g_y: Tensor, weight: Tensor, tape: NormTape
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of LayerNorm: (g_x, g_weight, g_bias)."""
    g_normalised = g_y * weight.to(call.state_dtype)
    along_mean = g_normalised.mean(-1, keepdim=True)
    along_self = (g_normalised * tape.normalised).mean(-1, keepdim=True)
    g_x = (g_normalised - along_mean - tape.normalised * along_self) * tape.inverse_std
    return g_x, (g_y * tape.normalised).sum(0), g_y.sum(0)


def accumulate_norm_backward(
    call: RefineCall, p: Parameters, name: str, g_y: Tensor, tape: NormTape, grads: Gradients
) -> Tensor:
    """Return the gradient by the input of LayerNorm ``name``; add its parameters' to ``grads``."""
    g_x, g_weight, g_bias = norm_backward(call, g_y, p[f"{name}_weight"], tape)
    grads[f"{name}_weight"] += g_weight
    grads[f"{name}_bias"] += g_bias
    return g_x


# --- the two branches of a layer ------------------------------------------------------------------


def attention_forward(
    call: RefineCall,
    layout: Layout,
    p: Parameters,
    x: Tensor,
    layer: int,
    step: int,
    query_input: Tensor | None = None,
) -> tuple[Tensor, AttentionTape]:
    """Compute ``equations.attention`` and its tape."""
    qkv = eq.queries_keys_values(call, p, x, query_input)
    context = torch.zeros_like(x)
    buckets = []
    for bucket, rows in layout.buckets:
        query, key, value = (eq.split_heads(call, bucket, part) for part in qkv[rows].chunk(3, -1))
        probabilities = eq.attention_probabilities(call, bucket, query, key)
        factor = eq.attention_dropout(call, bucket, layer, step)
        mixed = eq.matmul(call, eq.scaled(probabilities, factor), value)
        context.index_copy_(0, rows, eq.merge_heads(bucket, mixed))
        buckets.append(BucketTape(bucket, rows, query, key, value, probabilities, factor))
    y = eq.linear(call, context, p["out_weight"], p["out_bias"])
    return y, AttentionTape(x, query_input, buckets, context)


def attention_backward(
    call: RefineCall, p: Parameters, g_y: Tensor, tape: AttentionTape, grads: Gradients
) -> tuple[Tensor, Tensor | None]:
    """Return gradients by the branch's input, and by the queries where they are separate.

    It adds the parameters' gradients to ``grads``.
    """
    g_context, g_weight, g_bias = linear_backward(call, g_y, tape.context, p["out_weight"])
    grads["out_weight"] += g_weight
    grads["out_bias"] += g_bias
    g_qkv = torch.empty(len(g_y), 3 * call.config.d_model, dtype=g_y.dtype, device=g_y.device)
    for bucket in tape.buckets:
        g_qkv.index_copy_(0, bucket.rows, bucket_backward(call, g_context[bucket.rows], bucket))
    if tape.query_input is None:
        g_x, g_weight, g_bias = linear_backward(call, g_qkv, tape.x, p["qkv_weight"])
        grads["qkv_weight"] += g_weight
        grads["qkv_bias"] += g_bias
        return g_x, None
    weight, d = p["qkv_weight"], call.config.d_model
    g_x, g_weight, g_bias = linear_backward(call, g_qkv[:, d:], tape.x, weight[d:])
    grads["qkv_weight"][d:] += g_weight
    grads["qkv_bias"][d:] += g_bias
    of = linear_backward(call, g_qkv[:, :d], tape.query_input, weight[:d])
    grads["qkv_weight"][:d] += of[1]
    grads["qkv_bias"][:d] += of[2]
    return g_x, of[0]


def bucket_backward(call: RefineCall, g_context: Tensor, tape: BucketTape) -> Tensor:
    """Return the gradient (N, 3 d) by the query, key and value rows of one bucket."""
    g_heads = eq.split_heads(call, tape.layout, g_context)
    dropped = eq.scaled(tape.probabilities, tape.factor)
    g_value = eq.matmul(call, dropped.mT, g_heads)
    g_probabilities = eq.scaled(eq.matmul(call, g_heads, tape.value.mT), tape.factor)
    # Softmax: g_score = A (g_A - sum_j A_j g_A_j); masked entries have A = 0 and stay 0.
    weighted = g_probabilities * tape.probabilities
    g_scores = weighted - tape.probabilities * weighted.sum(-1, keepdim=True)
    g_scores = g_scores * call.config.head_dim**-0.5
    g_query = eq.matmul(call, g_scores, tape.key)
    g_key = eq.matmul(call, g_scores.mT, tape.query)
    return torch.cat([eq.merge_heads(tape.layout, g) for g in (g_query, g_key, g_value)], dim=-1)


def ffn_forward(
    call: RefineCall, p: Parameters, x: Tensor, factor: Tensor | None
) -> tuple[Tensor, FeedForwardTape]:
    """Compute ``equations.feed_forward`` and its tape."""
    inner = eq.linear(call, x, p["up_weight"], p["up_bias"])
    activated = eq.scaled(eq.activation_of(call).value(inner), factor)
    y = eq.linear(call, activated, p["down_weight"], p["down_bias"])
    return y, FeedForwardTape(x, inner, activated, factor)


def ffn_backward(
    call: RefineCall, p: Parameters, g_y: Tensor, tape: FeedForwardTape, grads: Gradients
) -> Tensor:
    """Return the gradient by the branch's input; add the parameters' to ``grads``."""
    g_activated, g_weight, g_bias = linear_backward(call, g_y, tape.activated, p["down_weight"])
    grads["down_weight"] += g_weight
    grads["down_bias"] += g_bias
    g_activated = eq.scaled(g_activated, tape.factor)
    g_inner = g_activated * eq.activation_of(call).derivative(tape.inner)
    g_x, g_weight, g_bias = linear_backward(call, g_inner, tape.x, p["up_weight"])
    grads["up_weight"] += g_weight
    grads["up_bias"] += g_bias
    return g_x


# --- a layer --------------------------------------------------------------------------------------


def layer_forward(
    call: RefineCall, layout: Layout, p: Parameters, x: Tensor, layer: int, step: int
) -> tuple[Tensor, LayerTape]:
    """Compute ``equations.transformer_layer`` and its tape."""
    x = eq.mask_padding(layout, x)
    attention_factor, ffn_factor = eq.residual_dropout(call, layout, layer, step)
    inner_factor = eq.inner_dropout(call, layout, layer, step)
    attn_weights = (p["attn_norm_weight"], p["attn_norm_bias"])
    ffn_weights = (p["ffn_norm_weight"], p["ffn_norm_bias"])
    if call.config.norm == "post":
        branch, attention = attention_forward(call, layout, p, x, layer, step)
        u, attn_norm = norm_forward(call, x + eq.scaled(branch, attention_factor), *attn_weights)
        branch, feed_forward = ffn_forward(call, p, u, inner_factor)
        y, ffn_norm = norm_forward(call, u + eq.scaled(branch, ffn_factor), *ffn_weights)
    elif call.config.norm == "query":
        normed, attn_norm = norm_forward(call, x, *attn_weights)
        branch, attention = attention_forward(call, layout, p, x, layer, step, query_input=normed)
        v, ffn_norm = norm_forward(call, normed + eq.scaled(branch, attention_factor), *ffn_weights)
        branch, feed_forward = ffn_forward(call, p, v, inner_factor)
        y = v + eq.scaled(branch, ffn_factor)
    elif call.config.norm != "pre":
        raise eq.no_equations(call, "norm")
    else:
        normed, attn_norm = norm_forward(call, x, *attn_weights)
        branch, attention = attention_forward(call, layout, p, normed, layer, step)
        u = x + eq.scaled(branch, attention_factor)
        normed, ffn_norm = norm_forward(call, u, *ffn_weights)
        branch, feed_forward = ffn_forward(call, p, normed, inner_factor)
        y = u + eq.scaled(branch, ffn_factor)
    return y, LayerTape(attn_norm, attention, attention_factor, ffn_norm, feed_forward, ffn_factor)


def layer_backward(
    call: RefineCall, p: Parameters, g_y: Tensor, tape: LayerTape, grads: Gradients
) -> Tensor:
    """Return the gradient by the layer's input; add the parameters' to ``grads``."""

    def through_norm(name: str, g: Tensor, norm: NormTape) -> Tensor:
        return accumulate_norm_backward(call, p, name, g, norm, grads)

    norm = call.config.norm
    if norm == "query":
        g_branch = eq.scaled(g_y, tape.feed_forward_factor)
        g_v = g_y + ffn_backward(call, p, g_branch, tape.feed_forward, grads)
        g_u = through_norm("ffn_norm", g_v, tape.ffn_norm)
        g_branch = eq.scaled(g_u, tape.attention_factor)
        g_x, g_queries = attention_backward(call, p, g_branch, tape.attention, grads)
        assert g_queries is not None
        return g_x + through_norm("attn_norm", g_u + g_queries, tape.attn_norm)
    post = norm == "post"
    g_sum = through_norm("ffn_norm", g_y, tape.ffn_norm) if post else g_y
    g_branch = eq.scaled(g_sum, tape.feed_forward_factor)
    g_branch = ffn_backward(call, p, g_branch, tape.feed_forward, grads)
    g_u = g_sum + (g_branch if post else through_norm("ffn_norm", g_branch, tape.ffn_norm))
    g_sum = through_norm("attn_norm", g_u, tape.attn_norm) if post else g_u
    g_branch = eq.scaled(g_sum, tape.attention_factor)
    g_branch, _ = attention_backward(call, p, g_branch, tape.attention, grads)
    return g_sum + (g_branch if post else through_norm("attn_norm", g_branch, tape.attn_norm))
