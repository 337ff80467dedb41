"""Provide ``RecurrentCore``, the module that owns the parameters of a core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lares_kernels.function import refine
from lares_kernels.spec.call import RefineOutput
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.parameters import parameter_shapes, parameters_of

DEFAULT_INITIALIZER_RANGE = 0.02
# By Parameter.start, with the standard deviation of the model.
_STARTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": lambda parameter, std: parameter.normal_(0.0, std),
    "unit normal": lambda parameter, std: parameter.normal_(),
    "ones": lambda parameter, std: parameter.fill_(1.0),
    "zeros": lambda parameter, std: parameter.zero_(),
}


class RecurrentCore(nn.Module):
    """Run the LARES recurrence with its own parameters (arXiv 2505.16865, section 3.2).

    :data:`lares_kernels.spec.parameters.PARAMETERS` lists them; layers' parameters are stacked.
    Weights start normal with standard deviation 0.02 (BSARec's band scales with 1), biases 0,
    LayerNorms 1 and 0, the gate 0.

    Args:
        config: options of the core.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        config: CoreConfig,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        for name, shape in parameter_shapes(config).items():
            tensor = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(tensor))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, std: float = DEFAULT_INITIALIZER_RANGE) -> None:
        """Reset weights to draws from ``N(0, std^2)``, biases to 0, LayerNorms to the identity.

        Raises:
            AttributeError: a parameter is parametrized, and so no longer the module's own.
        """
        for parameter in parameters_of(self.config):
            _STARTS[parameter.start](self.get_parameter(parameter.name), std)

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        max_length: int | None = None,
        num_steps: int | Tensor = 1,
        state: Tensor | str | None = None,
        steps_done: int = 0,
        seed: int | Tensor | None = None,
        rollouts: int = 1,
        return_trajectory: bool = False,
        return_state: bool = False,
        sequence_ids: Tensor | None = None,
        precision: str | None = None,
    ) -> RefineOutput:
        """Refine ``hidden``; see :func:`lares_kernels.refine`. Dropout is on in training mode."""
        return refine(
            self.config,
            self.parameters_of_op(),
            hidden,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            max_length=max_length,
            num_steps=num_steps,
            state=state,
            steps_done=steps_done,
            seed=seed,
            rollouts=rollouts,
            return_trajectory=return_trajectory,
            return_state=return_state,
            sequence_ids=sequence_ids,
            training=self.training,
            precision=precision,
        )

    def parameters_of_op(self) -> Mapping[str, Tensor]:
        """Return the parameters as the op takes them, differentiable."""
        own = cast("Mapping[str, Tensor]", self._parameters)  # named_parameters() takes 20 us
        names = parameter_shapes(self.config)
        if own.keys() == names.keys():
            return own
        # Parametrised, normed or pruned ones are attributes, and so are all of DataParallel's replicas.
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.to_dict().items())
