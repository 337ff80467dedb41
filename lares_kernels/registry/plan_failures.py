"""Record plans that a device could not compile or start, and choose others.

A backend has one plan for a call, or several, the preferred one first. Whether a plan's kernels compile
and start on a device shows at their first launch. :func:`run_first` runs the first plan that does, logs
once what it passed over, and retries no failed plan in this process. A failure of the machine (no C
compiler, a card that the compiler does not know) counts for all of a backend's plans on that device.

Errors that are not about compiling and starting, such as too little memory or a fault of a running
kernel, are raised unchanged.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch

from lares_kernels.spec.errors import BackendError, PlanFailure

T = TypeVar("T")
_log = logging.getLogger(__name__)


class AnyPlan(Protocol):
    """Describe one way in which a backend can run a call: a :class:`Plan`, possibly extended."""

    @property
    def backend(self) -> str: ...
    @property
    def words(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def code(self) -> tuple[Hashable, ...]: ...


P = TypeVar("P", bound=AnyPlan)


class Plan(NamedTuple):
    """Identify one way in which a backend can run a call.

    Attributes:
        backend: name of the backend.
        words: description for messages.
        device: the device it would run on.
        code: key of the compiled kernels, beside the backend and the device.
    """

    backend: str
    words: str
    device: torch.device
    code: tuple[Hashable, ...]


class Cause(NamedTuple):
    """Hold the reason why kernels did not start.

    Attributes:
        of_machine: no kernel of the backend would start on that device.
        remedy: what a user can do.
    """

    of_machine: bool
    remedy: str


class _Failure(NamedTuple):
    words: str  # of the plan that met it
    reason: str
    remedy: str


_COMPILER = Cause(True, "install a C compiler (gcc or clang) or name one in CC")
_HEADERS = Cause(True, "install Python's headers (python3-dev), which Triton's launchers include")
_STUB = Cause(True, "see that the C compiler that CC names works here, with Python's headers")
_CACHE = Cause(
    True, "see that CC names a C compiler and that Triton's cache (TRITON_CACHE_DIR) can be written"
)
_CARD = Cause(
    True, "take a version of the driver, and of Triton or the CUDA kernels, that knows this card"
)
_ROOM = Cause(False, "a card that gives a program more shared memory and registers runs it")
_REPORT = Cause(
    False, "report it, with what `lares doctor --check` prints, unless Triton knows no such card"
)
# Prefixes of failed launches' messages: without one, _OF_STARTING's words may be another error's.
_STARTING = ("triton error [", "the cuda kernels did not start")
_OF_STARTING = {
    "no kernel image": _CARD,
    "device kernel image is invalid": _CARD,
    "unsupported toolchain": _CARD,
    "ptx": _CARD,  # compiled by a newer version, or there is no compiler for it
    "driver version is insufficient": _CARD,
    "no device": _CARD,
    "no cuda-capable device": _CARD,
    "too many resources requested": _ROOM,
    "invalid value": _ROOM,
    "invalid argument": _ROOM,
    "invalid configuration": _ROOM,
    "no kernel is compiled": _REPORT,
    "no backward kernel is compiled": _REPORT,
}
_OF_COMPILING = {
    "failed to find c compiler": _COMPILER,
    "failed to load newly compiled": _STUB,
    "active drivers": _CARD,
    "only support cuda": _CARD,
    "cannot find ptxas": Cause(True, "install Triton again, or name ptxas in TRITON_PTXAS_PATH"),
    "passmanager::run failed": _REPORT,
    "failed to translate": _REPORT,
}
# What compilers call an architecture that they do not know.
_UNKNOWN_CARD = ("gpu-name", "unsupported architecture", "unsupported target", "not a recognized")


def cause_of(error: BaseException) -> Cause | None:
    """Return why kernels could not be compiled or started; None if ``error`` is not about that."""
    # A time limit is the caller's, who may try again with more.
    if isinstance(error, (torch.OutOfMemoryError, PlanFailure, TimeoutError)):
        return None
    if isinstance(error, subprocess.CalledProcessError):  # the compiler of Triton's launchers
        import sysconfig  # which nothing else needs

        header = Path(sysconfig.get_paths()["include"]) / "Python.h"
        return _STUB if header.is_file() else _HEADERS
    if isinstance(error, ImportError):  # of what was compiled for another Python, not of ours
        return None if (error.name or "").startswith("lares") else _CACHE
    if isinstance(error, OSError):
        return _CACHE
    text = str(error).lower()
    if _is_tritons(error):
        if type(error).__name__ == "OutOfResources":
            return _ROOM
        return _CARD if any(words in text for words in _UNKNOWN_CARD) else _REPORT
    if not isinstance(error, RuntimeError):
        return None
    known = dict(_OF_COMPILING)
    if text.startswith(_STARTING):
        known |= _OF_STARTING
    return next((cause for words, cause in known.items() if words in text), None)


def _is_tritons(error: BaseException) -> bool:
    """Return True if Triton's compiler raised the error; its interpreter passes on any error."""
    classes = {
        each.__name__ for each in type(error).__mro__ if each.__module__.startswith("triton.")
    }
    return bool(classes) and "InterpreterError" not in classes


_Key = tuple[str, str, tuple[Hashable, ...]]
_failures: dict[_Key, _Failure] = {}
_said: set[str] = set()
_met: ContextVar[list[str] | None] = ContextVar("lares_plan_failures", default=None)


def forget() -> None:
    """Try every plan again, as a new process would."""
    _failures.clear()
    _said.clear()


@contextlib.contextmanager
def failures_met() -> Iterator[list[str]]:
    """Collect what plans inside failed of, then or earlier."""
    met: list[str] = []
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


def _place(device: torch.device) -> str:
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device() if torch.cuda.is_initialized() else 0}"
    return str(device)


def _found(plan: AnyPlan) -> _Failure | None:
    place = _place(plan.device)
    machine = _failures.get((plan.backend, place, ()))
    return machine or _failures.get((plan.backend, place, plan.code))


def run_first(plans: Sequence[P], run: Callable[[P], T]) -> T:
    """Run the first of ``plans`` whose kernels start.

    Args:
        plans: of one backend and device, the preferred one first; at least one.
        run: runs one; if it raises, it has no side effects.

    Raises:
        PlanFailure: none of them starts; the message says why, and what can be done.
        Exception: whatever ``run`` raises that is not about compiling and starting kernels.
    """
    passed_over: list[_Failure] = []
    for plan in plans:
        failure = _found(plan)
        if failure is None:
            try:
                result = run(plan)
            except Exception as error:
                cause = cause_of(error)
                if cause is None:
                    raise
                failure = _keep(plan, error, cause)
            else:
                _say(plan, passed_over)
                return result
        if failure not in passed_over:
            passed_over.append(failure)
    raise PlanFailure(_none_left(plans, passed_over))


def first_left(plans: Sequence[P]) -> P:
    """Return the first of ``plans`` that has not failed, as :func:`run_first` would take it.

    Raises:
        PlanFailure: all have failed.
    """
    passed_over: list[_Failure] = []
    for plan in plans:
        failure = _found(plan)
        if failure is None:
            return plan
        if failure not in passed_over:
            passed_over.append(failure)
    raise PlanFailure(_none_left(plans, passed_over))


def _keep(plan: AnyPlan, error: Exception, cause: Cause) -> _Failure:
    failure = _Failure(plan.words, _line_of(error)[:300], cause.remedy)
    code = () if cause.of_machine else plan.code
    return _failures.setdefault((plan.backend, _place(plan.device), code), failure)


def _line_of(error: Exception) -> str:
    """Return the one line of an error that says most."""
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd if isinstance(error.cmd, str) else error.cmd[0]
        return f"{command} failed with status {error.returncode}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    fatal = next((line for line in lines if "fatal" in line), None)  # among what ptxas prints
    at_the_end = lines[0].startswith("at ")  # after the source that is not understood
    name = type(error).__name__
    return f"{name}: {fatal or lines[-1 if at_the_end else 0]}".removeprefix("RuntimeError: ")


def _none_left(plans: Sequence[AnyPlan], failures: Sequence[_Failure]) -> str:
    """Report in one line that none of ``plans`` starts, why, and what can be done."""
    reasons = "; ".join(f"{failure.words}: {failure.reason}" for failure in failures)
    remedies = "; ".join(dict.fromkeys(failure.remedy for failure in failures))
    met = _met.get()
    if met is not None:
        met.append(reasons)
    return f"its kernels do not start on {_place(plans[0].device)} ({reasons}); to use them, {remedies}"


def _say(plan: AnyPlan, passed_over: list[_Failure]) -> None:
    """Log once what was passed over on the way to ``plan``."""
    if not passed_over:
        return
    reasons = "; ".join(f"{failure.words} ({failure.reason})" for failure in passed_over)
    remedies = "; ".join(dict.fromkeys(failure.remedy for failure in passed_over))
    met = _met.get()
    if met is not None:
        met.append(reasons)
    text = (
        f"backend {plan.backend!r} runs calls on {_place(plan.device)} by {plan.words}, because others "
        f"did not start: {reasons}; to use them, {remedies}"
    )
    if text not in _said:
        _said.add(text)
        _log.warning("%s", text)


def by_name_alone(run: Callable[[], T]) -> T:
    """Run what no other backend may run instead.

    Raises:
        BackendError: that is no longer a :class:`PlanFailure`, where ``run`` raises one.
    """
    try:
        return run()
    except PlanFailure as failure:
        raise BackendError(str(failure)) from failure
