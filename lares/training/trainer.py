"""The training loop: epochs of steps, validation, early stop, checkpoints."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from lares.checkpoint import save_model, write_json
from lares.data.batches import epoch_order
from lares.data.dataset import Dataset, Split
from lares.errors import LaresError
from lares.evaluation.evaluate import depth_ranks
from lares.evaluation.ranking import metrics_from_ranks
from lares.model import LaresModel
from lares.objectives.spt import SptLosses, SptObjective
from lares.training.config import TrainConfig
from lares.training.distributed import all_gather_rows, gather_rows, shard
from lares.training.loggers import CsvLog, open_tensorboard
from lares.training.memory import peak_memory_mib
from lares.training.plots import plot_run
from lares.training.run_folder import RunFolder
from lares.training.state import Progress, read_progress, restore_state, save_state
from lares.training.steps import StepMaker, batch_bounds

_LOSSES = SptLosses._fields
_WATCHED = "ndcg@10"
_LET_GO_SECONDS = 0.2


class Interrupted(LaresError):
    """The run was asked to stop; its state is saved."""


@dataclass
class TrainResult:
    """What a run came to.

    Attributes:
        test: metrics by depth of the best model; valid_best: its validation NDCG@10.
        best_epoch, epochs: when it was reached, and how many were run.
        seconds: spent training and validating; parts: by part of a step, on the host's clock.
        samples_per_second: trained on, over the steps.
        peak_memory_mib: of this process.
        command: line that started it.
    """

    test: dict[int, dict[str, float]]
    valid_best: float
    best_epoch: int
    epochs: int
    seconds: float
    parts: dict[str, float]
    samples_per_second: float
    peak_memory_mib: dict[str, float]
    command: str = field(default_factory=lambda: " ".join(["lares", *sys.argv[1:]]))


@contextlib.contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending the process in mid-step."""
    wanted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wanted
        return

    def ask(number: int, frame: FrameType | None) -> None:
        wanted.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(config: TrainConfig) -> Fabric:
    """The engine for devices, precision and processes, with its processes started."""
    options = config.trainer
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


class Trainer:
    """Trains one model on one data set in one run folder.

    Args:
        config: of the run.
        dataset: read as ``config.data`` says.
        folder: of the run, prepared.
        fabric: launched engine.
        progress_bar: show one.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: RunFolder,
        fabric: Fabric,
        progress_bar: bool = True,
    ) -> None:
        self.config, self.dataset, self.folder, self.fabric = config, dataset, folder, fabric
        self._show = progress_bar and fabric.is_global_zero
        options = config.trainer
        torch.manual_seed(options.seed)
        self.model = LaresModel(config.model_config(dataset.vocabulary.n_items))
        several = fabric.world_size > 1
        objective = SptObjective(
            self.model, config.objective, gather_rows if several else None, fabric.world_size
        )
        optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
        )
        self._objective, self._optimizer = fabric.setup(objective, optimizer)
        self._steps = StepMaker(
            dataset.train,
            self.model.config,
            config.objective,
            options.seed,
            fabric.global_rank,
            fabric.world_size,
            fabric.device,
        )
        self._bounds = batch_bounds(len(dataset.train), config.optimizer.batch_size)
        self.progress = Progress()
        self._unread: list[Tensor] = []

    # --- state ------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go back to the saved state, if there is one."""
        if self.folder.state.is_file():
            self.progress, _, tensors = read_progress(self.folder.state)
            restore_state(self.folder.state, tensors, self.model, self._optimizer.optimizer)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            save_state(
                self.folder.state,
                self.model,
                self._optimizer.optimizer,
                self.progress,
                self.config.to_dict(),
            )
        self.fabric.barrier()

    # --- training ---------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train until the early stop, the last epoch or an interrupt.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            LaresError: a loss is NaN; the last saved state is kept.
        """
        options, progress = self.config.trainer, self.progress
        self._metrics = CsvLog(self.folder.metrics, progress.epoch) if self._is_first else None
        self._timing = CsvLog(self.folder.timing, progress.epoch) if self._is_first else None
        self._board = (
            open_tensorboard(self.folder.tensorboard, progress.total_steps)
            if options.tensorboard and self._is_first
            else None
        )
        with _stop_flag() as stop:
            while not self.finished:
                started, samples = time.perf_counter(), progress.samples
                self._epoch(stop)
                self._finish_epoch(started, progress.samples - samples)
        if self._board is not None:
            self._board.close()

    @property
    def finished(self) -> bool:
        """Whether the early stop or the last epoch was reached. Never stored: a run that goes on with
        more patience or more epochs is not finished."""
        options = self.config.trainer
        return self.progress.epoch >= options.max_epochs or self.progress.stale >= options.patience

    @property
    def _is_first(self) -> bool:
        return self.fabric.is_global_zero

    def _epoch(self, stop: threading.Event) -> None:
        """The steps of the epoch under way that are still to take."""
        options, progress = self.config.trainer, self.progress
        seed, n_batches = options.seed, len(self._bounds) - 1
        order = epoch_order(len(self.dataset.train), seed, progress.epoch)
        self._objective.train()
        progress.sums = progress.sums or dict.fromkeys(_LOSSES, 0.0)
        with tqdm(
            total=len(order),
            initial=int(self._bounds[progress.step]),
            desc=f"epoch {progress.epoch + 1}/{options.max_epochs}",
            unit=" samples",
            disable=not self._show,
            leave=False,
        ) as bar:
            while progress.step < n_batches:
                first, end = self._bounds[progress.step : progress.step + 2]
                started = time.perf_counter()
                self._unread.append(self._step(order[first:end]))
                progress.step += 1
                progress.total_steps += 1
                progress.samples += int(end - first)
                last_step = progress.step == n_batches
                interrupted = self._anyone(stop.is_set())
                saves = options.checkpoint_every_steps
                save = interrupted or (saves > 0 and progress.total_steps % saves == 0)
                if last_step or save or progress.step % options.log_every == 0:
                    bar.set_postfix(loss=f"{self._read_losses():.4f}", refresh=False)
                progress.seconds += time.perf_counter() - started
                bar.update(int(end - first))
                if save and not last_step:
                    self._save()
                if interrupted:
                    if last_step:
                        self._save()
                    raise Interrupted(
                        f"stopped after step {progress.total_steps}; the run is saved in "
                        f"{self.folder.path}, go on with --resume"
                    )

    def _anyone(self, flag: bool) -> bool:
        """Whether any process was asked to stop, so that all stop after the same step."""
        if self.fabric.world_size == 1:
            return flag
        told = all_gather_rows(torch.tensor([flag], device=self.fabric.device))
        return bool(told.any())

    def _step(self, indices: Any) -> Tensor:
        """Take one step; gives the losses (4,), not yet read."""
        clock = [time.perf_counter()]
        batch, depths, model_seed = self._steps.make(indices, self.progress.total_steps)
        clock.append(time.perf_counter())
        losses: SptLosses = self._objective(batch, depths, model_seed)
        clock.append(time.perf_counter())
        self.fabric.backward(losses.total)
        clock.append(time.perf_counter())
        self._optimizer.step()
        self._optimizer.zero_grad()
        clock.append(time.perf_counter())
        for part, seconds in zip(
            ("data", "forward", "backward", "optimizer"),
            (end - start for start, end in itertools.pairwise(clock)),
            strict=True,
        ):
            self.progress.parts[part] = self.progress.parts.get(part, 0.0) + seconds
        return torch.stack([loss.detach().double() for loss in losses])

    def _read_losses(self) -> float:
        """Bring the unread losses to the host, check and add them up; gives the last total."""
        if not self._unread:
            return math.nan
        losses = torch.stack(self._unread)
        if self.fabric.world_size > 1:
            # Totals are scaled so that their mean over processes is the whole batch's.
            losses = all_gather_rows(losses[None]).mean(0)
        values = losses.cpu().tolist()
        first_step = self.progress.total_steps - len(values)
        self._unread = []
        for offset, row in enumerate(values):
            if not all(math.isfinite(value) for value in row):
                named = ", ".join(f"{n} {v}" for n, v in zip(_LOSSES, row, strict=True))
                raise LaresError(
                    f"the loss of step {first_step + offset + 1} is not finite ({named}); the state "
                    f"saved before is kept in {self.folder.state}. A lower optimizer.lr may help"
                )
            for name, value in zip(_LOSSES, row, strict=True):
                self.progress.sums[name] += value
        if self._board is not None:
            for name, value in zip(_LOSSES, values[-1], strict=True):
                self._board.add_scalar(f"train/{name}", value, self.progress.total_steps)
        return float(values[-1][0])

    def _finish_epoch(self, started: float, samples: int) -> None:
        """Validate if it is time, log, decide on stopping, save."""
        options, progress = self.config.trainer, self.progress
        steps_done = time.perf_counter()
        progress.epoch += 1
        row: dict[str, Any] = {"epoch": progress.epoch, "steps": progress.total_steps}
        n_batches = len(self._bounds) - 1
        row |= {
            ("loss" if name == "total" else name): progress.sums[name] / n_batches
            for name in _LOSSES
        }
        valid: dict[str, float] = {}
        last = progress.epoch == options.max_epochs
        if progress.epoch % options.valid_every == 0 or last:
            valid = self.evaluate(self.dataset.valid, [self.default_depth])[self.default_depth]
            if valid[_WATCHED] > progress.best:
                progress.best, progress.best_epoch, progress.stale = (
                    valid[_WATCHED],
                    progress.epoch,
                    0,
                )
                self._save_best()
            else:
                progress.stale += 1
        # Empty where it was not measured, so that every row has the same columns.
        row |= {f"valid_{name}": valid.get(name, "") for name in ("recall@10", "ndcg@10")}
        progress.sums, progress.step = {}, 0
        seconds = time.perf_counter() - steps_done
        progress.seconds += seconds
        if self._metrics is not None and self._timing is not None:
            self._metrics.append(row)
            self._timing.append(
                {
                    "epoch": progress.epoch,
                    "train_seconds": round(steps_done - started, 3),
                    "valid_seconds": round(seconds, 3),
                    "samples_per_second": round(samples / max(steps_done - started, 1e-9), 1),
                }
            )
        if self._board is not None:
            for name, value in valid.items():
                self._board.add_scalar(f"valid/{name}", value, progress.total_steps)
        if self._show and valid:
            tqdm.write(
                f"epoch {progress.epoch:3d}  loss {row['loss']:.4f}  valid Recall@10 "
                f"{valid['recall@10']:.4f}  NDCG@10 {valid['ndcg@10']:.4f}"
                + ("  *" if progress.stale == 0 else "")
            )
        self._save()

    def _save_best(self) -> None:
        if self._is_first:
            self.dataset.vocabulary.save(self.folder.items)
            save_model(self.model.state_dict(), self.model.config, self.folder.best)

    # --- evaluation -------------------------------------------------------------------------------

    @property
    def default_depth(self) -> int:
        """Depth that validation uses: the mean training depth, 0 without recurrence."""
        return self.model.config.mean_depth if self.model.config.is_recurrent else 0

    def evaluate(self, split: Split, depths: list[int]) -> dict[int, dict[str, float]]:
        """Metrics of the model as it is, by depth; the samples are shared among processes."""
        options = self.config.trainer
        first, end = shard(len(split), self.fabric.global_rank, self.fabric.world_size)
        part = Split(split.items, split.starts[first:end], split.ends[first:end])
        try:
            ranks = depth_ranks(
                self.model,
                part,
                depths,
                batch_size=options.eval_batch_size,
                remove_history=options.remove_history,
                seed=options.seed,
                first_id=first,
            )
        except ValueError as error:
            raise LaresError(
                f"evaluation after step {self.progress.total_steps} failed: {error}"
            ) from error
        if self.fabric.world_size > 1:
            ranks = {depth: all_gather_rows(found) for depth, found in ranks.items()}
        return {depth: metrics_from_ranks(found) for depth, found in ranks.items()}

    def finish(self) -> TrainResult:
        """Test the best model, write ``result.json`` and ``curves.png``."""
        best = LaresModel.from_pretrained(self.folder.best)
        self.model.load_state_dict(best.state_dict())
        depths = list(self.config.trainer.test_depths) if self.default_depth else [0]
        test = self.evaluate(self.dataset.test, depths)
        progress = self.progress
        result = TrainResult(
            test=test,
            valid_best=progress.best,
            best_epoch=progress.best_epoch,
            epochs=progress.epoch,
            seconds=round(progress.seconds, 1),
            parts={name: round(value, 1) for name, value in progress.parts.items()},
            samples_per_second=round(progress.samples / max(progress.seconds, 1e-9), 1),
            peak_memory_mib=peak_memory_mib(self.fabric.device),
        )
        if self._is_first:
            write_json(self.folder.result, result.__dict__)
            rows = CsvLog(self.folder.metrics, progress.epoch).rows
            plot_run(
                rows, test, self.folder.curves, f"{self.dataset.name}: {self.folder.path.name}"
            )
        return result


def train(
    config: TrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    fabric: Fabric | None = None,
) -> TrainResult:
    """Run SPT (arXiv 2505.16865, section 3.3) and test the best model.

    Args:
        config: of the run.
        run_dir: run folder; it holds configuration, metrics, curves, checkpoints and result.
        resume: go on with the run in ``run_dir``.
        progress: show a bar and a line an epoch.
        fabric: launched engine, where the caller needs it too; by default :func:`launch`'s.

    Raises:
        LaresError: anything that a user can act on; see its kinds in :mod:`lares.errors`.
    """
    fabric = launch(config) if fabric is None else fabric
    dataset = config.data.load()  # before the folder is taken: wrong data leaves nothing behind
    folder = RunFolder(Path(run_dir))
    if fabric.is_global_zero:
        folder.prepare(config, resume)
    fabric.barrier()
    trainer = Trainer(config, dataset, folder, fabric, progress)
    if resume:
        trainer.resume()
    trainer.fit()
    return trainer.finish()
