"""Progress bars: tqdm's, which draws them where a program runs, without advice on what to install."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # Of a notebook without ipywidgets, where the bar is drawn in text.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
