"""Explain which backend and plan a call would get, and why, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.whole import contiguous_int64, described, is_whole, whole_number
from lares_kernels.operators.refine import make_call
from lares_kernels.registry.backends import REFINE, may_pass_on, operators_name, options_of
from lares_kernels.spec.call import (
    PRECISIONS,
    Request,
    check_floating,
    check_rollouts,
    depths,
    has_dropout,
    product_precision,
)
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.lengths import check_lengths
from lares_kernels.spec.options import CallOptions, CallTensors


class Explanation(NamedTuple):
    """Name the ``backend`` that would run, its ``plan`` in a sentence, and why others were
    ``passed_over``."""

    backend: str
    plan: str
    passed_over: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.backend}: {self.plan}"]
        lines += [f"not {name}: {reason}" for name, reason in self.passed_over.items()]
        return "\n".join(lines)


def explain(
    config: CoreConfig,
    lengths: Tensor | Sequence[int],
    num_steps: int | Tensor = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    rollouts: int = 1,
    training: bool = False,
    precision: str | None = None,
) -> Explanation:
    """Tell which backend would refine sequences of ``lengths`` (B,) for ``num_steps``, and why.

    Nothing runs and no memory on ``device`` is touched, so the device need not exist. Arguments are
    those of :func:`lares_kernels.refine`.

    Raises:
        TypeError, ValueError: an argument is of another type, or out of range.
        BackendError: the requested backend (``use_backend``, ``LARES_BACKEND``) cannot serve it.
    """
    check_floating("dtype", dtype)
    rollouts = whole_number("rollouts", rollouts)
    sizes = _sizes(lengths)
    window = config.window if config.mixes_window else None
    check_lengths(sizes, window)
    check_rollouts(config, rollouts)
    steps, max_steps = depths(config, num_steps, len(sizes), rollouts)
    shape: tuple[int, ...] = (int(sizes.sum()), 0)
    if window is not None or config.padding == "left-zeros":  # padding is part of the input
        shape = (len(sizes), window or int(sizes.max()), 0)
    like = torch.empty(shape, dtype=dtype)
    products = product_precision(precision, dtype, like.device.type)
    where = torch.device(device)
    device_type = where.type
    told: dict[str, Any] = {
        "rollouts": rollouts,
        "max_steps": max_steps,
        "dropout": training and has_dropout(config),
        "differentiates": training,
    }
    request = Request(config, device_type, PRECISIONS[products], options_of(told))
    choice = REFINE.choose(request, where.index)
    name = operators_name(choice.backend)
    options = CallOptions(config.key, name, products, **told)
    call = make_call(like, CallTensors(sizes, steps, None, 0), options)
    call.check_values()
    if not may_pass_on(name):
        plan = choice.backend.plan(call, str(where))
        return Explanation(choice.backend.name, plan, choice.passed_over)
    (backend, plan), failed = REFINE.run(
        name, request, where.index, lambda runs: (runs.name, runs.plan(call, str(where)))
    )
    return Explanation(backend, plan, {**choice.passed_over, **failed})


def _sizes(lengths: Tensor | Sequence[int]) -> Tensor:
    """Return ``lengths`` as (B,) int64."""
    try:
        sizes = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"lengths is {lengths!r}; it must hold whole numbers, one a sequence"
        ) from None
    if sizes.dim() != 1 or sizes.numel() == 0 or not is_whole(sizes):
        raise ValueError(f"lengths must hold whole numbers, one a sequence; got {described(sizes)}")
    return contiguous_int64(sizes)
