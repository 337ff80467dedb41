"""``LaresConfig``: everything that shapes a model. Defaults are the published ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lares.errors import ConfigError
from lares.model.depth import DEPTH_SAMPLERS, MOST_OVER_MEAN
from lares.names import nearest
from lares.plain import one_of, positive, settle_options, whole
from lares_kernels.spec.config import CoreConfig

CONFIG_FILE = "config.json"  # of a saved model
STATE_MODES = ("normal", "normal_zero", "zero")
SCORES = ("dot", "cosine")
EVALUATION_STATES = ("shared", "drawn")  # one initial state for all samples, or one for each
MOST_SEED = 2**64 - 1
MOST_THREADS = 1024  # of a process: more than any machine has cores to give it
MOST_STEPS = (1 << 16) - 1  # a draw's address has 16 bits for its reasoning step
MOST_EXPERTS = 256  # a draw's address has 8 bits for its expert
CORES = ("attention", "filter", "bsarec")
_FORMERLY = {"scores": {"cos": "cosine"}, "core": {"fmlp": "filter"}}  # of older files


@dataclass(frozen=True)
class LaresConfig:
    """Shape of a LARES model (arXiv 2505.16865, section 4.1.4).

    Attributes:
        n_items: Number of rows V of the catalogue, padding row 0 included.
        max_length: Length L of the window; longer histories keep their last L items.
        d_model: Width d of a token.
        n_heads: Number of attention heads.
        d_ff: Width f of the feed-forward.
        n_pre_layers: Number of layers of the pre-block, which runs once.
        n_core_layers: Number of layers of the core-block, which runs at every reasoning step; 0 is
            plain SASRec.
        core: Layers of pre-block and core-block: attention (SASRec's), filter (FMLP-Rec's learned
            filters) or bsarec (attention beside frequency bands). The last two mix the whole padded
            window: histories are padded to max_length.
        band_share: Share a of the bands of bsarec, in a bands + (1 - a) attention.
        cutoff: Cut-off c of bsarec: the first c // 2 + 1 frequencies are the low band.
        text_features: File of items' text features to fuse into the embedding (TedRec), such as 'lares
            data embed' writes. They become part of the model: a saved one does not need the file.
        text_width: Width of the text features; 0 for a model without. Follows from the file.
        text_experts: Number of experts that project the text features.
        text_dropout: Dropout rate of the text features.
        adapter: Way in which the state meets the pre-block's output: add, gate or concat.
        activation: Activation of the feed-forward: gelu (erf), gelu_tanh, relu or silu.
        norm: Place of LayerNorm: post or pre.
        eps: Number that every LayerNorm adds to the variance.
        dropout: Dropout rate of the embedding and of every sublayer's output.
        attn_dropout: Dropout rate of the attention probabilities.
        mean_depth: Mean number of reasoning steps in training, and the depth at test time if no other
            is asked for.
        depth_sampler: Distribution that a training step draws its depth from: poisson-lognormal,
            uniform, poisson-unbounded, poisson-bounded, constant or non-recurrent.
        state_mode: Initial state: normal (drawn, also at test time), normal_zero (drawn in training,
            zero at test time) or zero.
        state_omega: Scale of a drawn state.
        state_sigma: Standard deviation of a drawn state before the scale.
        scores: Scores of items: dot, or cosine (divided by tau).
        tau: Temperature of cosine scores and of the alignment losses.
        initializer_range: Standard deviation of the weights at the start.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    n_items: int
    max_length: int = 20
    d_model: int = 64
    n_heads: int = 2
    d_ff: int = 256
    n_pre_layers: int = 2
    n_core_layers: int = 2
    adapter: str = "add"
    activation: str = "gelu"
    norm: str = "post"
    eps: float = 1e-12
    dropout: float = 0.5
    attn_dropout: float = 0.5
    mean_depth: int = 4
    depth_sampler: str = "poisson-lognormal"
    state_mode: str = "normal"
    state_omega: float = 3.0
    state_sigma: float = 1.0
    scores: str = "dot"
    tau: float = 1.0
    initializer_range: float = 0.02
    core: str = "attention"
    band_share: float = 0.7
    cutoff: int = 3
    text_features: str = ""
    text_width: int = 0
    text_experts: int = 8
    text_dropout: float = 0.2

    def __post_init__(self) -> None:
        settle_options(self)
        for name, names in _FORMERLY.items():
            value = getattr(self, name)
            object.__setattr__(self, name, names.get(value, value))
        whole("n_items", self.n_items, 2)
        for name in ("max_length", "mean_depth"):
            whole(name, getattr(self, name), 1)
        if self.mean_depth > MOST_STEPS // MOST_OVER_MEAN:
            raise ConfigError(
                f"mean_depth is {self.mean_depth}; the most is {MOST_STEPS // MOST_OVER_MEAN}"
            )
        for name in ("n_pre_layers", "n_core_layers", "text_width"):
            whole(name, getattr(self, name), 0)
        whole("text_experts", self.text_experts, 1)
        if self.text_experts > MOST_EXPERTS:
            raise ConfigError(f"text_experts is {self.text_experts}; the most is {MOST_EXPERTS}")
        if not 0.0 <= self.text_dropout < 0.99:
            raise ConfigError(f"text_dropout is {self.text_dropout!r}; it must lie in 0 .. 0.99")
        if self.n_pre_layers + self.n_core_layers == 0:
            raise ConfigError("n_pre_layers and n_core_layers are both 0: the model has no layer")
        one_of("depth_sampler", self.depth_sampler, DEPTH_SAMPLERS)
        one_of("state_mode", self.state_mode, STATE_MODES)
        one_of("scores", self.scores, SCORES)
        one_of("core", self.core, CORES)
        if self.adapter == "none":
            raise ConfigError(
                "adapter is 'none'; for a model without recurrence set n_core_layers=0"
            )
        for name in ("tau", "initializer_range"):
            positive(name, getattr(self, name))
        for block, layers in (
            (self.core_config, "n_core_layers"),
            (self.pre_config, "n_pre_layers"),
        ):
            try:
                block()
            except ValueError as error:
                message = str(error).replace("CoreConfig.n_layers", layers)
                raise ConfigError(message.replace("CoreConfig.", "")) from error

    @property
    def is_recurrent(self) -> bool:
        """Tell whether the model reasons at all; if not, it is plain SASRec."""
        return self.n_core_layers > 0

    @property
    def has_text(self) -> bool:
        """Tell whether text features are fused into the item embedding."""
        return self.text_width > 0 or bool(self.text_features)

    @property
    def mixes_window(self) -> bool:
        """Tell whether padding takes part, so that every history fills the whole window."""
        return self.core != "attention"

    @property
    def prefixes_stand_alone(self) -> bool:
        """Tell whether a token's state depends on earlier tokens alone, so that it is its prefix's."""
        return not (self.mixes_window or self.has_text)

    def core_config(self) -> CoreConfig:
        """Return the core-block's configuration (of one layer if there is none, to check options)."""
        return self._block_config(max(self.n_core_layers, 1), self.adapter)

    def pre_config(self) -> CoreConfig:
        """Return the pre-block's configuration (of one layer if there is none)."""
        return self._block_config(max(self.n_pre_layers, 1), "none")

    def _block_config(self, n_layers: int, adapter: str) -> CoreConfig:
        return CoreConfig(
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff,
            n_layers=n_layers,
            adapter=adapter,
            activation=self.activation,
            norm=self.norm,
            eps=self.eps,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
            state_omega=self.state_omega,
            state_sigma=self.state_sigma,
            mixer=self.core,
            window=self.max_length if self.mixes_window else 0,
            band_share=self.band_share,
            cutoff=self.cutoff,
        )

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> LaresConfig:
        """The configuration of ``options``.

        Raises:
            ConfigError: an option is unknown (the message gives the nearest known one), missing or
                out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown model option {name!r}; {nearest(str(name), known)}")
        if "n_items" not in options:
            raise ConfigError("model option 'n_items' is missing")
        return cls(**options)
