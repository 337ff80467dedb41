"""Write what a run came to: its result, its breakdown, its picture, and both in TensorBoard."""

from __future__ import annotations

from lares.training.breakdown import METRICS, weights_digest
from lares.training.config import RunConfig
from lares.training.drawn import drawn_run
from lares.training.loggers import log_test
from lares.training.plots import plot_runs
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.summary import summary_of
from lares.training.tested import Tested


def write_outcome(
    folder: RunFolder, config: RunConfig, result: TrainResult, tested: Tested
) -> None:
    """Write ``result.json``, ``breakdown.json``, ``curves.png`` and what TensorBoard shows of the test.

    Args:
        folder: of the run.
        config: of the run.
        result: of the run.
        tested: what its best model made of the test samples.

    Raises:
        CheckpointError: a file could not be written.
    """
    result.save(folder.result)
    breakdown = tested.breakdown(weights_digest(folder.best), config.trainer)
    breakdown.save(folder.breakdown)
    run = drawn_run(summary_of(folder.path), folder.path.name, breakdown, METRICS[0])
    plot_runs([run], folder.curves, f"{tested.dataset.name}: {folder.path.name}")
    if config.trainer.tensorboard:
        log_test(folder.tensorboard / "test", breakdown, folder.curves, result.epochs)
