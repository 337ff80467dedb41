"""The backend that ``LARES_BACKEND`` asks for, looked at before any work is done."""

from __future__ import annotations

import os

import lares_kernels as lk
from lares.errors import ConfigError
from lares.plain import one_of

_VARIABLE = "LARES_BACKEND"


def require_backend() -> None:
    """Raise ``ConfigError`` if ``LARES_BACKEND`` names a backend that there is not, or not here."""
    name = os.environ.get(_VARIABLE)
    if not name:
        return
    known = lk.available_backends()
    one_of(_VARIABLE, name, known)
    if known[name] != "usable":
        raise ConfigError(
            f"{_VARIABLE} is {name!r}, which cannot run here: {known[name]}; unset it to have one that "
            "can"
        )
