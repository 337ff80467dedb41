"""Write lares_enums.h, C's names of lares_kernels/spec/choices.py: ``python csrc/enums.py``.

It also says how many places spec/parameters.py has for a core's parameters.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from lares_kernels.spec import choices  # noqa: E402
from lares_kernels.spec.parameters import PLACES  # noqa: E402

HEADER = HERE / "lares_enums.h"
# What stands before a member's name in C.
PREFIXES: dict[type[choices.Choice], str] = {
    choices.Adapter: "LARES_ADAPTER_",
    choices.Mixer: "LARES_MIXER_",
    choices.Activation: "LARES_",
    choices.Norm: "LARES_NORM_",
    choices.Padding: "LARES_PADDING_",
    choices.StateMode: "LARES_STATE_",
    choices.Precision: "LARES_",
    choices.Scores: "LARES_",
    choices.Code: "LARES_",
    choices.NumberType: "LARES_",
    choices.Function: "LARES_",
}
_COLUMNS = 96


def comment(text: str) -> str:
    """Return a C comment of one or more lines."""
    words = " ".join(text.replace("``", "").split())
    return "\n".join(textwrap.wrap(f"/* {words} */", _COLUMNS, subsequent_indent=" * "))


def enum(choice: type[choices.Choice], prefix: str) -> str:
    """Return the C enum of a choice, its docstring before it."""
    lines = [comment(choice.__doc__ or ""), "enum {"]
    for member in choice:
        if " " in member.text:  # a meaning, not a name
            lines.append(f"    {comment(member.text)}")
        lines.append(f"    {prefix}{member.name} = {member.value},")
    return "\n".join([*lines, "};"])


def header() -> str:
    """Return the text of lares_enums.h."""
    parts = [
        "/* Made of lares_kernels/spec/choices.py by `python csrc/enums.py`: change that, run this. */",
        "#ifndef LARES_ENUMS_H\n#define LARES_ENUMS_H",
        *(enum(choice, prefix) for choice, prefix in PREFIXES.items()),
        "/* Places of parameters; NULL for those that a core does not have. */\n"
        f"enum {{ LARES_PARAMETERS = {PLACES} }};",
        "#endif",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="utf-8")
