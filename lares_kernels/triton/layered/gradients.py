"""Compute the layered plan's layers backward: products and launches, and sums of gradients.

Sums over rows are computed by a fixed number of programs and added in order, so two runs give the same
bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.gpu.scratch import unfilled_like, zeroed
from lares_kernels.spec.parameters import parameter_shapes
from lares_kernels.triton.launch.settings import multiprocessors
from lares_kernels.triton.layered.call import (
    FLAT_BLOCK,
    AttentionTape,
    FeedForwardTape,
    Layered,
    Site,
)
from lares_kernels.triton.layered.kernels.branches import (
    BANDS,
    FEED_FORWARD,
    MIXING,
    NO_NORM,
    OF_SUM,
)

_PROGRAMS = 4  # programs of a row kernel that accumulates sums, for each multiprocessor
_SUMS = 3  # vectors that such a kernel accumulates
# Stages of the keys' gradient. Ieee products take operands from registers, which hold prefetched data
# too: with the usual stages Triton 3.9 spills kilobytes; with tf32, whose probabilities are rounded in
# registers, 8 bytes (sm_80, heads of 32).
KEY_STAGES = {"ieee": {"num_stages": 1}, "tf32": {"num_stages": 1}}
# LayerNorm after each branch (pre-norm: before it) and the bias that is added last in it, by mixer.
_NORM_AND_BIAS: dict[str, dict[int, tuple[str, str | None]]] = {
    "attention": {MIXING: ("attn_norm", "out_bias"), FEED_FORWARD: ("ffn_norm", "down_bias")},
    "filter": {MIXING: ("filter_norm", None), FEED_FORWARD: ("ffn_norm", "down_bias")},
    "bsarec": {
        MIXING: ("attn_norm", "out_bias"),
        FEED_FORWARD: ("ffn_norm", "down_bias"),
        BANDS: ("filter_norm", None),
    },
}

# Gradients of rows: a float32 part, and one that products gave, or None.
TwoParts = tuple[Tensor, Tensor | None]
# Whether products of 16-bit factors can be float32 on NVIDIA's cards: this PyTorch may be too old.
_PRODUCTS_ARE_WIDE = torch.version.hip is None and "dtype" in torch.ops.aten.mm.overloads()


class Gradients:
    """Accumulate gradients of the parameters, float32, step by step.

    Args:
        run: the call that is laid out.
    """

    def __init__(self, run: Layered) -> None:
        self.run = run
        device, d = run.device, run.config.d_model
        self.by_name = {
            name: zeroed(shape, dtype=torch.float32, device=device)
            for name, shape in parameter_shapes(run.config).items()
        }
        self.programs = min(_PROGRAMS * multiprocessors(device), -(-run.rows.n_rows // run.c.rows))
        self.branches = _NORM_AND_BIAS[run.config.mixer]
        sites = len(self.branches) * run.config.n_layers + 1  # one a LayerNorm, and the core's
        self.sums = zeroed(sites, self.programs, _SUMS, d, dtype=torch.float32, device=device)

    def site(self, layer: int, branch: int) -> Tensor:
        """Return the sums for a residual of a layer; for the adapter with layer -1."""
        return self.sums[-1 if layer < 0 else len(self.branches) * layer + branch]

    def product(
        self, name: str, layer: int | None, x: Tensor, g_y: Tensor, rows: slice = slice(None)
    ) -> None:
        """Add the weight's gradient of ``y = x W^T``, where that is ``rows`` of it."""
        whole = self.by_name[f"{name}_weight"]
        weight = (whole if layer is None else whole[layer])[rows]
        if x.dtype == torch.float32:
            weight.addmm_(g_y.mT, x)
        else:
            weight += wide_product(g_y.mT, x)

    def bias(self, name: str, layer: int, g_y: Tensor) -> None:
        self.by_name[f"{name}_bias"][layer] += g_y.sum(0, dtype=torch.float32)

    def ordered(self) -> list[Tensor]:
        """Return all of them in the op's order, the gathered sums included."""
        config, found = self.run.config, self.by_name
        sums = self.sums.sum(1)  # (sites, _SUMS, d)
        layers = sums[:-1].unflatten(0, (config.n_layers, len(self.branches)))
        for branch, (norm, bias) in self.branches.items():
            found[f"{norm}_weight"] += layers[:, branch, 0]
            found[f"{norm}_bias"] += layers[:, branch, 1]
            if bias is not None:
                found[bias] += layers[:, branch, 2]
        if config.is_recurrent:
            found["core_norm_weight"] += sums[-1, 0]
            found["core_norm_bias"] += sums[-1, 1]
        if config.adapter == "gate":
            gate = torch.sigmoid(self.run.vectors["gate"].to(torch.float32))
            found["gate"] += sums[-1, 2].sum() * gate * (1.0 - gate)
        elif config.adapter == "concat":
            found["concat_bias"] += sums[-1, 2]
        return list(found.values())


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """Compute ``a b`` of 16-bit numbers in float32, as it is summed.

    Rounded to its operands' type, a sum over many rows would lose bits, and could overflow in float16.
    """
    if a.is_cuda and _PRODUCTS_ARE_WIDE:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a.float(), b.float())


def spread(g: Tensor, newest: Tensor | None, n_rows: int) -> Tensor:
    """Spread gradients of the rows ``newest`` (None: of all) among ``n_rows``, zero for the
    others."""
    if newest is None:
        return g
    rows = zeroed(n_rows, g.shape[1], dtype=g.dtype, device=g.device)
    return rows.index_copy_(0, newest, g)


def residual_backward(
    grads: Gradients,
    site: Site,
    g: TwoParts,
    total: Tensor,
    weight: Tensor | None,
    g_total: Tensor | None,
    g_branch: Tensor | None,
    norm: int,
    branch: int,
    share: float = 1.0,
) -> None:
    """Launch :func:`residual_backward_kernel`."""
    from lares_kernels.triton.layered.kernels.rows import residual_backward_kernel

    residual_backward_kernel[(grads.programs,)](
        *(*g, total, weight, grads.site(site.layer, branch), g_total, g_branch),
        *(site.stream, site.position, len(total), site.layer, site.step, grads.run.seed),
        NORM=norm,
        BRANCH=branch,
        SHARE=share,
        C=grads.run.compiled,
    )


def through_sum(
    grads: Gradients,
    site: Site,
    g: TwoParts,
    total: Tensor,
    name: str,
    branch: int,
    dtype: torch.dtype | None = None,
    share: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return gradients of a residual sum ``total``, whose LayerNorm is ``name``, and of its branch.

    The second is in ``dtype``, by default the products'; ``share`` is the branch's weight in the sum.
    """
    run = grads.run
    g_total = unfilled_like(total)
    g_branch = run.new(len(total), run.config.d_model, dtype or run.dtype)
    weight = run.norm_of(name, site.layer)[0]
    residual_backward(grads, site, g, total, weight, g_total, g_branch, OF_SUM, branch, share)
    return g_total, g_branch


def through_norm(
    grads: Gradients, site: Site, g: TwoParts, total: Tensor, name: str, branch: int, norm: int
) -> Tensor:
    """Return the gradient of ``total``, the input of LayerNorm ``name``; ``norm`` says where
    that stands."""
    g_total = unfilled_like(total)
    weight = grads.run.norm_of(name, site.layer)[0]
    residual_backward(grads, site, g, total, weight, g_total, None, norm, branch)
    return g_total


def branch_gradient(grads: Gradients, site: Site, g: Tensor, branch: int) -> Tensor:
    """Return the gradient of a branch, in the products' type, from that of a sum without a
    LayerNorm."""
    g_branch = grads.run.new(len(g), grads.run.config.d_model, grads.run.dtype)
    residual_backward(grads, site, (g, None), g, None, None, g_branch, NO_NORM, branch)
    return g_branch


def feed_forward_backward(
    run: Layered, grads: Gradients, tape: FeedForwardTape, site: Site, g_branch: Tensor
) -> Tensor:
    """Return the gradient of the feed-forward's input, in the products' type."""
    from lares_kernels.triton.layered.kernels.rows import activate_kernel

    layer = site.layer
    grads.product("down", layer, tape.activated, g_branch)
    g_inner = torch.mm(g_branch, run.products["down_weight"][layer])
    size = g_inner.numel()
    activate_kernel[(-(-size // FLAT_BLOCK),)](
        *(tape.inner, g_inner, g_inner, size),
        *run.inner_draws(site),
        BLOCK=FLAT_BLOCK,
        C=run.compiled,
    )
    grads.product("up", layer, tape.source, g_inner)
    grads.bias("up", layer, g_inner)
    return torch.mm(g_inner, run.products["up_weight"][layer])


def attention_backward(
    run: Layered, grads: Gradients, tape: AttentionTape, site: Site, g_branch: Tensor
) -> Tensor:
    """Return the gradient of the attention's input, in the products' type."""
    g_qkv = qkv_gradient(run, grads, tape, site, g_branch)
    grads.product("qkv", site.layer, tape.source, g_qkv)
    return torch.mm(g_qkv, run.products["qkv_weight"][site.layer])


def qkv_gradient(
    run: Layered, grads: Gradients, tape: AttentionTape, site: Site, g_branch: Tensor
) -> Tensor:
    """Return the gradient (n, 3 d) of queries, keys and values from that of the branch at the
    site's rows."""
    from lares_kernels.triton.layered.kernels.attention import (
        key_gradient_kernel,
        query_gradient_kernel,
    )

    layer, newest = site.layer, site.newest
    context = tape.context if newest is None else tape.context.index_select(0, newest)
    grads.product("out", layer, context, g_branch)
    g_context = torch.mm(g_branch, run.products["out_weight"][layer])
    g_context = run.operand(spread(g_context, newest, len(tape.source)))
    g_qkv, delta = unfilled_like(tape.qkv), unfilled_like(tape.lse)
    rows = run.rows
    shared = (rows.starts, rows.keys, rows.streams, len(g_qkv), layer, site.step, run.seed)
    blocks = run.blocks[1]
    grid, options = run.attention_grid(blocks, site), run.attention_options(blocks)
    query_gradient_kernel[grid](
        tape.qkv, tape.context, g_context, tape.lse, delta, g_qkv, *shared, **options
    )
    options |= KEY_STAGES.get(run.c.precision, {})
    key_gradient_kernel[grid](tape.qkv, g_context, tape.lse, delta, g_qkv, *shared, **options)
    grads.bias("qkv", layer, g_qkv)
    return g_qkv
