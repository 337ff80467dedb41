"""Say what happened, and what to try, where training comes to numbers that are not finite."""

from __future__ import annotations

from pathlib import Path

from lares.errors import LaresError
from lares.model.config import LaresConfig
from lares.training.config import RunConfig, TrainConfig

# LayerNorm makes the gradient of a row of zeros up to 1 / sqrt(eps) times as large.
_SMALL_EPS = 1e-8
_LIKELY = 1e-9  # of a token, of which a run has millions


def diverged(reason: str, state: Path, config: RunConfig, model: LaresConfig) -> LaresError:
    """Return the error of a run that came to numbers that are not finite.

    Args:
        reason: what is not finite, and when.
        state: where the run keeps its state; what lies there was saved before.
        config: of the run.
        model: that it trains.
    """
    kept = f"the state saved before is kept in {state}" if state.is_file() else "nothing was saved"
    return LaresError(
        f"{reason}; {kept}. Begin anew, in another --out, with {' or '.join(remedies(config, model))}"
    )


def remedies(config: RunConfig, model: LaresConfig) -> list[str]:
    """Return what is worth a try, the most likely first."""
    advice = []
    if config.trainer.precision.startswith("16"):
        advice.append("--trainer.precision 32-true")
    trains = isinstance(config, TrainConfig)  # else the model that is there decides about eps
    # Dropout leaves a token all zeros, whose gradient LayerNorm divides by the root of eps.
    if model.eps < _SMALL_EPS and model.dropout**model.d_model > _LIKELY:
        why = (
            f"dropout leaves one token in {model.dropout**-model.d_model:,.0f} all zeros, as "
            f"model.d_model is {model.d_model}, and with model.eps {model.eps:g} LayerNorm makes "
            "far too much of its gradient"
        )
        advice.append(f"--model.eps 1e-5 ({why})" if trains else f"--start.dropout 0 ({why})")
    if model.dropout > 0:
        section = "model" if trains else "start"
        advice.append(f"a lower --{section}.dropout (now {model.dropout:g})")
    advice.append(f"a lower --optimizer.lr (now {config.optimizer.lr:g})")
    return advice
