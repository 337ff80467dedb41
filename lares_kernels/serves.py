"""What a backend has code for, declared: a core with any other choice is refused, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from lares_kernels.choices import Activation, Adapter, Mixer, Norm, Padding
from lares_kernels.config import CoreConfig


@dataclass(frozen=True)
class Serves:
    """Names the choices that a backend has code for, every one.

    A name that joins an enum later is refused until the backend has its code and names it here.

    Attributes:
        adapters, activations, norms, mixers, paddings: what cores may have.
    """

    adapters: tuple[Adapter, ...]
    activations: tuple[Activation, ...]
    norms: tuple[Norm, ...]
    mixers: tuple[Mixer, ...]
    paddings: tuple[Padding, ...]

    def reason(self, config: CoreConfig) -> str | None:
        """Return why cores like ``config`` are not served, or None if they are."""
        for name, value, served in (
            ("adapter", config.adapter, self.adapters),
            ("activation", config.activation, self.activations),
            ("norm", config.norm, self.norms),
            ("mixer", config.mixer, self.mixers),
            ("padding", config.padding, self.paddings),
        ):
            texts = [choice.text for choice in served]
            if value not in texts:
                return f"{name} is {value!r}; it serves {', '.join(texts)}"
        return None
