"""Write binding/structs.py, the C headers' structs and numbers for ctypes: ``python csrc/structs.py``.

The headers are the source; the structs that Python's tensors are looked at with (LaresReader and its
parts) hold pointers to functions, and are bound where they are used (lares_kernels/cpu).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADERS = ("lares_kernels.h", "lares_cuda.h")
TARGET = HERE.parent / "lares_kernels" / "binding" / "structs.py"
LEFT_OUT = ("LaresReader", "LaresPlace", "LaresPattern")
HEAD = '''\
"""Mirror the structs and numbers of csrc/lares_kernels.h and csrc/lares_cuda.h, field by field.

Written by ``python csrc/structs.py``: change a header, run that.
"""

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_uint32, c_void_p
from typing import Any

from lares_kernels.spec.parameters import PLACES as LARES_PARAMETERS


def _each(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Return fields of one type, one after the other."""
    return [(name, kind) for name in names.split()]

'''
_TYPES = {
    "int64_t": "c_int64",
    "int32_t": "c_int32",
    "uint32_t": "c_uint32",
    "double": "c_double",
    "float": "c_float",
}
_COLUMNS = 98
_STRUCT = re.compile(r"typedef struct \w*\s*\{(.*?)\} (\w+);", re.DOTALL)


def fields(body: str) -> Iterator[tuple[str, str]]:
    """Yield name and ctypes' type of every field of a struct, from the text between its braces."""
    for statement in filter(None, map(str.strip, body.split(";"))):
        of_all, first = re.sub(r"\bconst\b|\bstruct\b", "", statement).split(None, 1)
        for each in first.split(","):
            pointer, name, many = re.fullmatch(
                r"(\*?)\s*(\w+)(?:\[(\w+)\])?", each.strip()
            ).groups()  # type: ignore[union-attr]
            kind = "c_void_p" if pointer or of_all.endswith("*") else _TYPES.get(of_all, of_all)
            yield name, f"{kind} * {many}" if many else kind


def struct(name: str, body: str) -> str:
    """Return the class of a struct."""
    lines = [
        f"class {name}(ctypes.Structure):",
        f'    """Mirror ``{name}``."""',
        "",
        "    _fields_ = [",
    ]
    for kind, group in groupby(fields(body), key=lambda field: field[1]):
        names = [name for name, _ in group]
        if len(names) == 1:
            lines.append(f'        ("{names[0]}", {kind}),')
            continue
        room = _COLUMNS - len(f'        *_each({kind}, ""),')
        parts = textwrap.wrap(" ".join(names), room)
        lines += [f'        *_each({kind}, "{part}"),' for part in parts]
    return "\n".join([*lines, "    ]\n"])


def text() -> str:
    """Return the text of binding/structs.py."""
    headers = "".join((HERE / name).read_text(encoding="utf-8") for name in HEADERS)
    headers = re.sub(r"/\*.*?\*/", "", headers, flags=re.DOTALL)
    numbers = re.findall(r"^#define (LARES_\w+) ([0-9]+)\s*$", headers, re.MULTILINE)
    parts = ["".join(f"{name} = {value}\n" for name, value in numbers)]
    parts += [struct(name, body) for body, name in _STRUCT.findall(headers) if name not in LEFT_OUT]
    return HEAD + "\n" + "\n\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
