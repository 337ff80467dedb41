"""Check a device's kernels against the reference before their first use.

The kernels that a call needs run once on small inputs, forward and backward, with dropout and
without, packed where the mixer allows it, on the device of the call. Their results are compared with
the reference in float64 on the CPU, which draws the same numbers. The verdict is stored
(common/verdicts.py) for later processes. ``LARES_SELF_CHECK=0`` skips all of this.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lares_kernels.common import verdicts
from lares_kernels.common.devices import is_capturing, tf32_allowed
from lares_kernels.common.verdicts import Verdict
from lares_kernels.registry.circumstances import SELF_CHECK
from lares_kernels.registry.plan_failures import failures_met
from lares_kernels.spec.call import Given, GivenBackward, RefineCall, Request
from lares_kernels.spec.catalogue_call import (
    AskedGradients,
    CatalogueCall,
    CatalogueRequest,
    Operands,
)
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.errors import BackendError, PlanFailure
from lares_kernels.spec.options import CallOptions
from lares_kernels.spec.parameters import parameter_shapes, parameters_of

VARIABLE = SELF_CHECK
ISSUES = "the project's issue tracker, with what `lares doctor --check` prints"
_LENGTHS, _WINDOW_LENGTHS, _STEPS, _SEED = [1, 5, 3, 9, 17, 2], [1, 5, 3], 2, 2026
_SMALL_WIDTH = 24  # of cores that stand for all widths
_SAID_AFTER_SECONDS = 2.0  # of compiling, before a user is told why the first call takes long
# Of a whole tensor, forward and gradients. float32's are the tests'; a product in fewer bits rounds its
# factors by half of 2^-8 (bf16) or 2^-11 (fp16, tf32), and a few steps add such errors up.
_BOUNDS = {"fp32": (1e-5, 1e-4), "tf32": (1e-2, 3e-2), "fp16": (1e-2, 3e-2), "bf16": (6e-2, 2e-1)}
_CATALOGUE_PARTS = (
    *("the log probability", "the normaliser", "the entropy"),
    *("the queries' gradient", "the items' gradient", "top-k scores", "top-k items", "ranks"),
)
_NOT_ABOUT_KERNELS = (
    PlanFailure,
    torch.OutOfMemoryError,
    # Of what runs behind the host; older versions of torch have no name for it.
    getattr(torch, "AcceleratorError", PlanFailure),
)
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Checked(Protocol):
    """Describe a backend whose kernels are checked."""

    name: str
    any_size: bool

    def build(self, product_dtype: torch.dtype) -> str | None:
        """Identify the code that would run by a digest; None if it needs no check."""


def is_on() -> bool:
    """Return True if kernels are checked.

    Raises:
        BackendError: the environment variable is neither 0 nor 1.
    """
    asked = os.environ.get(VARIABLE, "1") or "1"
    if asked not in ("0", "1"):
        raise BackendError(f"{VARIABLE} is {asked!r}; it takes 0 (no checks) or 1")
    return asked == "1"


def refine_failure(backend: Any, reference: Any, request: Request) -> str | None:
    """Return why a backend must not serve such calls, because its kernels fail; None if they do not."""
    identity = identity_of(backend, request.device_type, request.product_dtype)
    if identity is None:
        return None
    config = small_config(request.config) if backend.any_size else dropping(request.config)
    return _failure(
        {**identity, "op": "refine", "core": config.key},
        _bounds(_refine_parts(config), request.device_type, request.product_dtype),
        lambda: check_refine(backend, reference, request._replace(config=config)),
    )


def catalogue_failure(backend: Any, reference: Any, request: CatalogueRequest) -> str | None:
    """Return why a backend must not serve such catalogue calls; None if it may."""
    width, device_type, product_dtype = request
    identity = identity_of(backend, device_type, product_dtype)
    if identity is None:
        return None
    width = min(width, _SMALL_WIDTH) if backend.any_size else width
    return _failure(
        {**identity, "op": "catalogue", "width": str(width)},
        _bounds(_CATALOGUE_PARTS, device_type, product_dtype),
        lambda: check_catalogue(backend, reference, request._replace(width=width)),
    )


def identity_of(
    backend: Checked, device_type: str, product_dtype: torch.dtype
) -> dict[str, str] | None:
    """Return what a verdict on a backend's kernels depends on; None if nothing is to be checked."""
    build = backend.build(product_dtype) if is_on() else None
    # A kernel that is compiled and run inside a graph that is being recorded would be part of it.
    if build is None or is_capturing(device_type):
        return None
    return {
        "backend": backend.name,
        "build": build,
        "compiles": "" if backend.any_size else "for the sizes of a core",
        "device": device_name(device_type),
        "driver": driver_version(device_type),
        "products": precision_name(device_type, product_dtype),
        "torch": torch.__version__,
        "triton": verdicts.version_of("triton"),
    }


def device_name(device_type: str) -> str:
    """Return the name of the device that calls of a type run on, of torch's current one."""
    if device_type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()} ({major}.{minor})"
    return verdicts.processor_name()


@cache
def driver_version(device_type: str) -> str:
    """Return the version of CUDA or HIP that the driver speaks, as a number; empty on a CPU."""
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)
    return str(ask()) if device_type == "cuda" and ask is not None else ""


def precision_name(device_type: str, product_dtype: torch.dtype) -> str:
    """Return a key of the bounds: how products of that type are taken on the device."""
    name = _NAMES[product_dtype]
    return "tf32" if name == "fp32" and device_type == "cuda" and tf32_allowed() else name


def dropping(config: CoreConfig) -> CoreConfig:
    """Return a core with dropout: the core itself, unless it has none."""
    if config.dropout or config.attn_dropout or config.inner_dropout:
        return config
    return replace(config, dropout=0.5, attn_dropout=0.25)


def small_config(config: CoreConfig) -> CoreConfig:
    """Return a small core of the same kind, with dropout, for code that serves all sizes alike."""
    small = replace(config, d_model=_SMALL_WIDTH, n_heads=2, d_ff=40, window=min(config.window, 9))
    return dropping(replace(small, n_layers=min(config.n_layers, 2)))


def _refine_parts(config: CoreConfig) -> tuple[str, ...]:
    """Return what a check of a core compares."""
    gradients = (f"{name}'s gradient" for name in ("hidden", *parameter_shapes(config)))
    return "inference's trajectory", "training's trajectory", "the final state", *gradients


def _bounds(parts: Iterable[str], device_type: str, product_dtype: torch.dtype) -> dict[str, float]:
    """Return what the error of each part may be."""
    forward, backward = _BOUNDS[precision_name(device_type, product_dtype)]
    return {part: backward if part.endswith("gradient") else forward for part in parts}


def _failure(
    identity: dict[str, str], bounds: dict[str, float], check: Callable[[], Verdict]
) -> str | None:
    verdict = verdicts.stored(identity, bounds)
    if verdict is None:
        try:
            with failures_met() as failures:
                verdict = check()
        except PlanFailure as failure:
            return str(failure)
        # What raises may be passing. So may be what keeps a plan from starting: it is not checked.
        if not (verdict.raised or failures):
            verdicts.store(identity, verdict)
        # A CPU's kernels are compiled already.
        if verdict.seconds > _SAID_AFTER_SECONDS and identity["compiles"]:
            print(
                f"lares_kernels: compiled and checked the {verdict.kernel} for {verdict.device} in "
                f"{verdict.seconds:.1f} s; this happens once",
                file=sys.stderr,
            )
    if not verdict.failed:
        return None
    what = "raise" if verdict.raised else "disagree with the reference"
    return (
        f"its self-check failed on {verdict.device}, where the {verdict.kernel} {what}: "
        f"{verdict.worst()}. Please report it to {ISSUES} "
        f"({VARIABLE}=0 uses the kernels all the same)"
    )


@contextlib.contextmanager
def _plain_torch() -> Iterator[None]:
    """Leave every mode that the caller may be in: tracing, fake tensors, inference, autocast."""
    with contextlib.ExitStack() as held:
        held.enter_context(_disable_current_modes())
        held.enter_context(torch._C._DisableFuncTorch())
        held.enter_context(torch.inference_mode(False))
        held.enter_context(torch.no_grad())
        for device_type in ("cpu", "cuda"):
            held.enter_context(torch.autocast(device_type, enabled=False))
        yield


def _judge(
    kernel: str,
    device_type: str,
    product_dtype: torch.dtype,
    compare: Callable[[], dict[str, float]],
) -> Verdict:
    """Return the verdict on the errors of parts; an exception of theirs is a failure.

    Raises:
        PlanFailure: the kernels do not start.
        OutOfMemoryError, AcceleratorError: the device has no room for them, or is lost.
    """
    start, raised = time.perf_counter(), ""
    errors: dict[str, float] = {}
    try:
        with _plain_torch():
            errors = compare()
    except _NOT_ABOUT_KERNELS:
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return Verdict(
        kernel,
        device_name(device_type),
        errors,
        _bounds(errors, device_type, product_dtype),
        time.perf_counter() - start,
        raised,
    )


def _distance(found: Tensor, exact: Tensor, least: float = 0.0) -> float:
    """Return ``|found - exact| / |exact|`` of whole tensors, inf if ``found`` is not finite."""
    found = found.detach().to("cpu", torch.float64)
    if not bool(found.isfinite().all()):
        return math.inf
    scale = max(float(exact.norm()), least)
    return float((found - exact).norm()) / (scale if scale > 0 else 1.0)


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    """Return normal numbers in float64 on the CPU that float32 holds exactly."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return drawn.to(torch.float64)


def check_refine(backend: Any, reference: Any, request: Request) -> Verdict:
    """Return the verdict on a backend's kernels for calls of a core."""
    config, device_type, product_dtype, _ = request

    def compare() -> dict[str, float]:
        generator = torch.Generator().manual_seed(_SEED)
        # Padding that is computed, or read as zeros, is part of the input.
        is_padded = config.mixes_window or config.padding == "left-zeros"
        lengths = _WINDOW_LENGTHS if is_padded else _LENGTHS
        padded = (config.window or max(lengths)) if is_padded else 0
        rows = (len(lengths), padded) if is_padded else (sum(lengths),)
        lengths = [min(length, config.window or length) for length in lengths]
        hidden = _random(generator, *rows, config.d_model)
        # Scores of attention, and so errors of rounding, must not grow with the width.
        std = 0.15 * min(1.0, (_SMALL_WIDTH / config.d_model) ** 0.5)
        parameters = [
            (1.0 if p.start == "ones" else 0.0) + std * _random(generator, *p.shape(config))
            for p in parameters_of(config)
        ]
        parameters = [p.float().double() for p in parameters]
        steps = _STEPS if config.is_recurrent else 1
        g_trajectory = _random(generator, len(lengths), steps, config.d_model)
        sizes = torch.tensor(lengths, dtype=torch.int64, device="cpu")
        options = CallOptions(
            config.key,
            "",  # each is asked itself
            "fp64",
            max_steps=steps,
            dropout=True,
            wants_state=True,
            differentiates=True,
        )
        call = RefineCall(
            options=options,
            config=config,
            lengths=sizes,
            padded_length=padded,
            n_hidden_rows=math.prod(rows),
            sequence_ids=None,
            num_steps=None,
            seed=_SEED,
            product_dtype=torch.float64,
            state_dtype=torch.float64,
        )
        g_state = _random(generator, *call.state_shape)
        mine = replace(
            call,
            lengths=sizes.to(device_type),
            product_dtype=product_dtype,
            state_dtype=torch.float32,
        )

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device_type, torch.float32)

        theirs = Given(hidden, None, parameters)
        ours = Given(there(hidden), None, [there(p) for p in parameters])
        errors: dict[str, float] = {}
        # On a GPU inference is another kernel than training's forward.
        for what, training in (("inference", False), ("training", True)):
            told = options._replace(dropout=training, differentiates=training, wants_state=training)
            asked, expected = (replace(each, options=told) for each in (mine, call))
            exact = reference.forward(expected, theirs)
            found = backend.forward(asked, ours)
            errors[f"{what}'s trajectory"] = _distance(found[0], exact[0])
        errors["the final state"] = _distance(found[1], exact[1])
        wanted = reference.backward(call, GivenBackward(*theirs, exact[2], g_trajectory, g_state))
        got = backend.backward(
            mine, GivenBackward(*ours, found[2], there(g_trajectory), there(g_state))
        )
        # One that is zero but for rounding (a key's bias) is measured on the largest one's scale.
        least = 1e-3 * max(float(g.norm()) for g in wanted)
        names = ["hidden", *parameter_shapes(config)]
        for name, gradient, right in zip(names, got, wanted, strict=True):
            errors[f"{name}'s gradient"] = _distance(gradient, right, least)
        return errors

    kernel = f"{backend.name} kernels of mixer {config.mixer} in {_NAMES[product_dtype]}"
    return _judge(kernel, device_type, product_dtype, compare)


def check_catalogue(backend: Any, reference: Any, request: CatalogueRequest) -> Verdict:
    """Return the verdict on a backend's kernels of the catalogue ops."""
    width, device_type, product_dtype = request

    def compare() -> dict[str, float]:
        generator = torch.Generator().manual_seed(_SEED)
        n, v, k = 5, 700, 7
        queries, items = _random(generator, n, width), _random(generator, v, width)
        queries = 0.5 * queries
        chosen = torch.randint(v, (n,), generator=generator, device="cpu")
        # Items that others exclude, never the row's own.
        excluded = (chosen[:, None] + torch.tensor([[1, 2, 300]])) % v
        g = _random(generator, n)
        exact_call = CatalogueCall("dot", 1.0, torch.float64)
        call = replace(exact_call, product_dtype=product_dtype)

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device_type, torch.float32)

        ids, left_out = chosen.to(device_type), excluded.to(device_type)
        given = Operands(queries, items, chosen, excluded)
        inputs = Operands(there(queries), there(items), ids, left_out)
        exact = reference.log_probability(exact_call, given, True)
        found = backend.log_probability(call, inputs, True)
        errors: dict[str, float] = {}
        for name, mine, right in zip(
            ("the log probability", "the normaliser", "the entropy"), found, exact, strict=True
        ):
            errors[name] = _distance(mine, right)
        wanted = reference.gradients(exact_call, given, AskedGradients(exact[1], g))
        got = backend.gradients(call, inputs, AskedGradients(found[1], there(g)))
        for name, mine, right in zip(("queries", "items"), got, wanted, strict=True):
            errors[f"the {name}' gradient"] = _distance(mine, right)
        scores, best = backend.top_k(call, inputs._replace(chosen=ids[:0]), k)
        right_scores, _ = reference.top_k(exact_call, given, k)
        errors["top-k scores"] = _distance(scores, right_scores)
        # By the ids' own scores: of nearly equal ones either may come first.
        of_ids = (queries @ items.T).gather(1, best.cpu())
        errors["top-k items"] = _distance(of_ids, right_scores)
        ranks = backend.ranks(call, inputs).cpu()
        right_ranks = reference.ranks(exact_call, given)
        off = (ranks - right_ranks).abs().max().item() / v
        errors["ranks"] = float(off)
        return errors

    kernel = f"{backend.name} kernels of the catalogue in {_NAMES[product_dtype]}"
    return _judge(kernel, device_type, product_dtype, compare)
