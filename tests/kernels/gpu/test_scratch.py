"""Scratch tensors of kernels: not filled under deterministic algorithms, and poisoned by tests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lares_kernels
from lares_kernels.gpu import scratch
from lares_kernels.gpu.scratch import unfilled, unfilled_like, zeroed

TAKEN = scratch._taken  # which poisoned memory replaces
CPU = torch.device("cpu")
NAMES = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "zeros",
    "zeros_like",
    "new_zeros",
    "full",
}
# What callers get and kernels do not write whole.
HANDED_ON = {"triton/fused/launch.py": 1, "triton/layered/forward.py": 1, "cuda/backend.py": 1}


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def fills(run: Callable[[], object], least: int = 1) -> list[str]:
    """Makers of new memory, asked for by name, that filled ``least`` numbers and more of it.

    PyTorch's other operators fill what they make, too: that is theirs.
    """
    with torch.profiler.profile(record_shapes=True) as profile:
        run()
    found = []
    for event in profile.events():
        if event.name != "aten::fill_" or torch.Size(event.input_shapes[0]).numel() < least:
            continue
        above, parent = [], event.cpu_parent
        while parent is not None and parent.name.startswith("aten::"):
            above.append(parent.name.removeprefix("aten::"))
            parent = parent.cpu_parent
        if above and {*above} <= NAMES:
            found.append(above[-1])
    return found


EXAMPLE = torch.ones(4, 2, dtype=torch.bfloat16)
MAKERS: list[Callable[[], Tensor]] = [
    lambda: unfilled(3, 5, dtype=torch.float32, device=CPU),
    lambda: unfilled((3, 5), dtype=torch.float16, device=CPU),
    lambda: unfilled(torch.Size([0]), dtype=torch.int32, device=CPU),
    lambda: unfilled(0, dtype=torch.uint8, device=CPU),
    lambda: unfilled_like(EXAMPLE),
    lambda: zeroed(3, 5, dtype=torch.float32, device=CPU),
]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("make", MAKERS)
def test_it_is_what_torch_makes_but_for_the_fill(make: Callable[[], Tensor]) -> None:
    found = make()
    torch.use_deterministic_algorithms(False)
    wanted = make()
    torch.use_deterministic_algorithms(True)
    for mine in ("shape", "dtype", "device", "is_leaf", "requires_grad"):
        assert getattr(found, mine) == getattr(wanted, mine)
    assert found.stride() == wanted.stride()
    found.fill_(1)
    assert fills(make) == []


@pytest.mark.usefixtures("deterministic")
def test_fills_are_seen() -> None:
    assert fills(lambda: torch.empty(3)) == ["empty"]
    assert fills(lambda: EXAMPLE.new_empty(2)) == ["new_empty"]
    assert fills(lambda: torch.zeros(2)) == ["zeros"]
    assert fills(EXAMPLE.float) == []  # its own affair
    assert not zeroed(3, dtype=torch.float32, device=CPU).any()


@pytest.mark.usefixtures("poisoned_memory")
def test_poisoned_memory_is_of_scratch_too() -> None:
    assert unfilled(3, dtype=torch.float32, device=CPU).isnan().all()
    assert unfilled_like(torch.ones(3)).isnan().all()


def test_backends_take_scratch_from_here() -> None:
    """``torch.empty`` is for what is not written whole; everything else would be filled."""
    package = Path(lares_kernels.__file__).parent
    asked = ("empty", "empty_like", "empty_strided", "new_empty")
    found = {}
    for path in sorted([*(package / "triton").rglob("*.py"), *(package / "cuda").glob("*.py")]):
        names = [
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and node.attr in asked
        ]
        if names:
            found[path.relative_to(package).as_posix()] = len(names)
    found["triton/layered/forward.py"] -= 1  # of no numbers
    assert found == HANDED_ON
