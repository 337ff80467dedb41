"""How much a forward pass keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def bytes_saved(forward: Callable[[], Tensor], not_counted: Iterable[Tensor]) -> int:
    """Bytes of the tensors that autograd saves while ``forward`` runs, each storage once.

    Args:
        forward: the pass; its result is kept until the count is done.
        not_counted: tensors that are there anyway (parameters, the caller's input).
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in not_counted}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()
    total = sum(storage.nbytes() for storage in storages.values())
    del kept
    return total
