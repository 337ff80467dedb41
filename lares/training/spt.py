"""Self-supervised pre-training (arXiv 2505.16865, section 3.3) as a phase, and :func:`train`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from lares.data.dataset import Dataset
from lares.data.partners import PartnerIndex
from lares.data.readers import load_dataset
from lares.data.split import Split
from lares.data.text_features import read_text_features
from lares.errors import ConfigError
from lares.model.model import LaresModel
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.losses import SptDepths, SptLosses, draw_depths
from lares.objectives.spt.prefixes import SptBatch, SptObjective
from lares.training.config import TrainConfig
from lares.training.display import tell
from lares.training.distributed import gather_rows
from lares.training.engine import all_do, first_does, launch, place_of
from lares.training.memory import require_memory_for
from lares.training.phase import SPT_CURVES, Phase
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.spt_windows import WindowSptPhase
from lares.training.steps import Place, Purpose, ResidentSamples, generator_of_step, seed_of_step
from lares.training.trainer import Trainer


class SptPhase(Phase):
    """SPT of a model.

    Args:
        model: to train.
        spt: weights of the losses.
        samples: training samples.
        seed: of the run.
        place: of this process.
    """

    losses = SptLosses._fields
    curves = SPT_CURVES
    start = None

    def __init__(
        self, model: LaresModel, spt: SptConfig, samples: Split, seed: int, place: Place
    ) -> None:
        several = place.n_processes > 1
        self.model, self.samples = model, samples
        self.sizes = np.ones(len(samples), dtype=np.int64)
        self.objective: nn.Module = SptObjective(
            model, spt, gather_rows if several else None, place.n_processes
        )
        self._spt, self._seed, self._place = spt, seed, place
        self._resident = ResidentSamples(samples, model.config.max_length, place.device)
        self._partners = PartnerIndex(samples) if spt.aligns else None

    def make(self, indices: NDArray[np.int64], step: int) -> tuple[SptBatch, SptDepths, int, float]:
        """(batch of this process, depths, model seed, share of alignment) of the samples ``indices``
        (B,) of all."""
        first, end = self._place.part(len(indices))
        depths = draw_depths(
            self.model.config, self._spt, generator_of_step(self._seed, step, Purpose.DEPTHS)
        )
        item_seq, lengths, targets = self._resident.collate(indices[first:end])
        partner_seq = partner_lengths = None
        if self._partners is not None:
            generator = generator_of_step(self._seed, step, Purpose.PARTNERS)
            # Drawn for the whole batch, so that any number of processes draws the same.
            partners = self._partners.draw(indices, generator)
            partner_seq, partner_lengths, _ = self._resident.collate(partners[first:end])
        batch = SptBatch(
            item_seq=item_seq,
            lengths=lengths,
            targets=targets,
            partner_seq=partner_seq,
            partner_lengths=partner_lengths,
            sequence_ids=torch.arange(first, end, device=self._place.device),
            global_size=len(indices),
            all_targets=self._resident.items_at(self.samples.ends[indices])
            if self._spt.mask_same_target
            else None,
        )
        model_seed = seed_of_step(self._seed, step, Purpose.MODEL_SEED)
        return batch, depths, model_seed, self._spt.warmth(step)

    def updates(
        self, objective: nn.Module, made: tuple[SptBatch, SptDepths, int, float]
    ) -> Iterator[tuple[Tensor, ...]]:
        """The losses of a step's one update."""
        yield objective(*made)


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
    fabric = launch(config.trainer) if fabric is None else fabric
    all_do(fabric, lambda: config.check_processes(fabric.world_size))
    folder = RunFolder(Path(run_dir))
    with contextlib.ExitStack() as stack:
        first_does(fabric, lambda: stack.enter_context(folder.held(config, resume)))
        dataset = all_do(fabric, lambda: load_dataset(**dataclasses.asdict(config.data)))
        if fabric.is_global_zero:
            tell(dataset.notes)
        first_does(fabric, lambda: folder.belong(config, dataset))
        phase = all_do(fabric, lambda: _phase(config, dataset, place_of(fabric)))
        trainer = Trainer(config, phase, dataset, folder, fabric, progress)
        if resume:
            trainer.resume()
        # All that can be wrong beforehand has been looked at.
        first_does(fabric, lambda: folder.prepare(config))
        return trainer.run()


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
