"""``explain``: which backend and plan a call would get, and why, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.backends import choose
from lares_kernels.call import build_call, check_lengths, product_dtype
from lares_kernels.config import CoreConfig


class Explanation(NamedTuple):
    """``backend`` that would run, its ``plan`` in a sentence, and why others were ``passed_over``."""

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
    """Which backend would refine sequences of ``lengths`` (B,) for ``num_steps``, and why.

    Nothing runs and no memory on ``device`` is touched, so the device need not be there.

    Raises:
        ValueError: an option is out of range.
        BackendError: the backend asked for (``use_backend``, ``LARES_BACKEND``) cannot serve it.
    """
    given = torch.as_tensor(lengths)
    checked = check_lengths(given, len(given), None)
    like = torch.empty(0, config.d_model, dtype=dtype)
    call = build_call(
        config,
        checked,
        num_steps=num_steps,
        seed=0,
        rollouts=rollouts,
        sequence_ids=None,
        dropout=training,
        products=product_dtype(precision, like),
        hidden=like,
        zero_state=False,
    )
    device_type = torch.device(device).type
    choice = choose(call, device_type)
    return Explanation(
        choice.backend.name, choice.backend.plan(call, device_type), choice.passed_over
    )
