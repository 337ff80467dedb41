"""Looking at tensors: what is as a pattern says and what is not, in the library and in Python."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels.binding.cpu_library import LaresCall
from lares_kernels.cpu import tensor_reader as look
from lares_kernels.cpu.tensor_reader import (
    ANY,
    ExpectedTensor,
    TensorReader,
    compile_pattern,
    field_index,
)
from tests.kernels.tools import NEEDS_CPU_KERNEL

pytestmark = NEEDS_CPU_KERNEL

PLACES = [
    ExpectedTensor(field_index("hidden"), torch.float32, (2, 3)),
    ExpectedTensor(field_index("lengths"), torch.int64, (2,)),
    ExpectedTensor(field_index("sequence_ids"), torch.int64, (2,), may_be_none=True),
    ExpectedTensor(field_index("parameters", 3), torch.float32, ()),
]


@pytest.fixture(params=["library", "Python"])
def looking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TensorReader:
    if request.param == "Python":
        monkeypatch.setattr(look, "_reader", lambda: None)
    elif look._reader() is None:
        pytest.skip("torch has no exchange table that we know")
    c = LaresCall()
    c.seed, c.eps = -7, 0.5
    return compile_pattern(bytes(c), PLACES)


def tensors() -> list[Any]:
    return [torch.ones(2, 3), torch.tensor([4, 5]), torch.tensor([6, 7]), torch.tensor(2.0)]


def test_addresses_come_to_their_fields(looking: TensorReader) -> None:
    given, c = tensors(), LaresCall()
    assert looking(given, c)
    assert (c.hidden, c.lengths, c.sequence_ids) == tuple(t.data_ptr() for t in given[:3])
    assert [*c.parameters] == [None] * 3 + [given[3].data_ptr()] + [None] * 16
    assert (c.seed, c.eps, c.trajectory, c.threads) == (-7, 0.5, None, 0)
    given[2] = None
    assert looking(given, c)
    assert c.sequence_ids is None


class Subclass(Tensor):
    pass


def without_memory() -> Tensor:
    tensor = torch.ones(2, 3)
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(5, 4)[1:3, 1:4],
        lambda: torch.ones(3, 2).mT,
        lambda: torch.ones(3).expand(2, 3),
        lambda: torch.ones(2, 3, dtype=torch.float64),
        lambda: torch.ones(2, 3, dtype=torch.int32),
        lambda: torch.ones(2, 3, dtype=torch.complex64),
        lambda: torch.ones(3, 2),
        lambda: torch.ones(6),
        lambda: torch.ones(2, 3, 1),
        lambda: torch.ones(0, 3),
        lambda: torch.ones(2, 3, device="meta"),
        lambda: torch.ones(2, 3).to_sparse(),
        lambda: torch.ones(2, 3).to_mkldnn(),
        lambda: torch.ones(2, 3).as_subclass(Subclass),
        lambda: torch._neg_view(torch.ones(2, 3)),
        lambda: torch.view_as_complex(torch.ones(2, 3, 2)).conj().imag,
        without_memory,
        lambda: [[1.0] * 3] * 2,
        lambda: 3,
        lambda: None,
    ],
)
def test_what_is_not_as_the_pattern_says(looking: TensorReader, make: Callable[[], Any]) -> None:
    good, c = tensors(), LaresCall()
    assert looking(good, c)
    assert not looking([make(), *good[1:]], c)
    assert looking(good, c)


def test_a_size_may_be_any() -> None:
    pattern = [ExpectedTensor(field_index("hidden"), torch.float32, (ANY, 3))]
    looking, c = compile_pattern(bytes(LaresCall()), pattern), LaresCall()
    for good in (torch.ones(2, 3), torch.ones(7, 3), torch.ones(5, 4)[:1, :3]):
        assert looking([good], c)
        assert c.hidden == good.data_ptr()
    for bad in (torch.ones(2, 4), torch.ones(3), torch.ones(0, 3), torch.ones(5, 4)[:2, :3]):
        assert not looking([bad], c)


@pytest.mark.parametrize(
    "ids", [torch.tensor([1, 2, 3]), torch.tensor([1, 2]).int(), torch.ones(2), [1, 2]]
)
def test_what_may_be_none_must_fit_where_it_is_there(looking: TensorReader, ids: Any) -> None:
    given = tensors()
    given[2] = ids
    assert not looking(given, LaresCall())


def test_a_number_that_changes_sign_in_its_place(looking: TensorReader) -> None:
    given, c = tensors(), LaresCall()
    pair = torch.tensor(1 + 2j)
    for _ in range(3):
        for view, as_said in ((pair.imag, True), (pair.conj().imag, False)):
            given[3] = view
            assert bool(looking(given, c)) is as_said


def test_parameters_and_inference_tensors_are_tensors(looking: TensorReader) -> None:
    given, c = tensors(), LaresCall()
    given[0] = torch.nn.Parameter(given[0])
    assert looking(given, c)
    with torch.inference_mode():
        assert looking([torch.ones(2, 3), *given[1:]], c)


def test_more_or_fewer_than_there_are_places(looking: TensorReader) -> None:
    assert not looking(tensors()[:3], LaresCall())
    assert not looking([*tensors(), None], LaresCall())


def test_from_several_threads(looking: TensorReader) -> None:
    def run(number: int) -> bool:
        given, c = tensors(), LaresCall()
        if number % 3 == 0:
            given[0] = given[0].mT
        fits = bool(looking(given, c))
        return fits == (number % 3 != 0) and (not fits or c.hidden == given[0].data_ptr())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(2000)))


def test_python_looks_where_torch_has_no_table_that_we_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_DLPACK", 2), ("Tensor", object)):
        with monkeypatch.context() as patch:
            patch.setattr(look, name, value)
            assert look._reader.__wrapped__() is None
