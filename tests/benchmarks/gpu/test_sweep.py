"""Which rules a sweep takes, and that calls are launched by those it wrote."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases.gpu import MAIN
from benchmarks.core.entry import NotEqual
from benchmarks.gpu import candidates as gpu_candidates
from benchmarks.gpu import sweep as gpu_sweep
from benchmarks.gpu.candidates import (
    BACKENDS,
    BACKWARD,
    CUDA,
    FORWARD,
    IEEE,
    TRITON,
    WEIGHTS,
    Launched,
    Question,
    changed,
    setting,
    without,
)
from benchmarks.gpu.sweep import Sweep, save
from lares_kernels.cuda import settings as cuda_settings
from lares_kernels.triton.launch.settings import (
    ENVIRONMENT_VARIABLE,
    _forget,
    longest_sequence,
    settings,
    use_rules,
)

SECONDS = 100.0
SHIPPED = settings("sm90")
said: list[str] = []


def rule_of(rules, kernel: str, precision: str, rows: int):
    return rules[gpu_candidates._place(rules, kernel, precision, rows)]


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Of a card that is there in name only: rules cost what :func:`cost` says."""
    monkeypatch.setattr(gpu_sweep, "check", lambda name, case: None)
    monkeypatch.setattr(Sweep, "_times", lambda self, case, rules: (cost(self.rules), cost(rules)))
    return Sweep("sm90", "cpu", SECONDS, is_quick=True, say=said.append)


def cost(rules) -> float:
    forward = rule_of(rules, *FORWARD)
    return {1: 1.0, 2: 0.98, 3: 0.8, 4: 0.7}[forward.stages]


def ask(**stages: int) -> Question:
    candidates = {name: changed(FORWARD, stages=number) for name, number in stages.items()}
    return Question(*FORWARD, (MAIN,), candidates)


def test_the_fastest_is_taken_if_it_is_worth_it(sweep: Sweep) -> None:
    sweep.answer(ask(noise=2))
    assert sweep.rules == SHIPPED
    sweep.answer(ask(slow=2, fast=4, middle=3))
    found = rule_of(sweep.rules, *FORWARD)
    assert found == replace(rule_of(SHIPPED, *FORWARD), stages=4)
    assert len(sweep.rules) == len(SHIPPED)


def test_what_fails_or_is_wrong_stays_away(sweep: Sweep, monkeypatch) -> None:
    def check(name: str, case: object) -> None:
        if rule_of(settings("sm90"), *FORWARD).stages == 4:
            raise NotEqual("other numbers")

    monkeypatch.setattr(gpu_sweep, "check", check)
    said.clear()
    sweep.answer(ask(wrong=4, right=3))
    assert rule_of(sweep.rules, *FORWARD).stages == 3
    assert any("wrong: NotEqual: other numbers" in line for line in said)
    assert settings("sm90") == SHIPPED


def test_what_is_not_reached_is_told(sweep: Sweep) -> None:
    sweep.end = time.monotonic()
    said.clear()
    sweep.answer(ask(fast=4))
    assert sweep.rules == SHIPPED
    assert "not reached" in said[0]


@pytest.mark.parametrize("family", ["sm80", "sm90", "sm100"])
def test_every_question_is_about_shipped_rules(family: str) -> None:
    """A candidate changes something, or its rule is one that only other families have."""
    rules = settings(family)
    for question in TRITON.questions():
        for change in question.candidates.values():
            try:
                assert change(rules) not in ((), rules)
            except StopIteration:
                assert (family, question.precision) != ("sm90", "half")


@pytest.mark.parametrize("question", [FORWARD, BACKWARD, WEIGHTS, IEEE])
def test_rules_are_written_and_read(
    question, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.rules = changed(question, stages=5, registers=168)(sweep.rules)
    save(sweep, tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    _forget()
    try:
        assert settings("sm90") == sweep.rules
        assert settings("sm80") != sweep.rules
    finally:
        monkeypatch.undo()
        _forget()
    assert settings("sm90") == SHIPPED


RULE = {"kernel": "forward", "precision": "half", "most_width": 64, "most_layers": 2, "rows": 32,
        "chunk": 64, "warps": 4, "stages": 1, "programs": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not readable JSON"),
        ("{}", "does not hold an array of rules"),
        ([3], "rule 1 is no object"),
        ([RULE, {**RULE, "warp": 4}], "rule 2 has a field 'warp'"),
        (
            [{name: value for name, value in RULE.items() if name != "rows"}],
            "lacks the field 'rows'",
        ),
        ([{**RULE, "kernel": "sideways"}], "kernel is 'sideways'"),
        ([{**RULE, "precision": "bf16"}], "precision is 'bf16'"),
        ([{**RULE, "mixers": ["convolution"]}], "mixers is"),
        ([{**RULE, "mixers": "attention"}], "mixers is"),
        ([{**RULE, "resident": 1}], "resident is 1"),
        ([{**RULE, "warps": 3}], "warps is 3; it must be a power of two"),
        ([{**RULE, "rows": 8}], "rows is 8"),
        ([{**RULE, "stages": 0}], "stages is 0"),
        ([{**RULE, "programs": 2.0}], "programs is 2.0"),
        ([{**RULE, "registers": 256}], "registers is 256"),
        ([{**RULE, "most_layers": True}], "most_layers is True"),
    ],
)
def test_rules_that_cannot_be(
    content, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "sm90.json").write_text(text)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    _forget()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            settings("sm90")
    finally:
        monkeypatch.undo()
        _forget()
    assert str(tmp_path / "sm90.json") in str(caught.value)


def test_without_rules_calls_are_the_layered_plans() -> None:
    rules = without(*IEEE[:2])(SHIPPED)
    assert all(rule.precision != "ieee" for rule in rules)
    with use_rules("sm90", rules):
        assert longest_sequence("sm90", "forward", "ieee", 64, 2, "attention") == 0
        with use_rules("sm90", ()):
            assert settings("sm90") == ()
        assert settings("sm90") == rules
    assert longest_sequence("sm90", "forward", "ieee", 64, 2, "attention") == 32


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "nowhere")
    _forget()
    try:
        with pytest.raises(ValueError, match="LARES_TRITON_SETTINGS is 'nowhere'"):
            settings("sm90")
    finally:
        monkeypatch.undo()
        _forget()


@pytest.fixture
def cuda_sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Operands loaded ahead save a tenth, those left transposed nothing, warps more or less."""
    monkeypatch.setattr(gpu_sweep, "check", lambda name, case: None)

    def cost(rules: cuda_settings.Settings) -> float:
        ahead = 0.1 if rules.products_ahead else 0.0
        return 1.0 - ahead + abs(rules.product_warps - 12) / 100

    monkeypatch.setattr(Sweep, "_times", lambda self, case, rules: (cost(self.rules), cost(rules)))
    return Sweep("sm90", "cpu", SECONDS, is_quick=True, say=said.append, of=CUDA)


def test_what_the_cuda_kernels_gain_is_written_and_read(
    cuda_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said.clear()
    for question in CUDA.questions():
        cuda_sweep.answer(question)
    found = cuda_settings.Settings(products_ahead=True, product_warps=12)
    assert cuda_sweep.rules == found
    candidates = [name for question in CUDA.questions() for name in question.candidates]
    assert len(said) == len(candidates)
    assert all(line.startswith("cuda: ") and "of the time" in line for line in said), said
    save(cuda_sweep, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cuda_sm90.json", "sweep_cuda.csv"}
    monkeypatch.setenv(cuda_settings.ENVIRONMENT_VARIABLE, str(tmp_path))
    cuda_settings.settings.cache_clear()
    try:
        assert cuda_settings.settings("sm90") == found
        assert cuda_settings.settings("sm80") == cuda_settings.SHIPPED
    finally:
        monkeypatch.undo()
        cuda_settings.settings.cache_clear()


def test_every_question_changes_cuda_settings() -> None:
    for question in CUDA.questions():
        for change in question.candidates.values():
            assert change(cuda_settings.SHIPPED) != cuda_settings.SHIPPED


def test_what_is_wrong_by_other_settings_stays_away(
    cuda_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(name: str, case: object) -> None:
        assert name == "op:cuda"
        if cuda_settings.settings("sm90").products_ahead:
            raise NotEqual("other numbers")

    monkeypatch.setattr(gpu_sweep, "check", check)
    candidates = {"ahead": setting(products_ahead=True), "fewer": setting(product_warps=12)}
    cuda_sweep.answer(Question("weights", "half", 16, (MAIN,), candidates))
    assert cuda_sweep.rules == cuda_settings.Settings(product_warps=12)


def test_the_command_takes_the_backends_that_are_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = {backend.name: "usable" for backend in BACKENDS} | {"cuda": "was not built"}
    monkeypatch.setattr(gpu_sweep, "available_backends", lambda: reasons)
    with pytest.raises(SystemExit):
        gpu_sweep.main(["--out", str(tmp_path)])
    assert "cannot run here: cuda: was not built; triton: usable" in capsys.readouterr().err
    monkeypatch.setattr(gpu_sweep.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_sweep, "BACKENDS", tuple(_of_sm90(backend) for backend in BACKENDS))
    monkeypatch.setattr(Sweep, "_ratio", lambda self, question, name, rules: 1.0)
    assert gpu_sweep.main(["--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"sm90.json", "sweep_triton.csv"}
    reasons["cuda"] = "usable"
    assert gpu_sweep.main(["--out", str(tmp_path)]) == 0
    assert (tmp_path / "cuda_sm90.json").read_text() == "{}\n"
    assert "cuda: was not built" in capsys.readouterr().out


def _of_sm90(backend: Launched) -> Launched:
    return replace(backend, family=lambda: "sm90")
