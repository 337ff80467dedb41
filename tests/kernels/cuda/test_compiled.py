"""The CUDA kernels compiled for cards that are not here: what they take, and what they are made of.

One type stands for both: bf16 and fp16 differ in the products' instruction alone. With ``pytest -s``
each kernel's registers and number of instructions are printed, those of docs/results/performance.md.
"""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernels.cuda.compiled import Instructions, Unit
from tests.kernels.cuda.conftest import ROOT, build, build_cuda

ARCHITECTURES = ("80", "90a", "100a")
REGISTERS = 65536  # of a multiprocessor
# Registers a thread of the published core, without and with dropout: the most that CUDA 13.0 showed
# was 147 and 191 (sm_80); room for other compilers, up to what 12 and 8 warps may have (168 and 255).
PUBLISHED = {False: 168, True: 224}
SPLIT = 128  # of the low-latency plan's 16 warps; CUDA 13.0 showed 104 to 128


def compiler() -> str:
    try:
        return str(build_cuda.nvcc())
    except build.BuildError as error:
        pytest.skip(f"compiling needs nvcc: {error}")


def disassembler() -> str:
    """cuobjdump of CUDA, or of Triton's package."""
    found = shutil.which("cuobjdump")
    spec = find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        found = str(inside) if inside.is_file() else None
    if found is None:
        pytest.skip("there is no cuobjdump")
    return found


@pytest.fixture(scope="module")
def unit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Unit:
    """A source of one width for every architecture, as the build compiles it; bf16."""
    source, width = request.param
    command = compiler()
    known = build_cuda.known_architectures(command)
    code = build_cuda.code_flags([name for name in ARCHITECTURES if name in known])
    flags = f"{build_cuda.DEVICE_FLAGS} {code} {build_cuda.ptxas_flags(source, width)}"
    defines = ("-DLARES_TYPE=Bf16", f"-DLARES_WIDTH={width}")
    folder = ROOT / "csrc"
    return Unit(
        command,
        disassembler(),
        folder / "cuda" / f"{source}.cu",
        (*flags.split(), *defines),
        (folder, folder / "cuda", folder / "cuda" / "device"),
        tmp_path_factory.mktemp("code") / f"{source}.fatbin",
    )


def of_every_width(source: str) -> pytest.MarkDecorator:
    """Compile ``source`` of each width."""
    cases = [(source, width) for width in (32, 64, 128)]
    return pytest.mark.parametrize("unit", cases, indirect=True, ids=lambda case: str(case[1]))


class Kernel(NamedTuple):
    """Template arguments, and what ptxas says."""

    kind: str
    width: int
    head: int
    resident: bool
    drops: bool
    pieces: int  # of a head that staged weights pass in; 0: they are not
    registers: int
    spilled: int
    barriers: int

    @property
    def most_warps(self) -> int:
        """As ``kMaxWarps``."""
        if self.kind == "Split":
            return 16
        return 8 if self.drops or self.width > 64 or self.head > 2 else 12


def kernels(unit: Unit) -> list[Kernel]:
    found = []
    for report in unit.found.reports:
        shape = re.search(r"Li(\d+)E(?:Li(\d+)ELb([01])ELb([01])ELi(\d)E)?", report.name)
        kind = re.search(r"(Forward|Backward|Split|WeightGradients)", report.name)
        assert shape is not None, report
        assert kind is not None, report
        found.append(
            Kernel(
                kind[1],
                int(shape[1]),
                int(shape[2] or 0),  # products of weights are the same for all heads
                shape[3] == "1",
                shape[4] == "1",
                int(shape[5] or 0),
                report.registers,
                report.stores + report.loads + report.stack,
                report.barriers,
            )
        )
        print("registers:", report.card, *found[-1])
    return found


def disassembled(unit: Unit) -> list[Instructions]:
    """What each kernel is made of."""
    for found in unit.found.instructions:
        print("instructions:", found.card, found.total, found.name)
    return unit.found.instructions


def check(found: Instructions) -> None:
    """Every kernel has products on the tensor cores, loses no NaN and spills nothing."""
    assert found.products, found
    # A larger or smaller of two numbers is taken that is NaN where one is.
    assert not found.losing_nan, found
    assert not found.local, found


@of_every_width("forward")
def test_registers_spills_and_instructions(unit: Unit) -> None:
    found = kernels(unit)
    assert found
    for kernel in found:
        assert kernel.spilled == 0, kernel
        # Registers come in units of 8 a thread.
        rounded = -(-kernel.registers // 8) * 8
        assert 32 * kernel.most_warps * rounded <= REGISTERS, kernel
        assert kernel.barriers == 16, kernel  # named ones: a block has up to 12 units
        if kernel[1:4] == (64, 2, True):
            assert kernel.registers <= PUBLISHED[kernel.drops], kernel
    assert {kernel.drops for kernel in found} == {False, True}
    pieces = {32: {0}, 64: {0, 1}, 128: {0, 2}}
    assert {kernel.pieces for kernel in found} == pieces[found[0].width]

    functions = disassembled(unit)
    assert len(functions) == len(found)
    for made in functions:
        shape = re.search(r"Li(\d+)ELi(\d+)ELb([01])ELb([01])ELi(\d)E", made.name)
        assert shape is not None
        shared = shape[3] == "1" or shape[5] != "0"
        check(made)
        assert made.shared_loads  # keys and values
        if shared:
            assert made.shared_loads > made.streams  # concat's matrix alone is read from memory
        else:
            assert made.streams > made.shared_loads
        assert made.copies  # parameters on their way to shared memory
        assert made.minima


@of_every_width("split")
def test_the_low_latency_plan(unit: Unit) -> None:
    found = kernels(unit)
    assert {kernel.kind for kernel in found} == {"Split"}
    for kernel in found:
        assert kernel.spilled == 0, kernel
        assert kernel.registers <= SPLIT == REGISTERS // (32 * kernel.most_warps), kernel
    for made in disassembled(unit):
        resident = re.search(r"Li\d+ELi\dELb([01])ELb0E", made.name)
        assert resident is not None
        check(made)
        assert made.shared_loads >= 8
        assert (made.streams >= 12) == (resident[1] == "0")
        assert made.copies


@of_every_width("backward")
def test_backward(unit: Unit) -> None:
    found = kernels(unit)
    assert {kernel.kind for kernel in found} == {"Backward", "WeightGradients"}
    assert {kernel.pieces for kernel in found} == ({0} if found[0].width == 32 else {0, 1})
    for kernel in found:
        assert kernel.spilled == 0, kernel
    ways = set()
    for made in disassembled(unit):
        check(made)
        products = re.search(r"WeightGradients\w*?Li(\d+)ELb([01])ELb([01])E", made.name)
        if products is None:
            assert made.exchanges  # matrices with rows and columns exchanged
            continue
        ahead, transposed = (flag == "1" for flag in products.groups()[1:])
        ways.add((ahead, transposed))
        # A unit is transposed, and its side where backward did not do that.
        quarters = 4 if transposed else 4 * (1 + int(products[1]) // 16)
        assert made.exchanges == quarters
        # Before the first product operands of two tiles are loaded, the first and the next; or of one.
        of_a_tile = 1 + int(products[1]) // 16
        loads = made.streams_before
        assert loads == 2 * of_a_tile if ahead else loads <= of_a_tile
    # Of streamed weights, none transposes sides.
    streamed = all(not kernel.resident for kernel in found)
    assert len(ways) == (2 if streamed else 4)
