"""``from_torch``: the outputs and gradients of PyTorch's encoders, and errors that name attributes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lares_kernels import UnsupportedModuleError, explain, from_torch
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
