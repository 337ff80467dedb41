"""The CUDA kernels draw by the seed that stands in memory when they run."""

from __future__ import annotations

from typing import Any

import pytest

from lares_kernels import CoreConfig
from lares_kernels.cuda.backend import CudaBackend, plan_of
from lares_kernels.cuda.plan import LaunchPlan
from tests.kernels.seed_memory import assert_draws_follow_memory

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")
CORE = CoreConfig(32, 2, 64, 1, dropout=0.5, attn_dropout=0.25)


@pytest.mark.parametrize("trains", [True, False], ids=["tiles", "split"])
def test_draws_follow_memory(trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[LaunchPlan] = []

    def noted(*given: Any, **named: Any) -> LaunchPlan:
        plans.append(plan_of(*given, **named))
        return plans[-1]

    monkeypatch.setattr("lares_kernels.cuda.backend.plan_of", noted)
    assert_draws_follow_memory(CudaBackend(), CORE, [2, 5], "fp16", trains)
    assert {plan.split_parts > 0 for plan in plans} == {not trains}
