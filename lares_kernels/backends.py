"""Which program runs a call: the registry of backends and the choice among them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from lares_kernels import self_check
from lares_kernels.call import RefineCall, Request
from lares_kernels.circumstances import (
    Circumstances,
    circumstances,
    getenv,
    is_capturing,
    on_device,
)
from lares_kernels.cpu import CpuBackend
from lares_kernels.cuda.backend import CudaBackend
from lares_kernels.errors import BackendError, PlanFailure
from lares_kernels.parameters import parameter_shapes
from lares_kernels.recurrence import refine_backward, refine_forward
from lares_kernels.triton.backend import TritonBackend

ENVIRONMENT_VARIABLE = "LARES_BACKEND"
_log = logging.getLogger(__name__)
_IN_BYTES = ENVIRONMENT_VARIABLE.encode()
_asked_for: ContextVar[str | None] = ContextVar("lares_backend", default=None)


class Backend(Protocol):
    """One implementation of the recurrence, forward and backward."""

    name: str
    automatic: bool  # whether it is used without being asked for by name
    any_size: bool  # whether the same code runs whatever the sizes of a core
    starts_kernels: (
        bool  # whether a device may turn out to be unable to compile or start its kernels
    )

    def availability(self) -> str | None:
        """None if the backend can run on this machine at all, else why not."""

    def verify(self, request: Request) -> str | None:
        """None if the backend can serve such calls, else why not."""

    def build(self, product_dtype: torch.dtype) -> str | None:
        """Identify the code that would run, by what it is made of; None if it needs no check."""

    def plan(self, call: RefineCall, device_type: str) -> str:
        """In one sentence, how the backend would run ``call``."""

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence without autograd.

        Args:
            call: what to run; its values are not checked yet.
            hidden: as the caller has it, padded or packed.
            state: of ``call.state_shape``, or None to draw it (or take zero) as the call says.
            parameters: in the order of :func:`lares_kernels.parameters.parameter_shapes`.

        Returns:
            trajectory (S, T, d); final state of ``call.state_shape``, empty where it is not wanted;
            ``call.kept_size`` numbers that ``backward`` of the same backend takes; all in the state's
            type. Those of ``starts_kernels`` and of ``reference`` take what any of them kept: see
            :func:`kept_states`.

        Raises:
            PlanFailure: none of its plans could be compiled and started on the device.
        """

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: list[Tensor],
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> list[Tensor]:
        """Gradients of hidden, of every parameter, and of the state if there is one."""


class ReferenceBackend:
    """Plain PyTorch with the hand-written backward; runs wherever torch does."""

    name = "reference"
    automatic = True
    any_size = True
    starts_kernels = False

    def availability(self) -> str | None:
        return None

    def verify(self, request: Request) -> str | None:
        return None

    def build(self, product_dtype: torch.dtype) -> str | None:
        return None

    def plan(self, call: RefineCall, device_type: str) -> str:
        kept = f"{call.options.max_steps} states kept, steps recomputed in backward"
        if not call.config.is_recurrent:
            kept = "layers recomputed in backward"
        return (
            f"plain PyTorch on {device_type}, {call.n_rows} packed tokens of "
            f"{call.n_sequences} sequences, products in {call.product_dtype}; {kept}"
        )

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        call.check_values()
        rows = call.pack_hidden(hidden)
        first = None if state is None else call.pack_state(state)
        with torch.autocast(hidden.device.type, enabled=False):
            result, states = refine_forward(call, rows, first, named(call, parameters))
        final = call.unpack_state(result.state) if call.options.wants_state else states.new_empty(0)
        kept = states.new_empty(call.kept_size)
        if kept.numel():
            order = call.kept_order
            kept_states(call, kept).copy_(states if order is None else states[:, order])
        return result.trajectory, final, kept

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: list[Tensor],
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> list[Tensor]:
        call.check_values()
        rows = call.pack_hidden(hidden)
        states = kept_states(call, kept).to(call.state_dtype)
        if call.kept_order is not None:
            states = torch.empty_like(states).index_copy_(1, call.kept_order, states)
        g_rows = None if g_state is None else call.pack_state(g_state)
        by_name = named(call, parameters)
        with torch.autocast(hidden.device.type, enabled=False):
            grads = refine_backward(call, rows, by_name, states, g_trajectory, g_rows)
        g_first = [] if state is None or grads.state is None else [call.unpack_state(grads.state)]
        return [call.unpack_hidden(grads.hidden), *(grads.parameters[n] for n in by_name), *g_first]


def kept_states(call: RefineCall, kept: Tensor) -> Tensor:
    """Return ``s_0 .. s_{T-1}`` (T, N, d) where backends that may run each other's backward keep them:
    the rows of a step by ``call.kept_order``, then room for padding."""
    d, steps = call.config.d_model, call.options.max_steps if call.config.is_recurrent else 0
    size = steps * call.kept_rows * d
    return kept[:size].view(steps, call.kept_rows, d)[:, : call.n_rows]


def named(call: RefineCall, parameters: list[Tensor]) -> dict[str, Tensor]:
    """The parameters by name."""
    return dict(zip(parameter_shapes(call.config), parameters, strict=True))


class EquationsBackend(ReferenceBackend):
    """The equations as written, differentiated by autograd.

    It keeps every activation of every step. For proofs, for double backward and for ``torch.func``:
    it is used only where it is asked for.
    """

    name = "equations"
    automatic = False

    def plan(self, call: RefineCall, device_type: str) -> str:
        return f"the equations in plain PyTorch on {device_type}, differentiated by autograd"


# In order of preference of the automatic choice.
_BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        CpuBackend(),
        CudaBackend(),
        TritonBackend(),
        ReferenceBackend(),
        EquationsBackend(),
    )
}


def available_backends() -> dict[str, str]:
    """Every backend by name: ``"usable"``, or why it cannot run on this machine."""
    return {name: backend.availability() or "usable" for name, backend in _BACKENDS.items()}


def backend_named(name: str) -> Backend:
    """The backend of that name."""
    return _BACKENDS[name]


_CHOSEN = "auto:"  # before the name of a backend that nobody asked for
_T = TypeVar("_T")
_B = TypeVar("_B", bound="_Startable")


class _Startable(Protocol):
    name: str
    automatic: bool
    starts_kernels: bool


def operators_name(backend: _Startable) -> str:
    """Return how operators are told to run a call on ``backend``, or on the next one where it does not
    start and nobody asked for it by name."""
    asked, _ = asked_backend()
    return _CHOSEN + backend.name if asked is None and backend.starts_kernels else backend.name


def plain_name(name: str) -> str:
    """Return the backend's own name of what :func:`operators_name` gave."""
    return name.removeprefix(_CHOSEN)


def may_pass_on(name: str) -> bool:
    """Return whether :func:`operators_name` lets another backend run what does not start."""
    return name.startswith(_CHOSEN)


def first_that_starts(
    name: str, among: Mapping[str, _B], refusal: Callable[[_B], str | None], run: Callable[[_B], _T]
) -> tuple[_T, dict[str, str]]:
    """Run a call on a backend that was chosen for it, or on the next one where it does not start.

    Args:
        name: as :func:`operators_name` gives it.
        among: all backends in order of preference.
        refusal: says why one cannot serve the call, or None; of the chosen one too, which another
            machine may have chosen for a program that was exported there.
        run: runs it on one.

    Returns:
        What ``run`` gives, and for each backend passed over why, which is logged once.

    Raises:
        BackendError: no automatic backend is left.
    """
    chosen = plain_name(name)
    order = [*among]
    passed_over: dict[str, str] = {}
    for candidate in order[order.index(chosen) :]:
        backend = among[candidate]
        if candidate != chosen and not backend.automatic:
            continue
        reason = refusal(backend)
        if reason is None:
            try:
                result = run(backend)
            except PlanFailure as failure:
                reason = str(failure)
            else:
                log_once(candidate, passed_over)
                return result, passed_over
        passed_over[candidate] = reason
    raise BackendError(f"no backend can run this call: {passed_over}")


def run_chosen(
    name: str, call: RefineCall, device: torch.device, run: Callable[[Backend], _T]
) -> tuple[_T, dict[str, str]]:
    """Run a call's forward or backward likewise; ``device`` is that of its tensors."""
    request = Request(call.config, device.type, call.product_dtype)
    now = circumstances(device.type, device.index)

    def refusal(backend: Backend) -> str | None:
        def ask() -> str | None:
            with on_device(device.type, device.index):
                return why_not(backend, request)

        return _refusals.of((backend.name, request, now), device.type, ask)

    return first_that_starts(name, _BACKENDS, refusal, run)


class Refusals:
    """Why backends cannot serve calls, asked for once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, str | None] = {}

    def of(self, call: Hashable, device_type: str, ask: Callable[[], str | None]) -> str | None:
        """Return why a backend cannot serve a kind of calls, or None; ``ask`` finds it out."""
        if call not in self._known:
            reason = ask()
            if is_capturing(device_type):  # nothing is checked then
                return reason
            self._known[call] = reason
        return self._known[call]

    def forget(self) -> None:
        """Ask again."""
        self._known.clear()


_refusals = Refusals()


def _known(name: str, source: str) -> Backend:
    if name not in _BACKENDS:
        raise BackendError(f"{source} names backend {name!r}; there are {', '.join(_BACKENDS)}")
    return _BACKENDS[name]


def check_serves(name: str, request: Request, index: int | None = None) -> None:
    """Raise ``BackendError`` unless there is a backend of that name that can serve such calls.

    Args:
        name: of the backend; :func:`run_chosen` asks about one that another may stand in for.
        request: what calls.
        index: of the tensors' device; None for torch's current one.
    """
    if may_pass_on(name):
        _known(plain_name(name), "the operator")
    else:
        _kept_choice(name, "the operator", request, index)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every call inside the ``with`` block on backend ``name``, in this thread or task.

    A program that ``torch.compile`` has compiled keeps the backend it was compiled with.

    Raises:
        BackendError: there is no such backend, or (from the call) it cannot serve the call.
    """
    _known(name, "use_backend")
    token = _asked_for.set(name)
    try:
        yield
    finally:
        _asked_for.reset(token)


def asked_backend() -> tuple[str | None, str]:
    """(name or None, what asked for it) of the backend that calls here are to run on."""
    name, source = _asked_for.get(), "use_backend"
    if name is None:
        found, source = getenv(_IN_BYTES), ENVIRONMENT_VARIABLE
        name = os.fsdecode(found) if found else None
    return None if name is None else _known(name, source).name, source


_logged: set[tuple[str, ...]] = set()


def log_once(chosen: str, passed_over: dict[str, str]) -> None:
    """Say, once for each set of reasons, that a faster backend could not serve a call."""
    if passed_over and tuple(passed_over.values()) not in _logged:
        _logged.add(tuple(passed_over.values()))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        _log.warning("calls run on backend %r, because of %s", chosen, reasons)


class Choice(NamedTuple):
    """The backend chosen, and for each one passed over why."""

    backend: Backend
    passed_over: dict[str, str]


def choose(request: Request, index: int | None = None) -> Choice:
    """The backend for a call: the one asked for, else the first that can serve it.

    Args:
        request: what calls.
        index: of the tensors' device; None for torch's current one.

    Raises:
        BackendError: the backend asked for by name cannot serve the call.
    """
    return _kept_choice(*asked_backend(), request, index)


def why_not(backend: Backend, request: Request) -> str | None:
    """Return why a backend cannot serve such calls, or must not; None if it may."""
    return (
        backend.availability()
        or backend.verify(request)
        or self_check.refine_failure(backend, _BACKENDS["reference"], request)
    )


_Key = tuple[str | None, str, Request, Circumstances]
_choices: dict[_Key, Choice] = {}


def _kept_choice(name: str | None, source: str, request: Request, index: int | None) -> Choice:
    key = name, source, request, circumstances(request.device_type, index)
    choice = _choices.get(key)
    if choice is None:
        with on_device(request.device_type, index):
            choice = _choose(name, source, request)
            if not is_capturing(request.device_type):  # nothing is checked then
                _choices[key] = choice
    return choice


def _choose(name: str | None, source: str, request: Request) -> Choice:
    if name is not None:
        backend = _known(name, source)
        reason = why_not(backend, request)
        if reason is not None:
            raise BackendError(
                f"backend {name!r}, asked for by {source}, cannot run this call: {reason}"
            )
        return Choice(backend, {})
    passed_over: dict[str, str] = {}
    for candidate, backend in _BACKENDS.items():
        if not backend.automatic:
            continue
        reason = why_not(backend, request)
        if reason is None:
            log_once(candidate, passed_over)
            return Choice(backend, passed_over)
        passed_over[candidate] = reason
    raise BackendError(f"no backend can run this call: {passed_over}")
