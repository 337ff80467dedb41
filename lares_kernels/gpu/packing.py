"""Index packed parameters, for kernels that read them padded and in another order.

Packing is a gather. Its places are found once for each shape, by arranging addresses instead of values,
and read the other way they unpack gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lares_kernels.common.device_tables import to_device
from lares_kernels.gpu.arrays import aligned
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.parameters import parameter_shapes

# From addresses by name to the packed matrices, of any shape, and the packed vectors, in one.
Arrange = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]


class Places(NamedTuple):
    """Number the places in all parameters, one after the other, from 1; 0 is a zero.

    Attributes:
        matrices: shape of the packed matrices.
        vectors: numbers of the packed vectors.
        ends: place behind each parameter's last number.
        places: int32, of all matrices' numbers, then of all vectors'.
        gradients: int32, the way back from both packed arrays, parameters aligned; -1 between them.
    """

    matrices: tuple[int, ...]
    vectors: int
    ends: tuple[int, ...]
    places: Tensor
    gradients: Tensor


def find_places(config: CoreConfig, device: torch.device, arrange: Arrange) -> Places:
    """Return where the packed numbers of a core come from, on ``device``.

    Raises:
        RuntimeError: ``arrange`` leaves a parameter out, or a CUDA graph is being captured.
    """
    shapes = parameter_shapes(config)
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    addresses = torch.arange(1, sum(sizes) + 1).split(sizes)
    by_name = {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), addresses, strict=True)
    }
    matrices, vectors = arrange(by_name)
    both = torch.cat([matrices.flatten(), vectors])
    real = both > 0
    back = torch.full((sum(sizes),), -1)
    back[both[real] - 1] = torch.arange(len(both))[real]
    parts = dict(zip(shapes, back.split(sizes), strict=True))
    for name, part in parts.items():
        if (part < 0).any():
            raise RuntimeError(f"parameter {name} of {config} has no place among the packed ones")
    gradients = [
        pad(part, (0, aligned(len(part)) - len(part)), value=-1) for part in parts.values()
    ]
    return Places(
        tuple(matrices.shape),
        len(vectors),
        tuple(1 + end for end in accumulate(sizes)),
        *to_device(device, both.int(), torch.cat(gradients).int()),
    )
