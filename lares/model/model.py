"""``LaresModel``: encoder and scores; recommends from plain lists of item ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lares.data.batches import places_of
from lares.errors import ConfigError, WeightsError
from lares.finite import NonFinite, first_non_finite
from lares.model.catalogue import Catalogue, ItemIndex
from lares.model.config import MOST_SEED, LaresConfig
from lares.model.encoder import LaresEncoder
from lares.model.histories import checked_items, checked_rows, elements, rows_of_ids
from lares.model.modes import evaluating
from lares.model.packed import PackedHistories
from lares.model.seen import seen_items
from lares.model.streams import chunk_of, chunk_seed
from lares.names import shown
from lares.plain import plain, whole
from lares_kernels.spec.noise import MAX_SEQUENCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lares.data.vocabulary import Vocabulary

_RECOMMEND_BATCH = 256


class LaresModel(nn.Module):
    """A LARES recommender (arXiv 2505.16865).

    Args:
        config: of the model.
        text_features: (V, D), as :class:`LaresEncoder` takes them.
        vocabulary: raw ids of the catalogue's rows; without one the rows' numbers ``1..V-1`` are the
            ids.
        seed: of the state that every history starts from where a list is made or a model evaluated,
            if it is drawn and no other seed is given.

    Attributes:
        config: of the encoder.
        vocabulary, seed: as given; they are saved with the model.

    Raises:
        ConfigError: ``vocabulary`` has not the items of ``config``, or ``seed`` is none of 64 bits.
    """

    seed: int = 0  # of models that were pickled before they had one

    def __init__(
        self,
        config: LaresConfig,
        text_features: Tensor | None = None,
        vocabulary: Vocabulary | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.seed = whole("seed", seed, 0, MOST_SEED)
        if vocabulary is not None and vocabulary.n_items != config.n_items:
            raise ConfigError(
                f"the vocabulary has {len(vocabulary)} items; n_items={config.n_items} is a model of "
                f"{config.n_items - 1}, besides padding"
            )
        self.encoder = LaresEncoder(config, text_features)
        self.config = self.encoder.config
        self.vocabulary = vocabulary
        self._found_finite: object = None  # versions of the weights that were last looked at

    def extra_repr(self) -> str:
        """Say which ids :meth:`recommend` speaks."""
        if self.vocabulary is None:
            return f"ids: 1..{self.config.n_items - 1}, the rows' numbers (no vocabulary)"
        first, last = self.vocabulary.decode([1, len(self.vocabulary)])
        return f"ids: {len(self.vocabulary)} raw ones, {first!r} to {last!r}"

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        return self.encoder.item_embedding.weight.device

    @property
    def items(self) -> Tensor:
        """The catalogue, (V, d); row 0 is padding's."""
        return self.encoder.item_embedding.weight

    @property
    def catalogue(self) -> Catalogue:
        """Return the items and how :meth:`score_states` scores them."""
        if self.config.scores == "dot":
            return Catalogue(self.items, "dot", 1.0)
        return Catalogue(self.items, "cosine", self.config.tau)

    @property
    def policy_catalogue(self) -> Catalogue:
        """Return the items and how the policy of post-training scores them: by plain dot products
        whatever ``scores`` says; with text features, by cosines."""
        return Catalogue(self.items, "cosine" if self.config.has_text else "dot", 1.0)

    def score_states(self, states: Tensor) -> Tensor:
        """Scores of all catalogue rows: ``z E^T``, or cosines divided by ``tau``.

        Args:
            states: (..., d).

        Returns:
            (..., V); row 0 is padding's.
        """
        items = self.items
        if self.config.scores == "dot":
            return states @ items.mT
        cosines = functional.normalize(states, dim=-1) @ functional.normalize(items, dim=-1).mT
        return cosines / self.config.tau

    def forward(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        num_steps: int | Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Return :meth:`scores`: what is compiled, exported or wrapped in another module."""
        return self.scores(item_seq, lengths, num_steps, seed)

    def scores(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        num_steps: int | Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Return scores (B, V) of histories of rows; arguments as :meth:`LaresEncoder.forward`.

        Each history draws by its place in the batch, unlike in :meth:`recommend`.
        """
        num_steps = plain(num_steps)
        seed = seed if isinstance(seed, Tensor) else plain(seed)  # a tensor's number may change
        seeded = {} if seed is None else {"seed": seed}
        return self.score_states(self.encoder(item_seq, lengths, num_steps, **seeded).last)

    def recommend(
        self,
        histories: Sequence[Iterable[Any]],
        k: int = 10,
        *,
        remove_history: bool = True,
        num_steps: int | None = None,
        seed: int | None = None,
        index: ItemIndex | None = None,
        remove_seen: bool | None = None,
    ) -> list[list[Any]]:
        """Return the ``k`` best items for every history, best first, in raw ids.

        Dropout is off, whatever mode the model is in. Every history starts from the same drawn state,
        so its list depends on nothing but it. Equal scores keep the lower row first.

        Args:
            histories: item ids of the model's vocabulary, oldest first; where it has none, rows'
                numbers ``1..V-1``.
            k: items wanted, in ``1..V-1``.
            remove_history: leave out items of the whole history, also those beyond the window.
            num_steps: reasoning depth; None is ``mean_depth``.
            seed: of the drawn initial state; None is the model's.
            index: over the catalogue, instead of exact search: what it finds is returned, best or
                not. :class:`lares.integrations.faiss_index.FaissIndex` is one.
            remove_seen: former name of ``remove_history``.

        Returns:
            One list a history, shorter than ``k`` only where fewer items are left.

        Raises:
            DataError: (a ValueError) a history is empty, or an item is none or unknown; the message
                gives place and value. It is a TypeError, too, where something is no list.
            ConfigError: (a ValueError) ``k`` is out of range.
            WeightsError: (a ValueError) a weight is NaN or infinite.
        """
        rows = histories
        if self.vocabulary is not None:
            rows = rows_of_ids(self.vocabulary, checked_items(histories))
        remove_history = _removes_history(remove_history, remove_seen)
        found = self.recommend_rows(
            rows, k, remove_history=remove_history, num_steps=num_steps, seed=seed, index=index
        )
        if self.vocabulary is None:
            return found
        return [self.vocabulary.decode(items) for items in found]

    @torch.no_grad()
    def recommend_rows(
        self,
        histories: Sequence[Iterable[int]],
        k: int = 10,
        *,
        remove_history: bool = True,
        num_steps: int | None = None,
        seed: int | None = None,
        sequence_ids: Sequence[int] | None = None,
        index: ItemIndex | None = None,
        remove_seen: bool | None = None,
    ) -> list[list[int]]:
        """Do as :meth:`recommend`, with rows of the catalogue, ``1..V-1``, in and out.

        Args:
            histories: rows, oldest first.
            k, remove_history, num_steps, seed, index: as in :meth:`recommend`.
            sequence_ids: number of the stream that each history draws its initial state from, as
                :mod:`lares.model.streams` has them; None is 0 for all.
            remove_seen: former name of ``remove_history``.
        """
        remove_history = _removes_history(remove_history, remove_seen)
        n_items = self.config.n_items
        k, num_steps = plain(k), plain(num_steps)
        seed = whole("seed", self.seed if seed is None else seed, 0, MOST_SEED)
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= n_items - 1:
            raise ConfigError(
                f"k is {shown(k)}; it must be in 1..{n_items - 1}, the size of the catalogue"
            )
        rows = checked_rows(histories, n_items)
        streams = [0] * len(rows) if sequence_ids is None else _streams(sequence_ids)
        if len(streams) != len(rows):
            raise ConfigError(
                f"sequence_ids has {len(streams)} numbers; there are {len(rows)} histories"
            )
        self._refuse_non_finite()
        found: list[list[int]] = [[] for _ in rows]
        with evaluating(self):
            for places in _batches(streams):
                states = self._last_states(
                    *self._recent([rows[place] for place in places]),
                    num_steps,
                    chunk_seed(seed, chunk_of(streams[places[0]])),
                    [streams[place] % MAX_SEQUENCES for place in places],
                )
                histories_of = [rows[place] if remove_history else [] for place in places]
                for chosen, seen in seen_items(histories_of):
                    best = self._best(states, chosen, seen if remove_history else None, k, index)
                    for number, row in zip(chosen.tolist(), best.tolist(), strict=True):
                        found[places[number]] = [item for item in row if item]
        return found

    @torch.no_grad()
    def states_of_rows(
        self,
        histories: Sequence[Sequence[int] | NDArray[np.integer[Any]]],
        num_steps: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Return the states (B, d) that :meth:`recommend_rows` ranks by, of one batch.

        Args:
            histories: rows ``1..V-1`` of the catalogue, oldest first, at least one each: they are not
                looked at again.
            num_steps, seed: as in :meth:`recommend`.

        Raises:
            WeightsError: (a ValueError) a weight is NaN or infinite.
        """
        return self._states_of_recent(*self._recent(histories), num_steps, seed)

    @torch.no_grad()
    def states_of_spans(
        self,
        items: NDArray[np.integer[Any]],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        num_steps: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Do as :meth:`states_of_rows` for histories ``items[starts[b] : stops[b]]`` of one array."""
        recent = np.maximum(starts, stops - self.config.max_length)
        flat = items[places_of(recent, stops)].astype(np.int64)
        return self._states_of_recent(flat, stops - recent, num_steps, seed)

    def _recent(
        self, histories: Sequence[Sequence[int] | NDArray[np.integer[Any]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the last rows (N,) of histories, which the model looks at, and of each how many."""
        recent = [history[-self.config.max_length :] for history in histories]
        lengths = np.array([len(history) for history in recent], dtype=np.int64)
        return np.concatenate(recent).astype(np.int64), lengths

    def _states_of_recent(
        self,
        items: NDArray[np.int64],
        lengths: NDArray[np.int64],
        num_steps: int | None,
        seed: int | None,
    ) -> Tensor:
        seed = whole("seed", self.seed if seed is None else seed, 0, MOST_SEED)
        self._refuse_non_finite()
        with evaluating(self):
            return self._last_states(items, lengths, plain(num_steps), seed, [0] * len(lengths))

    def _best(
        self,
        states: Tensor,
        chosen: NDArray[np.int64],
        seen: NDArray[np.int64] | None,
        k: int,
        index: ItemIndex | None,
    ) -> Tensor:
        """Return rows (n, k) of the best items for the states ``chosen`` (n,) of (B, d), without the
        rows ``seen`` (n, E); 0 where none is left."""
        if len(chosen) < len(states):
            states = states[torch.from_numpy(chosen).to(self.device)]
        excluded = None if seen is None else torch.from_numpy(seen).to(self.device)
        return self.catalogue.top_k(states, k, excluded, index)

    def _last_states(
        self,
        items: NDArray[np.int64],
        lengths: NDArray[np.int64],
        num_steps: int | None,
        seed: int,
        sequence_ids: Sequence[int],
    ) -> Tensor:
        """Return the states (B, d) of checked histories, rows (N,) of which each has ``lengths`` (B,),
        that draw from ``sequence_ids``."""
        packed = PackedHistories.from_flat(
            self.config,
            torch.from_numpy(items).to(self.device),
            torch.from_numpy(lengths),
            torch.tensor(sequence_ids, device=self.device),
        )
        states: Tensor = self.encoder(packed, None, num_steps, seed=seed).last
        if not bool(torch.isfinite(states).all()):
            row = int((~torch.isfinite(states)).any(1).nonzero()[0])
            history = np.split(items, np.cumsum(lengths)[:-1])[row].tolist()
            raise WeightsError(
                f"the state of history {history} (rows of the catalogue) is "
                "not finite, though every weight is: the weights are too large for their precision"
            )
        return states

    def _refuse_non_finite(self) -> None:
        """Raise ``WeightsError`` if a weight is NaN or infinite.

        Items of such weights would be left out of every list, and nothing said. Weights are looked at
        once, and again where PyTorch counts a change of theirs (not for changes through ``.data``).
        """
        weights: Mapping[str, Tensor] = self.state_dict(keep_vars=True)
        state = _versions(weights.values())
        if state is not None and state == self._found_finite:
            return
        broken = first_non_finite(weights)
        if broken is not None:
            raise WeightsError(
                f"{broken}{self._item_of(broken)}: the model is unusable; load or train another"
            )
        self._found_finite = state

    def _item_of(self, broken: NonFinite) -> str:
        """Say which item a place in the table of items is."""
        if broken.name != "encoder.item_embedding.weight" or broken.place[0] == 0:
            return ""
        row = broken.place[0]
        name = row if self.vocabulary is None else self.vocabulary.decode([row])[0]
        return f" (item {shown(name)})"

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and, with a vocabulary, ``items.json``.

        Args:
            path: of the folder.

        Raises:
            CheckpointError: the files cannot be written (older ones survive), or a weight is NaN.
        """
        from lares.model.checkpoint import (
            save_model,  # needs safetensors, which a model alone does not
        )

        save_model(self.state_dict(), self.config, Path(path), self.vocabulary, self.seed)

    @classmethod
    def without_memory(cls, config: LaresConfig) -> LaresModel:
        """Return a model whose weights have shapes and no values, so that any configuration has one.

        Raises:
            ConfigError: a tensor would be larger than any memory.
        """
        try:
            with torch.device("meta"):
                return cls(config)
        except (RuntimeError, OverflowError, TypeError) as error:
            raise ConfigError(
                f"a model of n_items={config.n_items}, d_model={config.d_model}, d_ff={config.d_ff}, "
                f"max_length={config.max_length} is larger than any memory"
            ) from error

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, vocabulary: Vocabulary | Literal["saved"] | None = "saved"
    ) -> LaresModel:
        """Return the model in folder ``path``, in evaluation mode, on the CPU.

        Args:
            path: folder that :meth:`save_pretrained` wrote, or of a run, whose best model is taken.
            vocabulary: ``saved`` is the one that the model was saved with, if it had one; another, or
                None, is taken instead, so ``items.json`` may be missing.

        Raises:
            CheckpointError: a file is missing, broken or does not fit; the message names it.
        """
        from lares.model.checkpoint import check_weights, load_model
        from lares.model.folders import WEIGHTS_FILE, model_folder, seed_of_run

        folder = model_folder(path)
        saved = load_model(folder, vocabulary)
        # First without memory: a damaged configuration may ask for any amount of it.
        shapes = cls.without_memory(saved.config).state_dict()
        check_weights(shapes, saved.weights, folder / WEIGHTS_FILE)
        seed = seed_of_run(Path(path)) if saved.seed is None else saved.seed
        model = cls(saved.config, vocabulary=saved.vocabulary, seed=seed)
        model.to(saved.weights["encoder.item_embedding.weight"].dtype)
        model.load_state_dict(saved.weights)
        return model.eval()


def _removes_history(remove_history: bool, remove_seen: bool | None) -> bool:
    """Return whether histories are left out, whichever name the caller knows the option by."""
    if remove_seen is None:
        return remove_history
    message = "remove_seen is called remove_history, as in evaluate"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return remove_seen


def _streams(sequence_ids: Sequence[int]) -> list[int]:
    """Return the streams of histories as plain numbers; raise ``ConfigError`` for one that is none."""
    numbers = elements("sequence_ids", sequence_ids, "whole numbers, one a history")
    return [whole("a number in sequence_ids", number, 0, 2**62) for number in numbers]


def _batches(streams: Sequence[int]) -> Iterator[list[int]]:
    """Give the places of histories, of such streams, in batches; each of one chunk of streams."""
    chunks: dict[int, list[int]] = {}
    for place, stream in enumerate(streams):
        chunks.setdefault(chunk_of(stream), []).append(place)
    for places in chunks.values():
        for start in range(0, len(places), _RECOMMEND_BATCH):
            yield places[start : start + _RECOMMEND_BATCH]


def _versions(weights: Iterable[Tensor]) -> object:
    """Return what changes when a weight does; None where PyTorch does not count the changes."""
    try:
        return [(id(weight), weight.data_ptr(), weight._version) for weight in weights]
    except RuntimeError:  # a tensor of inference mode
        return None
