"""How kernels are launched on each family of GPUs: data, found by the coarsest of keys.

``settings/FAMILY.json`` lists rules for each kernel; the first one serves that has room for the call.
Nothing is tuned while a program runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Setting:
    """A way to launch a kernel, and which calls it serves.

    Attributes:
        kernel: ``forward``, ``backward`` or ``weights`` (the weights' gradients).
        precision: of products, ``ieee``, ``tf32`` or ``half``.
        most_width: greatest padded width ``d`` of a token.
        most_layers: greatest number of layers.
        rows: of a tile; sequences may be as long. (``weights``: tokens multiplied at a time.)
        chunk: most columns of the feed-forward in registers at a time.
        warps, stages: of a program, as Triton's ``num_warps`` and ``num_stages``.
        programs: for each multiprocessor.
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


@cache
def settings(family: str) -> tuple[Setting, ...]:
    """All rules of a family of GPUs, the preferred ones first."""
    path = _FOLDER / f"{family}.json"
    return tuple(Setting(**rule) for rule in json.loads(path.read_text(encoding="utf-8")))


def families() -> list[str]:
    """Every family there are settings for."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


@cache
def longest_sequence(family: str, precision: str, width: int, layers: int) -> int:
    """Tokens of the longest sequence that fits a tile forward and backward; 0 if none does."""
    longest = []
    for kernel in ("forward", "backward"):
        fitting = [
            rule.rows for rule in settings(family) if _fits(rule, kernel, precision, width, layers)
        ]
        longest.append(max(fitting, default=0))
    return min(longest)


def _fits(rule: Setting, kernel: str, precision: str, width: int, layers: int) -> bool:
    return (
        rule.kernel == kernel
        and rule.precision == precision
        and width <= rule.most_width
        and layers <= rule.most_layers
    )


@cache
def setting(
    family: str, kernel: str, precision: str, width: int, layers: int, longest: int
) -> Setting:
    """The rule for a call whose sequences have up to ``longest`` tokens.

    Raises:
        ValueError: no rule of the family has room for it.
    """
    for rule in settings(family):
        if _fits(rule, kernel, precision, width, layers) and longest <= rule.rows:
            return rule
    raise ValueError(
        f"no setting of {family} for kernel {kernel} in {precision} with width {width}, "
        f"{layers} layers and sequences of {longest} tokens"
    )


@cache
def family_of(device: torch.device) -> str:
    """The family whose settings serve a device; the CPU is Triton's interpreter."""
    if device.type == "cpu":
        return "interpreter"
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    # Consumer cards (major 12) have the shared memory of Ampere's.
    return {9: "sm90", 10: "sm100", 11: "sm100"}.get(major, "sm80")


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a device; the interpreter runs programs one after the other, and a few show the loop."""
    if device.type == "cpu":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
