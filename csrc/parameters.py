"""Write parameters.inc, the parameters of a core as C reads them: ``python csrc/parameters.py``.

It is generated from the table of lares_kernels/spec/parameters.py, again whenever that changes.
"""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from lares_kernels.spec.parameters import PARAMETERS, Parameter, Side  # noqa: E402

TARGET = HERE / "parameters.inc"
HEAD = """\
/* Made by parameters.py from lares_kernels/spec/parameters.py; not to be changed by hand.
 *
 * Of every parameter LARES_PARAMETER(name, place, layers, rows, columns, there): its place in
 * LaresCall, over how many layers it is stacked, the sides of a layer's, and whether a core has it.
 * A side is side(groups, width), or one_row, a vector's. Who includes this defines LARES_PARAMETER
 * and of layers, d, f, frequencies, mixer, adapter, side and one_row what that makes use of. */
"""


def c_name(parameter: Parameter) -> str:
    """Return the name of its place."""
    return "k" + "".join(word.capitalize() for word in parameter.name.split("_"))


def condition(parameter: Parameter) -> str:
    """Return when a core has it."""
    if parameter.where == "core":
        return "adapter != LARES_ADAPTER_NONE"
    kind = "mixer" if parameter.where == "layer" else "adapter"
    choices = (f"{kind} == LARES_{kind.upper()}_{name.upper()}" for name in parameter.of)
    return " || ".join(choices) or "true"


def side(sides: tuple[Side, ...]) -> str:
    """Return sides as one, of which at most one has a width."""
    widths = [each.width for each in sides if each.width != "one"]
    return f"side({prod(each.groups for each in sides)}, {''.join(widths) or '1'})"


def line(parameter: Parameter) -> str:
    """Return the line of a parameter."""
    is_vector = len(parameter.sides) < 2
    columns = parameter.sides if is_vector else parameter.sides[1:]
    parts = (
        c_name(parameter),
        str(parameter.place),
        "layers" if parameter.where == "layer" else "1",
        "one_row" if is_vector else side(parameter.sides[:1]),
        side(columns),
        condition(parameter),
    )
    return f"LARES_PARAMETER({', '.join(parts)})\n"


def text(parameters: tuple[Parameter, ...]) -> str:
    """Return the file of a table, in the order of places."""
    return HEAD + "".join(line(p) for p in sorted(parameters, key=lambda p: p.place))


if __name__ == "__main__":
    TARGET.write_text(text(PARAMETERS), encoding="utf-8")
