"""Build script; pyproject.toml declares the package, csrc/build*.py compile the kernels.

The kernels use neither torch nor Python's headers: one build serves every version of both. Where there
is no compiler the package installs without them, and ``lares doctor`` says what is missing.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "csrc"))
import build_cuda  # noqa: E402

import build  # noqa: E402

LIBRARIES: dict[str, Callable[[Path, Path], None]] = {
    "lares_kernels.liblares_cpu": build.build_cpu,
    "lares_kernels.liblares_cuda": build_cuda.build_cuda,
}


class BuildKernels(build_ext):
    """Hands an extension over to ninja; what comes out is a plain shared library."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        folder = ROOT / "build" / ("csrc" if ext.name.endswith("cpu") else "cuda")
        try:
            LIBRARIES[ext.name](target, folder)
        except build.BuildError as error:
            # Never half-written, and never an old library beside new sources.
            target.unlink(missing_ok=True)
            print(f"warning: {target.name} was not built: {error}", file=sys.stderr)


setup(
    ext_modules=[Extension(name, sources=[], optional=True) for name in LIBRARIES],
    cmdclass={"build_ext": BuildKernels},
)
