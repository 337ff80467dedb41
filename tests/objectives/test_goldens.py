"""The released program's own numbers, in float64: outputs and all gradients within 1e-9."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import lares_kernels
from lares import LaresModel
from lares.integrations.official import load_official, official_gradients
from lares.model import PackedHistories
from lares.objectives.rpt.config import RptConfig
from lares.objectives.rpt.prefixes import RptBatch, RptObjective
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.losses import SptDepths
from lares.objectives.spt.prefixes import SptBatch, SptObjective

GOLDEN = Path(__file__).parent.parent / "golden"
BOUND = 1e-9
MODELS = {"bsarec": "BSARec", "fmlprec": "FMLPRec", "tedrec": "TedRec"}


def load(name: str, prefix: str = "param."):
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    config = {**json.loads(metadata["config"]), "model": MODELS.get(name, "LARES")}
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    config["n_items"] = len(weights["item_embedding.weight"])
    return tensors, metadata, config, load_official(weights, config)


def packed(model: LaresModel, item_seq: Tensor, lengths: Tensor) -> PackedHistories:
    return PackedHistories.from_padded(model.config, item_seq, lengths)


def check(
    found: torch.Tensor,
    expected: torch.Tensor,
    what: str,
    scale: float | None = None,
    bound: float = BOUND,
) -> None:
    error = (found - expected).norm()
    assert error <= bound * (expected.norm() if scale is None else scale), f"{what}: {error}"


def check_gradients(found: dict, expected: dict, bound: float = BOUND) -> None:
    assert expected.keys() <= found.keys()
    for name, wanted in expected.items():
        scale = None
        if name.endswith("key.bias"):
            # Softmax does not see a key bias: its gradient is zero, and both programs' is rounding.
            # The query's bias gives the scale.
            scale = float(expected[name.replace("key.bias", "query.bias")].norm())
        check(found[name], wanted, name, scale, bound)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("name", ["lares_add", "lares_gate", "lares_concat", "lares_add_1layer"])
@pytest.mark.usefixtures("poisoned_memory", "program")
def test_encoder(name: str, layout: str) -> None:
    tensors, metadata, _, model = load(name)
    depth, lengths = int(metadata["T"]), tensors["item_seq_len"]
    state = tensors["initial_state"].clone().requires_grad_()
    encoder = model.encoder
    if layout == "padded":
        out = encoder(
            tensors["item_seq"], lengths, depth, state, return_trajectory=True, return_state=True
        )
        last, trajectory, hidden = out.last, out.trajectory, out.hidden
        first = encoder(tensors["item_seq"], lengths, 1, state, return_state=True).state
        final = out.state
    else:
        # The same through the op's packed form, fed with the pre-block's packed output.
        def pack(padded):
            return torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)])

        padded_hidden = encoder(tensors["item_seq"], lengths, 1, return_state=True).hidden
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        run = lambda steps: encoder.core(  # noqa: E731
            pack(padded_hidden),
            cu_seqlens=offsets,
            num_steps=steps,
            state=pack(state),
            return_trajectory=True,
            return_state=True,
        )
        out = run(depth)
        last, trajectory = out.last, out.trajectory

        def unpack(rows):
            parts = rows.split(lengths.tolist())
            length = tensors["item_seq"].shape[1]
            pad = torch.nn.functional.pad
            return torch.stack([pad(part, (0, 0, 0, length - len(part))) for part in parts])

        hidden, final, first = padded_hidden, unpack(out.state), unpack(run(1).state)

    real = (torch.arange(tensors["item_seq"].shape[1]) < lengths[:, None])[..., None]
    check(hidden * real, tensors["pre_output"] * real, "H")
    check(first * real, tensors["first_step_state"] * real, "s_1")
    check(final * real, tensors["final_state"] * real, "s_T")
    check(trajectory, tensors["per_step_last"], "z_1..z_T")
    check(last, tensors["last_output"], "z_T")
    log_probabilities = model.score_states(trajectory).log_softmax(-1)[..., 1]
    check(log_probabilities, tensors["per_step_target_logp_item1"], "log p(item 1)")

    hidden.retain_grad()
    loss = (last * tensors["loss_weight_last"]).sum()
    loss = loss + (trajectory * tensors["loss_weight_per_step"]).sum()
    loss.backward()
    expected = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    found = official_gradients(model)
    check(state.grad * real, expected.pop("initial_state") * real, "gradient of s_0")
    expected_hidden = expected.pop("pre_output") * real
    if layout == "packed":
        check(hidden.grad * real, expected_hidden, "gradient of H")
    check_gradients(found, expected)


def check_outputs_and_gradients(name: str, bound: float, gradient_bound: float, dtype) -> None:
    """An encoder of another core, against all that is kept of it."""
    tensors, metadata, _, model = load(name)
    depth, lengths = int(metadata["T"]), tensors["item_seq_len"]
    model.to(dtype)
    state = tensors["initial_state"].to(dtype).requires_grad_()
    out = model.encoder(
        tensors["item_seq"], lengths, depth, state, return_trajectory=True, return_state=True
    )
    first = model.encoder(tensors["item_seq"], lengths, 1, state, return_state=True).state
    real = (torch.arange(tensors["item_seq"].shape[1]) < lengths[:, None])[..., None]
    if model.config.mixes_window:
        real = torch.ones_like(real)  # padding is part of the computation
    trajectory = out.trajectory
    if model.config.has_text:  # what is kept of TedRec's steps is normalised
        trajectory = torch.nn.functional.normalize(trajectory, dim=-1)
    policy = lares_kernels.catalogue_log_probability(
        out.trajectory,
        model.items,
        torch.ones(len(lengths), dtype=torch.int64),
        **model.policy_catalogue.scoring,
    )
    check(out.hidden * real, tensors["pre_output"] * real, "H", bound=bound)
    check(first * real, tensors["first_step_state"] * real, "s_1", bound=bound)
    check(out.state * real, tensors["final_state"] * real, "s_T", bound=bound)
    check(trajectory, tensors["per_step_last"], "z_1..z_T", bound=bound)
    check(out.last, tensors["last_output"], "z_T", bound=bound)
    check(policy, tensors["per_step_target_logp_item1"], "log p(item 1)", bound=bound)

    loss = (out.last * tensors["loss_weight_last"]).sum()
    loss = loss + (trajectory * tensors["loss_weight_per_step"]).sum()
    loss.backward()
    expected = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    check(
        state.grad * real,
        expected.pop("initial_state") * real,
        "gradient of s_0",
        bound=gradient_bound,
    )
    expected.pop("pre_output")
    check_gradients(official_gradients(model), expected, gradient_bound)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.usefixtures("poisoned_memory", "program")
def test_other_cores(name: str) -> None:
    check_outputs_and_gradients(name, BOUND, BOUND, torch.float64)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.usefixtures("cpu_kernel", "instruction_set", "poisoned_memory")
def test_other_cores_on_the_cpu_kernel(name: str) -> None:
    """In float32, to rounding."""
    with lares_kernels.use_backend("cpu"):
        check_outputs_and_gradients(name, 1e-5, 1e-4, torch.float32)


@pytest.mark.parametrize("name", ["spt_loss_dot", "spt_loss_cos"])
@pytest.mark.usefixtures("poisoned_memory", "program")
def test_spt_objective(name: str) -> None:
    tensors, metadata, config, model = load(name)
    objective = SptObjective(model, SptConfig(config["alpha"], config["gamma"]))
    size = len(tensors["pos_item"])
    batch = SptBatch(
        histories=packed(model, tensors["item_seq"], tensors["item_seq_len"]),
        targets=tensors["pos_item"],
        partners=packed(model, tensors["aug_item_seq"], tensors["aug_item_seq_len"]),
        global_size=size,
    )
    alignment = int(metadata["steps_alignment"])
    depths = SptDepths(
        int(metadata["steps_recommendation"]),
        alignment,
        alignment,
        int(metadata["selected_step_index"]),
    )
    states = tuple(tensors[f"initial_state_{role}"] for role in ("rec", "align", "aug"))
    losses = objective(batch, depths, 0, initial_states=states)
    check(losses.total, tensors["loss"], "loss")
    losses.total.backward()
    expected = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    check_gradients(official_gradients(model), expected)


@pytest.mark.parametrize("pre_block", ["redrawn", "shared"])
@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("name", ["rpt_loss_recall", "rpt_loss_ndcg"])
@pytest.mark.usefixtures("poisoned_memory", "program")
def test_rpt_objective(name: str, updates: int, pre_block: str) -> None:
    tensors, metadata, _, model = load(name)
    reference = load(name, "ref_param.")[3].eval()
    is_recall = metadata["reward"] == "Recall"
    rpt = RptConfig(
        rollouts=int(metadata["group_size"]),
        beta=float(metadata["kl_beta"]),
        k=int(metadata["k"]),
        recall_reward=float(is_recall),
        ndcg_reward=float(not is_recall),
        updates=updates,  # the first of several is the only one, but for the ratio it takes
        pre_block=pre_block,
    )
    objective = RptObjective(model, rpt, reference=reference).train()
    size = len(tensors["pos_item"])
    batch = RptBatch(
        histories=packed(model, tensors["item_seq"], tensors["item_seq_len"]),
        targets=tensors["pos_item"],
        global_size=size,
    )
    states = tuple(
        torch.stack([tensors[f"{kind}initial_state.{g}"] for g in range(rpt.rollouts)], dim=1)
        for kind in ("", "ref_")
    )
    losses, rollouts = objective(batch, json.loads(metadata["steps"]), 0, 1, initial_states=states)
    torch.testing.assert_close(rollouts.rewards.sum(), tensors["reward_sum"])
    check(losses.total, tensors["loss"], "loss", max(1.0, float(tensors["loss"].abs())))
    losses.total.backward()
    expected = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    check_gradients(official_gradients(model), expected)
    assert all(parameter.grad is None for parameter in objective.reference.parameters())
