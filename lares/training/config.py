"""Everything a run depends on: ``TrainConfig`` and ``PosttrainConfig``, by default as published.

Nothing here imports torch, numpy or pyarrow, not even for type checkers: the command line reads its
options from these classes, and jsonargparse runs what is imported for type checkers alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from lares.data.conditions import Repeats, check_bound, check_condition
from lares.data.forms import Format
from lares.errors import ConfigError
from lares.model.config import MOST_SEED, MOST_STEPS, MOST_THREADS, EvaluationStates, LaresConfig
from lares.objectives.rpt.config import RptConfig
from lares.objectives.spt.config import SptConfig, check_has_steps
from lares.plain import (
    check_known,
    one_of,
    option,
    plain,
    positive,
    rate_below,
    settle_options,
    whole_in,
)
from lares.training.options_file import read_yaml

_Run = TypeVar("_Run", bound="RunConfig")

RECIPES_FOLDER = Path(__file__).parent.parent / "recipes"
DEFAULT_RECIPE = "quick"  # of lares train and Recommender; classes default to what is published
Samples = Literal["prefixes", "users", "auto"]
# As Lightning Fabric calls them.
Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps", "tpu"]
Baseline = Literal["popularity", "sasrec"]
Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true"]
# Encodings of a step's samples have numbers of 24 bits; a last batch may be an eighth larger.
MOST_ENCODINGS = 1 << 23
MOST_BATCH = MOST_ENCODINGS // 4
MOST_DECAY = 1e30  # float32 holds more, but no weight with it
# Options that the data's size decides where they have this value; lares.training.fitted has the rules.
FITTED: dict[str, object] = {
    "model.max_length": 0,
    "optimizer.batch_size": 0,
    "trainer.patience": 0,
    "objective.align_short_only": True,
    "sampling.samples": "auto",
    "sampling.overlap": -1,
}
_DECIDED_WITH = {"objective.align_short_only": ("objective.alpha", "objective.gamma")}
MOST_ROLLOUTS = 256  # a draw's address has 8 bits for its rollout
# Of runs whose config.yaml does not name them yet.
_FORMER_OPTIONS = {"trainer": {"test_states": "drawn"}}


@dataclass(frozen=True)
class DataOptions:
    """Interactions to read, and how to read them.

    Attributes:
        path: File or folder of interactions, or the name of a public set, such as ml-100k.
        format: Format of the data; auto goes by names, columns and first lines.
        user_column: Column of the users' ids.
        item_column: Column of the items' ids.
        time_column: Column to order a user's rows by. With null it is 'timestamp' if there is such a
            column, else the order of the rows, which "" asks for.
        header: Whether text with delimiters has a header line; without one columns are called by their
            numbers, from 0.
        where: Condition that rows must fulfil, such as "rating >= 4 and event in ('view', 'buy')".
        since: First time to keep, such as 2020-01-31, or a number as the column of times has them.
        until: Last time to keep; a day is kept as a whole.
        repeats: Items that a user has again. All are kept, or consecutive ones become one, or the first
            or last of an item is kept.
        core: Keep only users and items with at least this many interactions; 0 keeps all.
        delimiter: Separator of the cells of text, such as ; or tab; auto finds it.
        text_ids: Take ids for text even where all are whole numbers.
        drop_missing: Leave out rows that lack an id or a time; else they are an error.
    """

    path: str = ""
    format: Format = "auto"
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str | None = None
    header: bool = True
    where: str = option("", check_condition)
    since: str = option("", check_bound)
    until: str = option("", check_bound)
    repeats: Repeats = "keep"
    core: int = option(0, whole_in(0))
    delimiter: str = "auto"
    text_ids: bool = False
    drop_missing: bool = False

    def __post_init__(self) -> None:
        settle_options(self, "data.")
        self._check_columns()
        if self.delimiter == "":
            raise ConfigError(
                "data.delimiter is empty; give what stands between cells, such as ; or tab"
            )

    def _check_columns(self) -> None:
        columns: dict[str, str] = {}
        for name in ("user_column", "item_column", "time_column"):
            column = getattr(self, name)
            if not column:
                if name != "time_column":
                    raise ConfigError(f"data.{name} is ''; give the name of a column")
                continue
            if column in columns:
                raise ConfigError(
                    f"data.{columns[column]} and data.{name} are both {column!r}; they must be "
                    "different columns"
                )
            columns[column] = name


@dataclass(frozen=True)
class SamplingOptions:
    """Samples that a training step learns from.

    Attributes:
        samples: Kind of samples. As published, every prefix of a history is a sample, encoded alone;
            with users, a history is encoded once and all its prefixes learn from that. With auto 'lares
            train' takes users, but for models that mix whole windows.
        overlap: Least number of context items, with users, of targets beyond a long history's first
            window; null is half the window. -1 has 'lares train' take 5, or half a short window.
        aligned: Number of targets, with users, that alignment compares in a step, drawn for every step;
            0 compares all.
    """

    samples: Samples = "prefixes"
    overlap: int | None = option(None, whole_in(-1))
    aligned: int = option(1024, whole_in(0))

    def __post_init__(self) -> None:
        settle_options(self, "sampling.")

    @property
    def whole_histories(self) -> bool:
        """Tell whether a history is encoded once for all its prefixes."""
        return self.samples == "users"

    def check_model(self, model: LaresConfig) -> None:
        """Raise ``ConfigError`` unless such samples can train ``model``."""
        if self.whole_histories and not model.prefixes_stand_alone:
            raise ConfigError(
                "sampling.samples is 'users', but this model mixes whole windows (core "
                f"{model.core!r}{', text features' * model.has_text}): a token's state is not its "
                "prefix's; take 'prefixes'"
            )


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of Adam.

    Attributes:
        lr: Learning rate.
        weight_decay: Weight decay: this times each weight is added to its gradient.
        batch_size: Samples of a step, over all processes. A last batch below an eighth of it joins the
            one before. Whole histories are added until they have this many targets. 0 has 'lares train'
            fit it to the data's size.
    """

    lr: float = option(1e-3, positive)
    weight_decay: float = 0.0
    batch_size: int = option(1024, whole_in(0, MOST_BATCH))

    def __post_init__(self) -> None:
        settle_options(self, "optimizer.")
        if not 0 <= self.weight_decay <= MOST_DECAY:
            raise ConfigError(
                f"optimizer.weight_decay is {self.weight_decay!r}; it must be a number in "
                f"0..{MOST_DECAY:g}"
            )


def _one_of_baselines(name: str, baseline: str) -> None:
    """Raise ``ConfigError`` unless ``baseline`` is one."""
    one_of(name, baseline, get_args(Baseline))


@dataclass(frozen=True)
class TrainerOptions:
    """Options of the training loop.

    Attributes:
        max_epochs: Greatest number of passes over the training samples.
        patience: Stop after this many evaluations without a better NDCG@10. 0 has 'lares train' fit it
            to the data's size.
        valid_every: Number of epochs between evaluations.
        seed: Seed of the initial weights and of every random draw.
        accelerator: Kind of device.
        devices: Number of devices, with one process each.
        precision: Precision of training.
        num_threads: Number of threads of each process on the CPU; null leaves torch's setting.
        eval_batch_size: Number of sequences in one evaluation pass.
        remove_history: Leave a user's history out of the ranking. The authors do not.
        test_depths: Reasoning depths to report test metrics for.
        test_states: Initial states of the test metrics: one for all samples as in 'lares evaluate' and
            'lares recommend', or drawn for each sample, as published. Validation draws.
        baselines: What the test result is held against, with the history ranked and removed. popularity
            counts items; sasrec trains the same model without its recurrence, for at most as long as
            the run took. With [] the result has the run's own ranking alone.
        checkpoint_every_steps: Save the training state also after this many steps inside an epoch; 0
            saves it at the end of epochs only.
        log_every: Number of steps after which losses are logged and checked for NaN.
        tensorboard: Write TensorBoard logs besides the CSV.
    """

    max_epochs: int = option(300, whole_in(1))
    patience: int = option(10, whole_in(0))
    valid_every: int = option(1, whole_in(1))
    seed: int = option(2025, whole_in(0, MOST_SEED))
    accelerator: Accelerator = "auto"
    devices: int = option(1, whole_in(1))
    precision: Precision = "32-true"
    num_threads: int | None = option(None, whole_in(1, MOST_THREADS))
    eval_batch_size: int = option(512, whole_in(1))
    remove_history: bool = False
    test_depths: list[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 12, 16], metadata={"check": whole_in(1, MOST_STEPS)}
    )
    test_states: EvaluationStates = "shared"
    baselines: list[str] = field(default_factory=list, metadata={"check": _one_of_baselines})
    checkpoint_every_steps: int = option(500, whole_in(0))
    log_every: int = option(10, whole_in(1))
    tensorboard: bool = True

    def __post_init__(self) -> None:
        precision = vars(self)["precision"]
        if isinstance(precision, str) and precision == "16-true":
            raise ConfigError(
                "trainer.precision is '16-true', in which Adam cannot train: in 16 bits its squared "
                "gradients are 0, and weights become NaN in the first step; take '16-mixed', "
                "'bf16-mixed' or 'bf16-true'"
            )
        settle_options(self, "trainer.")
        if not self.test_depths:
            raise ConfigError("trainer.test_depths is empty; give at least one depth")


@dataclass(frozen=True)
class StartOptions:
    """Model that post-training starts from.

    Attributes:
        checkpoint: Run folder, whose best model is taken, or model folder.
        dropout: Dropout rate of the policy; null leaves the model's own.
        attn_dropout: Dropout rate of the policy's attention; null leaves the model's own.
    """

    checkpoint: str = ""
    dropout: float | None = option(0.1, rate_below(1))
    attn_dropout: float | None = option(0.1, rate_below(1))

    def __post_init__(self) -> None:
        settle_options(self, "start.")

    def of_policy(self, model: LaresConfig) -> LaresConfig:
        """Configuration of the policy that starts from ``model``."""
        rates = {"dropout": self.dropout, "attn_dropout": self.attn_dropout}
        given: dict[str, Any] = {name: rate for name, rate in rates.items() if rate is not None}
        return dataclasses.replace(model, **given)


@dataclass(frozen=True)
class RunConfig:
    """Hold what every run depends on; each kind of run adds its own sections."""

    COMMAND: ClassVar[str]  # that starts such a run, after lares
    SECTIONS: ClassVar[dict[str, type]] = {}

    data: DataOptions
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)

    def __post_init__(self) -> None:
        self.check_processes(self.trainer.devices)

    def check_processes(self, n: int) -> None:
        """Raise ``ConfigError`` unless a step's samples can be shared by ``n`` processes."""
        if 0 < self.optimizer.batch_size < 8 * n:
            raise ConfigError(
                f"optimizer.batch_size is {self.optimizer.batch_size}; {n} devices need at least "
                f"{8 * n}"
            )

    def to_dict(self) -> dict[str, Any]:
        """All options as nested plain values."""
        options = dataclasses.asdict(self)
        return {name: options[name] for name in self.SECTIONS}

    def left_to_data(self) -> list[str]:
        """Names ``section.option`` of the options that the data's size is to decide."""
        options = self.to_dict()
        found = []
        for name, open_value in FITTED.items():
            section, option = name.split(".")
            if options.get(section, {}).get(option) == open_value:
                found += [name, *_DECIDED_WITH.get(name, ())]
        return found

    def decided(self: _Run, decided: Mapping[str, Any]) -> _Run:
        """The configuration with values for what is left to the data, by ``section.option``."""
        options = self.to_dict()
        for name in self.left_to_data():
            section, option = name.split(".")
            options[section][option] = decided[name]
        return type(self).from_dict(options)

    @classmethod
    def from_dict(cls: type[_Run], options: Mapping[str, Any]) -> _Run:
        """The configuration of nested ``options``; unknown names raise ``ConfigError``."""
        check_known(options, list(cls.SECTIONS), "section")
        built: dict[str, Any] = {}
        for name, section in cls.SECTIONS.items():
            given = options.get(name) or {}
            if not isinstance(given, Mapping):
                raise ConfigError(f"section {name!r} is {given!r}; it must hold options")
            if section is LaresConfig:  # without n_items, which the data decide
                if "n_items" in given:
                    raise ConfigError(f"{name}.n_items is what the data say; leave it out")
                built[name] = dict(given)
                continue
            check_known(given, [f.name for f in dataclasses.fields(section)], f"option of {name}")
            try:
                built[name] = section(**given)
            except TypeError as error:
                raise ConfigError(f"section {name!r}: {error}") from error
        return cls(**built)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """An SPT run. ``model`` holds the fields of :class:`lares.LaresConfig` but ``n_items``, which the
    data decide; ``max_length`` is 0 where they decide that, too."""

    COMMAND: ClassVar[str] = "train"
    SECTIONS: ClassVar[dict[str, type]] = {
        "data": DataOptions,
        "model": LaresConfig,
        "objective": SptConfig,
        "sampling": SamplingOptions,
        "optimizer": OptimizerOptions,
        "trainer": TrainerOptions,
    }

    model: dict[str, Any] = field(default_factory=dict)
    objective: SptConfig = field(default_factory=SptConfig)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.model_config(2)  # checks the options; the catalogue does not matter for that
        if model.text_width and not model.text_features:
            raise ConfigError(
                f"model.text_width is {model.text_width}, but there are no text features so wide: "
                "name their file in model.text_features, and leave model.text_width"
            )
        self.sampling.check_model(model)
        check_has_steps(model, self.objective)
        if "sasrec" in self.trainer.baselines:
            if not model.is_recurrent:
                raise ConfigError(
                    "trainer.baselines has 'sasrec', but the model has no recurrence to leave out: "
                    "it is that baseline itself"
                )
            self.without_recurrence()

    def model_config(self, n_items: int) -> LaresConfig:
        """Return the model's configuration for a catalogue of ``n_items`` rows.

        A window that is left to the data has one item here.
        """
        return LaresConfig.from_dict(
            {**self.model, "n_items": n_items} | ({"max_length": 1} if self._open_window else {})
        )

    @property
    def _open_window(self) -> bool:
        length = plain(self.model.get("max_length"))
        return type(length) is int and length == 0

    def without_recurrence(self) -> TrainConfig:
        """Return the options of the baseline ``sasrec``: the recipe's over these, with as many layers,
        each of which runs once."""
        model = self.model_config(2)
        alone = {
            "trainer": {"baselines": ["popularity"]},
            "objective": {"deep_supervision": 0.0},
            "model": {"n_pre_layers": model.n_pre_layers + model.n_core_layers},
        }
        recipe = read_yaml(RECIPES_FOLDER / "sasrec.yaml")
        return TrainConfig.from_dict(merge_options(merge_options(self.to_dict(), recipe), alone))

    def to_dict(self) -> dict[str, Any]:
        """All options as nested plain values, the model's with their defaults filled in."""
        model = self.model_config(2).to_dict() | ({"max_length": 0} if self._open_window else {})
        del model["n_items"]
        return {**super().to_dict(), "model": model}


@dataclass(frozen=True)
class RptOptimizerOptions(OptimizerOptions):
    """Options of Adam for post-training."""

    lr: float = option(5e-4, positive)
    batch_size: int = option(400, whole_in(1, MOST_BATCH))


@dataclass(frozen=True)
class PosttrainConfig(RunConfig):
    """An RPT run: from a trained model, which decides everything about the model but dropout."""

    COMMAND: ClassVar[str] = "posttrain"
    SECTIONS: ClassVar[dict[str, type]] = {
        "data": DataOptions,
        "start": StartOptions,
        "objective": RptConfig,
        "sampling": SamplingOptions,
        "optimizer": RptOptimizerOptions,
        "trainer": TrainerOptions,
    }

    optimizer: OptimizerOptions = field(default_factory=RptOptimizerOptions)
    start: StartOptions = field(default_factory=StartOptions)
    objective: RptConfig = field(default_factory=RptConfig)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        left = self.left_to_data()
        if left:
            raise ConfigError(
                f"{left[0]} is {FITTED[left[0]]!r}, which 'lares train' fits to the data; "
                "post-training needs another value"
            )
        if "sasrec" in self.trainer.baselines:
            raise ConfigError(
                "trainer.baselines has 'sasrec', which lares train alone can train; leave it, or name "
                "it for the run that this one starts from"
            )
        rollouts, size = self.objective.rollouts, self.optimizer.batch_size
        if rollouts > MOST_ROLLOUTS or (rollouts + 2) * size > MOST_ENCODINGS:
            raise ConfigError(
                f"objective.rollouts is {rollouts} and optimizer.batch_size {size}; the most are "
                f"{MOST_ROLLOUTS} rollouts, and {MOST_ENCODINGS // (rollouts + 2)} samples with so many"
            )


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


def read_run_options(path: Path) -> dict[str, Any]:
    """Return the options in a run's ``config.yaml``; what it is too old to name as it was then."""
    return merge_options(_FORMER_OPTIONS, read_yaml(path))


def read_config(path: Path) -> RunConfig:
    """The configuration in the ``config.yaml`` of a run of any kind."""
    return config_of(read_run_options(path))


def config_of(options: Mapping[str, Any]) -> RunConfig:
    """The configuration of nested ``options`` of a run of any kind."""
    kind = PosttrainConfig if "start" in options else TrainConfig
    return kind.from_dict(options)


def merge_options(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Options by section, those of ``over`` in place of those of ``base``."""
    for options in (base, over):
        for name, given in options.items():
            if given is not None and not isinstance(given, Mapping):
                raise ConfigError(f"section {name!r} is {given!r}; it must hold options")
    return {
        name: {**(base.get(name) or {}), **(over.get(name) or {})}
        for name in dict.fromkeys([*base, *over])
    }


def differing_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names ``section.option`` in which two configurations differ."""
    names = []
    for section in sorted(set(old) | set(new)):
        before, after = old.get(section, {}), new.get(section, {})
        for name in sorted(set(before) | set(after)):
            if before.get(name) != after.get(name):
                names.append(f"{section}.{name}")
    return names
