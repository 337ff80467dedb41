"""The lines that a run begins with."""

from __future__ import annotations

from lightning_fabric import Fabric

import lares_kernels as lk
from lares.data.dataset import Dataset
from lares.model.model import LaresModel
from lares.training.run_folder import RunFolder


def start_lines(
    model: LaresModel, data: Dataset, folder: RunFolder, fabric: Fabric, samples: int, done: int
) -> str:
    """Return which data, model and device a run has, and where it goes.

    Args:
        model, data, folder, fabric: of the run.
        samples: of an epoch.
        done: steps that were taken already.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    block = model.encoder.core or model.encoder.pre
    assert block is not None  # a model has one of them
    longest = [model.config.max_length]
    kind, device = model.items.dtype, fabric.device
    how = lk.explain(block.config, longest, 1, device, kind, training=True)
    processes = f" in {fabric.world_size} processes" * (fabric.world_size > 1)
    return (
        f"{data.name}: {data.n_interactions:,} interactions of {data.n_users:,} users with "
        f"{len(data.vocabulary):,} items, {samples:,} training samples\n"
        f"{parameters:,} parameters on {device}{processes}, backend {how.backend}; "
        f"run folder {folder.path}" + f", from step {done} on" * (done > 0)
    )
