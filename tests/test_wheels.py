"""The wheels, made and installed as a stranger would: ``pytest -m long tests/test_wheels.py``.

The sdist and the wheel of any platform take seconds and need ``build`` (extra ``test``). Those of a
platform compile the CPU kernel with zig for minutes, the CUDA kernels left out; their tools come with
``pip install -e ".[wheels]"``.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from tests.kernels.cpu.test_cpu_objects import BASELINE, crossing, foreign, set_of

sys.path.insert(0, str(Path(__file__).parents[1] / "csrc"))
import wheels

import build

ROOT = wheels.ROOT
pytestmark = pytest.mark.long


def needs(*tools: str) -> None:
    """A test without what makes wheels is skipped."""
    for tool in tools:
        try:
            version(tool)
        except PackageNotFoundError:
            pytest.skip(f'{tool} is missing: pip install -e ".[wheels]"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of platforms."""
    needs("build", "ziglang", "auditwheel")
    made = tmp_path_factory.mktemp("dist")
    wheels.main([str(made), "--without-cuda", "--only", "x86_64", "aarch64"])
    return made


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of any platform, and the sdist."""
    needs("build")
    made = tmp_path_factory.mktemp("dist")
    wheels.main([str(made), "--only", "any", "sdist"])
    return made


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_no_function_crosses_instruction_sets_with_zig(
    processor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("build", "ziglang")
    settings = wheels.settings(processor, ("cpu",), tmp_path)
    for name in ("CXX", "LARES_CXXFLAGS"):
        monkeypatch.setenv(name, settings[name])
    build.build_cpu(tmp_path / "liblares_cpu.so", tmp_path / "objects")
    objects = sorted((tmp_path / "objects").glob("*.o"))
    per_set = [path for path in objects if set_of(path) != BASELINE]
    assert [*map(set_of, per_set)] == sorted(build.SETS[processor])
    assert crossing(objects) == {}
    assert {path.name: foreign(path) for path in per_set if foreign(path)} == {}


def wheel_for(folder: Path, platform: str) -> Path:
    (found,) = folder.glob(f"lares_kernels-*-py3-none-{platform}.whl")
    return found


def installed(wheel: Path, tmp_path: Path) -> Path:
    """The Python of a fresh environment outside the tree, with a wheel and this Python's packages."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    start = time.perf_counter()
    subprocess.run(command, cwd=tmp_path, check=True)
    seconds = time.perf_counter() - start
    print(f"{wheel.name} installed in {seconds:.1f} s")
    assert seconds <= 5
    # Python does not read .pth files of folders added so: no checkout comes along.
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    packages.joinpath("torch_and_others.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return python


def smoke(python: Path, backend: str, tmp_path: Path) -> str:
    """What tests/smoke.py says."""
    command = [python, "-I", ROOT / "tests" / "smoke.py", backend]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_auditwheel_agrees(folder: Path, name: str) -> None:
    wheel = wheel_for(folder, f"manylinux_2_28_{name}")
    said = wheels.said_of(wheel)
    assert wheels.agrees(said, f"manylinux_2_28_{name}"), said


def test_a_newer_glibc_does_not_agree() -> None:
    said = 'is consistent with\nthe following platform tag: "manylinux_2_{}_x86_64".'
    assert wheels.agrees(said.format(17), "manylinux_2_28_x86_64")
    assert not wheels.agrees(said.format(34), "manylinux_2_28_x86_64")
    assert not wheels.agrees(said.format(17), "manylinux_2_28_aarch64")
    assert not wheels.agrees("linux_x86_64", "manylinux_2_28_x86_64")


def names_itself(wheel: Path) -> None:
    """Hold a wheel's metadata to what was promised."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
        (about,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
        pure = "Root-Is-Purelib: true" in archive.read(about).decode()
    assert pure == ("-any." in wheel.name)
    assert headers["Name"] == "lares-kernels"
    required = [line for line in headers.get_all("Requires-Dist") if "extra ==" not in line]
    assert "torch>=2.6" in required
    assert not [line for line in required if line.startswith("triton") or "==" in line]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "lares",
        "lares_kernels",
    }


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="runs on Linux on x86-64"
)
def test_the_wheel_of_this_platform(folder: Path, tmp_path: Path) -> None:
    wheel = wheel_for(folder, "manylinux_2_28_x86_64")
    names_itself(wheel)
    python = installed(wheel, tmp_path)
    assert "backend cpu: all well" in smoke(python, "cpu", tmp_path)


def test_the_wheel_of_any_platform(portable: Path, tmp_path: Path) -> None:
    wheel = wheel_for(portable, "any")
    names_itself(wheel)
    python = installed(wheel, tmp_path)
    assert "it is not in this wheel" in smoke(python, "reference", tmp_path)
