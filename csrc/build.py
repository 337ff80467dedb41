"""Compiles the kernels with ninja: ``python csrc/build.py TARGET [FOLDER]``.

``python csrc/build.py --stress SANITIZER TARGET [FOLDER]`` compiles tests/stress.cpp with the kernels
and a sanitizer (``address,undefined`` or ``thread``) into a program instead.

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
X86_SETS = {
    "amx_bf16": "-march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16",
    "avx512_bf16": "-march=x86-64-v4 -mavx512bf16",
    "avx512": "-march=x86-64-v4",
    "avx2": "-march=x86-64-v3",
    "generic": "",
}
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


def instruction_sets(cxx: str) -> dict[str, str]:
    """Sets to compile for, with their flags: not every compiler and assembler knows AMX."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return OTHER_SETS
    sets = dict(X86_SETS)
    amx = "#include <immintrin.h>\nvoid f() { _tile_zero(0); _tile_dpbf16ps(0, 1, 2); }\n"
    if not compiles(cxx, sets["amx_bf16"], amx):
        del sets["amx_bf16"]
    return sets


def compiles(cxx: str, flags: str, code: str) -> bool:
    """Whether the compiler, and its assembler, can make something of ``code``."""
    command = [*cxx.split(), *flags.split(), "-x", "c++", "-c", "-", "-o", os.devnull]
    return subprocess.run(command, input=code, capture_output=True, text=True).returncode == 0


def rules(cxx: str, flags: str, link: str, target: str, stress: bool) -> str:
    """The build.ninja file."""
    sets = instruction_sets(cxx)
    if len(sets) > 1:
        flags += " -DLARES_WITH_X86"
    if "amx_bf16" in sets:
        flags += " -DLARES_WITH_AMX"
    if "clang" not in cxx:
        flags += " -Wno-maybe-uninitialized"  # of g++ 12's own AVX-512 headers
    flags += " " + os.environ.get("LARES_CXXFLAGS", "")
    objects = {
        f"{name}.o": (SOURCES / f"{name}.cpp", "") for name in ("dispatch", "look", "threads")
    }
    for name, march in sets.items():
        for source in ("refine", "catalogue"):
            made = f"{source}_{name}.o"
            objects[made] = (SOURCES / f"{source}.cpp", f"-DLARES_ISA={name} {march}")
    if stress:
        objects["stress.o"] = (SOURCES.parent / "tests" / "stress.cpp", "")
    lines = [
        f"cxx = {cxx}",
        f"flags = {flags}",
        "rule compile",
        "  command = $cxx $flags $set -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx {link} $in -o $out -pthread -ldl {os.environ.get('LARES_CXXFLAGS', '')}",
    ]
    for name, (source, march) in objects.items():
        lines += [f"build {name}: compile {source}", f"  set = {march}"]
    lines.append(f"build {target}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def run_ninja(folder: Path, text: str) -> None:
    """Write build.ninja in ``folder`` and run it."""
    command = ninja()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(text, encoding="utf-8")
    done = subprocess.run([*command, "-C", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"the compiler failed:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")


def put_in_place(made: Path, target: Path) -> None:
    """Copy ``made`` to ``target``, whole or not at all, even where the old file is in use."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copy(made, partial)
    os.replace(partial, target)


def build_cpu(target: Path, folder: Path) -> None:
    """Compile the CPU kernel in ``folder`` and put the library at ``target``."""
    name = "liblares_cpu.so"
    run_ninja(folder, rules(compiler(), FLAGS, "-shared", name, stress=False))
    put_in_place(folder / name, target)


def build_stress(sanitizer: str, target: Path, folder: Path) -> None:
    """Compile the stress program with ``sanitizer`` in ``folder`` and put it at ``target``."""
    watch = f"-fsanitize={sanitizer} -fno-sanitize-recover=all"
    flags = f"{FLAGS.replace('-O3', '-O1 -g1')} {watch} -fno-omit-frame-pointer"
    run_ninja(folder, rules(compiler(), flags, watch, "stress", stress=True))
    put_in_place(folder / "stress", target)


def main(arguments: list[str]) -> None:
    """Entry of the command line."""
    try:
        if arguments[0] == "--stress":
            sanitizer, target, *folder = arguments[1:]
            build_stress(sanitizer, Path(target), Path(folder[0] if folder else "build/stress"))
        else:
            target, *folder = arguments
            build_cpu(Path(target), Path(folder[0] if folder else "build/csrc"))
    except BuildError as error:
        sys.exit(f"not built: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
