"""Mix along whole windows in the layered plan: launches of ``kernels/mixing.py``.

A window's rows are transformed to a spectrum and back, as in ``reference/mixing.py``; so is backward.
BSARec's low band needs only the spectrum's first frequencies. Everything is float32, like the state.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lares_kernels.common.device_tables import to_device
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.reference.mixing import fourier_basis
from lares_kernels.spec.config import CoreConfig
from lares_kernels.triton.launch.constants import LAUNCH_OPTIONS, padded
from lares_kernels.triton.launch.rounding import rounded_table
from lares_kernels.triton.layered.call import Layered

# Frequencies, rows and columns of a block: with more, ieee products spill registers on some GPUs.
_MAX_SIDE = 32
SUM_BLOCK = 256
_SUM_PARTS = 32


def n_frequencies(config: CoreConfig) -> int:
    """Return how many frequencies a layer computes with: the filter's all, BSARec's low band."""
    every = config.window // 2 + 1
    return every if config.mixer == "filter" else min(every, config.cutoff // 2 + 1)


def mixing_blocks(config: CoreConfig) -> dict[str, int]:
    """Return the sides of a block, as kernels take them."""
    return {
        "FREQUENCIES": min(_MAX_SIDE, padded(n_frequencies(config))),
        "ROWS": min(_MAX_SIDE, padded(config.window)),
        "COLUMNS": min(_MAX_SIDE, padded(config.d_model)),
    }


@cache
def basis_of(length: int, device: torch.device, tf32: bool) -> Tensor:
    """Return ``fourier_basis`` of reference/mixing.py, of windows in float32, as products read
    it."""
    (basis,) = to_device(device, fourier_basis(length, torch.float32, torch.device("cpu")))
    return rounded_table(basis) if tf32 else basis


def spectrum_of(run: Layered, x: Tensor) -> Tensor:
    """Compute (S, 2, F, d) float32 of whole windows ``x`` (S L, d) float32."""
    from lares_kernels.triton.layered.kernels.mixing import spectrum_kernel

    length, d, frequencies = run.config.window, run.config.d_model, n_frequencies(run.config)
    windows, blocks = len(x) // length, mixing_blocks(run.config)
    spectrum = unfilled(windows, 2, frequencies, d, dtype=torch.float32, device=x.device)
    grid = (windows, -(-frequencies // blocks["FREQUENCIES"]), -(-d // blocks["COLUMNS"]))
    spectrum_kernel[grid](
        x,
        basis_of(length, run.device, run.c.tf32),
        spectrum,
        length,
        frequencies,
        **blocks,
        **LAUNCH_OPTIONS,
        C=run.compiled,
    )
    return spectrum


def _windows_of(
    run: Layered,
    spectrum: Tensor,
    weight: Tensor | None,
    x: Tensor | None,
    scale: Tensor | None,
    high: Tensor | None,
    sign: float,
) -> Tensor:
    """Launch :func:`window_kernel`; (S L, d) float32."""
    from lares_kernels.triton.layered.kernels.mixing import window_kernel

    length, d, blocks = run.config.window, run.config.d_model, mixing_blocks(run.config)
    windows = len(spectrum)
    out = run.new(windows * length, d)
    window_kernel[(windows, -(-length // blocks["ROWS"]), -(-d // blocks["COLUMNS"]))](
        spectrum,
        basis_of(length, run.device, run.c.tf32),
        weight,
        x,
        scale,
        out,
        high,
        length,
        spectrum.shape[2],
        SIGN=sign,
        **blocks,
        **LAUNCH_OPTIONS,
        C=run.compiled,
    )
    return out


def filtered(run: Layered, spectrum: Tensor, layer: int, sign: float = 1.0) -> Tensor:
    """Compute ``irfft(spectrum W)`` (S L, d), or its backward, with ``W``'s conjugate, for sign
    -1."""
    weight = run.vectors["filter_weight"][layer]
    return _windows_of(run, spectrum, weight, None, None, None, sign)


def rescaled(
    run: Layered, x: Tensor, spectrum: Tensor, layer: int, high: Tensor | None = None
) -> Tensor:
    """Compute ``low + b^2 (x - low)`` of windows and their spectrum, (S L, d); ``high`` gets ``x -
    low``.

    It is its own backward.
    """
    scale = run.vectors["band_scale"][layer]
    return _windows_of(run, spectrum, None, x, scale, high, 1.0)


def filter_gradient(spectrum: Tensor, g_spectrum: Tensor, run: Layered) -> Tensor:
    """Compute the gradient (L//2+1, d, 2) float32 of a layer's filter."""
    from lares_kernels.triton.layered.kernels.mixing import filter_gradient_kernel

    windows, _, frequencies, d = spectrum.shape
    size, parts = frequencies * d, min(_SUM_PARTS, windows)
    sums = unfilled(parts, frequencies, d, 2, dtype=torch.float32, device=spectrum.device)
    filter_gradient_kernel[(-(-size // SUM_BLOCK), parts)](
        spectrum, g_spectrum, sums, windows, size, BLOCK=SUM_BLOCK, C=run.compiled
    )
    return sums.sum(0)
