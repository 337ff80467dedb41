"""How much a forward pass keeps for its backward pass, and how much memory a call takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

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


def _status(field: str) -> int:
    """Bytes that Linux reports of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def peak_growth(call: Callable[[], object]) -> int:
    """By how much resident memory grew at its peak while ``call`` ran. Linux alone can tell.

    What was freed before and kept for later calls does not count: measure in a fresh process.
    """
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts from here
    call()
    return _status("VmHWM") - before
