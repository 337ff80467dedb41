"""``from_torch``: the outputs and gradients of PyTorch's encoders, and errors that name attributes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lares_kernels import UnsupportedModuleError, explain, from_torch, refine
from tests.kernels.problems import relative

CAUSAL = nn.Transformer.generate_square_subsequent_mask(7)


def encoder(
    layers: int = 2, last: bool = True, dropout: float = 0.0, **options: object
) -> nn.Module:
    torch.manual_seed(1)
    options = {"batch_first": True, "norm_first": False, **options}
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout, **options)
    made = nn.TransformerEncoder(
        layer, layers, nn.LayerNorm(16) if last else None, enable_nested_tensor=False
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def outputs(run: Callable[[Tensor], Tensor], module: nn.Module) -> list[Tensor]:
    """Output, and gradients of the input and of the module's own parameters."""
    torch.manual_seed(2)
    x = torch.randn(3, 7, 16, requires_grad=True)
    out = run(x)
    loss = (out * torch.randn(out.shape)).sum()
    return [out, *torch.autograd.grad(loss, [x, *module.parameters()])]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_same_outputs_and_gradients(
    norm_first: bool, activation: str, batch_first: bool, bias: bool
) -> None:
    theirs = encoder(
        norm_first=norm_first, activation=activation, batch_first=batch_first, bias=bias
    )
    ours = from_torch(theirs)
    assert [id(p) for p in ours.parameters()] == [id(p) for p in theirs.parameters()]
    mask = CAUSAL if batch_first else CAUSAL[:3, :3]
    expected = outputs(lambda x: theirs(x, mask=mask, is_causal=True), theirs)
    found = outputs(lambda x: ours(x, mask=mask), theirs)
    assert torch.allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    scale = max(float(g.norm()) for g in expected[1:])
    for mine, wanted in zip(found[1:], expected[1:], strict=True):
        assert float((mine - wanted).norm()) < 1e-4 * max(float(wanted.norm()), 1e-3 * scale)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "layer"])
def test_checkpoints_of_before_and_after_fit_both(kind: str, last: bool) -> None:
    theirs, other = (encoder(last=last) for _ in range(2))
    if kind == "layer":
        theirs, other = theirs.layers[0], other.layers[0]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    ours = from_torch(theirs)
    names = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == names
    after = ours.state_dict()
    assert list(after) == list(before)
    ours.load_state_dict(other.state_dict())
    assert all(torch.equal(theirs.state_dict()[name], other.state_dict()[name]) for name in before)
    other.load_state_dict(before)
    other.load_state_dict(after)
    copied = copy.deepcopy(ours)
    x = torch.randn(2, 7, 16)
    found = ours.eval()(x, is_causal=True)
    assert torch.equal(copied.eval()(x, is_causal=True), found)
    assert relative(found, theirs.eval()(x, CAUSAL, is_causal=True)) < 1e-5


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding(padding: str) -> None:
    theirs = encoder(last=False).eval()
    ours = from_torch(theirs, padding=padding).eval()
    lengths = torch.tensor([7, 2, 4])
    mask = torch.arange(7) >= lengths[:, None]
    mask = mask.flip(1) if padding == "left" else mask
    x = torch.randn(3, 7, 16)
    found = ours(x, mask=CAUSAL, src_key_padding_mask=mask)
    assert torch.equal(found, ours(x, is_causal=True, lengths=lengths))
    # Each sequence alone, without padding: torch's own masks give NaN where padding stands first.
    for i, n in enumerate(lengths.tolist()):
        alone = theirs(x[i][~mask[i]][None], mask=CAUSAL[:n, :n], is_causal=True)
        assert relative(found[i][~mask[i]], alone[0]) < 1e-5
    assert bool((found[mask] == 0).all())
    with pytest.raises(ValueError, match="not padding on the"):
        ours(x, mask=CAUSAL, src_key_padding_mask=mask.flip(1))


def test_one_layer_and_dropout() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.5, batch_first=True)
    ours = from_torch(layer, seed=5)
    assert (ours.config.dropout, ours.config.attn_dropout, ours.config.inner_dropout) == (0.5,) * 3
    x = torch.randn(2, 7, 16)
    first, second = ours(x, is_causal=True), ours(x, is_causal=True)
    assert not torch.equal(first, second)
    assert torch.equal(first, ours(x, is_causal=True, seed=5))
    ours.eval()
    assert relative(ours(x, is_causal=True), layer(x, CAUSAL, is_causal=True)) < 1e-5
    assert "d_model" not in str(explain(ours.config, [7]))


def test_masks_that_are_not_causal_are_refused() -> None:
    ours = from_torch(encoder())
    x = torch.randn(2, 7, 16)
    with pytest.raises(ValueError, match="mask is None"):
        ours(x)
    for mask in (torch.zeros(7, 7), CAUSAL + torch.eye(7), CAUSAL.T):
        with pytest.raises(ValueError, match="not the causal one"):
            ours(x, mask=mask)
    with pytest.raises(ValueError, match="must be batched"):
        ours(x[0], is_causal=True)


class Odd(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers.1.linear1", Odd(16, 24)),
        ("layers.0.norm1", nn.Identity()),
        ("layers.0.activation", torch.tanh),
        ("layers.1.norm_first", True),
        ("layers.0.norm2.eps", 0.5),
        ("layers.0.self_attn.bias_k", nn.Parameter(torch.zeros(1, 1, 16))),
        ("layers.1.self_attn.add_zero_attn", True),
        ("layers.1.dropout1.p", 0.25),
        ("layers.1.dropout2", nn.Identity()),
    ],
)
def test_errors_name_the_attribute(name: str, value: object) -> None:
    broken = copy.deepcopy(encoder(dropout=0.5))
    parent, _, attribute = name.rpartition(".")
    setattr(broken.get_submodule(parent), attribute, value)
    with pytest.raises(UnsupportedModuleError, match=name.replace(".", r"\.")):
        from_torch(broken)


def test_hooks_and_strangers_are_refused() -> None:
    for kind in ("forward_hook", "full_backward_hook", "full_backward_pre_hook"):
        hooked = encoder()
        getattr(hooked.layers[1].linear2, f"register_{kind}")(lambda *_: None)
        with pytest.raises(UnsupportedModuleError, match=r"layers\.1\.linear2\._.*hooks"):
            from_torch(hooked)
    with pytest.raises(UnsupportedModuleError, match="encoder is 'GRU'"):
        from_torch(nn.GRU(4, 4))


def test_it_drops_where_the_encoder_would_have() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert from_torch(encoder).training
    assert not from_torch(encoder.eval()).training


def modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


FROZEN = {
    "nothing": [],
    "the first layer": ["layers.0"],
    "the last layer": ["layers.2"],
    "all layers": ["layers"],
    "a part": ["layers.1.self_attn", "norm"],
    "one kind of dropout": [f"layers.{i}.dropout" for i in range(3)],
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("frozen", FROZEN)
def test_every_part_keeps_its_mode(frozen: str, whole: bool) -> None:
    theirs = encoder(3, dropout=0.0).train(whole)
    for name in FROZEN[frozen]:
        part = theirs.get_submodule(name)
        part.train(not whole)
    before = modes(theirs)
    ours = from_torch(theirs)
    assert modes(ours) == before == modes(theirs)
    ours(torch.randn(2, 7, 16), is_causal=True)
    assert modes(ours) == before
    single = theirs.layers[1].train(whole)
    single.dropout2.train(not whole)
    before = modes(single)
    assert modes(from_torch(single)) == before


def by_the_op(ours: nn.Module, x: Tensor, seed: int, *parts: tuple[int, int, dict]) -> Tensor:
    """Layers first to end after each other, each time with other rates; {} drops nothing."""
    tensors = ours.parameters_of_op()
    for first, end, rates in parts:
        off = {"dropout": 0.0, "attn_dropout": 0.0, "inner_dropout": 0.0}
        config = replace(ours.config, n_layers=end - first, **{**off, **rates})
        mine = {name: tensor[first:end] for name, tensor in tensors.items()}
        x = refine(config, mine, x, seed=seed, training=True, return_state=True).state
    return x if ours._modules.get("norm") is None else ours.norm(x)


ON = {"dropout": 0.5, "attn_dropout": 0.5, "inner_dropout": 0.5}


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize(
    ("frozen", "parts"),
    [
        (["layers"], [(0, 3, {})]),
        (["layers.0"], [(0, 1, {}), (1, 3, ON)]),
        (["layers.0", "layers.1"], [(0, 2, {}), (2, 3, ON)]),
        (["layers.2"], [(0, 2, ON), (2, 3, {})]),
        (["layers.0", "layers.2"], [(0, 1, {}), (1, 2, ON), (2, 3, {})]),
        (["*.self_attn"], [(0, 3, {**ON, "attn_dropout": 0.0})]),
        (["*.dropout"], [(0, 3, {**ON, "inner_dropout": 0.0})]),
        (["*.dropout1"], [(0, 3, {**ON, "dropout_of": "feed-forward"})]),
        (["*.dropout1", "*.dropout2"], [(0, 3, {**ON, "dropout": 0.0})]),
        (["layers.0", "*.self_attn"], [(0, 1, {}), (1, 3, {**ON, "attn_dropout": 0.0})]),
    ],
    ids=str,
)
def test_parts_in_evaluation_mode_do_not_drop(
    frozen: list[str], parts: list[tuple[int, int, dict]], norm_first: bool
) -> None:
    x = torch.randn(2, 7, 16)
    ours = from_torch(encoder(3, dropout=0.5, norm_first=norm_first))
    for name in frozen:
        for each in (
            [name] if "*" not in name else [name.replace("*", f"layers.{i}") for i in range(3)]
        ):
            ours.get_submodule(each).eval()
    expected = by_the_op(ours, x, 9, *parts)
    for whole in (True, False):  # its own mode, which no part has
        ours.training = whole
        torch.testing.assert_close(ours(x, is_causal=True, seed=9), expected)
    if frozen == ["layers"]:
        ours.eval()
        torch.testing.assert_close(ours(x, is_causal=True), expected)
    else:
        assert not torch.equal(ours(x, is_causal=True), ours(x, is_causal=True))


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (["layers.1"], "layer 2's dropouts is 'another'"),
        (["layers.0.self_attn"], "layer 1's dropouts is 'another'"),
        (
            ["layers.0.dropout2", "layers.1.dropout2", "layers.2.dropout2"],
            "after the feed-forward is off",
        ),
    ],
)
def test_modes_that_the_op_cannot_follow_are_refused(frozen: list[str], said: str) -> None:
    ours = from_torch(encoder(3, dropout=0.5))
    for name in frozen:
        ours.get_submodule(name).eval()
    with pytest.raises(UnsupportedModuleError, match=said):
        ours(torch.randn(2, 7, 16), is_causal=True)
    ours.eval()(torch.randn(2, 7, 16), is_causal=True)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("part", ["", ".linear2", ".self_attn", ".self_attn.out_proj", ".dropout1"])
def test_hooks_that_come_later_are_refused(kind: str, part: str) -> None:
    ours, x = from_torch(encoder()), torch.randn(2, 7, 16)
    name = f"layers.1{part}"
    handle = getattr(ours.get_submodule(name), f"register_{kind}_hook")(lambda *_: None)
    for _ in range(2):
        with pytest.raises(
            UnsupportedModuleError, match=rf"{name}\._.*hooks is 1; hooks would not"
        ):
            ours(x, is_causal=True)
    handle.remove()
    ours(x, is_causal=True)
    if part:
        single = from_torch(encoder().layers[0])
        getattr(single.get_submodule(part[1:]), f"register_{kind}_hook")(lambda *_: None)
        with pytest.raises(UnsupportedModuleError, match=rf"{part[1:]}\._.*hooks is 1"):
            single(x, is_causal=True)


def test_hooks_of_what_is_called_run() -> None:
    ours, called = from_torch(encoder()), []
    for module in (ours, ours.norm):
        module.register_forward_hook(lambda module, *_: called.append(type(module)))
    ours(torch.randn(2, 7, 16), is_causal=True)
    assert called == [nn.LayerNorm, type(ours)]


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0.0, 0.0, -1e9]]),
        torch.tensor([[0.0, 0.0, torch.finfo(torch.float32).min]]),
        torch.tensor([[0, 0, 1]], dtype=torch.uint8),
        torch.tensor([[0, 0, 1]]),
    ],
    ids=["-1e9", "least", "uint8", "int64"],
)
def test_masks_of_padding_that_hide_nothing_are_refused(mask: torch.Tensor) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    swapped = from_torch(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
    with pytest.raises(ValueError, match="src_key_padding_mask"):
        swapped(torch.randn(1, 3, 16), is_causal=True, src_key_padding_mask=mask)
