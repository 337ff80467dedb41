"""Report which libraries the installation built, from the notes that setup.py writes beside them.

pip shows no output of a build that succeeds, and a package without its kernels is a success; so the
compiler's errors are stored, and printed once when the package is first imported.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from lares_kernels.common.cache import cache_folder

FOLDER = Path(__file__).parents[1]  # of the package


def note_of(library: Path) -> Path:
    """Return where the note of a library lies, if it was not built."""
    return library.with_suffix(".not-built.txt")


def why_not_built(library: Path) -> str | None:
    """Return why installing did not build a library, in the compiler's words; None if not known."""
    try:
        return note_of(library).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def is_checkout() -> bool:
    """Return True if the package lies in a checkout, where `pip install -e .` compiles kernels."""
    return (FOLDER.parent / "csrc" / "build.py").is_file()


def say_once(library: Path) -> None:
    """Print to standard error what failed to build, once, at the first import after installing.

    ``lares doctor`` reports what was left out without an error, such as CUDA on a machine without a
    card: it has no note, or one whose first line does not begin with ``failed``.
    """
    why = None if library.is_file() else why_not_built(library)
    if why is None or not why.startswith("failed"):
        return
    said = cache_folder() / "said" / hashlib.sha256(f"{library}\n{why}".encode()).hexdigest()[:16]
    try:
        said.parent.mkdir(parents=True, exist_ok=True)
        said.touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:
        pass  # said again next time, where nothing can be kept
    print(
        f"lares_kernels: {library.name} was not built when this was installed; calls that it would "
        f"serve run in plain PyTorch, slower. (Said once; `lares doctor` says it again.)\n{why}",
        file=sys.stderr,
    )
