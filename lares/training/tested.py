"""Test a run's best model: ranks by depth, and how accurate it is by popularity and history length."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from lares.data.dataset import Dataset
from lares.data.readers import load_dataset
from lares.errors import DataError
from lares.evaluation.by_group import metrics_by_group, metrics_with_errors
from lares.evaluation.evaluate import depth_ranks
from lares.evaluation.history_length import length_groups, lengths_of_group
from lares.evaluation.popularity import popularity_tenths
from lares.model.model import LaresModel
from lares.training.breakdown import Breakdown, K, Row, weights_digest
from lares.training.config import RunConfig, TrainerOptions, read_config
from lares.training.data_record import DataRecord
from lares.training.run_folder import RunFolder
from lares.training.trained import load_trained


@dataclass(frozen=True)
class Tested:
    """Hold what a model made of the test samples.

    Attributes:
        dataset: whose samples they are, in the model's rows.
        ranks: (S,) of their targets, by depth.
        depth: the model's usual one, which is among them.
    """

    dataset: Dataset
    ranks: dict[int, Tensor]
    depth: int

    def breakdown(self, weights: str, options: TrainerOptions) -> Breakdown:
        """Return how accurate it is.

        Args:
            weights: digest of the model's.
            options: by which it was tested.
        """
        return Breakdown(
            weights=weights,
            states=options.test_states,
            remove_history=options.remove_history,
            depth=self.depth,
            by_depth=[
                {"depth": depth} | metrics_with_errors(ranks, K)
                for depth, ranks in sorted(self.ranks.items())
            ],
            by_popularity=self._by_popularity(),
            by_length=self._by_length(),
        )

    def _by_popularity(self) -> list[Row]:
        split = self.dataset.test
        tenths, met = popularity_tenths(self.dataset, split), self.dataset.item_counts()
        met = met[split.targets]
        rows: list[Row] = []
        for tenth, metrics in metrics_by_group(self.ranks[self.depth], tenths, K).items():
            within = met[tenths == tenth]
            bounds = {"least_met": int(within.min()), "most_met": int(within.max())}
            rows.append({"tenth": tenth + 1} | bounds | metrics)
        return rows

    def _by_length(self) -> list[Row]:
        groups = length_groups(self.dataset.test)
        rows: list[Row] = []
        for group, metrics in metrics_by_group(self.ranks[self.depth], groups, K).items():
            shortest, longest = lengths_of_group(group)
            rows.append({"shortest": shortest, "longest": longest} | metrics)
        return rows


@dataclass(frozen=True)
class RunTest:
    """Hold what a test of a run's best model needs, by the options of the run.

    Attributes:
        config: of the run.
        weights: digest of the model's.
        model: the best one.
        dataset: that it was trained on, in the model's rows.
    """

    config: RunConfig
    weights: str
    model: LaresModel
    dataset: Dataset

    @classmethod
    def of(cls, run: RunFolder, path: str) -> RunTest:
        """Read model and data of a run, whose data are at ``path``.

        Raises:
            DataError: these are other data.
            LaresError: model or data cannot be read.
        """
        config = read_config(run.config)
        weights = weights_digest(run.best)  # first: a run that is under way may write others
        trained = load_trained(run.path)
        dataset = load_dataset(**dataclasses.asdict(dataclasses.replace(config.data, path=path)))
        record = DataRecord.load(run.record)
        difference = (
            "" if record is None else record.difference(DataRecord.of(dataset, record.form))
        )
        if difference:
            raise DataError(f"{path} is not the data that {run.path} was trained on: {difference}")
        return cls(config, weights, trained.model, trained.same_rows(dataset))

    def breakdown(self, device: torch.device) -> Breakdown:
        """Return how accurate the model is, as a device finds it."""
        options, shape = self.config.trainer, self.model.config
        depth = shape.mean_depth if shape.is_recurrent else 0
        ranks = depth_ranks(
            self.model.to(device),
            self.dataset.test,
            sorted({*options.test_depths, depth}) if depth else [0],
            batch_size=options.eval_batch_size,
            remove_history=options.remove_history,
            seed=options.seed,
            states=options.test_states,
        )
        return Tested(self.dataset, ranks, depth).breakdown(self.weights, options)
