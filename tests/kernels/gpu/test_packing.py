"""Packed parameters of Triton and CUDA: every number has a place, the same as ever."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from lares_kernels import CoreConfig
from lares_kernels.cuda import packing as cuda_packing
from lares_kernels.spec import parameters
from lares_kernels.spec.parameters import PARAMETERS, Parameter, Side
from lares_kernels.triton.fused import packing as triton_packing
from tests.kernels.spec.test_parameters import CORES

CPU = torch.device("cpu")


@pytest.mark.parametrize("packing", [cuda_packing, triton_packing], ids=["cuda", "triton"])
def test_packing_leaves_nothing_out(packing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Parameter("another", (Side("d"),), "ones", 15, "core")
    monkeypatch.setattr(parameters, "PARAMETERS", (*PARAMETERS, row))
    with pytest.raises(RuntimeError, match="another of .* has no place"):
        packing.places_of.__wrapped__(CoreConfig(32, 2, 40, 1), CPU)


# Of the layouts that the kernels are compiled for.
PACKED = {
    "triton": (triton_packing.places_of, CORES, "e6f8d44adf6c5243"),
    "cuda": (
        cuda_packing.places_of,
        [replace(c, d_model=32, n_heads=4) for c in CORES if not c.mixes_window],
        "9c6394b1e1e52ef0",
    ),
}


@pytest.mark.parametrize("backend", PACKED)
def test_packed_layouts_are_as_before(backend: str) -> None:
    places_of, cores, wanted = PACKED[backend]
    digest = hashlib.sha256()
    for core in cores:
        found = places_of(core, CPU)
        digest.update(repr((found.matrices, found.vectors)).encode())
        digest.update(found.places.numpy().tobytes() + found.gradients.numpy().tobytes())
    assert digest.hexdigest()[:16] == wanted, "kernels read another layout now: is that meant?"
