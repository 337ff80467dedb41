"""C's structs as Python declares them: size, order, places and types of fields, by the C++ compiler."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lares_kernels.binding import structs
from lares_kernels.cpu import tensor_reader as look
from lares_kernels.cuda import probe
from tests.kernels.tools import cannot_run

CSRC = Path(__file__).parents[3] / "csrc"
sys.path.insert(0, str(CSRC))
import build  # noqa: E402
import structs as written  # noqa: E402

HEADERS = ("lares_enums.h", "lares_kernels.h", "lares_cuda.h")
STRUCTS: dict[str, type[ctypes.Structure]] = {
    **{name: each for name, each in vars(structs).items() if name.startswith("Lares")},
    "LaresReader": look._Reader,
    "LaresPlace": look._ExpectedTensor,
    "LaresPattern": look._Pattern,
}
NUMBERS = {name: each for name, each in vars(structs).items() if name.startswith("LARES_")}
C_TYPES = {
    ctypes.c_int64: "int64_t",
    ctypes.c_int32: "int32_t",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_double: "double",
    ctypes.c_float: "float",
    **{python: name for name, python in STRUCTS.items()},
}
POINTERS = (ctypes.c_void_p, ctypes.py_object)
Fields = list[tuple[str, Any]]


def is_of(found: str, python: Any) -> str:
    """Return the C++ condition that a type is as ctypes has it; of pointers, that it is one."""
    if issubclass(python, ctypes.Array):
        inner = is_of(f"std::remove_extent_t<{found}>", python._type_)
        return f"std::extent_v<{found}> == {python._length_} && {inner}"
    if python in POINTERS or issubclass(python, ctypes._Pointer):
        return f"std::is_pointer_v<{found}>"
    return f"std::is_same_v<{found}, {C_TYPES[python]}>"


def declared(name: str, struct: type[ctypes.Structure]) -> str:
    """Return C++ that compiles if a struct of the headers is what Python declares."""
    fields: Fields = struct._fields_  # type: ignore[assignment]
    lines = [f'static_assert(sizeof({name}) == {ctypes.sizeof(struct)}, "size of {name}");']
    for field, python in fields:
        place, kind = getattr(struct, field).offset, is_of(f"decltype({name}::{field})", python)
        lines.append(
            f'static_assert(offsetof({name}, {field}) == {place} && {kind}, "{name}.{field}");'
        )
    # So many names and no others: a field that fills a gap moves none of the others.
    names = ", ".join(f"_{field}" for field, _ in fields)
    lines.append(f"inline void fields({name}& all) {{ auto& [{names}] = all; }}")
    return "\n".join(lines) + "\n"


def errors(code: str, headers: Path = CSRC) -> str:
    """Return what the compiler has against ``code``."""
    try:
        command = shlex.split(build.compiler())
    except build.BuildError as error:
        cannot_run(f"needs a C++ compiler: {error}")
    includes = "".join(f'#include "{name}"\n' for name in HEADERS)
    source = f"#include <cstddef>\n#include <type_traits>\n{includes}{code}"
    flags = ["-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", f"-I{headers}", "-xc++", "-"]
    done = subprocess.run(
        [*command, *flags], input=source, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ("error:" not in done.stderr), done.stderr
    return done.stderr if done.returncode else ""


def test_they_are_up_to_date() -> None:
    assert written.TARGET.read_text() == written.text(), "run `python csrc/structs.py`"


def test_numbers_that_are_said_elsewhere_too() -> None:
    assert look._MAX_DIMENSIONS == structs.LARES_DIMENSIONS
    assert len(probe._inputs()[0]) == structs.LARES_CUDA_PROBE_INPUTS


def test_every_struct_and_number_of_the_headers_is_here() -> None:
    text = "".join((CSRC / name).read_text() for name in HEADERS)
    assert {*STRUCTS} == {*re.findall(r"^} (Lares\w+);$", text, re.MULTILINE)}
    numbers = re.findall(r"^#define (LARES_\w+) [0-9]+", text, re.MULTILINE)
    assert {*NUMBERS} == {*numbers, "LARES_PARAMETERS"}


def test_structs_and_numbers_are_those_of_the_headers() -> None:
    code = "".join(declared(name, struct) for name, struct in STRUCTS.items())
    for name, number in NUMBERS.items():
        code += f'static_assert({name} == {number}, "{name}");\n'
    assert errors(code) == ""


def inserted(fields: Fields) -> Fields:
    return [*fields[:4], ("more", ctypes.c_int32), *fields[4:]]


def swapped(fields: Fields) -> Fields:
    return [*fields[:1], fields[2], fields[1], *fields[3:]]


def retyped(fields: Fields) -> Fields:
    return [*fields[:1], (fields[1][0], ctypes.c_float), *fields[2:]]


# LaresCudaUnpack has seven words of 4 bytes, then pointers: an eighth moves nothing.
def filling_a_gap(fields: Fields) -> Fields:
    return [*fields[:7], ("more", ctypes.c_int32), *fields[7:]]


@pytest.mark.parametrize("change", [filling_a_gap, inserted, swapped, retyped])
def test_a_change_in_python_is_seen(change: Callable[[Fields], Fields]) -> None:
    fields = change([*structs.LaresCudaUnpack._fields_])  # type: ignore[misc]
    changed = type("Changed", (ctypes.Structure,), {"_fields_": fields})
    found = errors(declared("LaresCudaUnpack", changed))
    assert "LaresCudaUnpack" in found


@pytest.mark.parametrize(
    ("header", "old", "new"),
    [
        pytest.param("lares_kernels.h", "d_model, n_heads,", "n_heads, d_model,", id="swapped"),
        pytest.param(
            "lares_kernels.h", "int64_t padding;", "int64_t padding, more;", id="inserted"
        ),
        pytest.param(
            "lares_kernels.h",
            "double eps, state_scale;",
            "double eps; int64_t state_scale;",
            id="retyped",
        ),
        pytest.param(
            "lares_kernels.h", "#define LARES_ABI 6", "#define LARES_ABI 7", id="another number"
        ),
        pytest.param(
            "lares_cuda.h",
            "vector_numbers, count;",
            "vector_numbers, count, more;",
            id="filling a gap",
        ),
    ],
)
def test_a_change_in_a_header_is_seen(header: str, old: str, new: str, tmp_path: Path) -> None:
    for name in HEADERS:
        text = (CSRC / name).read_text()
        assert name != header or old in text
        (tmp_path / name).write_text(text.replace(old, new) if name == header else text)
    code = "".join(declared(name, struct) for name, struct in STRUCTS.items())
    code += f"static_assert(LARES_ABI == {structs.LARES_ABI});"
    assert errors(code, tmp_path)


# Of all structs of a library, by the number that it is asked for.
LAYOUTS = {"LARES_ABI": (6, "3c15914f0569ec34"), "LARES_CUDA_ABI": (8, "baeb5ea38e37f422")}


@pytest.mark.parametrize("number", LAYOUTS)
def test_other_structs_have_another_number(number: str) -> None:
    """After a change raise the number in the header: an older library takes no such calls."""
    cuda = number == "LARES_CUDA_ABI"
    found = [declared(*each) for each in STRUCTS.items() if each[0].startswith("LaresCuda") == cuda]
    digest = hashlib.sha256("".join(found).encode()).hexdigest()[:16]
    assert LAYOUTS[number] == (NUMBERS[number], digest)
