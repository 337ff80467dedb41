"""Read files of launch settings from folders that users name, in the same way for every backend."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def named_file(variable: str, name: str) -> Path | None:
    """Return the file of that name in the folder that an environment variable names.

    None where the variable is unset or empty, or the folder has no such file.

    Raises:
        ValueError: there is no such folder.
    """
    given = os.environ.get(variable)
    if not given:
        return None
    if not Path(given).is_dir():
        raise ValueError(f"{variable} is {given!r}; there is no such folder: name one, or unset it")
    path = Path(given) / name
    return path if path.exists() else None


def named_files(variable: str, pattern: str) -> list[Path]:
    """Return the files of that pattern in the folder that a variable names, if there is one."""
    given = os.environ.get(variable)
    return sorted(Path(given).glob(pattern)) if given else []


def read_json(path: Path, kind: type[T], what: str) -> T:
    """Return what a JSON file holds.

    Args:
        path: of the file.
        kind: ``dict`` for an object, ``list`` for an array.
        what: that is, for the message: ``an array of rules``.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path} does not hold {what}")
    return found


def require_known(where: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise ``ValueError`` for the first unknown field."""
    for name in given:
        if name not in known:
            raise ValueError(f"{where} has a field {name!r}; there are {', '.join(known)}")


@contextlib.contextmanager
def replaced(
    settings: dict[str, T], family: str, those: T, forget: Callable[[], None]
) -> Iterator[None]:
    """Hold ``those`` under ``family`` within the block; call ``forget`` at its begin and end."""
    before = dict(settings)
    settings[family] = those
    forget()
    try:
        yield
    finally:
        settings.clear()
        settings.update(before)
        forget()
