"""``LaresConfig``: everything that shapes a model. Defaults are the published ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from lares.errors import ConfigError
from lares.model.depth import MOST_OVER_MEAN, DepthSampler
from lares.plain import check_known, option, positive, rate_below, settle_options, whole, whole_in
from lares_kernels.spec.config import ACTIVATIONS, ADAPTERS, NORMS, CoreConfig

CONFIG_FILE = "config.json"  # of a saved model
# The op's; what has no adapter is no recurrence.
Adapter: TypeAlias = Literal[tuple(text for text in ADAPTERS if text != "none")]  # type: ignore[valid-type]
Activation: TypeAlias = Literal[ACTIVATIONS]  # type: ignore[valid-type]
Norm: TypeAlias = Literal[NORMS]  # type: ignore[valid-type]
EvaluationStates = Literal["shared", "drawn"]  # one initial state for all samples, or one for each
EVALUATION_STATES: tuple[str, ...] = get_args(EvaluationStates)
MOST_SEED = 2**64 - 1
MOST_THREADS = 1024  # of a process: more than any machine has cores to give it
MOST_STEPS = (1 << 16) - 1  # a draw's address has 16 bits for its reasoning step
MOST_EXPERTS = 256  # a draw's address has 8 bits for its expert
FORMERLY = {"scores": {"cos": "cosine"}, "core": {"fmlp": "filter"}}  # choices of older files


def renamed_choices(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a model, choices under the names that they have today."""
    return {
        name: FORMERLY.get(name, {}).get(value, value) if isinstance(value, str) else value
        for name, value in options.items()
    }


@dataclass(frozen=True)
class LaresConfig:
    """Shape of a LARES model (arXiv 2505.16865, section 4.1.4).

    Attributes:
        n_items: Number of rows V of the catalogue, padding row 0 included.
        max_length: Length L of the window; longer histories keep their last L items. 0 has 'lares
            train' fit it to the data's size.
        d_model: Width d of a token.
        n_heads: Number of attention heads.
        d_ff: Width f of the feed-forward.
        n_pre_layers: Number of layers of the pre-block, which runs once.
        n_core_layers: Number of layers of the core-block, which runs at every reasoning step; 0 is
            plain SASRec.
        core: Layers of pre-block and core-block: SASRec's by default; filter is FMLP-Rec's learned
            filters, bsarec attention beside frequency bands. These two mix the whole padded window:
            histories are padded to max_length.
        band_share: Share a of the bands of bsarec, in a bands + (1 - a) attention.
        cutoff: Cut-off c of bsarec: the first c // 2 + 1 frequencies are the low band.
        text_features: File of items' text features to fuse into the embedding (TedRec), such as 'lares
            data embed' writes. They become part of the model: a saved one does not need the file.
        text_width: Width of the text features; 0 for a model without. Follows from the file.
        text_experts: Number of experts that project the text features.
        text_dropout: Dropout rate of the text features.
        adapter: Way in which the state meets the pre-block's output.
        activation: Activation of the feed-forward; gelu is computed with erf.
        norm: Place of LayerNorm; query is the first SASRec's.
        eps: Number that every LayerNorm adds to the variance.
        dropout: Dropout rate of the embedding and of every sublayer's output.
        attn_dropout: Dropout rate of the attention probabilities.
        mean_depth: Mean number of reasoning steps in training, and the depth at test time if no other
            is asked for.
        depth_sampler: Distribution that a training step draws its depth from.
        state_mode: Initial state: normal is drawn, at test time, too; normal_zero in training alone.
        state_omega: Scale of a drawn state.
        state_sigma: Standard deviation of a drawn state before the scale.
        scores: Scores of items; cosine is divided by tau.
        tau: Temperature of cosine scores and of the alignment losses.
        initializer_range: Standard deviation of the weights at the start.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    n_items: int
    max_length: int = option(20, whole_in(1))
    d_model: int = 64
    n_heads: int = 2
    d_ff: int = 256
    n_pre_layers: int = option(2, whole_in(0))
    n_core_layers: int = option(2, whole_in(0))
    adapter: Adapter = "add"
    activation: Activation = "gelu"
    norm: Norm = "post"
    eps: float = 1e-12
    dropout: float = 0.5
    attn_dropout: float = 0.5
    mean_depth: int = option(4, whole_in(1, MOST_STEPS // MOST_OVER_MEAN))
    depth_sampler: DepthSampler = "poisson-lognormal"
    state_mode: Literal["normal", "normal_zero", "zero"] = "normal"
    state_omega: float = 3.0
    state_sigma: float = 1.0
    scores: Literal["dot", "cosine"] = "dot"
    tau: float = option(1.0, positive)
    initializer_range: float = option(0.02, positive)
    core: Literal["attention", "filter", "bsarec"] = "attention"
    band_share: float = 0.7
    cutoff: int = 3
    text_features: str = ""
    text_width: int = option(0, whole_in(0))
    text_experts: int = option(8, whole_in(1, MOST_EXPERTS))
    text_dropout: float = option(0.2, rate_below(0.99))

    def __post_init__(self) -> None:
        for name, value in renamed_choices(vars(self)).items():
            object.__setattr__(self, name, value)
        adapter = vars(self)["adapter"]
        if isinstance(adapter, str) and adapter == "none":
            raise ConfigError(
                "adapter is 'none'; for a model without recurrence set n_core_layers=0"
            )
        settle_options(self)
        whole("n_items", self.n_items, 2)
        if self.n_pre_layers + self.n_core_layers == 0:
            raise ConfigError("n_pre_layers and n_core_layers are both 0: the model has no layer")
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
        names = [field.name for field in dataclasses.fields(CoreConfig)]
        shared = {name: value for name, value in vars(self).items() if name in names}
        own = {
            "n_layers": n_layers,
            "adapter": adapter,
            "mixer": self.core,
            "window": self.max_length if self.mixes_window else 0,
        }
        return CoreConfig(**(shared | own))

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
        check_known(options, [field.name for field in dataclasses.fields(cls)], "model option")
        if "n_items" not in options:
            raise ConfigError("model option 'n_items' is missing")
        return cls(**options)
