"""The table of parameters: what is saved and called by it stays as it is, and all else follows."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.cpu import backend as cpu
from lares_kernels.reference import equations, recurrence
from lares_kernels.spec import config
from lares_kernels.spec import parameters as table
from lares_kernels.spec.parameters import (
    PLACES,
    Parameter,
    Side,
    check_parameters,
    parameter_shapes,
    parameters_of,
)

CSRC = Path(__file__).parents[3] / "csrc"
sys.path.insert(0, str(CSRC))
import parameters as for_c  # noqa: E402

ATTENTION = CoreConfig(d_model=12, n_heads=3, d_ff=20, n_layers=3)
CORES = [
    replace(ATTENTION, adapter=adapter, mixer=mixer, window=0 if mixer == "attention" else 11)
    for mixer, adapter in product(config.MIXERS, config.ADAPTERS)
]


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}_weight": (3, rows, columns), f"{name}_bias": (3, rows)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}_norm_weight": (3, 12), f"{name}_norm_bias": (3, 12)}


ATTENDS = {**linear("qkv", 36, 12), **linear("out", 12, 12), **norm("attn")}
FEEDS = {**linear("up", 20, 12), **linear("down", 12, 20), **norm("ffn")}
FILTER_NORM = norm("filter")
OF_MIXER = {
    "attention": {**ATTENDS, **FEEDS},
    "filter": {"filter_weight": (3, 6, 12, 2), **FILTER_NORM, **FEEDS},
    "bsarec": {"band_scale": (3, 12), **FILTER_NORM, **ATTENDS, **FEEDS},
}
CORE_NORM = {"core_norm_weight": (12,), "core_norm_bias": (12,)}
OF_ADAPTER = {
    "add": CORE_NORM,
    "gate": {**CORE_NORM, "gate": ()},
    "concat": {**CORE_NORM, "concat_weight": (12, 24), "concat_bias": (12,)},
    "none": {},
}
# Of C's call; programs that are compiled against the header know them.
IN_C = [*ATTENDS, *FEEDS, *CORE_NORM, "gate", "concat_bias", "filter_weight", *FILTER_NORM]
IN_C.append("band_scale")


def name(core: CoreConfig) -> str:
    return f"{core.mixer}-{core.adapter}"


@pytest.mark.parametrize("core", CORES, ids=name)
def test_names_shapes_and_order_are_those_of_saved_models(core: CoreConfig) -> None:
    wanted = OF_MIXER[core.mixer] | OF_ADAPTER[core.adapter]
    assert [*parameter_shapes(core).items()] == [*wanted.items()]
    assert table.layer_parameters_of(core) == (*OF_MIXER[core.mixer],)


@pytest.mark.parametrize("core", CORES, ids=name)
def test_places_are_those_of_the_header(core: CoreConfig) -> None:
    names = [*parameter_shapes(core), None]
    found = [names[place] for place in cpu.order_of(core)]
    wanted = [name if name in names else None for name in IN_C]
    if core.adapter == "concat":
        wanted[IN_C.index("gate")] = "concat_weight"
    assert found == wanted


def test_c_has_what_the_table_says() -> None:
    made = for_c.TARGET.read_text(encoding="utf-8")
    assert made == for_c.text(table.PARAMETERS), "run `python csrc/parameters.py`"
    header = (CSRC / "lares_enums.h").read_text(encoding="utf-8")
    assert int(re.findall(r"LARES_PARAMETERS = (\d+)", header)[0]) == PLACES


@pytest.mark.parametrize("core", CORES, ids=name)
def test_values_at_the_start(core: CoreConfig) -> None:
    torch.manual_seed(3)
    found = RecurrentCore(core).state_dict()
    torch.manual_seed(3)
    for name, shape in parameter_shapes(core).items():
        wanted = torch.zeros(shape)
        if name.endswith("norm_weight"):
            wanted += 1.0
        elif name.endswith("weight"):
            wanted.normal_(0.0, 0.02)
        elif name == "band_scale":
            wanted.normal_()
        assert torch.equal(found[name], wanted), name


def test_a_parametrized_core_cannot_start_anew() -> None:
    core = RecurrentCore(ATTENTION)
    torch.nn.utils.parametrizations.weight_norm(core, "up_weight")
    before = core.up_weight.clone()
    with pytest.raises(AttributeError, match="up_weight"):
        core.reset_parameters()
    assert torch.equal(core.up_weight, before)


# --- an adapter that is made up: w s + (1 - w) H with a vector w --------------------------------------

WEIGHT = Parameter("mean_weight", (Side("d"),), "ones", 15, "adapter", ("mean",))


@pytest.fixture
def mean(monkeypatch: pytest.MonkeyPatch) -> CoreConfig:
    """Its core; nothing but its equations and its row of the table is added."""

    def adapt(call: object, p: dict[str, Tensor], state: Tensor, hidden: Tensor) -> Tensor:
        return p["mean_weight"] * state + (1.0 - p["mean_weight"]) * hidden

    def adapt_backward(
        call: object,
        p: dict[str, Tensor],
        g_x: Tensor,
        state: Tensor,
        hidden: Tensor,
        grads: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        grads["mean_weight"] += (g_x * (state - hidden)).sum(0)
        return p["mean_weight"] * g_x, (1.0 - p["mean_weight"]) * g_x

    monkeypatch.setattr(config, "ADAPTERS", (*config.ADAPTERS, "mean"))
    monkeypatch.setattr(table, "PARAMETERS", (*table.PARAMETERS, WEIGHT))
    monkeypatch.setattr(equations, "adapt", adapt)
    monkeypatch.setattr(recurrence, "adapt_backward", adapt_backward)
    return CoreConfig(d_model=8, n_heads=2, d_ff=12, n_layers=1, adapter="mean")


def test_shape_start_and_place_follow_a_row(mean: CoreConfig) -> None:
    assert [*parameter_shapes(mean).items()][-1] == ("mean_weight", (8,))
    core = RecurrentCore(mean)
    assert torch.equal(core.mean_weight, torch.ones(8))
    assert len(check_parameters(mean, core.parameters_of_op(), torch.zeros(1, 8))) == 15
    with pytest.raises(ValueError, match="missing .'mean_weight'"):
        check_parameters(mean, RecurrentCore(ATTENTION).parameters_of_op(), torch.zeros(1, 8))
    assert cpu.order_of(mean)[15] == [p.name for p in parameters_of(mean)].index("mean_weight")
    line = "kMeanWeight, 15, 1, one_row, side(1, d), adapter == LARES_ADAPTER_MEAN"
    assert f"LARES_PARAMETER({line})\n" in for_c.text(table.PARAMETERS)


@pytest.mark.parametrize("backend", ["equations", "reference"])
def test_the_reference_runs_a_row(mean: CoreConfig, backend: str) -> None:
    core = RecurrentCore(mean, dtype=torch.float64).eval()
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        core.mean_weight.uniform_()

    def last(weight: Tensor) -> Tensor:
        parameters = {**core.parameters_of_op(), "mean_weight": weight}
        with use_backend(backend):
            return torch.func.functional_call(
                core, parameters, hidden, {"num_steps": 2, "seed": 0}
            ).last

    assert torch.autograd.gradcheck(last, (core.mean_weight,))
