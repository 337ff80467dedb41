"""What is kept on a device for all later calls: made before graphs are captured, and there for every
stream. The card is a stand-in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lares_kernels import CoreConfig
from lares_kernels.common import device_tables
from lares_kernels.cuda import packing as cuda_packing
from lares_kernels.reference import mixing
from lares_kernels.triton.fused import packing as triton_packing
from lares_kernels.triton.fused.tile_transforms import tile_transforms as transforms
from lares_kernels.triton.layered.mixing import basis_of

CPU = torch.device("cpu")
# Of no other test, so that nothing is kept of it.
CORE = CoreConfig(32, 2, 36, 1)
WINDOWS = CoreConfig(16, 2, 36, 1, mixer="filter", window=11)
TABLES: dict[str, Callable[[], object]] = {
    "packing of the Triton kernels": lambda: triton_packing.places_of(CORE, CPU),
    "packing of the CUDA kernels": lambda: cuda_packing.places_of(CORE, CPU),
    "transforms, float32": lambda: transforms(WINDOWS, 16, torch.float32, CPU, False),
    "transforms, float16": lambda: transforms(WINDOWS, 16, torch.float16, CPU, False),
    "basis of the layered plan": lambda: basis_of(23, CPU, False),
    "basis": lambda: mixing.fourier_basis(29, torch.float32, CPU),
    "low pass": lambda: mixing.low_pass(29, 5, torch.float32, CPU),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_first_call_is_no_part_of_a_graph(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    monkeypatch.setattr(device_tables, "wait_for", waited.append)
    monkeypatch.setattr(device_tables, "is_capturing", lambda device_type: True)
    with pytest.raises(RuntimeError, match=r"first such call on cpu: .*warmup"):
        make()
    assert waited == []
    monkeypatch.setattr(device_tables, "is_capturing", lambda device_type: False)
    found = make()
    assert set(waited) == {CPU}
    waited.clear()
    monkeypatch.setattr(device_tables, "is_capturing", lambda device_type: True)
    assert make() is found
    assert waited == []


def test_without_a_card_nobody_is_waited_for() -> None:
    device_tables.wait_for(CPU)
    device_tables.wait_for(torch.device("cuda", 1))  # of fake tensors
