"""Reinforcement post-training (arXiv 2505.16865, section 3.4) from a trained model to a result."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from lares.data.arrays import read_array
from lares.data.dataset import Dataset
from lares.data.readers import load_dataset
from lares.data.split import Split
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, ConfigError, DataError
from lares.evaluation.evaluate import depth_ranks
from lares.files import atomic_write
from lares.model.checkpoint import save_model
from lares.model.config import CONFIG_FILE
from lares.model.model import LaresModel
from lares.objectives.rpt.config import RptConfig
from lares.objectives.rpt.histories import WindowRptObjective
from lares.objectives.rpt.prefixes import RptObjective
from lares.training.comparison import compare
from lares.training.config import PosttrainConfig
from lares.training.display import tell
from lares.training.engine import all_do, first_does, launch, place_of
from lares.training.phase import Phase
from lares.training.result import TrainResult
from lares.training.rpt_phases import RptPhase, WindowRptPhase
from lares.training.run_folder import RunFolder, find_run
from lares.training.steps import Place, Purpose, seed_of_step
from lares.training.trained import TrainedModel, load_trained
from lares.training.trainer import Trainer


def promising_samples(
    model: LaresModel, split: Split, rpt: RptConfig, seed: int, batch_size: int = 512
) -> NDArray[np.int64]:
    """Numbers of the samples that post-training can learn from, ascending.

    Those whose target ranks among the first ``filter_top`` in any of ``filter_passes`` evaluations,
    each from initial states of its own: of the others hardly a rollout would be rewarded.
    """
    if rpt.filter_top == 0:
        return np.arange(len(split))
    depth = model.config.mean_depth
    promising = torch.zeros(len(split), dtype=torch.bool)
    for evaluation in range(rpt.filter_passes):
        pass_seed = seed_of_step(seed, evaluation, Purpose.FILTER_SEED)
        ranks = depth_ranks(
            model, split, [depth], batch_size=batch_size, seed=pass_seed, states="drawn"
        )[depth]
        promising |= ranks.cpu() < rpt.filter_top
    kept: NDArray[np.int64] = promising.numpy().nonzero()[0]
    return kept


def posttrain(
    config: PosttrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    fabric: Fabric | None = None,
) -> TrainResult:
    """Run RPT (arXiv 2505.16865, section 3.4) on a trained model and test the best model.

    The model that it starts from counts as the first best one, so the result is never worse on the
    validation samples. It is kept in the run folder's ``start/``, with the numbers of the samples that
    passed the filter.

    Args:
        config: of the run.
        run_dir: run folder; it holds configuration, metrics, curves, checkpoints and result.
        resume: go on with the run in ``run_dir``.
        progress: show a bar and a line an epoch.
        fabric: launched engine, where the caller needs it too; by default :func:`launch`'s.

    Raises:
        LaresError: anything that a user can act on; see its kinds in :mod:`lares.errors`.
    """
    fabric = launch(config.trainer) if fabric is None else fabric
    all_do(fabric, lambda: config.check_processes(fabric.world_size))
    folder = RunFolder(Path(run_dir))
    with contextlib.ExitStack() as stack:
        first_does(fabric, lambda: stack.enter_context(folder.held(config, resume)))
        started = (folder.start / CONFIG_FILE).is_file()
        model = folder.start if started else config.start.checkpoint
        trained = all_do(fabric, lambda: _load_start(model))
        read = all_do(fabric, lambda: load_dataset(**dataclasses.asdict(config.data)))
        if fabric.is_global_zero:
            tell(read.notes)
        source = None if started else find_run(config.start.checkpoint)
        first_does(fabric, lambda: folder.belong(config, read, source))
        dataset = all_do(fabric, lambda: trained.same_rows(read))
        start = trained.model.to(fabric.device)
        objective = all_do(fabric, lambda: _objective(config, start, dataset.vocabulary, fabric))
        if started:
            kept = all_do(fabric, lambda: _read_samples(folder.samples, len(dataset.train)))
        else:
            kept = all_do(
                fabric,
                lambda: _samples_to_keep(config, start, dataset.train, fabric.world_size),
            )
        phase = _phase(config, objective, dataset.train, kept, place_of(fabric))
        trainer = Trainer(config, phase, dataset, folder, fabric, progress)

        def prepare() -> None:
            folder.prepare(config)
            if not started:
                _write_start(folder, dataset, start, kept)

        if resume:
            trainer.resume()
        # All that can be wrong beforehand has been looked at.
        first_does(fabric, prepare)
        result = trainer.run()
        if result.has_baselines(config.trainer.baselines):
            return result
        return compare(trainer, result, {})


def _load_start(path: str | Path) -> TrainedModel:
    if not str(path):
        raise ConfigError("start.checkpoint is empty; give the folder of a trained model")
    return load_trained(path)


def _objective(
    config: PosttrainConfig, start: LaresModel, vocabulary: Vocabulary, fabric: Fabric
) -> RptObjective | WindowRptObjective:
    """The objective, with a policy that begins as ``start``."""
    config.sampling.check_model(start.config)
    shape, seed = config.start.of_policy(start.config), config.trainer.seed
    policy = LaresModel(shape, vocabulary=vocabulary, seed=seed)
    policy.to(fabric.device, start.items.dtype)
    policy.load_state_dict(start.state_dict())
    kind = WindowRptObjective if config.sampling.whole_histories else RptObjective
    return kind(policy, config.objective, fabric.world_size, start)


def _samples_to_keep(
    config: PosttrainConfig, start: LaresModel, split: Split, n_processes: int
) -> NDArray[np.int64]:
    """Numbers of the samples that pass the filter; ``ConfigError`` if they are too few."""
    options = config.trainer
    kept = promising_samples(start, split, config.objective, options.seed, options.eval_batch_size)
    least = 8 * n_processes
    if len(kept) < least:
        raise ConfigError(
            f"the target of only {len(kept)} of {len(split)} training samples ranks among the first "
            f"{config.objective.filter_top}; {least} are needed. Train the model longer, or raise "
            "objective.filter_top (0 keeps all samples)"
        )
    return kept


def _phase(
    config: PosttrainConfig,
    objective: RptObjective | WindowRptObjective,
    split: Split,
    kept: NDArray[np.int64],
    place: Place,
) -> Phase:
    seed = config.trainer.seed
    if isinstance(objective, WindowRptObjective):
        return WindowRptPhase(objective, config.sampling, split, kept, seed, place)
    samples = Split(split.items, split.starts[kept], split.ends[kept])
    return RptPhase(objective, samples, seed, place)


def _write_start(
    folder: RunFolder, dataset: Dataset, start: LaresModel, kept: NDArray[np.int64]
) -> None:
    """Write what a resumed run needs, last the model's configuration, which says that all is there."""
    folder.start.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder.samples) as temporary, open(temporary, "wb") as file:
        np.save(file, kept)
    save_model(start.state_dict(), start.config, folder.start, dataset.vocabulary, start.seed)


def _read_samples(path: Path, n_samples: int) -> NDArray[np.int64]:
    try:
        kept = read_array(path)
    except DataError as error:
        raise CheckpointError(
            f"{error}; restore it from a copy, or begin a run of its own"
        ) from error
    if (
        kept.ndim != 1
        or kept.dtype.kind != "i"
        or not len(kept)
        or (np.diff(kept, prepend=-1) < 1).any()
    ):
        raise CheckpointError(
            f"{path} holds no ascending numbers of training samples: it is damaged; restore it from a "
            "copy, or begin a run of its own"
        )
    if int(kept[-1]) >= n_samples:
        raise CheckpointError(
            f"{path} names training sample {int(kept[-1])}, the data have {n_samples}: they have "
            "changed since the run began"
        )
    return kept.astype(np.int64)
