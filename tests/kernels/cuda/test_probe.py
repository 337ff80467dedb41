"""Every primitive of the CUDA kernels by itself, on the emulator and, where there is one, on a card."""

from __future__ import annotations

import pytest
import torch

from lares_kernels import available_backends
from lares_kernels.binding import cuda_library as library
from lares_kernels.cuda import probe


@pytest.mark.usefixtures("emulator")
def test_the_emulator_does_what_the_manual_says() -> None:
    assert probe.differences(torch.device("cpu")) == []


@pytest.mark.usefixtures("emulator")
def test_a_wrong_word_of_any_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = probe._difference
    monkeypatch.setattr(probe, "_difference", lambda line, words: told(line, words ^ 1 << 25))
    found = probe.differences(torch.device("cpu"))
    assert len(found) == probe.LINES
    assert found[0].startswith("lane_number: lane 0 has ")


@pytest.mark.gpu
@pytest.mark.skipif(available_backends()["cuda"] != "usable", reason=available_backends()["cuda"])
def test_the_card_does_what_the_manual_says() -> None:
    assert library.device_type() == "cuda"
    assert probe.differences(torch.device("cuda")) == []
