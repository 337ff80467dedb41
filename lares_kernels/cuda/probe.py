"""Check that a card computes as the kernels assume: every primitive of a warp
(csrc/cuda/probe.hpp) once, against what NVIDIA's PTX manual defines, written down here in plain
PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.binding import cuda_library as lib
from lares_kernels.binding.structs import LARES_CUDA_PROBE_LINES, LaresCudaProbe
from lares_kernels.cuda.device import index_of, stream_of
from lares_kernels.spec.philox import philox4x32

LANES, LINES, WARPS = 32, LARES_CUDA_PROBE_LINES, 4
_SEED = 17 | 0x80000001 << 32
_APPROXIMATE = 2.0**-20  # relative: of 2^x, 1 / x, 1 / sqrt x, log x and sums
_LANE = torch.arange(LANES)
_ROW, _COLUMN = _LANE // 4, 2 * (_LANE % 4)


class _Line(NamedTuple):
    """Describe an expected line of output: float32 within ``tolerance``, integers exactly."""

    name: str
    wanted: Tensor  # (32,)
    tolerance: float = 0.0


def differences(device: torch.device) -> list[str]:
    """Return one line of text for each primitive that gives a wrong result on ``device``.

    Raises:
        BackendError: there is no library, or the card does not run it.
    """
    words, wide = _inputs()
    given, given_wide = words.to(device), wide.to(device)
    output = torch.full((LINES, LANES), -1, dtype=torch.int32, device=device)
    scratch = torch.zeros(4, LANES, dtype=torch.int32, device=device)
    pointers = (t.data_ptr() for t in (given, given_wide, output, scratch))
    call = LaresCudaProbe(index_of(device), 2, stream_of(device), *pointers)
    lib.run("lares_cuda_probe", call)
    lines = list(_expected(words, wide))
    assert len(lines) == LINES
    return [
        text
        for line, got in zip(lines, output.cpu(), strict=True)
        if (text := _difference(line, got))
    ]


def _difference(line: _Line, words: Tensor) -> str | None:
    wanted = line.wanted
    found = words.view(torch.float32) if wanted.dtype == torch.float32 else words
    wrong = found != wanted
    if line.tolerance:
        # Where it should be finite; elsewhere it must be the same.
        near = (found - wanted).abs() <= line.tolerance * wanted.abs().clamp(min=1e-3)
        wrong &= ~near
    if not wrong.any():
        return None
    lane = int(wrong.nonzero()[0])
    return f"{line.name}: lane {lane} has {found[lane].item()}, expected {wanted[lane].item()}"


def _inputs() -> tuple[Tensor, Tensor]:
    """Return inputs: (8, 32) int32, four lines of numbers (the last two positive) and four of
    any bits; and (32,) int64, some of which do not fit 31 bits."""
    generator = torch.Generator().manual_seed(5)
    numbers = torch.randn(4, LANES, generator=generator)
    numbers[2:] = numbers[2:].abs() + 0.01
    bits = torch.randint(-(2**31), 2**31, (4, LANES), generator=generator).to(torch.int32)
    wide = torch.arange(LANES) * 7
    wide[3], wide[4], wide[5] = -9, 2**31 - 1, 2**40
    return torch.cat([numbers.view(torch.int32), bits]), wide


def _expected(words: Tensor, wide: Tensor) -> Iterator[_Line]:
    yield from _of_lanes(words)
    yield from _between_lanes(words)
    for dtype in (torch.bfloat16, torch.float16):
        yield from _of_tensor_cores(words[:4].view(torch.float32), dtype)
        yield from _of_traces(words[4], dtype)
    yield from _of_memory(words, wide)
    for warp in range(WARPS):
        for i, word in enumerate(words[4:]):
            yield _Line(
                f"unit's exchange, word {i} of warp {warp}", _wrapped(word.long() + (warp ^ 1))
            )
        for i, word in enumerate(words[4:]):
            other = (warp + 1) % WARPS
            yield _Line(f"block's exchange, word {i} of warp {warp}", word ^ (other << 8))


def _wrapped(x: Tensor) -> Tensor:
    """Wrap int64 to the int32 of the same low 32 bits."""
    return ((x + 2**31) % 2**32 - 2**31).to(torch.int32)


def _of_lanes(words: Tensor) -> Iterator[_Line]:
    a, b, p, _ = words[:4].view(torch.float32)
    i, j = words[4], words[5]
    x, y = i.long() % 2**32, j.long() % 2**32
    yield _Line("lane_number", _LANE.int())
    yield _Line("select", torch.where((a < b) & (_LANE >= 3), a, b))
    yield _Line("larger, numbers", torch.maximum(a, b))
    yield _Line("smaller, numbers", torch.minimum(a, b))
    yield _Line("larger and smaller of NaN", torch.full((LANES,), 3, dtype=torch.int32))
    yield _Line("larger, integers", torch.maximum(i, j))
    yield _Line("smaller, integers", torch.minimum(i, j))
    yield _Line("to_float", (i >> 8).float())
    yield _Line("multiply_add", (a.double() * b.double() + p.double()).float())
    yield _Line("multiply_high", _wrapped((x * 0xD2511F53) >> 32 & 0xFFFFFFFF))
    shift = y % 32
    yield _Line("funnel_right", _wrapped((x >> shift) | (y << (32 - shift)) % 2**32))
    yield _Line("exp2", a.exp2(), _APPROXIMATE)
    yield _Line("exp2 of -infinity", torch.zeros(LANES))
    yield _Line("inverse", 1 / p, _APPROXIMATE)
    yield _Line("inverse_root", p.rsqrt(), _APPROXIMATE)
    yield _Line("logarithm", p.log(), _APPROXIMATE)
    c0, c1, c2, c3 = words[4:].long() % 2**32
    for k, word in enumerate(philox4x32(c0, c1, c2, c3, _SEED)):
        yield _Line(f"philox, word {k}", _wrapped(word.long() % 2**32))


def _between_lanes(words: Tensor) -> Iterator[_Line]:
    a, x = words[0].view(torch.float32), words[4]
    small = x & 0xFFFF

    def spread(per_group: Tensor) -> Tensor:
        return per_group.repeat_interleave(LANES // len(per_group))

    yield _Line("quad_sum", spread(a.reshape(8, 4).sum(1)), _APPROXIMATE)
    yield _Line("quad_max", spread(a.reshape(8, 4).amax(1)))
    yield _Line("octet_sum", spread(a.reshape(4, 8).sum(1)), _APPROXIMATE)
    yield _Line("column_sum", a.reshape(8, 4).sum(0).repeat(8), _APPROXIMATE)
    yield _Line("quad_lane", x[_LANE // 4 * 4 + 2])
    yield _Line("next_row", x[torch.where(_LANE < 28, _LANE + 4, _LANE)])
    yield _Line("swap_neighbours", x[_LANE ^ 1])
    yield _Line("any", torch.ones(LANES, dtype=torch.int32))
    yield _Line("warp_max", small.max().repeat(LANES))
    yield _Line("warp_sum", small.sum().int().repeat(LANES))
    yield _Line("running_sum", small.cumsum(0).int())


def _halves(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Pack two numbers, rounded to 16 bits, into words."""
    pair = torch.stack([low, high], dim=-1).to(dtype)
    return pair.view(torch.int32)[:, 0]


def _of_tensor_cores(numbers: Tensor, dtype: torch.dtype) -> Iterator[_Line]:
    kind = str(dtype).removeprefix("torch.")
    a = [_halves(n, n - numbers[0] * 0.5, dtype) for n in numbers]
    b = [_halves(numbers[1], numbers[0], dtype), _halves(numbers[3], numbers[2] * -0.25, dtype)]
    for i, word in enumerate([*a, *b]):
        yield _Line(f"pack to {kind}, word {i}", word)

    def pairs(word: Tensor) -> Tensor:
        return word[:, None].view(dtype).double()

    left, right = torch.zeros(16, 16).double(), torch.zeros(16, 8).double()
    for e in range(2):
        for i, word in enumerate(a):
            left[_ROW + 8 * (i % 2), _COLUMN + 8 * (i // 2) + e] = pairs(word)[:, e]
        for i, word in enumerate(b):
            right[_COLUMN + 8 * i + e, _ROW] = pairs(word)[:, e]
    product, size = left @ right, left.abs() @ right.abs()
    for i, start in enumerate(numbers):
        row, column = _ROW + 8 * (i // 2), _COLUMN + i % 2
        wanted = start.double() + product[row, column]
        # Sums may be cut instead of rounded: relative to what was added up.
        most = float((size[row, column] / wanted.abs().clamp(min=1e-3)).max())
        yield _Line(f"mma of {kind}, word {i}", wanted.float(), 4 * _APPROXIMATE * max(1.0, most))
    square = torch.zeros(8, 8, dtype=torch.int64)
    halves = a[1][:, None].view(torch.int16).long() % 2**16
    for e in range(2):
        square[_ROW, _COLUMN + e] = halves[:, e]
    turned = square[_COLUMN, _ROW] | square[_COLUMN + 1, _ROW] << 16
    yield _Line(f"transpose of {kind}", _wrapped(turned))


def _of_traces(words: Tensor, dtype: torch.dtype) -> Iterator[_Line]:
    low = torch.where(_LANE < 9, 0x7FFF, 0).int()
    for what, these in (("any bits", words), ("NaN", words | low)):
        finite = these[:, None].view(dtype).isfinite().all(1)
        kind = str(dtype).removeprefix("torch.")
        yield _Line(f"add_trace of {kind}, {what}", (~finite).int())


def _of_memory(words: Tensor, wide: Tensor) -> Iterator[_Line]:
    fragment = words.flatten()[:128].reshape(LANES, 4)
    a, b = words[:2].view(torch.float32)
    for i in range(4):
        yield _Line(f"load_fragment, word {i}", fragment[:, i])
    for i in range(4):
        yield _Line(f"store_fragment and load_written, word {i}", fragment[:, i] ^ 0x55)
    even = (_LANE % 2 == 0).int()
    for i in range(4):
        yield _Line(f"copy16, word {i}", fragment[:, i] * even)
    later = _LANE > 4
    c, d = (torch.where(later, fragment.flatten()[e:64:2].view(torch.float32), 0.0) for e in (0, 1))
    yield _Line("load_pair where a mask holds, first", c)
    yield _Line("load_pair where a mask holds, second", d)
    early = _LANE < 9
    stored = torch.stack([torch.where(early, a, c), torch.where(early, b, d)], dim=1).flatten()
    yield _Line("store_pair where a mask holds", stored[:LANES])
    yield _Line("store_pair where a mask holds, later", stored[LANES:])
    yield _Line("load where a mask holds", torch.where(_LANE < 7, words[0], -5))
    yield _Line("load of numbers where a mask holds", torch.where(_LANE < 30, -1.5, a))
    held = torch.where(_LANE < 20, wide.clamp(0, 2**31 - 1), -5).int()
    yield _Line("load of 64 bits", held)
    yield _Line("store_word", words[4].flip(0))
    yield _Line("shared pairs, first", a)
    yield _Line("shared pairs, second", b)
