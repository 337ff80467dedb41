"""Compile the CPU kernels with ninja: ``python csrc/build.py TARGET [FOLDER]``.

``python csrc/build.py --stress SANITIZER TARGET [FOLDER]`` compiles tests/stress.cpp with the kernels
and a sanitizer (``address,undefined`` or ``thread``) into a program instead.

Code of cpu/once is compiled once, for any processor of the architecture; cpu/per_isa/kernels.cpp
once for each instruction set, into its own object and namespace, of which one is selected at run
time. ``CXX`` names the compiler, which determines the architecture; ``LARES_CXXFLAGS`` adds flags
(sanitizers, say); ``LARES_CPU_SETS`` names the sets to compile (``"avx2 generic"``) instead of all.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "cpu"
FLAGS = (
    "-O3 -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math "
    "-Wall -Wextra"
)
# What cpu/once/processor.cpp looks for, and no more.
_AVX2 = "-mavx2 -mfma -mbmi -mbmi2"
_AVX512 = f"{_AVX2} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl"
# For each kind of processor the sets in order of preference within a precision.
SETS = {
    "x86_64": {
        "amx_bf16": f"{_AVX512} -mavx512bf16 -mamx-tile -mamx-bf16",
        "avx512_bf16": f"{_AVX512} -mavx512bf16",
        "avx512": _AVX512,
        "avx2": _AVX2,
        "generic": "",
    },
    "aarch64": {"neon_bf16": "-march=armv8.2-a+bf16", "neon": ""},
    "other": {"generic": ""},
}
# Not every compiler and assembler knows these: a piece of code that needs the set.
_PROBES = {
    "amx_bf16": "#include <immintrin.h>\nvoid f() { _tile_zero(0); _tile_dpbf16ps(0, 1, 2); }\n",
    "avx512_bf16": (
        "#include <immintrin.h>\n__m512 f(__m512 s, __m512bh a) { return _mm512_dpbf16_ps(s, a, a); }\n"
    ),
    "neon_bf16": (
        "#include <arm_neon.h>\n"
        "float32x4_t f(float32x4_t s, bfloat16x8_t a) { return vbfdotq_f32(s, a, a); }\n"
    ),
}
# zig takes -march for the name of a processor.
_OTHER_SPELLINGS = {"neon_bf16": "-mcpu=generic+bf16"}


class BuildError(Exception):
    """Report why there is no library."""


def reason(error: Exception) -> str:
    """Return why building failed: a :class:`BuildError`'s words, else with the kind of error first."""
    return str(error) if isinstance(error, BuildError) else f"{type(error).__name__}: {error}"


def compiler() -> str:
    """Return the C++ compiler to use, as words for a shell.

    Raises:
        BuildError: there is none, or ``CXX`` is not the command of one.
    """
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("g++", "clang++", "c++"):
        try:
            words = shlex.split(name)
        except ValueError as error:
            raise BuildError(f"CXX is {name!r}, which a shell cannot read: {error}") from None
        if not words:
            raise BuildError(f"CXX is {name!r}, which names no compiler")
        if shutil.which(words[0]):
            return name
    raise BuildError(
        f"CXX names {asked!r}, which is not there" if asked else "found no g++, clang++ or c++"
    )


def captured(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command, keep what it prints, and return it, however it ended."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, **options
    )


def run_compiler(
    cxx: str, arguments: list[str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the compiler with ``given`` on its standard input, whatever it prints.

    Raises:
        BuildError: it cannot be run at all.
    """
    try:
        return captured([*shlex.split(cxx), *arguments], input=given)
    except OSError as error:
        raise BuildError(f"CXX names {cxx!r}, which cannot be run: {error.strerror}") from None


def ninja() -> list[str]:
    """Return the command line of ninja: its Python package, or a program on the path."""
    try:
        import ninja as package
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise BuildError("found no ninja") from None
        return [found]
    return [str(Path(package.BIN_DIR) / "ninja")]


def processor(cxx: str) -> str:
    """Return the kind of processor that the compiler compiles for: a key of ``SETS``."""
    done = run_compiler(cxx, ["-dM", "-E", "-x", "c++", os.devnull])
    for kind in SETS:
        if f"#define __{kind}__ " in done.stdout:
            return kind
    return "other"


def instruction_sets(cxx: str) -> dict[str, str]:
    """Return the sets to compile for, with their flags: those that compiler and assembler know.

    Raises:
        BuildError: ``LARES_CPU_SETS`` names another, or leaves out the last, which all can run.
    """
    found = {}
    sets = SETS[processor(cxx)]
    wanted = os.environ.get("LARES_CPU_SETS", "").split() or [*sets]
    if not {*wanted} <= {*sets} or [*sets][-1] not in wanted:
        raise BuildError(
            f"LARES_CPU_SETS is {' '.join(wanted)!r}; it names sets of {' '.join(sets)}, "
            "the last among them"
        )
    for name, flags in sets.items():
        if name not in wanted:
            continue
        spellings = [flags, _OTHER_SPELLINGS.get(name, flags)]
        known = (s for s in spellings if name not in _PROBES or compiles(cxx, s, _PROBES[name]))
        spelled = next(known, None)
        if spelled is not None:
            found[name] = spelled
    return found


def compiles(cxx: str, flags: str, code: str) -> bool:
    """Return True if the compiler and its assembler accept ``code``."""
    with tempfile.TemporaryDirectory() as folder:  # for /dev/null zig writes one beside the caller
        made = str(Path(folder) / "probe.o")
        arguments = [*flags.split(), "-x", "c++", "-c", "-", "-o", made]
        return run_compiler(cxx, arguments, given=code).returncode == 0


def seen_from(folder: Path, path: Path) -> str:
    """Return a path as a command that runs in ``folder`` names it.

    So the name of a checkout is in no build.ninja file, nor in what compilers write for ninja: not
    every name of a folder can be written there.
    """
    return os.path.relpath(path.resolve(), folder.resolve())


def escaped(path: str) -> str:
    """Return a path as a build.ninja file has it.

    Raises:
        BuildError: no build.ninja file can have it.
    """
    if "|" in path or "\n" in path:
        raise BuildError(f"ninja can have no file called {path!r}; build it in another folder")
    for special in "$ :":  # the dollar first
        path = path.replace(special, f"${special}")
    return path


def in_command(words: str) -> str:
    """Return words for a shell as a command of a build.ninja file has them.

    Raises:
        BuildError: no build.ninja file can have them.
    """
    if "\n" in words:
        raise BuildError(f"ninja can have no command of several lines: {words!r}")
    return words.replace("$", "$$")


def rules(cxx: str, flags: str, link: str, target: str, folder: Path, stress: bool) -> str:
    """Return the build.ninja file of ``folder``."""
    sets = instruction_sets(cxx)
    added = in_command(os.environ.get("LARES_CXXFLAGS", ""))
    macro = " ".join(f"LARES_SET({name})" for name in sets)
    flags = f"{flags} {shlex.quote(f'-DLARES_SETS={macro}')} {added}"
    objects = {f"{source.stem}.o": (source, "") for source in sorted(SOURCES.glob("once/*.cpp"))}
    for name, march in sets.items():
        source = SOURCES / "per_isa" / "kernels.cpp"
        objects[f"kernels_{name}.o"] = (source, f"-DLARES_ISA={name} {march}")
    if stress:
        objects["stress.o"] = (HERE / "tests" / "stress.cpp", "")
    compiling = f"{in_command(cxx)} {flags}"
    linking = f"{in_command(cxx)} {link} $in -o $out -pthread -ldl {added}"
    return ninja_file(compiling, objects, linking, target, folder)


def ninja_file(
    compiling: str, objects: dict[str, tuple[Path, str]], linking: str, target: str, folder: Path
) -> str:
    """Return a build.ninja file of ``folder``.

    Args:
        compiling: the compiler's command, but for what is every object's own.
        objects: by name, their source and flags of their own.
        linking: the command that makes the target of them.
        target: a file's name.
        folder: that ninja runs in.
    """
    lines = [
        "rule compile",
        f"  command = {compiling} $own -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        # What an earlier link made is not taken for this one's.
        f"  command = rm -f $out && {linking}",
    ]
    for name, (source, own) in objects.items():
        lines += [f"build {name}: compile {escaped(seen_from(folder, source))}", f"  own = {own}"]
    lines.append(f"build {target}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def run_ninja(folder: Path, text: str) -> None:
    """Write build.ninja in ``folder`` and run it."""
    command = ninja()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(text, encoding="utf-8", errors="surrogateescape")
    done = captured(command, cwd=folder)
    if done.returncode != 0:
        raise BuildError(f"the compiler failed:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")


def put_in_place(made: Path, target: Path) -> None:
    """Copy ``made`` to ``target``, whole or not at all, even where the old file is in use.

    Raises:
        BuildError: there is no ``made``, though the compiler succeeded.
    """
    if not made.is_file():
        raise BuildError(f"the compiler failed: it made no {made.name}, and said nothing of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copy(made, partial)
    os.replace(partial, target)


def make(text: str, folder: Path, name: str, target: Path) -> None:
    """Run ninja with a build.ninja file in ``folder``, and put what it makes at ``target``."""
    run_ninja(folder, text)
    put_in_place(folder / name, target)


def build_cpu(target: Path, folder: Path) -> None:
    """Compile the CPU kernel in ``folder`` and put the library at ``target``."""
    name = "liblares_cpu.so"
    make(rules(compiler(), FLAGS, "-shared", name, folder, stress=False), folder, name, target)


def build_stress(sanitizer: str, target: Path, folder: Path) -> None:
    """Compile the stress program with ``sanitizer`` in ``folder`` and put it at ``target``."""
    watch = f"-fsanitize={sanitizer} -fno-sanitize-recover=all"
    flags = f"{FLAGS.replace('-O3', '-O1 -g1')} {watch} -fno-omit-frame-pointer"
    text = rules(compiler(), flags, watch, "stress", folder, stress=True)
    make(text, folder, "stress", target)


def run_job(arguments: list[str], jobs: dict[str, tuple[Callable[..., None], str]]) -> None:
    """Run a command line, or exit with what is wrong.

    Args:
        arguments: an option or none, with ``--stress`` a sanitizer, the target, and a folder or none.
        jobs: by option, what makes the target in a folder, and the folder that it is by default.
    """
    option = arguments.pop(0) if arguments[0].startswith("--") else ""
    job, default = jobs[option]
    words = [arguments.pop(0)] if option == "--stress" else []
    target, *folder = arguments
    try:
        job(*words, Path(target), Path(folder[0] if folder else default))
    except (BuildError, OSError) as error:
        sys.exit(f"not built: {reason(error)}")


if __name__ == "__main__":
    run_job(
        sys.argv[1:],
        {"": (build_cpu, "build/csrc"), "--stress": (build_stress, "build/stress")},
    )
