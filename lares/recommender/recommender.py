"""``Recommender``: from interactions to recommendations in raw ids."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lares.data.dataset import Dataset, Sequences, leave_one_out
from lares.data.formats.arrow import is_in_memory
from lares.data.readers import load_dataset
from lares.data.vocabulary import Vocabulary
from lares.errors import ConfigError, DataError
from lares.evaluation.evaluate import evaluate
from lares.evaluation.ranking import DEFAULT_KS
from lares.metrics import USUAL
from lares.model.catalogue import Catalogue
from lares.model.config import MOST_STEPS
from lares.model.folders import is_run
from lares.model.model import LaresModel
from lares.names import shown
from lares.plain import check_known, one_of, whole
from lares.recommender.asked import (
    Asked,
    asked_by_histories,
    asked_by_users,
    item_lists,
    listed,
)
from lares.recommender.bulk import write_lists
from lares.recommender.ranked import BATCH, Candidates, How, ListMaker, lists_table
from lares.recommender.stored import Stored, load_stored, save_stored
from lares.recommender.tables import as_table_of, library_for
from lares.training.config import (
    DEFAULT_RECIPE,
    RECIPES_FOLDER,
    DataOptions,
    RunConfig,
    TrainConfig,
    TrainerOptions,
    merge_options,
    recipes,
)
from lares.training.engine import launch
from lares.training.interrupts import Interrupted
from lares.training.options_file import read_yaml
from lares.training.result import TrainResult
from lares.training.run_folder import RunFolder
from lares.training.spt import train
from lares.training.trained import TrainedModel

# Options of the data that are arguments of fit.
_OF_FIT = ("path", "user_column", "item_column", "time_column")


class Recommender:
    """A model, the raw ids of its users and items, and everybody's history.

    Args:
        recipe: that options start from, one of ``lares train --recipe``'s.
        options: those of ``lares train`` by section, which override the recipe:
            ``trainer={"max_epochs": 20}``, or ``**{"trainer.max_epochs": 20}``. Sections are ``data``,
            ``model``, ``objective``, ``sampling``, ``optimizer`` and ``trainer``.

    Attributes:
        config: options of the training; None of a model that was loaded without them.
        model: that was trained, a :class:`lares.LaresModel`; ``recommender.model.to("cuda")`` moves it.
        result: what the training came to; None where the model was loaded.
        tables: library whose tables are given back: ``pandas``, ``polars`` or ``arrow``. :meth:`fit`
            sets it to that of the interactions, to ``arrow`` for files and dicts.

    Raises:
        ConfigError: (a ValueError) there is no such recipe or option, or a value is out of range.
    """

    def __init__(self, recipe: str = DEFAULT_RECIPE, **options: Any) -> None:
        one_of("recipe", recipe, recipes())
        start = read_yaml(RECIPES_FOLDER / f"{recipe}.yaml")
        given = _by_section(options)
        placed = [name for name in given.get("data", {}) if name in _OF_FIT]
        if placed:
            raise ConfigError(f"data.{placed[0]} is an argument of fit; give it there")
        self.config: RunConfig | None = TrainConfig.from_dict(merge_options(start, given))
        self.tables = "arrow"
        self.result: TrainResult | None = None
        self._model: LaresModel | None = None
        self._sequences: Sequences | None = None
        self._dataset: Dataset | None = None

    def __repr__(self) -> str:
        if self._model is None:
            return "Recommender(not fitted)"
        users = "no" if self._sequences is None else f"{len(self._sequences):,}"
        return f"Recommender({users} users, {len(self._vocabulary):,} items)"

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        interactions: Any,
        user_column: str = "user_id",
        item_column: str = "item_id",
        time_column: str | None = None,
        *,
        folder: str | Path | None = None,
        progress: bool = True,
    ) -> Recommender:
        """Train on interactions, and keep everybody's history.

        The last item of every user tests, the one before validates, as in ``lares train``; lists are
        made of whole histories.

        Args:
            interactions: DataFrame of pandas or polars, Arrow table, path of a file or folder as
                ``lares train`` takes them, or a dict of columns; a row for every interaction, in any
                order.
            user_column, item_column: of the ids, whole numbers or text.
            time_column: to order a user's rows by; None is ``timestamp`` if there is such a column,
                else the order of the rows, which ``""`` asks for.
            folder: of the run. A run that is there goes on where it was stopped or killed, to the same
                numbers, on the same data and with the same options; one that is finished is taken as it
                is. By default a folder that is removed afterwards.
            progress: show a bar, and a line an epoch.

        Returns:
            Itself.

        Raises:
            DataError: (a ValueError) the interactions cannot be used; the message gives column and row.
            ConfigError: (a ValueError) the folder holds a run with other options.
            Interrupted: SIGINT (Ctrl-C, a notebook's stop button) or SIGTERM came; the run is saved in
                ``folder``.
        """
        config = self._config_for(interactions, user_column, item_column, time_column)
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="lares-") as temporary:
                # Its logs would be removed with it.
                trainer = dataclasses.replace(config.trainer, tensorboard=False)
                unlogged = dataclasses.replace(config, trainer=trainer)
                self._train(interactions, unlogged, Path(temporary) / "run", progress, kept=False)
        else:
            self._train(interactions, config, Path(folder), progress, kept=True)
        self.config, self.tables = config, library_for(interactions)
        return self

    def _config_for(
        self, interactions: Any, user_column: str, item_column: str, time_column: str | None
    ) -> TrainConfig:
        """Return the options of a training on these interactions."""
        config = self.config
        if not isinstance(config, TrainConfig):
            raise ConfigError(
                "this recommender was loaded without options to train with; make a new one"
            )
        data = dataclasses.replace(
            config.data,
            path="" if is_in_memory(interactions) else str(Path(interactions)),
            user_column=user_column,
            item_column=item_column,
            time_column=time_column,
        )
        if config.trainer.devices != 1:
            raise ConfigError(
                f"trainer.devices is {config.trainer.devices}; fit trains in one process. lares train "
                "starts several, and Recommender.load reads its run"
            )
        return dataclasses.replace(config, data=data)

    def _train(
        self, interactions: Any, config: TrainConfig, folder: Path, progress: bool, kept: bool
    ) -> None:
        dataset = _read(interactions, config.data)
        fabric = launch(config.trainer)
        if fabric.world_size > 1:
            raise ConfigError(
                f"there are {fabric.world_size} processes of a launcher; fit trains in one"
            )
        run = RunFolder(folder, option="folder")
        try:
            # Weights are drawn from torch's generator, which is left as it was.
            with torch.random.fork_rng(devices=[]):
                result = train(
                    config,
                    run,
                    resume=is_run(folder),
                    progress=progress,
                    fabric=fabric,
                    dataset=dataset,
                )
                model = LaresModel.from_pretrained(run.best)
        except Interrupted as error:
            on = f"the run is saved in {folder}: call fit again with the same data and folder"
            lost = "give fit a folder, and it goes on where it was stopped"
            raise Interrupted(
                f"fit was stopped; {on if kept else lost}", error.signal_number
            ) from None
        if not kept:  # the folder that they name is removed
            result = dataclasses.replace(result, curves="", next="")
        self._model = model
        self.result, self._dataset, self._sequences = result, dataset, dataset.sequences

    # --- lists ------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        histories: Any = None,
        k: int = 10,
        *,
        remove_history: bool = True,
        exclude: Any = (),
        only: Any = None,
        depth: int | None = None,
        seed: int | None = None,
    ) -> Any:
        """Return the ``k`` best items for users of the data, or for histories that are given.

        Args:
            users: raw ids of users of the data, whose whole histories count, held-out items included.
                With neither these nor ``histories``: all of them, in ascending order.
            histories: raw item ids, oldest first: a mapping from users, of any ids, to theirs, or a
                list of histories, whose users are their numbers, counted from 0.
            k: most items of a list.
            remove_history: leave out the items of the whole history.
            exclude: items to leave out: a list for all, or a mapping from users to theirs.
            only: items that may be recommended, likewise; a mapping has a list for everybody. None is
                all items.
            depth: reasoning depth; None is the mean of training.
            seed: of the drawn initial state; None is the model's.

        Returns:
            A table with a row for every item of every list, in columns ``user``, ``item``, ``score``
            and ``rank``, which is 1 for the best: a pandas or polars DataFrame or an Arrow table, as
            ``tables`` says. Scores are the model's.

        Raises:
            DataError: (a ValueError) a user or an item is unknown, or a history is empty.
            ConfigError: (a ValueError) an option is out of range.
        """
        maker, asked = self._lists(users, histories, k, remove_history, exclude, only, depth, seed)
        return as_table_of(self.tables, pa.concat_tables(list(maker.tables(asked))))

    def recommend_to_file(
        self,
        output: str | Path,
        users: Any = None,
        histories: Any = None,
        k: int = 10,
        *,
        remove_history: bool = True,
        exclude: Any = (),
        only: Any = None,
        depth: int | None = None,
        seed: int | None = None,
        progress: bool = True,
    ) -> None:
        """Write what :meth:`recommend` gives into a file, a part at a time.

        A call that was stopped or killed goes on where it was when it is made again, to the same file,
        which is there when it is whole.

        Args:
            output: a file whose name ends in ``.parquet``, ``.csv`` or ``.jsonl``.
            users, histories, k, remove_history, exclude, only, depth, seed: as of :meth:`recommend`.
            progress: show a bar.

        Raises:
            DataError, ConfigError: (ValueErrors) as :meth:`recommend`, or the file's form is unknown.
            Interrupted: SIGINT (Ctrl-C, a notebook's stop button) or SIGTERM came.
        """
        maker, asked = self._lists(users, histories, k, remove_history, exclude, only, depth, seed)
        write_lists(Path(output), maker, asked, progress=progress)

    def _lists(
        self,
        users: Any,
        histories: Any,
        k: int,
        remove_history: bool,
        exclude: Any,
        only: Any,
        depth: int | None,
        seed: int | None,
    ) -> tuple[ListMaker, Asked]:
        """Return what makes the lists that were asked for, and for whom."""
        model, vocabulary = self.model, self._vocabulary
        if users is not None and histories is not None:
            raise ConfigError("give users or histories, one of them")
        if histories is not None:
            asked = asked_by_histories(histories, vocabulary)
        else:
            asked = asked_by_users(users, self._known_sequences())
        if depth is not None:
            depth = whole("depth", depth, int(model.config.is_recurrent), MOST_STEPS)
        how = How(
            k=whole("k", k, 1, len(vocabulary)),
            remove_history=remove_history,
            exclude=item_lists("exclude", exclude, asked, vocabulary),
            only=None if only is None else item_lists("only", only, asked, vocabulary, True),
            depth=depth,
            seed=seed,
        )
        return ListMaker(model, vocabulary, how), asked

    def similar_items(self, items: Any, k: int = 10) -> Any:
        """Return the ``k`` items most similar to each, by the cosine of their embeddings.

        Args:
            items: raw ids.
            k: most items of a list, from which the item itself is left out.

        Returns:
            A table as of :meth:`recommend`, with a column ``similar_to`` in place of ``user``.

        Raises:
            DataError: (a ValueError) an item is unknown.
            ConfigError: (a ValueError) ``k`` is out of range.
        """
        vocabulary = self._vocabulary
        rows = vocabulary.encode(listed("items", items, "item ids"))
        k = whole("k", k, 1, max(len(vocabulary) - 1, 1))
        embeddings = self.model.items.detach()
        candidates = Candidates(Catalogue(embeddings, "cosine", 1.0), None)
        parts = []
        for first in range(0, max(len(rows), 1), BATCH):
            some = rows[first : first + BATCH]
            best, scores = candidates.best(
                embeddings[some], k, [(np.arange(len(some)), some[:, None])]
            )
            parts.append(
                lists_table({"similar_to": vocabulary.take(some)}, vocabulary, best, scores)
            )
        return as_table_of(self.tables, pa.concat_tables(parts))

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self,
        interactions: Any = None,
        *,
        depths: Sequence[int] | None = None,
        split: str = "test",
        ks: Sequence[int] = DEFAULT_KS,
        batch_size: int = 512,
        remove_history: bool | None = None,
        states: str = "shared",
        seed: int | None = None,
        metrics: Sequence[str] = USUAL,
        errors: bool = False,
    ) -> dict[int, dict[str, float]]:
        """Rank held-out items among the whole catalogue, as ``lares evaluate`` does.

        Args:
            interactions: as of :meth:`fit`, with the same columns; None is those of :meth:`fit`.
            depths: reasoning depths; by default those of ``trainer.test_depths``, or 0 for a model
                without recurrence.
            split: ``test``, the last item of every user, or ``valid``, the one before.
            ks: cut-offs.
            batch_size: sequences a pass.
            remove_history: leave a user's history out of the ranking; None is as in training
                (``trainer.remove_history``, which is false unless asked for, as published).
            states, seed: as of :func:`lares.evaluation.evaluate`.
            metrics: of ``recall``, ``ndcg``, ``mrr``, ``coverage`` and ``repeats``
                (:func:`lares.evaluation.evaluate` says what they are).
            errors: add the standard error of every mean, such as ``recall@10_error``.

        Returns:
            {depth: {"recall@10": ..., "ndcg@10": ...}}.

        Raises:
            DataError: (a ValueError) the interactions cannot be used, or have unknown items.
            ConfigError: (a ValueError) an option is out of range.
        """
        one_of("split", split, ("valid", "test"))
        trainer = TrainerOptions() if self.config is None else self.config.trainer
        if depths is None:
            depths = trainer.test_depths if self.model.config.is_recurrent else (0,)
        try:
            return evaluate(
                self.model,
                getattr(self._samples(interactions), split),
                depths=depths,
                ks=ks,
                batch_size=batch_size,
                remove_history=trainer.remove_history if remove_history is None else remove_history,
                seed=seed,
                states=states,
                metrics=metrics,
                errors=errors,
            )
        except ValueError as error:
            if isinstance(error, ConfigError | DataError):
                raise
            raise ConfigError(str(error)) from error

    def _samples(self, interactions: Any) -> Dataset:
        """Return the samples of interactions, or of those that the model was trained on."""
        if interactions is not None:
            data = DataOptions() if self.config is None else self.config.data
            read = _read(interactions, data)
            return TrainedModel(self.model, self._vocabulary, None).same_rows(read)
        if self._dataset is None:
            self._dataset = leave_one_out(self._known_sequences())
        return self._dataset

    # --- files ------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write model, users and histories into a folder, each file whole or not at all.

        ``lares recommend`` and ``lares evaluate`` take it as a model's folder. Without
        ``users.parquet`` it serves histories that are given, and nobody is known.

        Raises:
            CheckpointError: a file cannot be written.
        """
        self.model.save_pretrained(folder)
        save_stored(Path(folder), Stored(self.config, self.tables, self._sequences))

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """Return the recommender in a folder: of :meth:`save`, of a run, or of a model.

        Of the latter two no user is known, and lists are made of histories that are given.

        Raises:
            CheckpointError: a file is missing, broken or does not fit.
        """
        made = cls()
        made._model = LaresModel.from_pretrained(folder)
        stored = load_stored(Path(folder), made._vocabulary)
        made.config, made.tables, made._sequences = stored
        return made

    # --- parts ------------------------------------------------------------------------------------

    @property
    def model(self) -> LaresModel:
        """The trained model.

        Raises:
            ConfigError: there is none yet.
        """
        if self._model is None:
            raise ConfigError("this recommender has no model: call fit, or Recommender.load")
        return self._model

    @property
    def _vocabulary(self) -> Vocabulary:
        """Ids of the model's items: raw ones, or its rows' numbers if it was given none."""
        known = self.model.vocabulary
        return Vocabulary(np.arange(1, self.model.config.n_items)) if known is None else known

    def _known_sequences(self) -> Sequences:
        if self._sequences is None:
            raise DataError(
                "no user is known here: the data were split already, as in RecBole's sequence form, or "
                "the folder has no users.parquet; give histories"
            )
        return self._sequences


def _by_section(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return options by section, of which some may have dotted names."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        section, dot, option = name.partition(".")
        check_known([section], list(TrainConfig.SECTIONS), "section")
        if not dot and not isinstance(value, Mapping):
            raise ConfigError(f"section {section!r} is {shown(value)}; it must hold options")
        for each, given in {option: value}.items() if dot else value.items():
            before = found.setdefault(section, {})
            if each in before:
                raise ConfigError(f"{section}.{each} is given twice")
            before[each] = given
    return found


def _read(interactions: Any, options: DataOptions) -> Dataset:
    how = dataclasses.asdict(options)
    return load_dataset(**{**how, "path": interactions})
