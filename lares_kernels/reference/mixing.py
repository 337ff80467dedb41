"""Mix along the whole window: the learned filter of FMLP-Rec and the two bands of BSARec.

Both are linear along ``L`` and written as products with constant matrices that depend on ``L`` alone;
a kernel takes the same matrices. They are applied to (S, L, d), all ``L`` rows of every sequence,
padding too, in the state's type. Zhou et al., WWW 2022 (FMLP-Rec); Shin et al., AAAI 2024 (BSARec).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps

import torch
from torch import Tensor

from lares_kernels.common.device_tables import to_device
from lares_kernels.common.dispatcher import gives_plain_tensors

_CACHED_MATRICES = 64


def _kept(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep what ``make`` gave, but not what it gives where somebody traces, or in inference mode, which
    training could not use."""

    known = lru_cache(_CACHED_MATRICES)(make)

    @wraps(make)
    def find(*key: Hashable) -> Tensor:
        return known(*key) if gives_plain_tensors() else make(*key)

    vars(find)["cache_clear"] = known.cache_clear
    return find


@_kept
def fourier_basis(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return (2, L//2+1, L) cosines and negative sines, whose rows together are orthonormal.

    ``basis @ x`` are real and imaginary parts of ``rfft(x, norm="ortho")``, times ``sqrt(2)`` for a
    frequency that has a mirror image; the transpose is the inverse. The sines of
    frequency 0 and, for even ``L``, of ``L / 2`` are rows of zeros.
    """
    # Whatever the default device is.
    frequency = torch.arange(length // 2 + 1, device="cpu")[:, None]
    turn = frequency * torch.arange(length, device="cpu")[None] % length
    angle = turn.to(torch.float64) * (2.0 * math.pi / length)
    alone = (2 * frequency) % length == 0
    norm = torch.where(alone, 1.0, 2.0).to(torch.float64).div(length).sqrt()
    cosine, sine = norm * angle.cos(), torch.where(alone, 0.0, -norm * angle.sin())
    return to_device(device, torch.stack((cosine, sine)).to(dtype))[0]


@_kept
def low_pass(length: int, cutoff: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a symmetric matrix (L, L) that keeps the first ``c // 2 + 1`` frequencies."""
    basis = fourier_basis(length, torch.float64, torch.device("cpu"))
    kept = basis[:, : cutoff // 2 + 1].flatten(0, 1)
    return to_device(device, (kept.mT @ kept).to(dtype))[0]


def _rotate(real: Tensor, imaginary: Tensor, weight: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """Multiply a spectrum by ``weight`` (L//2+1, d, 2), or by its conjugate for sign -1."""
    w_real, w_imaginary = weight[..., 0], sign * weight[..., 1]
    return (real * w_real - imaginary * w_imaginary, real * w_imaginary + imaginary * w_real)


def circular_filter(x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``irfft(rfft(x) W)`` along ``L``, ``norm="ortho"``.

    Args:
        x: (S, L, d).
        weight: (L//2+1, d, 2), real and imaginary parts of ``W``, in ``x``'s type.
    """
    cosine, sine = fourier_basis(x.shape[1], x.dtype, x.device)
    real, imaginary = _rotate(cosine @ x, sine @ x, weight, 1.0)
    y: Tensor = cosine.mT @ real + sine.mT @ imaginary
    return y


def circular_filter_backward(g_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients of :func:`circular_filter`: (g_x, g_weight)."""
    cosine, sine = fourier_basis(x.shape[1], x.dtype, x.device)
    g_real, g_imaginary = cosine @ g_y, sine @ g_y
    real, imaginary = cosine @ x, sine @ x
    g_weight = torch.stack(
        (
            (real * g_real + imaginary * g_imaginary).sum(0),
            (real * g_imaginary - imaginary * g_real).sum(0),
        ),
        dim=-1,
    )
    g_real, g_imaginary = _rotate(g_real, g_imaginary, weight, -1.0)
    return cosine.mT @ g_real + sine.mT @ g_imaginary, g_weight


def rescale_bands(x: Tensor, scale: Tensor, cutoff: int) -> Tensor:
    """Compute ``low + b^2 (x - low)`` along ``L``; ``low`` keeps the first ``c // 2 + 1``
    frequencies.

    Args:
        x: (S, L, d).
        scale: (d,) ``b``, in ``x``'s type.
        cutoff: ``c``.
    """
    low = low_pass(x.shape[1], cutoff, x.dtype, x.device) @ x
    return low + scale.square() * (x - low)


def rescale_bands_backward(
    g_y: Tensor, x: Tensor, scale: Tensor, cutoff: int
) -> tuple[Tensor, Tensor]:
    """Return gradients of :func:`rescale_bands`: (g_x, g_scale)."""
    matrix = low_pass(x.shape[1], cutoff, x.dtype, x.device)
    square = scale.square()
    g_scale = 2.0 * scale * (g_y * (x - matrix @ x)).sum((0, 1))
    return square * g_y + matrix @ ((1.0 - square) * g_y), g_scale
