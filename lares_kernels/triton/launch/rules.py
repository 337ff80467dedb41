"""Define the rules by which kernels are launched, and read the files that hold them.

A file is a JSON array of objects with the fields of :class:`Setting`, the preferred rules first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from lares_kernels.common.settings_files import read_json, require_known
from lares_kernels.spec.config import MIXERS

KERNELS = ("forward", "backward", "weights")
PRECISIONS = ("half", "tf32", "ieee")
WEIGHTS = ("resident", "streamed")
_MOST = {"rows": 128, "chunk": 1024, "warps": 32, "stages": 8, "programs": 32, "registers": 255}
_POWERS = ("rows", "chunk", "warps")


@dataclass(frozen=True)
class Setting:
    """Hold a way to launch a kernel, and which calls it serves.

    Attributes:
        kernel: ``forward``, ``backward`` or ``weights`` (the weights' gradients).
        precision: of products, ``ieee``, ``tf32`` or ``half``.
        most_width: greatest padded width ``d`` of a token.
        most_layers: greatest number of layers.
        rows: of a tile; sequences may be as long. (``weights``: tokens multiplied at a time.)
        chunk: most columns of the feed-forward in registers at a time.
        warps, stages: of a program, as Triton's ``num_warps`` and ``num_stages``.
        programs: for each multiprocessor.
        resident: forward keeps all matrices in shared memory, read once. Only if those of all
            ``programs`` of a multiprocessor fit it.
        registers: most registers of a thread, so that more programs fit a multiprocessor; 0 leaves it
            to the compiler. NVIDIA only.
        mixers: cores served. A rule is for those whose kernel spills no registers by it
            (docs/results/performance.md); calls without a rule are the layered plan's.
    """

    kernel: str
    precision: str
    most_width: int
    most_layers: int
    rows: int
    chunk: int
    warps: int
    stages: int
    programs: int
    resident: bool = False
    registers: int = 0
    mixers: tuple[str, ...] = MIXERS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixers", tuple(self.mixers))  # JSON has lists

    @property
    def weights(self) -> str:
        """Return where forward's matrices are, one of ``WEIGHTS``."""
        return WEIGHTS[0] if self.resident else WEIGHTS[1]


def read_rules(path: Path) -> tuple[Setting, ...]:
    """Return the rules of a file.

    Raises:
        ValueError: it cannot be read, or a rule is invalid; the message names file, rule and field.
    """
    found = read_json(path, list, "an array of rules")
    return tuple(_rule(f"{path}, rule {number}", given) for number, given in enumerate(found, 1))


def write_rules(path: Path, rules: Sequence[Setting]) -> None:
    """Write rules, a line each, without the fields that are as by default."""
    lines = [f"  {json.dumps(_as_dict(rule))}" for rule in rules]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _as_dict(rule: Setting) -> dict[str, Any]:
    values = {field.name: getattr(rule, field.name) for field in fields(rule)}
    return {
        field.name: values[field.name]
        for field in fields(rule)
        if field.default is MISSING or field.default != values[field.name]
    }


def _rule(where: str, given: Any) -> Setting:
    if not isinstance(given, dict):
        raise ValueError(f"{where} is no object")
    known = {field.name: field for field in fields(Setting)}
    require_known(where, given, known)
    for name, field in known.items():
        if field.default is MISSING and name not in given:
            raise ValueError(f"{where} lacks the field {name!r}")
    choices = {"kernel": KERNELS, "precision": PRECISIONS}
    for name, value in given.items():
        if name in choices and value not in choices[name]:
            raise ValueError(f"{where}: {name} is {value!r}; there are {', '.join(choices[name])}")
        if name == "mixers" and not (
            isinstance(value, list) and set(map(str, value)) <= set(MIXERS)
        ):
            raise ValueError(f"{where}: mixers is {value!r}; there are {', '.join(MIXERS)}")
        if name == "resident" and not isinstance(value, bool):
            raise ValueError(f"{where}: resident is {value!r}; it must be true or false")
        if name in (*_MOST, "most_width", "most_layers"):
            _require_number(where, name, value)
    return Setting(**given)


def _require_number(where: str, name: str, value: Any) -> None:
    least, most = 0 if name == "registers" else 1, _MOST.get(name)
    if name == "rows":
        least = 16
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        to = "up" if most is None else f"to {most}"
        raise ValueError(
            f"{where}: {name} is {value!r}; it must be a whole number from {least} {to}"
        )
    if name in _POWERS and value & (value - 1):
        raise ValueError(f"{where}: {name} is {value}; it must be a power of two")
