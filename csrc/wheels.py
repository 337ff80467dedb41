"""Make the wheels and the sdist: ``python csrc/wheels.py FOLDER``.

``--only NAME ...`` makes some of ``sdist``, ``x86_64``, ``aarch64`` and ``any``; ``--without-cuda`` an
x86-64 wheel without the CUDA kernels, which otherwise need nvcc.

Every wheel is built from the sdist, unpacked in its own folder, so that nothing of a checkout
gets in. What is compiled for Linux is linked by zig (a clang with the C libraries of every platform)
against an old glibc and with its C++ library inside; nvcc has g++ compile the host's part of the CUDA
kernels, which needs nothing of g++'s own C++ library. Tools: ``pip install -e ".[wheels]"``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from build import BuildError, captured, put_in_place, reason
from build_cuda import DEFAULT_ARCHITECTURES, nvcc

ROOT = Path(__file__).resolve().parent.parent
GLIBC = (2, 28)
LARGEST_BYTES = 20_000_000
SDIST = "sdist"


class Wheel(NamedTuple):
    """Describe a wheel to make: its platform, and the kernels that are compiled into it."""

    platform: str
    kernels: tuple[str, ...]


WHEELS = {
    "x86_64": Wheel("manylinux_{}_{}_x86_64".format(*GLIBC), ("cpu", "cuda")),
    "aarch64": Wheel("manylinux_{}_{}_aarch64".format(*GLIBC), ("cpu",)),
    "any": Wheel("any", ()),
}


def run(command: list[str | Path], **added: str) -> str:
    """Run a command with more in its environment and return what it printed.

    Raises:
        BuildError: it failed.
    """
    # Not from csrc, whose build.py Python would take for the package of that name.
    done = captured(command, cwd=ROOT, env={**os.environ, **added})
    printed = done.stdout + done.stderr
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(map(str, command))} failed:\n{printed[-6000:]}")
    return printed


def zig(processor: str, folder: Path) -> Path:
    """Write a program that calls zig as a C++ compiler for a processor, and return its path."""
    target = "{}-linux-gnu.{}.{}".format(processor, *GLIBC)
    script = folder / f"zig-c++-{processor}"
    python = shlex.quote(sys.executable)
    script.write_text(f'#!/bin/sh\nexec {python} -m ziglang c++ -target {target} "$@"\n')
    script.chmod(0o755)
    return script


def settings(name: str, kernels: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Return the environment variables of setup.py and the build scripts."""
    if not kernels:
        return {"LARES_KERNELS": ""}
    compiler = zig(name, folder)
    exports = f"--version-script={ROOT / 'csrc' / 'exports.map'}"
    return {
        "LARES_KERNELS": " ".join(kernels),
        "CXX": shlex.quote(str(compiler)),
        # zig adds what a debugger needs unless told not to, six times the library; and it shows what
        # it links in, operator new say, which other libraries have, too.
        "LARES_CXXFLAGS": f"-g0 -Wl,-s -Wl,-z,defs {shlex.quote(f'-Wl,{exports}')}",
        "LARES_CUDA": "1" if "cuda" in kernels else "0",
        "LARES_CUDA_ARCHS": " ".join(DEFAULT_ARCHITECTURES),
        # nvcc does not know so new a clang, but has it link alone.
        "LARES_CUDA_LINKFLAGS": f"-ccbin {shlex.quote(str(compiler))} -allow-unsupported-compiler "
        "-Xlinker -s -Xlinker -z,defs",
    }


def make_sdist(folder: Path) -> Path:
    """Make the sdist in a folder and return its path."""
    run([sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT])
    (made,) = folder.glob("*.tar.gz")
    return made


def make_wheel(name: str, kernels: tuple[str, ...], sdist: Path, folder: Path) -> Path:
    """Build a wheel from the sdist, check it, put it into a folder and return its path.

    Raises:
        BuildError: it could not be built, or is not what its name says.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        (tree,) = (path for path in work.iterdir() if path.is_dir())
        platform = WHEELS[name].platform
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", work / "made", tree]
        if kernels:
            command.append(f"-C--build-option=--plat-name={platform}")
        printed = run(command, **settings(name, kernels, work))
        (made,) = (work / "made").iterdir()
        check(made, platform, kernels, printed)
        put_in_place(made, folder / made.name)
        return folder / made.name


def check(wheel: Path, platform: str, kernels: tuple[str, ...], printed: str) -> None:
    """Raise :class:`BuildError` unless a wheel is what its name says."""
    if not wheel.name.endswith(f"-py3-none-{platform}.whl"):
        raise BuildError(f"{wheel.name} is not tagged py3-none-{platform}")
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name for name in archive.namelist() if name.endswith(".so")}
    wanted = {f"lares_kernels/liblares_{kernel}.so" for kernel in kernels}
    if libraries != wanted:
        raise BuildError(
            f"{wheel.name} holds {sorted(libraries)} instead of {sorted(wanted)}:\n{printed[-6000:]}"
        )
    if kernels and not agrees(said_of(wheel), platform):
        raise BuildError(f"auditwheel does not agree with {platform}:\n{said_of(wheel)}")
    if wheel.stat().st_size > LARGEST_BYTES:
        raise BuildError(f"{wheel.name} has {wheel.stat().st_size} bytes, over {LARGEST_BYTES}")


def said_of(wheel: Path) -> str:
    """Return the output of ``auditwheel show`` for a wheel."""
    return run([sys.executable, "-m", "auditwheel", "show", wheel])


def agrees(said: str, platform: str) -> bool:
    """Return True if auditwheel finds a wheel fit for a platform: for its glibc or an older one."""
    found = re.search(r"following\s+platform\s+tag:\s+\"manylinux_(\d+)_(\d+)_(\w+)\"", said)
    return (
        found is not None
        and platform.endswith(f"_{found[3]}")
        and (int(found[1]), int(found[2])) <= GLIBC
    )


def main(arguments: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the wheels and the sdist.")
    parser.add_argument("folder", type=lambda name: Path(name).resolve())
    parser.add_argument("--only", nargs="+", choices=[SDIST, *WHEELS], default=[SDIST, *WHEELS])
    parser.add_argument("--without-cuda", action="store_true")
    options = parser.parse_args(arguments)
    left_out = {"cuda"} if options.without_cuda else set()
    try:
        if "x86_64" in options.only and not left_out:
            nvcc()
        with tempfile.TemporaryDirectory() as temporary:
            sdist = make_sdist(Path(temporary))
            for name in (name for name in WHEELS if name in options.only):
                kernels = tuple(k for k in WHEELS[name].kernels if k not in left_out)
                report(make_wheel(name, kernels, sdist, options.folder))
            if SDIST in options.only:
                put_in_place(sdist, options.folder / sdist.name)
                report(options.folder / sdist.name)
    except (BuildError, OSError) as error:
        sys.exit(f"not made: {reason(error)}")


def report(made: Path) -> None:
    """Print a file's name and size."""
    print(f"{made.name}: {made.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
