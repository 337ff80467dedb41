"""The engine of a run: Lightning Fabric, with devices, precision and processes as asked for."""

from __future__ import annotations

import atexit
import time

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from lares.training.config import TrainerOptions
from lares.training.steps import Place

_LET_GO_SECONDS = 0.2


def launch(options: TrainerOptions) -> Fabric:
    """The engine for devices, precision and processes, with its processes started."""
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    fabric = Fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,  # type: ignore[arg-type]  # checked against the same names
        strategy="ddp" if options.devices > 1 else "auto",
    )
    fabric.launch()
    if dist.is_initialized():
        # Its threads must be joined while Python still runs: one that asks for the interpreter at exit
        # ends the process with SIGABRT.
        atexit.register(_leave_processes)
    return fabric


def _leave_processes() -> None:
    if dist.is_initialized():
        # A worker thread needs the interpreter to let go of the last tensors, and destroying joins that
        # thread without giving the interpreter up (torch 2.6 hung in one run of five): it goes first.
        time.sleep(_LET_GO_SECONDS)
        dist.destroy_process_group()


def place_of(fabric: Fabric) -> Place:
    """Where this process stands."""
    return Place(fabric.global_rank, fabric.world_size, fabric.device)
