"""``lares doctor``: what is installed, which backends can run, and why not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lares import __version__
from lares.cli.options import OptionParser, command_parser
from lares_kernels.common.cache import cache_folder

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pyarrow",
    "safetensors",
    "lightning-fabric",
    "jsonargparse",
    "huggingface-hub",
    "tensorboard",
    "matplotlib",
)
_OPTIONAL = {"triton": "only GPU kernels need it"}
_CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_TOOLS = {"g++": "--version", "clang++": "--version", "ninja": "--version", "nvcc": "--version"}
_NO_NVCC = "missing (without it there is no cuda backend; GPUs run on triton)"


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser("doctor", "Say what is installed and which backends can run here.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="Compare every kernel that can run here with the reference, and print what was found.",
    )
    return parser


def package_versions() -> dict[str, str]:
    """Version of every package this one uses, or that it is missing."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing" + (f" ({_OPTIONAL[name]})" if name in _OPTIONAL else "")
    return versions


def cpu_features() -> str:
    """The vector extensions of this processor that kernels can use."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return "unknown on this system"
    words = set(info.read_text(encoding="utf-8", errors="replace").split())
    return " ".join(feature for feature in _CPU_FEATURES if feature in words) or "none known"


def tool_version(name: str, flag: str) -> str:
    """Return what a compiler says of itself: the line of its output with a number in it."""
    path = shutil.which(name)
    if path is None:
        return "missing"
    try:
        done = subprocess.run(
            [path, flag], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not run: {error}"
    lines = [line for line in done.stdout.splitlines() if any(c.isdigit() for c in line)]
    releases = [line for line in lines if "release" in line]
    return (releases or lines or ["says nothing of its version"])[0].strip()


def accelerators() -> dict[str, str]:
    """GPUs that torch can use, or why there are none."""
    import torch

    names = {}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            capability = f"{properties.major}.{properties.minor}"
            names[f"cuda:{index}"] = f"{properties.name}, {memory:.0f} GiB, sm {capability}"
    elif torch.version.cuda is None and torch.version.hip is None:
        names["cuda"] = "this torch is built without CUDA"
    else:
        names["cuda"] = "torch has CUDA, but sees no device (driver missing or hidden?)"
    return names


def print_checks() -> bool:
    """Print a table of all self-checks; True if none failed."""
    from lares_kernels.machine import check_all

    good = True
    print(f"{'kernels':<20}{'what':<18}{'verdict':<10}{'seconds':>8}  largest errors")
    for row in check_all():
        if isinstance(row.verdict, str):
            print(f"{row.kernels:<20}{row.what:<18}{'not run':<10}{'':>8}  {row.verdict}")
            continue
        good = good and not row.verdict.failed
        verdict = "FAILED" if row.verdict.failed else "good"
        seconds = f"{row.verdict.seconds:8.2f}"
        print(
            f"{row.kernels:<20}{row.what:<18}{verdict:<10}{seconds}  {row.verdict.worst(2)}",
            flush=True,
        )
    return good


def asked_backend(name: str, backends: dict[str, str]) -> str:
    """Say in one line what becomes of calls where ``LARES_BACKEND`` is ``name``."""
    if name not in backends:
        return (
            f"LARES_BACKEND is {name!r}: there is no such backend; there are {', '.join(backends)}"
        )
    if backends[name] != "usable":
        return f"LARES_BACKEND is {name!r}, which cannot run here: every call fails"
    return f"LARES_BACKEND={name} asks for that one in every call"


def section(title: str, rows: dict[str, str]) -> None:
    """Print names and values under a title."""
    print(title)
    for name, value in rows.items():
        print(f"  {name:<18}{value}")


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares doctor``."""
    options = build_parser().parse_args(list(argv))
    if options.check:
        sys.exit(0 if print_checks() else 1)
    import torch

    from lares_kernels import available_backends
    from lares_kernels.machine import instruction_sets

    section(
        f"lares {__version__}",
        {
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": f"{platform.system()} {platform.machine()}",
            "processor": f"{os.cpu_count()} cores; {cpu_features()}",
            "torch threads": str(torch.get_num_threads()),
            "cache": str(cache_folder()),
        },
    )
    section("packages", package_versions())
    tools = {name: tool_version(name, flag) for name, flag in _TOOLS.items()}
    if tools["nvcc"] == "missing":
        tools["nvcc"] = _NO_NVCC
    section("compilers", tools)
    section("accelerators", accelerators())
    backends = available_backends()
    section("backends", backends | instruction_sets())
    chosen = os.environ.get("LARES_BACKEND")
    if chosen:
        print(asked_backend(chosen, backends))
    if "missing" in package_versions().values():
        print("some packages are missing: installing lares-kernels with pip again brings them")
