"""Compiles the kernels with ninja: ``python csrc/build.py TARGET [BUILD_FOLDER]``.

Each instruction set gets its own object of the same source; which one runs is decided on the machine
that runs it. ``CXX`` names the compiler, ``LARES_CXXFLAGS`` adds flags (sanitizers, say).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "cpu"
FLAGS = (
    "-O3 -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math "
    "-Wall -Wextra"
)
# x86-64-v4 is AVX-512 F, BW, CD, DQ and VL; v3 is AVX2 and FMA.
X86_SETS = {"avx512": "-march=x86-64-v4", "avx2": "-march=x86-64-v3", "generic": ""}
OTHER_SETS = {"generic": ""}


class BuildError(Exception):
    """Why there is no library."""


def compiler() -> str:
    """The C++ compiler to use."""
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("g++", "clang++", "c++"):
        if shutil.which(name.split()[0]):
            return name
    raise BuildError(
        f"CXX names {asked!r}, which is not there" if asked else "found no g++, clang++ or c++"
    )


def ninja() -> list[str]:
    """Command line of ninja: its Python package, or a program on the path."""
    try:
        import ninja as package
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise BuildError("found no ninja") from None
        return [found]
    return [str(Path(package.BIN_DIR) / "ninja")]


def rules(cxx: str, library: Path) -> str:
    """The build.ninja file."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sets = X86_SETS if x86 else OTHER_SETS
    extra = os.environ.get("LARES_CXXFLAGS", "")
    flags = f"{FLAGS} {'-DLARES_WITH_X86' if x86 else ''} {extra}"
    if "clang" not in cxx:
        flags += " -Wno-maybe-uninitialized"  # of g++ 12's own AVX-512 headers
    lines = [
        f"cxx = {cxx}",
        f"flags = {flags}",
        "rule compile",
        "  command = $cxx $flags $set -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx -shared $in -o $out -pthread {extra}",
    ]
    objects = ["dispatch.o"]
    lines += [f"build dispatch.o: compile {SOURCES / 'dispatch.cpp'}", "  set ="]
    for name, march in sets.items():
        objects.append(f"{name}.o")
        lines += [
            f"build {name}.o: compile {SOURCES / 'refine.cpp'}",
            f"  set = -DLARES_ISA={name} {march}",
        ]
    lines.append(f"build {library.name}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build_cpu(target: Path, folder: Path) -> None:
    """Compile the CPU kernel in ``folder`` and put the library at ``target``, whole or not at all."""
    cxx, command = compiler(), ninja()
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "liblares_cpu.so"
    (folder / "build.ninja").write_text(rules(cxx, library), encoding="utf-8")
    done = subprocess.run([*command, "-C", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{cxx} failed:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(library, partial)
    os.replace(partial, target)


if __name__ == "__main__":
    try:
        build_cpu(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "build/csrc"))
    except BuildError as error:
        sys.exit(f"not built: {error}")
