"""Bad calls name what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import lares_kernels
from lares_kernels import (
    BackendError,
    CoreConfig,
    RecurrentCore,
    available_backends,
    explain,
    use_backend,
)
from tests.kernels.problems import SMALL, make_problem


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("n_heads", 3, "does not divide d_model=16"),
        ("adapter", "addd", "'addd'; it must be one of add, gate, concat, none"),
        ("mixer", "fft", "CoreConfig.mixer is 'fft'"),
        ("activation", "elu", "CoreConfig.activation is 'elu'"),
        ("norm", "rms", "CoreConfig.norm is 'rms'"),
        ("dropout", 1.0, "CoreConfig.dropout is 1.0"),
        ("attn_dropout", -0.1, "CoreConfig.attn_dropout is -0.1"),
        ("d_ff", 0, "CoreConfig.d_ff is 0"),
        ("n_layers", 1.5, "CoreConfig.n_layers is 1.5"),
        ("eps", float("nan"), "CoreConfig.eps is nan"),
        ("eps", True, "CoreConfig.eps is True; it must be a number"),
        ("eps", "1e-5", "CoreConfig.eps is '1e-5'; it must be a number"),
        ("dropout", None, "CoreConfig.dropout is None; it must be a number"),
        ("dropout", False, "CoreConfig.dropout is False; it must be a number"),
        ("state_omega", np.True_, "CoreConfig.state_omega is "),
        ("state_sigma", torch.tensor(True), "CoreConfig.state_sigma is "),
        ("band_share", 1j, "CoreConfig.band_share is 1j; it must be a number"),
        ("state_omega", 10**400, "it must be a number"),
        ("n_layers", torch.tensor(True), "CoreConfig.n_layers is tensor(True)"),
        ("d_model", 16.0, "CoreConfig.d_model is 16.0; it must be a whole number"),
    ],
)
def test_config(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        replace(SMALL, **{option: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0; it must be in 1.."),
        ({"num_steps": torch.tensor([1, 2])}, "got shape (2,)"),
        ({"num_steps": torch.tensor([1, 2, 0, 3])}, "num_steps is 0"),
        ({"state": "ones"}, "state is 'ones'"),
        ({"state": torch.zeros(4, 8, 16)}, "state has shape (4, 8, 16); it must be (4, 9, 16)"),
        ({"rollouts": 0}, "rollouts is 0"),
        ({"rollouts": 257}, "rollouts is 257"),
        ({"sequence_ids": torch.tensor([0, 1, 2, 1 << 24])}, "they must be in 0..16777215"),
        (
            {"sequence_ids": torch.tensor([0, 1])},
            "sequence_ids must hold whole numbers of shape (4,)",
        ),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "cu_seqlens goes with packed hidden"),
    ],
)
def test_options(change: dict, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make_problem(SMALL).run(**change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 0, 3, 9], "sequence 1 has length 0; every sequence needs at least one token"),
        ([1, 5, 3, 10], "sequence 3 has length 10, more than the 9 tokens given"),
        ([1, 5, 3], "lengths must hold 4 whole numbers"),
        ([1.0, 5.0, 3.0, 9.0], "lengths must hold 4 whole numbers"),
    ],
)
def test_lengths(lengths: list, message: str) -> None:
    problem = make_problem(SMALL)
    problem.lengths = torch.tensor(lengths)
    with pytest.raises(ValueError) as caught:
        problem.run()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 4, 4, 8], "sequence 1 has length 0"),
        ([0, 4, 7], "runs from 0 to 7"),
        ([0], "at least two"),
        ([0, 9, 8], "sequence 1 has length -1"),
    ],
)
def test_offsets(offsets: list, message: str) -> None:
    core = RecurrentCore(SMALL)
    with pytest.raises(ValueError) as caught:
        core(torch.zeros(8, 16), cu_seqlens=torch.tensor(offsets))
    assert message in str(caught.value)


@pytest.mark.parametrize("backend", ["reference", "equations", "cpu"])
@pytest.mark.parametrize(
    ("lengths", "total"),
    [
        ([5, 4], 9),
        ([1 << 62, 1 << 62, 1 << 62, (1 << 62) + 8], (1 << 64) + 8),
        ([8, (1 << 63) - 1, (1 << 63) - 1, 2], (1 << 64) + 8),
        ([(1 << 63) - 1, 1], 1 << 63),
    ],
)
def test_lengths_of_packed_sequences(backend: str, lengths: list, total: int) -> None:
    """Also those whose sum wraps round to the rows, in 64 bits."""
    core = RecurrentCore(SMALL)
    with use_backend(backend), pytest.raises(ValueError) as caught:
        core(torch.zeros(8, 16), torch.tensor(lengths))
    assert f"packed sequences have {total} tokens in all" in str(caught.value)
    assert "hidden has 8 rows" in str(caught.value)


@pytest.mark.parametrize(
    ("packed", "max_length", "message"),
    [
        (True, 4, "max_length is 4, but sequence 1 has 5 tokens: give the greatest length, or"),
        (True, 0, "max_length is 0; it must be at least 1"),
        (True, -3, "max_length is -3; it must be at least 1"),
        (True, 2.5, "max_length is 2.5; it must be a whole number"),
        (False, 5, "max_length goes with packed hidden"),
    ],
)
def test_max_length(packed: bool, max_length: object, message: str) -> None:
    core = RecurrentCore(SMALL)
    hidden = torch.zeros(8, 16) if packed else torch.zeros(2, 5, 16)
    offsets = {"cu_seqlens": torch.tensor([0, 3, 8])} if packed else {}
    with pytest.raises((ValueError, TypeError)) as caught:
        core(hidden, **offsets, max_length=max_length)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_max_length_changes_nothing() -> None:
    core, hidden = RecurrentCore(SMALL), torch.randn(8, 16)
    packed = {"cu_seqlens": torch.tensor([0, 3, 8]), "seed": 3}
    wanted = core(hidden, **packed).last
    for max_length in (5, 6, 100):
        assert torch.equal(core(hidden, **packed, max_length=max_length).last, wanted)


def test_hidden() -> None:
    core = RecurrentCore(SMALL)
    with pytest.raises(ValueError, match=r"hidden has shape \(2, 3, 8\); it must be \(B, L, 16\)"):
        core(torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match="nothing to refine"):
        core(torch.zeros(0, 3, 16))
    with pytest.raises(TypeError, match=r"hidden is torch\.int64"):
        core(torch.zeros(2, 3, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match="needs either lengths"):
        core(torch.zeros(3, 16))


def test_parameters() -> None:
    parameters = dict(RecurrentCore(SMALL).named_parameters())
    hidden = torch.zeros(1, 2, 16)
    lost = {name: value for name, value in parameters.items() if name != "up_bias"}
    with pytest.raises(ValueError, match="up_bias"):
        lares_kernels.refine(SMALL, lost, hidden)
    wrong = {**parameters, "up_bias": torch.zeros(2, 7)}
    with pytest.raises(ValueError, match=r"up_bias has shape \(2, 7\)"):
        lares_kernels.refine(SMALL, wrong, hidden)


def test_adapter_none_runs_once() -> None:
    core = RecurrentCore(replace(SMALL, adapter="none"))
    hidden = torch.zeros(1, 2, 16)
    for change, message in (
        ({"num_steps": 2}, "the layers run once"),
        ({"rollouts": 2}, "nothing to roll out"),
        ({"state": hidden}, "there is no state"),
    ):
        with pytest.raises(ValueError, match=message):
            core(hidden, **change)


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_backends()["reference"] == "usable"
    listed = "backend 'gpu'; there are cpu, cuda, triton, reference, equations"
    with pytest.raises(BackendError, match=listed):
        with lares_kernels.use_backend("gpu"):
            pass
    monkeypatch.setenv("LARES_BACKEND", "nonsense")
    with pytest.raises(BackendError, match="LARES_BACKEND names backend 'nonsense'"):
        make_problem(SMALL).run()
    monkeypatch.setenv("LARES_BACKEND", "equations")
    assert explain(SMALL, [3, 2], 4).backend == "equations"
    with lares_kernels.use_backend("reference"):  # the block asks louder than the environment
        assert explain(SMALL, [3, 2], 4).backend == "reference"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"lengths": wrong}, "lengths is") for wrong in (None, "abc", ["3"], {3}, [2**70])),
        *(
            ({"lengths": wrong}, "lengths must hold whole numbers, one a sequence")
            for wrong in (3, [], [[1]], [1.5], [True], np.array([], int), torch.tensor(3))
        ),
        *(({"dtype": wrong}, "dtype is") for wrong in (torch.int64, torch.bool, "float32", None)),
        ({"dtype": torch.complex64}, "torch.complex64; it must be float64, float32"),
        *(({"rollouts": wrong}, "rollouts is") for wrong in (1.5, "2", None, True, 0, 257)),
        *(({"num_steps": wrong}, "num_steps is") for wrong in (1.5, "2", None, [1], 0, 1 << 16)),
        ({"precision": "high"}, "precision is 'high'"),
    ],
    ids=str,
)
def test_explain_refuses_what_a_call_does(change: dict[str, object], message: str) -> None:
    given = {"lengths": [3, 2], "num_steps": 2, **change}
    with pytest.raises((TypeError, ValueError)) as caught:
        explain(SMALL, **given)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "lengths", [(3, 2), np.array([3, 2]), torch.tensor([3, 2], dtype=torch.uint8), range(2, 4)]
)
def test_explain_takes_lengths_of_any_form(lengths: object) -> None:
    assert "5 packed tokens of 2 sequences" in str(explain(SMALL, lengths, rollouts=np.int64(1)))  # type: ignore[arg-type]


def test_explain_says_what_would_run() -> None:
    text = str(explain(CoreConfig(), [3, 4], 5, device="cuda", dtype=torch.bfloat16))
    assert "7 packed tokens of 2 sequences" in text
    assert "torch.bfloat16" in text
    assert "5 states kept" in text
    with pytest.raises(ValueError, match="sequence 1 has length 0"):
        explain(CoreConfig(), [3, 0])
