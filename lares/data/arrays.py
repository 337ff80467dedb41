"""Arrays in files of NumPy's form, read without trust in what their headers say."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lares.errors import DataError


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of numbers in a ``.npy`` file, which may be no longer than the file.

    Raises:
        DataError: the file cannot be read, or holds anything else.
    """
    try:
        # Mapped, so that a header that promises more than there is in the file takes no memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{path} holds {kind}; it must be a .npy file of numbers")
    return np.array(array)
