"""The training loop: epochs of steps, validation, early stop, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from lares.data.batches import epoch_order
from lares.data.dataset import Dataset
from lares.data.split import Split
from lares.errors import LaresError, NonFiniteError
from lares.evaluation.evaluate import depth_ranks
from lares.evaluation.ranking import metrics_from_ranks
from lares.finite import first_non_finite
from lares.model.checkpoint import save_model
from lares.model.model import LaresModel
from lares.training.clock import Clock
from lares.training.config import RunConfig
from lares.training.display import Display
from lares.training.distributed import all_gather_rows
from lares.training.diverged import diverged
from lares.training.engine import all_do, as_started, first_does, place_of
from lares.training.interrupts import Interrupted, StopRequest, stop_request
from lares.training.loggers import Board, CsvLog, read_rows
from lares.training.memory import peak_memory_mib
from lares.training.outcome import write_outcome
from lares.training.phase import Phase
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.start_lines import start_lines
from lares.training.state import Progress, read_progress, restore_state, save_state
from lares.training.steps import batch_bounds
from lares.training.tested import Tested

_WATCHED = "ndcg@10"
_COLUMNS = {"total": "loss"}  # of metrics.csv, where they have another name than the loss
_TIMING = ("train_seconds", "valid_seconds", "samples_per_second")


class Trainer:
    """Takes one model through one phase on one data set in one run folder.

    Args:
        config: of the run.
        phase: what is learnt, and how.
        dataset: read as ``config.data`` says.
        folder: of the run, prepared.
        fabric: launched engine.
        progress_bar: show one, and a line an epoch.
        most_seconds: of training and validating; an epoch that would likely pass it is not begun,
            unless it is the first. None sets no bound.
    """

    def __init__(
        self,
        config: RunConfig,
        phase: Phase,
        dataset: Dataset,
        folder: RunFolder,
        fabric: Fabric,
        progress_bar: bool = True,
        most_seconds: float | None = None,
    ) -> None:
        self.config, self.dataset, self.folder, self.fabric = config, dataset, folder, fabric
        self.model = phase.model
        self._phase, self._most_seconds = phase, most_seconds
        self._display = Display(progress_bar and fabric.is_global_zero, config.trainer.max_epochs)
        optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
        )
        self._objective, self._optimizer = fabric.setup(phase.objective, optimizer)
        self._bounds = np.zeros(1, dtype=np.int64)  # of the epoch's batches, set as it begins
        self.progress = Progress()
        self._unread: list[Tensor] = []

    def run(self) -> TrainResult:
        """Train, from where :meth:`resume` went back to, and test the best model.

        A run that is finished already keeps its result.

        Raises:
            LaresError: as :meth:`fit` and :meth:`finish`.
        """
        self._display.say(all_do(self.fabric, self._start_line))
        if self.finished:
            kept = self._kept_result()
            if kept is not None:
                return kept
        self.fit()
        return self.finish()

    # --- state ------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go back to the saved state, if there is one.

        Raises:
            CheckpointError: the state or a log is damaged; nothing was changed.
        """
        if self.folder.state.is_file():
            all_do(self.fabric, self._read_state)
        first_does(self.fabric, self._check_logs)

    def _read_state(self) -> None:
        self.progress, _, tensors = read_progress(self.folder.state)
        restore_state(self.folder.state, tensors, self.model, self._optimizer.optimizer)

    def _check_logs(self) -> None:
        for log in (self.folder.metrics, self.folder.timing):
            read_rows(log)

    def _save(self) -> None:
        first_does(self.fabric, self._write_state)

    def _write_state(self) -> None:
        optimizer, config = self._optimizer.optimizer, self.config.to_dict()
        with self._saying_what_to_try():
            save_state(self.folder.state, self.model, optimizer, self.progress, config)
        self.folder.begun = True

    @contextlib.contextmanager
    def _saying_what_to_try(self) -> Iterator[None]:
        """Say what to try where weights or moments cannot be saved as they are not finite."""
        try:
            yield
        except NonFiniteError as error:
            reason = f"after step {self.progress.total_steps} {error}"
            raise self._diverged(reason) from error

    def _diverged(self, reason: str) -> LaresError:
        return diverged(reason, self.folder.state, self.config, self.model.config)

    # --- training ---------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train until the early stop, the last epoch or an interrupt.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            LaresError: a loss is NaN; the last saved state is kept.
        """
        options, progress = self.config.trainer, self.progress
        begins = progress.total_steps == 0 and progress.best < 0
        last_epoch = -1 if begins else progress.epoch
        self._metrics = self._timing = self._board = None

        def open_logs() -> None:
            self._metrics = CsvLog(self.folder.metrics, last_epoch)
            self._timing = CsvLog(self.folder.timing, last_epoch)
            if options.tensorboard:
                first = 0 if begins else progress.total_steps + 1  # not logged yet
                self._board = Board(self.folder.tensorboard, first)

        first_does(self.fabric, open_logs)
        try:
            with stop_request(self._is_first) as stop:
                if begins and self._phase.start is not None:
                    self._begin()
                    self._stop_if_asked(stop)
                while not self.finished:
                    self._epoch(stop)
                    self._finish_epoch()
                    if not self.finished:
                        self._stop_if_asked(stop)
        finally:
            if self._board is not None:
                self._board.close()
        first_does(self.fabric, self._check_board)

    def _check_board(self) -> None:
        if self._board is not None:
            self._board.check()

    @property
    def finished(self) -> bool:
        """Tell whether the early stop or the last epoch was reached. Never stored: a run that goes on
        with more patience, epochs or seconds is not finished."""
        options, progress = self.config.trainer, self.progress
        stops = progress.epoch >= options.max_epochs or progress.stale >= options.patience
        return stops or self._time_is_up

    @property
    def _time_is_up(self) -> bool:
        """Tell whether one more epoch, as long as those before it, would take more than all seconds."""
        done = self.progress.epoch
        if self._most_seconds is None or done == 0:
            return False
        seconds = self.progress.seconds - self.progress.epoch_seconds  # without the one under way
        is_up: bool = self.fabric.broadcast(seconds * (done + 1) / done > self._most_seconds)
        return is_up

    @property
    def _is_first(self) -> bool:
        return self.fabric.is_global_zero

    def _epoch(self, stop: StopRequest) -> None:
        """The steps of the epoch under way that are still to take."""
        options, progress = self.config.trainer, self.progress
        order = epoch_order(len(self._phase.sizes), options.seed, progress.epoch)
        sizes = self._phase.sizes[order]
        self._bounds = batch_bounds(sizes, self.config.optimizer.batch_size)
        n_batches = len(self._bounds) - 1
        self._objective.train()
        progress.sums = progress.sums or dict.fromkeys(self._phase.losses, 0.0)
        done = int(sizes[: self._bounds[progress.step]].sum())
        with self._display.bar(progress.epoch + 1, int(sizes.sum()), done) as bar:
            while progress.step < n_batches:
                first, end = self._bounds[progress.step : progress.step + 2]
                started = time.perf_counter()
                self._unread.append(self._step(order[first:end]))
                self.folder.begun = True
                progress.step += 1
                progress.total_steps += 1
                taken = int(sizes[first:end].sum())
                progress.samples += taken
                progress.epoch_samples += taken
                last_step = progress.step == n_batches
                asked = self._asked(stop)
                saves = options.checkpoint_every_steps
                save = asked > 0 or (saves > 0 and progress.total_steps % saves == 0)
                if last_step or save or progress.step % options.log_every == 0:
                    bar.set_postfix(loss=f"{self._read_losses():.4f}", refresh=False)
                seconds = time.perf_counter() - started
                progress.seconds += seconds
                progress.epoch_seconds += seconds
                bar.update(taken)
                if save and not (last_step and not asked):
                    self._save()
                if asked:
                    raise self._interrupted(asked)

    def _asked(self, stop: StopRequest) -> int:
        """Return the signal by which any process was asked to stop, so that all stop alike; or 0."""
        if self.fabric.world_size == 1:
            return stop.number
        signals = all_gather_rows(torch.tensor([stop.number], device=self.fabric.device))
        return int(signals.max())

    def _stop_if_asked(self, stop: StopRequest) -> None:
        """Stop between epochs, where the state is saved."""
        asked = self._asked(stop)
        if asked:
            raise self._interrupted(asked)

    def _interrupted(self, number: int) -> BaseException:
        if not self._is_first:
            return SystemExit(128 + number)  # the first process says it
        command = as_started(self.folder.resume_command(self.config.COMMAND))
        return Interrupted(
            f"stopped after step {self.progress.total_steps}; the run is saved in {self.folder.path}, "
            f"go on with --resume: {command}",
            number,
        )

    def _step(self, indices: NDArray[np.int64]) -> Tensor:
        """Take one step; gives its losses, averaged over updates and not yet read."""
        clock = Clock(self.progress.parts)
        made = self._phase.make(indices, self.progress.total_steps)
        clock.lap("data")
        of_updates = []
        for losses in self._phase.updates(self._objective, made):
            clock.lap("forward")
            self.fabric.backward(losses[0])
            clock.lap("backward")
            self._optimizer.step()
            self._optimizer.zero_grad()
            clock.lap("optimizer")
            of_updates.append(torch.stack([loss.detach().double() for loss in losses]))
        return torch.stack(of_updates).mean(0)

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
        names = self._phase.losses
        for offset, row in enumerate(values):
            if not all(math.isfinite(value) for value in row):
                if not self._is_first:
                    raise SystemExit(LaresError.exit_status)  # the first process says it
                named = ", ".join(f"{n} {v}" for n, v in zip(names, row, strict=True))
                raise self._diverged(
                    f"the loss of step {first_step + offset + 1} is not finite ({named})"
                )
            for name, value in zip(names, row, strict=True):
                self.progress.sums[name] += value
        if self._board is not None:
            for name, value in zip(names, values[-1], strict=True):
                self._board.add(f"train/{name}", value, self.progress.total_steps)
        return float(values[-1][0])

    def _begin(self) -> None:
        """Validate the model that the run starts from, as epoch 0: what is best is never worse."""
        valid, seconds = self._validate()
        self._log_epoch({}, valid, {"train_seconds": 0.0, "valid_seconds": round(seconds, 3)})
        self._save()

    def _finish_epoch(self) -> None:
        """Validate if it is time, log, decide on stopping, save."""
        options, progress = self.config.trainer, self.progress
        progress.epoch += 1
        n_batches = len(self._bounds) - 1
        losses = {name: progress.sums[name] / n_batches for name in self._phase.losses}
        trained, samples = progress.epoch_seconds, progress.epoch_samples
        progress.sums, progress.step = {}, 0
        progress.epoch_seconds, progress.epoch_samples = 0.0, 0
        last = progress.epoch == options.max_epochs or self._time_is_up
        valid: dict[str, float] = {}
        seconds = 0.0
        if progress.epoch % options.valid_every == 0 or last:
            valid, seconds = self._validate()
        timing = {
            "train_seconds": round(trained, 3),
            "valid_seconds": round(seconds, 3),
            "samples_per_second": round(samples / max(trained, 1e-9), 1),
        }
        self._log_epoch(losses, valid, timing)
        self._save()

    def _validate(self) -> tuple[dict[str, float], float]:
        """Metrics on the validation samples, and seconds; keeps the model if it is the best so far.

        Initial states are drawn for each sample: over many of them a model is chosen less by the luck
        of one.
        """
        started, progress = time.perf_counter(), self.progress
        depth = self.default_depth
        ranks = self.ranks(self.model, self.dataset.valid, [depth], "drawn")
        metrics = metrics_from_ranks(ranks[depth])
        if metrics[_WATCHED] > progress.best:
            progress.best, progress.best_epoch, progress.stale = (
                metrics[_WATCHED],
                progress.epoch,
                0,
            )
            self._save_best()
        else:
            progress.stale += 1
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        return metrics, seconds

    def _log_epoch(
        self, losses: Mapping[str, float], valid: Mapping[str, float], timing: Mapping[str, float]
    ) -> None:
        progress = self.progress
        # Empty where something was not measured, so that every row has the same columns.
        row: dict[str, Any] = {"epoch": progress.epoch, "steps": progress.total_steps}
        row |= {_COLUMNS.get(name, name): losses.get(name, "") for name in self._phase.losses}
        row |= {f"valid_{name}": valid.get(name, "") for name in ("recall@10", "ndcg@10")}
        spent = {"epoch": progress.epoch} | {name: timing.get(name, "") for name in _TIMING}

        def log() -> None:
            assert self._metrics is not None  # in the first process
            assert self._timing is not None
            self._metrics.append(row)
            self._timing.append(spent)
            if self._board is not None:
                for name, value in valid.items():
                    self._board.add(f"valid/{name}", value, progress.total_steps)
                self._board.check()

        first_does(self.fabric, log)
        seconds = timing["train_seconds"] + timing["valid_seconds"]
        best = bool(valid) and progress.stale == 0
        self._display.epoch(progress.epoch, losses.get("total"), valid, seconds, best)

    def _save_best(self) -> None:
        model, best = self.model, self.folder.best

        def save() -> None:
            with self._saying_what_to_try():
                save_model(model.state_dict(), model.config, best, model.vocabulary, model.seed)

        first_does(self.fabric, save)

    # --- evaluation -------------------------------------------------------------------------------

    @property
    def default_depth(self) -> int:
        """Depth that validation uses: the mean training depth, 0 without recurrence."""
        return self.model.config.mean_depth if self.model.config.is_recurrent else 0

    def ranks(
        self,
        model: LaresModel,
        split: Split,
        depths: list[int],
        states: str,
        remove_history: bool | None = None,
    ) -> dict[int, Tensor]:
        """Ranks (S,) of targets by a model as it is, by depth; the samples are shared among processes.

        ``states`` and ``remove_history`` are those of :func:`lares.evaluation.evaluate`; None is the
        run's ranking.
        """
        options = self.config.trainer
        if remove_history is None:
            remove_history = options.remove_history
        first, end = place_of(self.fabric).part(len(split))
        part = Split(split.items, split.starts[first:end], split.ends[first:end])

        def ranks_of_part() -> dict[int, Tensor]:
            if first == end:  # fewer samples than processes
                return {
                    depth: torch.empty(0, dtype=torch.int64, device=self.fabric.device)
                    for depth in depths
                }
            try:
                return depth_ranks(
                    model,
                    part,
                    depths,
                    batch_size=options.eval_batch_size,
                    remove_history=remove_history,
                    seed=options.seed,
                    states=states,
                    first_id=first,
                )
            except ValueError as error:
                said = f"evaluation after step {self.progress.total_steps} failed: {error}"
                broken = first_non_finite(model.state_dict()) is not None
                raise (self._diverged(said) if broken else LaresError(said)) from error

        ranks = all_do(self.fabric, ranks_of_part)
        if self.fabric.world_size > 1:
            ranks = {depth: all_gather_rows(of_part) for depth, of_part in ranks.items()}
        return ranks

    @property
    def start(self) -> LaresModel | None:
        """The model that the run must beat; None if it began from nothing."""
        return self._phase.start

    @property
    def test_depths(self) -> list[int]:
        """Depths that the best model is tested at, 0 without recurrence."""
        return list(self.config.trainer.test_depths) if self.default_depth else [0]

    def _kept_result(self) -> TrainResult | None:
        """Return the result of this very run that is there already, if it is."""
        kept = None
        if self._is_first:
            states, begun = self.config.trainer.test_states, self._phase.start is not None
            result = TrainResult.load(self.folder.result)
            if result and result.answers(self.progress.epoch, self.test_depths, states, begun):
                kept = result
        shared: TrainResult | None = self.fabric.broadcast(kept)
        return shared

    def finish(self) -> TrainResult:
        """Test the best model, write ``result.json``, ``breakdown.json`` and ``curves.png``."""
        best = all_do(self.fabric, lambda: LaresModel.from_pretrained(self.folder.best))
        self.model.load_state_dict(best.state_dict())
        depths, states = self.test_depths, self.config.trainer.test_states
        start, split = self._phase.start, self.dataset.test
        # Accuracy by popularity and history length is that of the usual depth, tested or not.
        ranks = self.ranks(self.model, split, sorted({*depths, self.default_depth}), states)
        before = {} if start is None else self.ranks(start, split, depths, states)
        progress = self.progress
        result = TrainResult(
            test={depth: metrics_from_ranks(ranks[depth]) for depth in depths},
            start={depth: metrics_from_ranks(of_depth) for depth, of_depth in before.items()},
            valid_best=progress.best,
            best_epoch=progress.best_epoch,
            epochs=progress.epoch,
            seconds=round(progress.seconds, 1),
            parts={name: round(value, 1) for name, value in progress.parts.items()},
            samples_per_second=round(progress.samples / max(progress.seconds, 1e-9), 1),
            peak_memory_mib=peak_memory_mib(self.fabric.device),
            test_states=states,
        )

        tested = Tested(self.dataset, ranks, self.default_depth)
        first_does(self.fabric, lambda: write_outcome(self.folder, self.config, result, tested))
        return result

    def _start_line(self) -> str:
        samples, done = int(self._phase.sizes.sum()), self.progress.total_steps
        return start_lines(self.model, self.dataset, self.folder, self.fabric, samples, done)
