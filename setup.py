"""Build script; pyproject.toml declares the package, csrc/build*.py compile the kernels.

The kernels use neither torch nor Python's headers: one build serves every version of both. Where there
is no compiler the package installs without them; a note beside the package says why, which the first
import and ``lares doctor`` read out (lares_kernels/binding/built.py).

CUDA kernels are compiled where there is an NVIDIA card, or where ``LARES_CUDA=1`` asks for them, and
never with ``LARES_CUDA=0``. ``LARES_KERNELS`` names the libraries that there are to be at all, for who
makes wheels (csrc/wheels.py): ``cpu cuda`` unless it is set.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402
import build_cuda  # noqa: E402

CPU, CUDA = "lares_kernels.liblares_cpu", "lares_kernels.liblares_cuda"
LIBRARIES = {CPU: build.build_cpu, CUDA: build_cuda.build_cuda}


def why_left_out(name: str) -> str | None:
    """Return why a library is not to be built here; None if it is."""
    asked = os.environ.get("LARES_CUDA", "")
    if asked not in ("", "0", "1"):
        raise SystemExit(
            f"LARES_CUDA is {asked!r}; it takes 1 (build the CUDA kernels) or 0 (do not)"
        )
    if name == CPU or asked == "1" or (asked == "" and build_cuda.present_architectures()):
        return None
    found = "LARES_CUDA=0 was set" if asked else "there was no NVIDIA card that nvidia-smi names"
    return f"left out: {found}; installing with LARES_CUDA=1 builds the CUDA kernels with nvcc"


def note_of(library: Path) -> Path:
    """Return where lares_kernels/binding/built.py looks for the note of a library."""
    return library.with_suffix(".not-built.txt")


class BuildKernels(build_ext):
    """Hands an extension over to ninja; what comes out is a plain shared library, or a note.

    Attributes:
        why_not: by library, why it was not built.
    """

    why_not: dict[str, str]

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def run(self) -> None:
        # Not super().run(), which looks for a compiler of Python's extensions first and may fail at it.
        self.why_not = {}
        in_place, self.inplace = self.inplace, False
        for ext in self.extensions:
            self.build_extension(ext)
        self.inplace = in_place
        if in_place:
            self.copy_extensions_to_source()

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        folder = ROOT / "build" / ("csrc" if ext.name == CPU else "cuda")
        try:
            why = why_left_out(ext.name)
            if why is None:
                LIBRARIES[ext.name](target, folder)
        except Exception as error:  # whatever it is: installing goes on without
            why = f"failed: {build.reason(error)}"
        if why is not None:
            self.why_not[ext.name] = why
            print(f"warning: {target.name} was not built: {why}", file=sys.stderr)
        keep_one(target, why)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        for ext in self.extensions:
            keep_one(ROOT / self.get_ext_filename(ext.name), self.why_not.get(ext.name))


def keep_one(library: Path, why: str | None) -> None:
    """Leave a library, or the note why it was not built: never an old one beside new sources."""
    try:
        if why is None:
            note_of(library).unlink(missing_ok=True)
            return
        library.unlink(missing_ok=True)
        library.parent.mkdir(parents=True, exist_ok=True)
        note_of(library).write_text(why + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:  # in a build folder that cannot be written, say
        print(f"warning: no note of {library.name} was kept: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """Tags a wheel with its platform alone, since the libraries use nothing of one Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def extensions() -> list[Extension]:
    """Return the libraries that ``LARES_KERNELS`` names; a wheel of none is for any platform."""
    names = os.environ.get("LARES_KERNELS", "cpu cuda").split()
    kept = [name for name in LIBRARIES if name.rpartition("_")[2] in names]
    return [Extension(name, sources=[], optional=True) for name in kept]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
