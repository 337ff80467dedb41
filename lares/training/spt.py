"""Self-supervised pre-training (arXiv 2505.16865, section 3.3) from data to result."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import torch
from lightning_fabric import Fabric

from lares.data.dataset import Dataset
from lares.data.readers import load_dataset
from lares.data.text_features import read_text_features
from lares.errors import ConfigError
from lares.model.folders import is_run
from lares.model.model import LaresModel
from lares.training.comparison import compare
from lares.training.config import TrainConfig
from lares.training.display import tell
from lares.training.engine import all_do, as_started, first_does, launch, place_of
from lares.training.fitted import fit_to_data
from lares.training.interrupts import Interrupted
from lares.training.memory import require_memory_for
from lares.training.phase import Phase
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.spt_phases import SptPhase, WindowSptPhase
from lares.training.steps import Place
from lares.training.trainer import Trainer


def train(
    config: TrainConfig,
    run_dir: Path | RunFolder,
    *,
    resume: bool = False,
    progress: bool = True,
    fabric: Fabric | None = None,
    dataset: Dataset | None = None,
    most_seconds: float | None = None,
) -> TrainResult:
    """Run SPT (arXiv 2505.16865, section 3.3) and test the best model.

    Args:
        config: of the run.
        run_dir: run folder; it holds configuration, metrics, curves, checkpoints and result.
        resume: go on with the run in ``run_dir``.
        progress: show a bar and a line an epoch.
        fabric: launched engine, where the caller needs it too; by default :func:`launch`'s.
        dataset: read already; by default it is read as ``config.data`` says.
        most_seconds: as of :class:`~lares.training.trainer.Trainer`.

    Raises:
        LaresError: anything that a user can act on; see its kinds in :mod:`lares.errors`.
    """
    fabric = launch(config.trainer) if fabric is None else fabric
    all_do(fabric, lambda: config.check_processes(fabric.world_size))
    folder = run_dir if isinstance(run_dir, RunFolder) else RunFolder(Path(run_dir))
    with contextlib.ExitStack() as stack:
        first_does(fabric, lambda: stack.enter_context(folder.held(config, resume)))
        data = dataset
        if data is None:
            data = all_do(fabric, lambda: load_dataset(**dataclasses.asdict(config.data)))
        config, fitted = fit_to_data(folder.decided(config), data)
        if fabric.is_global_zero:
            tell([*data.notes, *fitted])
        first_does(fabric, lambda: folder.belong(config, data))
        phase = all_do(fabric, lambda: _phase(config, data, place_of(fabric)))
        trainer = Trainer(config, phase, data, folder, fabric, progress, most_seconds)
        if resume:
            trainer.resume()
        # All that can be wrong beforehand has been looked at.
        first_does(fabric, lambda: folder.prepare(config))
        result = trainer.run()
        if result.has_baselines(config.trainer.baselines):
            return result
        others = {}
        if "sasrec" in config.trainer.baselines:
            others["sasrec"] = _sasrec(config, folder, data, result.seconds, progress, fabric)
        return compare(trainer, result, others)


def _sasrec(
    config: TrainConfig,
    folder: RunFolder,
    dataset: Dataset,
    most_seconds: float,
    progress: bool,
    fabric: Fabric,
) -> TrainResult:
    """Train the baseline ``sasrec`` of a run in its folder, or go on with it.

    Raises:
        Interrupted: the run was stopped; it is the whole run that goes on.
    """
    if fabric.is_global_zero and progress:
        tell(
            [f"baseline sasrec, in {folder.sasrec}: at most {most_seconds:.0f} s, as the run took"]
        )
    try:
        return train(
            config.without_recurrence(),
            folder.sasrec,
            resume=is_run(folder.sasrec),
            progress=progress,
            fabric=fabric,
            dataset=dataclasses.replace(dataset, notes=()),
            most_seconds=most_seconds,
        )
    except Interrupted as error:
        again = as_started(folder.resume_command(config.COMMAND))
        raise Interrupted(
            f"stopped in the baseline sasrec; the run is saved in {folder.path}, go on with --resume: "
            f"{again}",
            error.signal_number,
        ) from None


def _phase(config: TrainConfig, dataset: Dataset, place: Place) -> Phase:
    """The phase of a new model."""
    seed = config.trainer.seed
    shape = config.model_config(dataset.vocabulary.n_items)
    features = None
    if shape.text_features:
        ids = dataset.vocabulary.ids.tolist()
        features = read_text_features(shape.text_features, shape.n_items, ids)
        if shape.text_width not in (0, features.shape[1]):
            raise ConfigError(
                f"model.text_width is {shape.text_width}, but {shape.text_features} holds features "
                f"{features.shape[1]} wide; leave model.text_width, which follows from them"
            )
        shape = dataclasses.replace(shape, text_features="", text_width=features.shape[1])
    require_memory_for(shape, place.device)
    torch.manual_seed(seed)
    model = LaresModel(shape, features, dataset.vocabulary, seed)
    if config.sampling.whole_histories:
        return WindowSptPhase(model, config.objective, config.sampling, dataset.train, seed, place)
    return SptPhase(model, config.objective, dataset.train, seed, place)
