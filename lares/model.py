"""``LaresModel``: encoder and scores; recommends from plain lists of item ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

import lares_kernels as lk
from lares.config import LaresConfig
from lares.encoder import LaresEncoder

_RECOMMEND_BATCH = 256


class Scoring(TypedDict):
    """How the catalogue ops of ``lares_kernels`` are to score."""

    scores: str
    temperature: float


class ItemIndex(Protocol):
    """Finds items for :meth:`LaresModel.recommend` in another way than by scoring all of them."""

    def search(self, queries: Tensor, k: int, excluded: Tensor | None) -> Tensor:
        """Ids (B, k) of rows of the catalogue without padding's, best first, -1 where none is left.

        Args:
            queries: (B, d).
            k: items wanted.
            excluded: (B, H) ids that a row leaves out, -1 where there is none.
        """


class LaresModel(nn.Module):
    """A LARES recommender (arXiv 2505.16865).

    Args:
        config: of the model.
        text_features: (V, D), as :class:`LaresEncoder` takes them.
    """

    def __init__(self, config: LaresConfig, text_features: Tensor | None = None) -> None:
        super().__init__()
        self.encoder = LaresEncoder(config, text_features)
        self.config = self.encoder.config

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.encoder.item_embedding.weight.device

    @property
    def items(self) -> Tensor:
        """The catalogue, (V, d); row 0 is padding's."""
        return self.encoder.item_embedding.weight

    @property
    def scoring(self) -> Scoring:
        """Options with which the catalogue ops score like :meth:`score_states`."""
        if self.config.scores == "dot":
            return {"scores": "dot", "temperature": 1.0}
        return {"scores": "cosine", "temperature": self.config.tau}

    @property
    def policy_scoring(self) -> Scoring:
        """As ``scoring``, of the policy of post-training: plain dot products whatever ``scores`` says;
        with text features, cosines."""
        return {"scores": "cosine" if self.config.has_text else "dot", "temperature": 1.0}

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

    def scores(
        self,
        item_seq: Tensor,
        lengths: Tensor,
        num_steps: int | Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Scores (B, V) of histories; arguments as :meth:`LaresEncoder.forward`."""
        return self.score_states(self.encoder(item_seq, lengths, num_steps, seed=seed).last)

    @torch.no_grad()
    def recommend(
        self,
        histories: Sequence[Sequence[int]],
        k: int = 10,
        *,
        remove_seen: bool = True,
        num_steps: int | None = None,
        seed: int = 0,
        index: ItemIndex | None = None,
    ) -> list[list[int]]:
        """The ``k`` best items for every history, best first.

        Dropout is off, whatever mode the model is in. Equal scores keep the lower id first.

        Args:
            histories: item ids in ``1..V-1``, oldest first.
            k: items wanted, in ``1..V-1``.
            remove_seen: leave out items of the whole history, also those beyond the window.
            num_steps: reasoning depth; None is ``mean_depth``.
            seed: of the drawn initial state.
            index: over the catalogue, instead of exact search: what it finds is returned, best or
                not. :class:`lares.integrations.faiss_index.FaissIndex` is one.

        Returns:
            One list a history, shorter than ``k`` only where fewer items are left.

        Raises:
            ValueError: a history is empty, an id is out of range, or ``k`` is.
        """
        n_items = self.config.n_items
        if not 1 <= k <= n_items - 1:
            raise ValueError(f"k is {k}; it must be in 1..{n_items - 1}, the size of the catalogue")
        _check_histories(histories, n_items)
        was_training = self.training
        self.eval()
        try:
            found: list[list[int]] = []
            for start in range(0, len(histories), _RECOMMEND_BATCH):
                batch = histories[start : start + _RECOMMEND_BATCH]
                states = self._last_states(batch, num_steps, seed, start)
                # Without padding's row: ids are one less, and padding becomes -1, no item.
                seen = _padded(batch).to(self.device) - 1 if remove_seen else None
                if index is None:
                    best = lk.catalogue_top_k(
                        states, self.items[1:], k, excluded=seen, **self.scoring
                    ).ids
                else:
                    best = index.search(states, k, seen)
                found += [[item + 1 for item in row if item >= 0] for row in best.tolist()]
            return found
        finally:
            self.train(was_training)

    def _last_states(
        self,
        histories: Sequence[Sequence[int]],
        num_steps: int | None,
        seed: int,
        first_id: int,
    ) -> Tensor:
        window = self.config.max_length
        recent = [history[-window:] for history in histories]
        lengths = torch.tensor([len(history) for history in recent])
        ids = torch.arange(first_id, first_id + len(recent), device=self.device)
        out = self.encoder(
            _padded(recent).to(self.device),
            lengths.to(self.device),
            num_steps,
            seed=seed,
            sequence_ids=ids,
        )
        states: Tensor = out.last
        return states

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into folder ``path``.

        Raises:
            CheckpointError: the files cannot be written (older ones survive), or a weight is NaN.
        """
        from lares.checkpoint import save_model  # needs safetensors, which a model alone does not

        save_model(self.state_dict(), self.config, Path(path))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> LaresModel:
        """The model in folder ``path``, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: a file is missing, broken or does not fit; the message names it.
        """
        from lares.checkpoint import WEIGHTS_FILE, check_weights, load_model

        config, weights = load_model(Path(path))
        model = cls(config)
        check_weights(model.state_dict(), weights, Path(path) / WEIGHTS_FILE)
        model.to(weights["encoder.item_embedding.weight"].dtype)
        model.load_state_dict(weights)
        return model.eval()


def _padded(histories: Sequence[Sequence[int]]) -> Tensor:
    """Item ids, padded with zeros on the right."""
    longest = max(len(history) for history in histories)
    ids = torch.zeros(len(histories), longest, dtype=torch.int64)
    for row, history in enumerate(histories):
        ids[row, : len(history)] = torch.tensor(list(history))
    return ids


def _check_histories(histories: Sequence[Sequence[int]], n_items: int) -> None:
    for row, history in enumerate(histories):
        if len(history) == 0:
            raise ValueError(f"history {row} is empty; every history needs at least one item")
        for position, item in enumerate(history):
            if not 1 <= item < n_items:
                raise ValueError(
                    f"item id {item} in history {row}, position {position}: "
                    f"ids run from 1 to {n_items - 1}"
                )
