"""What to say where training comes to numbers that are not finite, and what to try."""

from __future__ import annotations

import math
from pathlib import Path

from lares.config import LaresConfig
from lares.errors import LaresError
from lares.training.config import RunConfig, TrainConfig

_SMALL_EPS = 1e-8  # below it a row of zeros makes gradients 10,000 times as large, or more


def diverged(found: str, state: Path, config: RunConfig, model: LaresConfig) -> LaresError:
    """Return the error of a run that came to numbers that are not finite.

    Args:
        found: what is not finite, and when.
        state: where the run keeps its state; what lies there was saved before.
        config: of the run.
        model: that it trains.
    """
    kept = f"the state saved before is kept in {state}" if state.is_file() else "nothing was saved"
    return LaresError(
        f"{found}; {kept}. Begin anew, in another --out, with {' or '.join(remedies(config, model))}"
    )


def remedies(config: RunConfig, model: LaresConfig) -> list[str]:
    """Return what is worth a try, the most likely first."""
    found = []
    drops = max(model.dropout, model.attn_dropout) > 0
    if config.trainer.precision.startswith("16"):
        found.append("--trainer.precision 32-true")
    if drops and model.eps < _SMALL_EPS:
        factor = f"{1 / math.sqrt(model.eps):.0e}" if model.eps else "any number"
        why = (
            f"with model.eps {model.eps:g} LayerNorm multiplies gradients by {factor} where dropout "
            f"leaves a token all zeros, as in few columns (model.d_model {model.d_model}) it does"
        )
        if isinstance(config, TrainConfig):
            found.append(f"--model.eps 1e-5 ({why})")
        else:  # the model decides about eps
            found.append(f"--start.dropout 0 --start.attn_dropout 0 ({why})")
    elif drops:
        section = "model" if isinstance(config, TrainConfig) else "start"
        found.append(f"a lower --{section}.dropout (now {model.dropout:g})")
    found.append(f"a lower --optimizer.lr (now {config.optimizer.lr:g})")
    return found
