"""Which rules a sweep takes, and that calls are launched by those it wrote."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu_sweep
from benchmarks.equality import NotEqual
from benchmarks.gpu_sweep import (
    BACKWARD,
    FORWARD,
    IEEE,
    WEIGHTS,
    Question,
    Sweep,
    changed,
    questions,
    save,
    without,
)
from lares_kernels.triton.settings import (
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
    return rules[gpu_sweep._place(rules, kernel, precision, rows)]


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
    return Question(*FORWARD, (gpu_sweep.MAIN,), candidates)


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
    for question in questions():
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
        ("[", "cannot be read"),
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
