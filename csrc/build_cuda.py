"""Compile the CUDA kernels with nvcc: ``python csrc/build_cuda.py TARGET [FOLDER]``.

``python csrc/build_cuda.py --emulator TARGET [FOLDER]`` compiles the same kernels with the C++
compiler against tests/emulator, which runs them on a CPU. ``--stress SANITIZER TARGET [FOLDER]``
makes tests/emulated.cpp with those kernels and a sanitizer (``address,undefined`` or ``thread``) into
a program.

``NVCC`` names the compiler, ``LARES_NVCCFLAGS`` flags for it, such as ``-lineinfo``, and
``LARES_CUDA_ARCHS`` the architectures, such as ``"80 90a"``. The default are those of the machine's
cards, else 80, 90a and 100a. Architectures that this nvcc does not know are left out with a message:
such a card translates the library's PTX when it first runs a kernel.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import ascii_lowercase

sys.path.insert(0, str(Path(__file__).parent))
from build import (
    BuildError,
    captured,
    compiler,
    in_command,
    make,
    ninja_file,
    run_job,
    seen_from,
)

ROOT = Path(__file__).resolve().parent
DEFAULT_ARCHITECTURES = ("80", "90a", "100a")
# The kernels use nothing that came later, so one PTX is made, and of it the machine code of every card:
# parsing and optimizing once for all takes half the time that once for each would.
OLDEST = 80
PTX = f"compute_{OLDEST}"
# As in cuda/shapes.hpp.
SHAPES = tuple((kind, width) for width in (64, 128, 32) for kind in ("Bf16", "Fp16"))
FEW_SHAPES = tuple(("Bf16", width) for width in (64, 128, 32))
DEVICE_FLAGS = "-std=c++17 -O3 --extra-device-vectorization"
EMULATOR = ROOT / "tests" / "emulator"
EMULATOR_FLAGS = "-std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi -pthread"


def nvcc() -> str:
    """Return the CUDA compiler to use."""
    asked = os.environ.get("NVCC")
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [asked] if asked else [*(f"{home}/bin/nvcc" for home in homes if home), "nvcc"]
    for name in [*places, *([] if asked else ["/usr/local/cuda/bin/nvcc"])]:
        found = shutil.which(name)
        if found is not None:
            return found
    raise BuildError(f"NVCC names {asked!r}, which is not there" if asked else "found no nvcc")


def _output(command: list[str]) -> str:
    try:
        done = captured(command, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def known_architectures(command: str) -> set[str]:
    """Return the architectures that this nvcc compiles for, such as ``90`` and ``90a``."""
    help_text = _output([command, "--help"])
    return set(re.findall(r"\bsm_(\d+[a-z]?)\b", help_text))


def present_architectures() -> list[str]:
    """Return the architectures of the NVIDIA cards that are here, of those that nvidia-smi names.

    There may be none on a line of it: ``No devices were found``, or ``[N/A]``.
    """
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = (
        re.fullmatch(r"([0-9]+)\.([0-9]+)", line.strip()) for line in _output(query).split("\n")
    )
    return sorted({match[1] + match[2] for match in found if match})


def architectures(command: str) -> list[str]:
    """Return the architectures to compile for."""
    known = known_architectures(command)
    asked = os.environ.get("LARES_CUDA_ARCHS", "").replace(",", " ").split()
    wanted = asked or present_architectures() or list(DEFAULT_ARCHITECTURES)
    unknown = [name for name in wanted if name not in known]
    if asked and unknown:
        raise BuildError(
            f"LARES_CUDA_ARCHS asks for {' '.join(unknown)}, which {command} does not know; "
            f"it knows {' '.join(sorted(known))}"
        )
    old = [name for name in wanted if int(name.rstrip(ascii_lowercase)) < OLDEST]
    if old:
        raise BuildError(f"the kernels need sm_{OLDEST} or later, not sm_{' sm_'.join(old)}")
    if unknown:
        print(
            f"{command} does not know {' '.join(f'sm_{name}' for name in unknown)}: no machine code "
            "for such cards, which translate the library's PTX when they first run a kernel"
        )
    return [name for name in wanted if name in known]


def emulating() -> str:
    """Return the C++ compiler with flags to take .cu files as C++."""
    return f"{compiler()} -x c++"


def code_flags(archs: list[str]) -> str:
    """Return flags for machine code of every architecture, and for PTX for later cards."""
    code = ",".join([PTX, *(f"sm_{name}" for name in archs)])
    return f"-gencode arch={PTX},code=[{code}]"


def ptxas_flags(kernel: str, width: int) -> str:
    """Return the flags of ptxas for a source of one width.

    Wide rows all but fill the registers of a thread. At its default level ptxas hoists so much
    that some kernels spill a few words; at the first level, as many instructions spill nothing.
    """
    return "-Xptxas -O1" if width > 64 and kernel in ("backward", "forward") else ""


def rules(
    command: str,
    flags: str,
    link: str,
    target: str,
    folder: Path,
    launcher: Path,
    shapes: tuple[tuple[str, int], ...] = SHAPES,
    extra: tuple[str, ...] = (),
    device: bool = False,
) -> str:
    """Return the build.ninja file of ``folder``; kernels see primitives.hpp and launch.hpp of
    ``launcher``.

    ``device`` compiles for cards, with nvcc.
    """
    seen = [seen_from(folder, path) for path in (ROOT, ROOT / "cuda", launcher)]
    includes = in_command(" ".join(shlex.quote(f"-I{path}") for path in seen))
    command = in_command(command)
    # The others are the same whatever is compiled beside them, so that ninja can keep them.
    objects = {"refine.o": (ROOT / "cuda/refine.cu", "" if device else of_shapes(shapes))}
    objects |= {f"{Path(source).stem}.o": (ROOT / source, "") for source in extra}
    for kernel in ("backward", "forward", "split"):  # what takes longest first
        for kind, width in shapes:
            own = f"-DLARES_TYPE={kind} -DLARES_WIDTH={width}"
            if device:
                own = f"{own} {ptxas_flags(kernel, width)}".rstrip()
            objects[f"{kernel}_{kind}_{width}.o"] = (ROOT / f"cuda/{kernel}.cu", own)
    linking = f"{command.removesuffix(' -x c++')} {link} $in -o $out"
    return ninja_file(f"{command} {flags} {includes}", objects, linking, target, folder)


def compression(command: str) -> str:
    """Return the flag by which nvcc packs machine code twice as tightly as zip, from 12.8 on."""
    return " --compress-mode=size" if "--compress-mode" in _output([command, "--help"]) else ""


def build_cuda(target: Path, folder: Path) -> None:
    """Compile the CUDA kernels in ``folder`` and put the library at ``target``."""
    command = nvcc()
    archs = architectures(command)
    name = "liblares_cuda.so"
    code = code_flags(archs)
    flags = (
        f"{DEVICE_FLAGS} {code}{compression(command)} -Xcompiler -fPIC,-fvisibility=hidden "
        f"-DLARES_ARCHITECTURES='\"{' '.join(archs)}\"' "
        + in_command(os.environ.get("LARES_NVCCFLAGS", ""))
    ).rstrip()
    # The runtime is linked in and hidden, so that torch's own does not matter.
    exports = seen_from(folder, ROOT / "exports.map")
    hidden = in_command(shlex.quote(f"--version-script={exports}"))
    added = in_command(os.environ.get("LARES_CUDA_LINKFLAGS", ""))
    link = f"{code} -shared -cudart static -Xlinker {hidden} {added}"
    launcher = ROOT / "cuda/device"
    text = rules(shlex.quote(command), flags, link, name, folder, launcher, device=True)
    make(text, folder, name, target)


def of_shapes(shapes: tuple[tuple[str, int], ...]) -> str:
    """Return the flag that tells cuda/shapes.hpp which shapes are compiled."""
    each = " ".join(f"APPLY({kind}, {width})" for kind, width in shapes)
    return shlex.quote(f"-DLARES_EACH_SHAPE(APPLY)={each}")


def build_emulator(
    target: Path, folder: Path, shapes: tuple[tuple[str, int], ...] = SHAPES
) -> None:
    """Compile the kernels for the emulator in ``folder`` and put the library at ``target``."""
    name = "libemulator.so"
    flags = f"{EMULATOR_FLAGS} -O1"
    text = rules(emulating(), flags, "-shared -pthread", name, folder, EMULATOR, shapes)
    make(text, folder, name, target)


def build_stress(sanitizer: str, target: Path, folder: Path) -> None:
    """Compile the program of random calls with ``sanitizer`` and put it at ``target``."""
    watch = f"-fsanitize={sanitizer} -fno-sanitize-recover=all"
    # Whichever compiles and runs in less time; primitives are optimised in any case.
    level = "-O1" if sanitizer == "thread" else "-O0"
    flags = f"{EMULATOR_FLAGS} {level} {watch} -g1 -fno-omit-frame-pointer"
    link, program = f"{watch} -pthread", ("tests/emulated.cpp",)
    text = rules(emulating(), flags, link, "emulated", folder, EMULATOR, FEW_SHAPES, program)
    make(text, folder, "emulated", target)


if __name__ == "__main__":
    run_job(
        sys.argv[1:],
        {
            "": (build_cuda, "build/cuda"),
            "--emulator": (build_emulator, "build/emulator"),
            "--stress": (build_stress, "build/emulated"),
        },
    )
