"""``lares evaluate RUN_OR_MODEL [DATA]``: metrics of a trained model by reasoning depth."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lares.cli.options import (
    ComputingOptions,
    OptionParser,
    add_options,
    checked,
    choose_device,
    command_parser,
    metrics_table,
    numbers_in,
    require_output,
    whole_numbers,
)
from lares.cli.run_data import add_data, add_data_options, data_options, own_data
from lares.data.fetch.sets import located
from lares.errors import ConfigError, DataError
from lares.metrics import ERROR, MEANS, METRICS, USUAL
from lares.model.config import MOST_STEPS, EvaluationStates
from lares.plain import one_of, option, settle_options, whole_in
from lares.table_files import require_table_file
from lares.training.config import DataOptions, TrainerOptions, read_config
from lares.training.data_record import DataRecord
from lares.training.run_folder import find_model, find_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from lares.data.dataset import Dataset
    from lares.data.split import Split
    from lares.training.trained import TrainedModel

_Split = Literal["valid", "test"]
# Of a tenth by popularity: its samples, and how often training meets their targets.
_COUNTS = ("samples", "least_met", "most_met")


def _metrics_in(name: str, text: str) -> None:
    """Raise ``ConfigError`` unless text holds names of metrics, with commas between them."""
    for metric in text.split(","):
        one_of(name, metric, METRICS)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command beside those of its data and of computing.

    Attributes:
        depths: Reasoning depths. Default: 1,2,4,8,12,16, or 0 for a model without recurrence.
        split: Samples to rank.
        ks: Cut-offs of the metrics.
        batch_size: Sequences in one pass.
        remove_history: Leave a user's history out of the ranking. Default: as the run had it.
        keep_history: Rank a user's history, too, even if the run left it out.
        states: Initial states: one for all, as recommend has it, or drawn for each sample, as
            published.
        unknown: Treatment of samples with items that the model does not know; skip leaves them out.
        metrics: Metrics, with commas between: recall, ndcg, mrr, coverage (share of the catalogue in
            any list of the k best) and repeats (share of a list that the user's history holds).
        by_popularity: Print metrics also by tenths of the samples, from those with the rarest targets
            to the most popular, with how many there are and how often training meets their targets.
        output: File to write the metrics to, with the standard errors of those that are means.
        per_user: File to write every user's rank to, from 1, at each depth, with the target's id.
    """

    depths: str | None = option(None, numbers_in(0, MOST_STEPS))
    split: _Split = "test"
    ks: str = option("5,10,20,50", numbers_in(1))
    batch_size: int = option(512, whole_in(1))
    remove_history: bool = False
    keep_history: bool = False
    states: EvaluationStates = "shared"
    unknown: Literal["error", "skip"] = "error"
    metrics: str = option(",".join(METRICS), _metrics_in)
    by_popularity: bool = False
    output: str | None = None
    per_user: str | None = None

    def __post_init__(self) -> None:
        settle_options(self, "--")
        if self.remove_history and self.keep_history:
            raise ConfigError(
                "--remove_history and --keep_history are opposites: leave one of them"
            )


def build_parser() -> OptionParser:
    """Options of the command."""
    parser = command_parser(
        "evaluate",
        "Compute metrics over the whole catalogue; all depths come from one pass.",
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="Run folder, or a saved model's.")
    add_data(parser, "File or folder of interactions. Default: the run's.")
    add_options(
        parser, EvaluateOptions, {"output": "FILE.json", "per_user": "FILE.csv|parquet|jsonl"}
    )
    add_options(parser, ComputingOptions)
    add_data_options(parser)
    return parser


def run(argv: Sequence[str]) -> None:
    """Entry of ``lares evaluate``."""
    args = build_parser().parse_args(list(argv))
    options, computing = checked(args, EvaluateOptions), checked(args, ComputingOptions)
    given = data_options(args)
    ks = whole_numbers("--ks", options.ks)
    output = None if options.output is None else Path(options.output)
    per_user = None if options.per_user is None else Path(options.per_user)
    if output is not None:
        require_output("--output", output)
    if per_user is not None:
        require_table_file("--per_user", per_user)
    # A wrong folder, and data that are not there, are told before torch comes.
    _, of_run = find_model(args.model)
    path = own_data(args.model, of_run) if args.path is None else args.path
    located(path)
    device = choose_device(computing.device, computing.num_threads)
    # Imported here: they bring torch, which help and the checks above can do without.
    from lares.data.readers import load_dataset
    from lares.evaluation.evaluate import measured
    from lares.evaluation.per_user import require_users, write_ranks
    from lares.evaluation.popularity import popularity_tenths
    from lares.files import write_json
    from lares.training.trained import load_trained

    trained = load_trained(args.model)
    reading = dataclasses.replace(trained.data or DataOptions(), **given, path=path)
    read = load_dataset(**dataclasses.asdict(reading))
    if per_user is not None:
        require_users(read)
    dataset = _in_rows_of(trained, read, options.unknown == "skip")
    _say_if_other_data(args.model, path, read)
    usual = "1,2,4,8,12,16" if trained.model.config.is_recurrent else "0"
    depths = whole_numbers("--depths", usual if options.depths is None else options.depths)
    split: Split = getattr(dataset, options.split)
    as_in_run = _trainer_of(args.model).remove_history and not options.keep_history
    remove_history = options.remove_history or as_in_run
    metrics = options.metrics.split(",")
    try:
        ranks, found = measured(
            trained.model.to(device),
            split,
            depths=depths,
            ks=ks,
            batch_size=options.batch_size,
            remove_history=remove_history,
            seed=computing.seed,
            states=options.states,
            metrics=metrics,
            errors=True,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    results: dict[str, Any] = {str(depth): of_depth for depth, of_depth in found.items()}
    how = "one initial state for all" if options.states == "shared" else "an initial state for each"
    print(
        f"{options.split}: {len(split):,} samples, {how}, their history "
        f"{'left out of' if remove_history else 'in'} the ranking"
    )
    print(_tables(results, metrics, ks))
    if options.by_popularity:
        tenths, met = popularity_tenths(dataset, split), dataset.item_counts()[split.targets]
        by_tenth = _by_popularity(ranks, tenths, met, ks)
        for depth, rows in by_tenth.items():
            print(f"\ndepth {depth}, by popularity of the target")
            columns = [f"{metric}@{k}" for metric in USUAL for k in ks]
            print(metrics_table("tenth", rows, [*_COUNTS, *columns]))
        results["by_popularity"] = by_tenth
    if per_user is not None:
        write_ranks(per_user, ranks, split, read, dataset.vocabulary)
    if output is not None:
        write_json(output, results)


def _tables(results: dict[str, dict[str, float]], metrics: list[str], ks: list[int]) -> str:
    """Return metrics by depth as tables: means, then what is none, then the means' standard errors."""
    groups = [
        [name for name in metrics if name in USUAL],
        [name for name in metrics if name not in USUAL],
    ]
    blocks = [
        metrics_table("depth", results, [f"{name}@{k}" for name in group for k in ks])
        for group in groups
        if group
    ]
    for group in groups:
        means = [f"{name}@{k}" for name in group if name in MEANS for k in ks]
        if means:
            errors = {
                depth: {name: of_depth[name + ERROR] for name in means}
                for depth, of_depth in results.items()
            }
            named = " and ".join(name for name in group if name in MEANS)
            blocks.append(
                f"standard errors of {named}, which are means over samples\n"
                + metrics_table("depth", errors, means)
            )
    if "coverage" in metrics:
        blocks.append("coverage is of all lists together, and has no standard error")
    return "\n\n".join(blocks)


def _trainer_of(model: str) -> TrainerOptions:
    """Return the options of the model's run; the usual ones where there is no run."""
    run = find_run(model)
    return TrainerOptions() if run is None else read_config(run.config).trainer


def _say_if_other_data(model: str, path: str, dataset: Dataset) -> None:
    """Say on standard error if data are not those that a run was trained on."""
    run = find_run(model)
    record = None if run is None else DataRecord.load(run.record)
    if record is None:
        return
    difference = record.difference(DataRecord.of(dataset, record.form))
    if difference:
        print(
            f"note: {path} is other data than {model} was trained on: {difference}", file=sys.stderr
        )


def _in_rows_of(trained: TrainedModel, read: Dataset, skip: bool) -> Dataset:
    """Return data in the model's rows; if ``skip``, without samples with unknown items, and say so."""
    if not skip:
        try:
            return trained.same_rows(read)
        except DataError as error:
            raise DataError(f"{error}; --unknown skip leaves out the samples with them") from error
    known, n_unknown = trained.known_samples(read)
    if n_unknown:
        left = ", ".join(
            f"{len(getattr(read, name)) - len(getattr(known, name)):,} {name}"
            for name in get_args(_Split)
        )
        print(
            f"note: left out for {n_unknown:,} items that the model does not know: {left} samples",
            file=sys.stderr,
        )
    return known


def _by_popularity(
    ranks: dict[int, Tensor], tenths: NDArray[np.int64], met: NDArray[np.int64], ks: list[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return metrics of every depth by tenth, counted from 1, as far as there are samples.

    Args:
        ranks: of the samples' targets, (S,), by depth.
        tenths: (S,) of each sample, from 0.
        met: (S,) how often training meets each target; the least and the most go with a tenth's
            metrics, and its samples' number.
        ks: cut-offs.
    """
    import numpy as np
    import torch

    from lares.evaluation.ranking import metrics_from_ranks

    results: dict[str, dict[str, dict[str, float]]] = {str(depth): {} for depth in ranks}
    for tenth in np.unique(tenths).tolist():
        within = tenths == tenth
        numbers = int(within.sum()), int(met[within].min()), int(met[within].max())
        counts = dict(zip(_COUNTS, numbers, strict=True))
        for depth, of_depth in ranks.items():
            of_tenth = of_depth[torch.from_numpy(within).to(of_depth.device)]
            results[str(depth)][str(tenth + 1)] = counts | metrics_from_ranks(of_tenth, ks)
    return results
