"""The engine of a run: Lightning Fabric, with devices, precision and processes as asked for."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from lares.errors import ConfigError, LaresError, refusal
from lares.model.backend import require_backend
from lares.training.config import TrainerOptions
from lares.training.distributed import all_gather_rows
from lares.training.steps import Place
from lares_kernels.spec.errors import BackendError

_Result = TypeVar("_Result")
_LET_GO_SECONDS = 0.2
_PROCESSES_A_CORE = 4
# What torchrun tells its processes, and others who start processes for torch.distributed.
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def launch(options: TrainerOptions) -> Fabric:
    """Return the engine for devices, precision and processes, with its processes started.

    Under ``torchrun`` the processes are those that it started, whatever ``options`` say.

    Raises:
        ConfigError: ``options`` ask for another number of processes than ``torchrun`` started, or for
            what this machine has not; or ``LARES_BACKEND`` names a backend that it has not.
    """
    require_backend()
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    devices, nodes = _processes(options.devices)
    _refuse_crowd(options, devices)
    try:
        fabric = Fabric(
            accelerator=options.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=options.precision,
            strategy="ddp" if devices * nodes > 1 else "auto",
        )
    except Exception as error:  # of many kinds, all about what this machine has not
        raise ConfigError(
            f"trainer.accelerator={options.accelerator}, devices={devices}, "
            f"precision={options.precision} cannot be used here: {' '.join(str(error).split())}; "
            "trainer.accelerator=auto takes what there is, trainer.accelerator=cpu always runs"
        ) from error
    with _said_by_the_run():
        fabric.launch()
    if dist.is_initialized():
        # Its threads must be joined while Python still runs: one that asks for the interpreter at exit
        # ends the process with SIGABRT.
        atexit.register(_leave_processes)
    return fabric


@contextlib.contextmanager
def _said_by_the_run() -> Iterator[None]:
    """Keep Fabric from telling how many processes there are, which the run's first line does."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def started_by_torchrun() -> bool:
    """Return whether ``torchrun`` started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def as_started(command: str) -> str:
    """Return ``command``, by ``torchrun`` where that started this process."""
    if not started_by_torchrun():
        return command
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m {command}"


def _processes(devices: int) -> tuple[int, int]:
    """Return (processes on each machine, machines)."""
    if not (started_by_torchrun() or all(name in os.environ for name in _OF_A_LAUNCHER)):
        return devices, 1
    here, everywhere = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if devices not in (1, here):
        raise ConfigError(
            f"trainer.devices is {devices}, but torchrun started {here} processes on this machine; "
            "leave trainer.devices away"
        )
    if everywhere % here:
        raise ConfigError(
            f"torchrun started {here} processes on this machine and {everywhere} in all; every "
            "machine must have as many"
        )
    return here, everywhere // here


def _refuse_crowd(options: TrainerOptions, devices: int) -> None:
    """Raise ``ConfigError`` for far more processes on the CPU than it has cores."""
    on_cpu = options.accelerator == "cpu" or (
        options.accelerator == "auto" and not torch.cuda.is_available()
    )
    most = _PROCESSES_A_CORE * (os.cpu_count() or 1)
    if on_cpu and devices > most:
        raise ConfigError(
            f"trainer.devices is {devices}; on the CPU of this machine the most is {most}"
        )


def all_do(fabric: Fabric, action: Callable[[], _Result]) -> _Result:
    """Have every process do something, and return what it gives.

    Raises:
        LaresError, BackendError: in the first process that could not; the others end without a word, so
            that a mistake that all of them meet is told once.
    """
    result, failed = _tried(action)
    if fabric.world_size > 1:
        own = torch.tensor([_exit_status(failed)], device=fabric.device)
        statuses = all_gather_rows(own).tolist()
        failing = [rank for rank, status in enumerate(statuses) if status]
        if failing and fabric.global_rank != failing[0]:
            sys.exit(statuses[failing[0]])
    if failed is not None:
        raise failed
    return result  # type: ignore[return-value]  # it was set, or something was raised


def first_does(fabric: Fabric, action: Callable[[], None]) -> None:
    """Have the first process do something, while the others wait.

    Raises:
        LaresError: in the first process, as ``action`` raised it, or of what the system refused; the
            others end without a word.
    """
    all_do(fabric, action if fabric.is_global_zero else lambda: None)


def _tried(action: Callable[[], _Result]) -> tuple[_Result | None, Exception | None]:
    """Return what an action gives, or the error that says why it could not."""
    try:
        return action(), None
    except (LaresError, BackendError) as error:
        return None, error
    except BrokenPipeError:
        raise
    except OSError as error:
        refused = refusal(error)
        refused.__cause__ = error
        return None, refused


def _exit_status(error: Exception | None) -> int:
    return 0 if error is None else getattr(error, "exit_status", LaresError.exit_status)


def _leave_processes() -> None:
    if dist.is_initialized():
        # A worker thread needs the interpreter to let go of the last tensors, and destroying joins that
        # thread without giving the interpreter up (torch 2.6 hung in one run of five): it goes first.
        time.sleep(_LET_GO_SECONDS)
        dist.destroy_process_group()


def place_of(fabric: Fabric) -> Place:
    """Return where this process stands among those of the run."""
    return Place(fabric.global_rank, fabric.world_size, fabric.device)
