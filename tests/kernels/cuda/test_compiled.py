"""The CUDA kernels compiled for cards that are not here: what they take, and what they are made of.

One type stands for both: bf16 and fp16 differ in the products' instruction alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernels.cuda.conftest import ROOT, build, build_cuda

REGISTERS = 65536  # of a multiprocessor
# Registers a thread of the published core, without and with dropout: the most that CUDA 13.0 showed
# was 143 and 197; room for other compilers, below what 12 and 8 warps may have (168 and 255).
PUBLISHED = {False: 160, True: 224}


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


class Compiled(NamedTuple):
    report: str  # of ptxas
    machine_code: Path


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """forward.cu of one width for one architecture, bf16."""
    architecture, width = request.param
    command = compiler()
    if architecture not in build_cuda.known_architectures(command):
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    target = tmp_path_factory.mktemp("cubin") / "forward.cubin"
    folder = ROOT / "csrc"
    includes = [f"-I{path}" for path in (folder, folder / "cuda", folder / "cuda" / "device")]
    done = subprocess.run(
        [command, *build_cuda.DEVICE_FLAGS.split(), f"-arch=sm_{architecture}", "-cubin"]
        + ["-Xptxas", "-v", *includes, "-DLARES_TYPE=Bf16", f"-DLARES_WIDTH={width}"]
        + ["-o", str(target), str(folder / "cuda" / "forward.cu")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Compiled(done.stderr, target)


class Kernel(NamedTuple):
    """Template arguments, and what ptxas says."""

    width: int
    head: int
    resident: bool
    drops: bool
    registers: int
    spilled: int
    barriers: int

    @property
    def most_warps(self) -> int:
        """As ``Shape::kMostWarps``."""
        return 8 if self.drops or self.width > 64 or self.head > 2 else 12


def kernels(report: str) -> list[Kernel]:
    found = []
    for part in report.split("Compiling entry function")[1:]:
        shape = re.search(r"Li(\d+)ELi(\d+)ELb([01])ELb([01])E", part)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        used = re.search(r"Used (\d+) registers, used (\d+) barriers", part)
        stack = re.search(r"(\d+) bytes stack frame", part)
        assert shape is not None, part
        assert spills is not None, part
        assert used is not None, part
        assert stack is not None, part
        spilled = int(spills[1]) + int(spills[2]) + int(stack[1])
        found.append(
            Kernel(
                int(shape[1]),
                int(shape[2]),
                shape[3] == "1",
                shape[4] == "1",
                int(used[1]),
                spilled,
                int(used[2]),
            )
        )
    return found


CASES = [("80", 64), ("90a", 32), ("90a", 64), ("90a", 128), ("100a", 64)]


@pytest.mark.parametrize(
    "compiled", CASES, indirect=True, ids=lambda case: f"sm{case[0]}-{case[1]}"
)
def test_registers_spills_and_instructions(compiled: Compiled) -> None:
    found = kernels(compiled.report)
    assert found
    for kernel in found:
        assert kernel.spilled == 0, kernel
        # Registers come in units of 8 a thread.
        rounded = -(-kernel.registers // 8) * 8
        assert 32 * kernel.most_warps * rounded <= REGISTERS, kernel
        assert kernel.barriers == 16, kernel  # named ones: a block has up to 12 units
        if kernel[:3] == (64, 2, True):
            assert kernel.registers <= PUBLISHED[kernel.drops], kernel

    done = subprocess.run(
        [disassembler(), "-sass", str(compiled.machine_code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    functions = done.stdout.split("Function :")[1:]
    assert len(functions) == len(found)
    for text in functions:
        shape = re.search(r"Li(\d+)ELi(\d+)ELb([01])ELb([01])E", text)
        assert shape is not None
        resident = shape[3] == "1"
        assert "HMMA.16816.F32.BF16" in text
        assert re.search(r"\bLDS\.128\b", text)  # keys and values
        loads = len(re.findall(r"\bLDS\.128\b", text))
        streams = len(re.findall(r"\bLDG\.E\.128\.CONSTANT\b", text))
        if resident:
            assert loads > streams  # concat's matrix alone is read from memory
        else:
            assert streams > loads
        assert "LDGSTS" in text  # parameters on their way to shared memory
        assert not re.search(r"\b(LDL|STL)\b", text)
