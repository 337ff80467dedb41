"""The sweep over launch rules with kernels that run: their rules are the ones that are tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases.gpu import MAIN
from benchmarks.gpu.candidates import IEEE, Question, changed, without
from benchmarks.gpu.sweep import Sweep, save
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton.launch.rules import read_rules

CASE = replace(MAIN, precision="fp32", batch=2, steps=1)


@pytest.mark.long
def test_candidates_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = set()
    for name in ("fused_forward", "layered_forward"):
        run = getattr(triton_backend, name)
        monkeypatch.setattr(
            triton_backend, name, lambda *given, name=name, run=run: (ran.add(name), run(*given))[1]
        )
    question = Question(
        *IEEE,
        (CASE,),
        {
            "limited": changed(IEEE, registers=168),
            "layered": without(*IEEE[:2]),
        },
    )
    said: list[str] = []
    sweep = Sweep("interpreter", "cpu", 300.0, is_quick=True, say=said.append)
    sweep.answer(question)
    assert ran == {"fused_forward", "layered_forward"}
    assert sum("of the time" in line for line in said) == 2
    save(sweep, tmp_path)
    assert read_rules(tmp_path / "interpreter.json") == sweep.rules
