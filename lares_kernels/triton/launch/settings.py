"""Find how kernels are launched on a family of GPUs.

``settings/FAMILY.json`` lists rules for each kernel; the first one with room for the call serves it.
Nothing is tuned at run time: ``LARES_TRITON_SETTINGS`` names a folder whose files of these names, such
as ``python -m benchmarks.gpu.sweep`` writes, replace those here. Some calls can either keep their
matrices on the chip or read them again for every layer: :func:`use_weights` selects one of the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch

from lares_kernels.common.settings_files import named_file, named_files, replaced
from lares_kernels.triton.launch.rules import WEIGHTS, Setting, read_rules

ENVIRONMENT_VARIABLE = "LARES_TRITON_SETTINGS"
_FOLDER = Path(__file__).parent / "settings"
# Shared memory that a forward program with resident matrices takes besides them, bytes: 8 KiB for the
# published core, at most this for others (tests/kernels/triton/test_triton_aot.py).
BESIDES = 16 << 10
_requested: ContextVar[str | None] = ContextVar("lares_triton_weights", default=None)


@contextlib.contextmanager
def use_weights(where: str) -> Iterator[None]:
    """Choose among forward's rules those whose matrices are ``where``, in this thread or task.

    Args:
        where: ``resident`` or ``streamed``.

    Raises:
        ValueError: there is no such place, or (from the call) no such rule has room for it.
    """
    if where not in WEIGHTS:
        raise ValueError(f"weights are {' or '.join(WEIGHTS)}, not {where!r}")
    token = _requested.set(where)
    try:
        yield
    finally:
        _requested.reset(token)


def requested_weights() -> str | None:
    """Return what :func:`use_weights` requests here."""
    return _requested.get()


def rules_file(family: str) -> Path:
    """Return the file with a family's rules: the user's, where ``LARES_TRITON_SETTINGS`` has one.

    Raises:
        ValueError: there is no such folder.
    """
    name = f"{family}.json"
    return named_file(ENVIRONMENT_VARIABLE, name) or _FOLDER / name


def files_of_rules() -> list[Path]:
    """Return the files that rules may come from, for who wants to know what kernels are made of."""
    return [*sorted(_FOLDER.glob("*.json")), *named_files(ENVIRONMENT_VARIABLE, "*.json")]


_replaced: dict[str, tuple[Setting, ...]] = {}


@cache
def settings(family: str) -> tuple[Setting, ...]:
    """Return a family's rules, preferred ones first; files are read once in a process."""
    if family in _replaced:
        return _replaced[family]
    return read_rules(rules_file(family))


def use_rules(family: str, rules: Sequence[Setting]) -> AbstractContextManager[None]:
    """Apply ``rules`` alone to a family of GPUs within the block, in the whole process."""
    return replaced(_replaced, family, tuple(rules), _forget)


def _forget() -> None:
    for kept in (settings, setting, longest_sequence):
        kept.cache_clear()


def families() -> list[str]:
    """Return every family that has settings."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


@cache
def longest_sequence(
    family: str, kernel: str, precision: str, width: int, layers: int, mixer: str
) -> int:
    """Return the length of the longest sequence that fits a tile of ``kernel``; 0 if none does."""
    return max(
        (
            rule.rows
            for rule in settings(family)
            if not rule.resident and _fits(rule, kernel, precision, width, layers, mixer)
        ),
        default=0,
    )


def _fits(rule: Setting, kernel: str, precision: str, width: int, layers: int, mixer: str) -> bool:
    return (
        rule.kernel == kernel
        and rule.precision == precision
        and width <= rule.most_width
        and layers <= rule.most_layers
        and mixer in rule.mixers
    )


@cache
def setting(
    family: str,
    kernel: str,
    precision: str,
    width: int,
    layers: int,
    mixer: str,
    longest: int,
    matrix_bytes: int = 0,
    shared: int = 0,
    weights: str | None = None,
) -> Setting:
    """Return the rule for a call whose sequences have up to ``longest`` tokens.

    Args:
        family, kernel, precision, width, layers, mixer: key of the rules.
        longest: greatest length of a sequence.
        matrix_bytes: of the packed matrices of all layers, for forward.
        shared: memory that a program of the device can have, bytes.
        weights: where forward's matrices must be; None: where the first rule with room has them.

    Raises:
        ValueError: no rule of the family has room for it.
    """
    for rule in settings(family):
        if not _fits(rule, kernel, precision, width, layers, mixer) or longest > rule.rows:
            continue
        if rule.resident and rule.programs * (matrix_bytes + BESIDES) > shared:
            continue
        if kernel != "forward" or weights in (None, rule.weights):
            return rule
    asked = "" if weights is None else f" and {weights} weights of {matrix_bytes} bytes"
    raise ValueError(
        f"no setting of {family} for kernel {kernel} in {precision} with width {width}, "
        f"{layers} layers, mixer {mixer}, sequences of {longest} tokens{asked}"
    )


@cache
def family_of(device: torch.device) -> str:
    """Return the family whose settings serve a device; the CPU is Triton's interpreter."""
    if device.type == "cpu":
        return "interpreter"
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    # Consumer cards (major 12) have the shared memory of Ampere's.
    return {9: "sm90", 10: "sm100", 11: "sm100"}.get(major, "sm80")


@cache
def multiprocessors(device: torch.device) -> int:
    """Return a device's multiprocessors; a few for the interpreter, enough to exercise the loop."""
    if device.type == "cpu":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory available to a program; the interpreter has a H100's.

    0 for AMD's cards: torch does not report it, and their settings do not need it.
    """
    if device.type == "cpu":
        return 232_448
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", 0))
