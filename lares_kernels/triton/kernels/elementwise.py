"""Compute activations with their derivatives, and LayerNorm, of float32 blocks in registers."""

import triton
import triton.language as tl

from lares_kernels.spec.choices import Activation

# Of the greater and the lesser of two numbers: NaN if one of them is.
PASS: tl.constexpr = tl.constexpr(tl.PropagateNan.ALL)
GELU: tl.constexpr = tl.constexpr(Activation.GELU.value)
GELU_TANH: tl.constexpr = tl.constexpr(Activation.GELU_TANH.value)
RELU: tl.constexpr = tl.constexpr(Activation.RELU.value)
SILU: tl.constexpr = tl.constexpr(Activation.SILU.value)


@triton.jit
def erf_scaled(x, EXACT: tl.constexpr):
    """Compute ``erf(x / sqrt 2)`` by a minimax polynomial in ``x^2``, odd by construction.

    Absolute error below 1e-6 where ``EXACT``, else below 1.2e-4: then GELU is within
    6e-5 max(1, |x|), a fraction of the rounding of its result to bfloat16 or float16.
    """
    if EXACT:
        x = tl.minimum(tl.maximum(x, -5.0, PASS), 5.0, PASS)
        v = x * x * 0.08 - 1.0
        r = v * 0.0011652448447421193 - 0.0031783352605998516
        r = r * v + 0.0035669589415192604
        r = r * v - 0.005480549763888121
        r = r * v + 0.012718775309622288
        r = r * v - 0.02223985828459263
        r = r * v + 0.032842252403497696
        r = r * v - 0.04656822979450226
        r = r * v + 0.06287840753793716
        r = r * v - 0.08088092505931854
        r = r * v + 0.10304135084152222
        r = r * v - 0.14059272408485413
        r = r * v + 0.28272756934165955
    else:
        x = tl.minimum(tl.maximum(x, -3.75, PASS), 3.75, PASS)
        v = x * x * 0.14222222222222222 - 1.0
        r = v * 0.009455240331590176 - 0.024942869320511818
        r = r * v + 0.0382334403693676
        r = r * v - 0.06495349854230881
        r = r * v + 0.11022226512432098
        r = r * v - 0.17548547685146332
        r = r * v + 0.37412014603614807
    return x * r


@triton.jit
def gelu_tanh_gate(x):
    """Compute ``sigmoid(2 u)``, ``u = sqrt(2 / pi) (x + 0.044715 x^3)``: ``tanh u = 2 sigmoid(2
    u) - 1``."""
    return tl.sigmoid(x * (0.07135481282 * x * x + 1.5957691216))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    """Compute the activation of ``x``."""
    if ACTIVATION == GELU:
        half = 0.5 * x
        return half * erf_scaled(x, EXACT) + half
    elif ACTIVATION == GELU_TANH:
        return x * gelu_tanh_gate(x)
    elif ACTIVATION == RELU:
        return tl.maximum(x, 0.0, PASS)
    elif ACTIVATION == SILU:
        return x * tl.sigmoid(x)
    else:
        tl.static_assert(False, "no kernel has this activation")


@triton.jit
def activate_with_slope(x, ACTIVATION: tl.constexpr, EXACT: tl.constexpr):
    """Compute the activation of ``x`` and its derivative."""
    if ACTIVATION == GELU:
        cdf = 0.5 * erf_scaled(x, EXACT) + 0.5
        density = 0.3989422804 * tl.exp(-0.5 * x * x)
        return x * cdf, x * density + cdf
    elif ACTIVATION == GELU_TANH:
        gate = gelu_tanh_gate(x)
        inner = 0.21406443846 * x * x + 1.5957691216
        return x * gate, x * gate * (1.0 - gate) * inner + gate
    elif ACTIVATION == RELU:
        return tl.maximum(x, 0.0, PASS), tl.where(x > 0.0, 1.0, 0.0)
    elif ACTIVATION == SILU:
        gate = tl.sigmoid(x)
        return x * gate, x * gate * (1.0 - gate) + gate
    else:
        tl.static_assert(False, "no kernel has this activation")


@triton.jit
def normalise(x, EPS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """Return rows of ``x`` (R, D) with mean 0 and variance 1, and inverse deviations (R,).

    ``WIDTH`` columns are real; the others are zero and stay zero.
    """
    mean = tl.sum(x, 1) * (1.0 / WIDTH)
    centred = x - mean[:, None]
    if WIDTH != D:
        centred = tl.where(tl.arange(0, D)[None, :] < WIDTH, centred, 0.0)
    variance = tl.sum(centred * centred, 1) * (1.0 / WIDTH)
    inverse_std = 1.0 / tl.sqrt(variance + EPS)
    return centred * inverse_std[:, None], inverse_std


@triton.jit
def normalise_backward(g_normalised, normalised, inverse_std, WIDTH: tl.constexpr):
    """Return the gradient of :func:`normalise`'s input; columns past ``WIDTH`` of all arguments are
    zero.

    Those columns of the result are not zero and must not be read.
    """
    along_mean = tl.sum(g_normalised, 1) * (1.0 / WIDTH)
    along_self = tl.sum(g_normalised * normalised, 1) * (1.0 / WIDTH)
    centred = g_normalised - along_mean[:, None] - normalised * along_self[:, None]
    return centred * inverse_std[:, None]
