"""A recommender of one's own around ``RefineFunction``, the op under everything else here.

    python examples/custom_model.py

Most programs want ``RecurrentCore`` or ``refine``, which check what they are given. The function itself
is for those who hold the parameters and choose the backend themselves. The model learns to continue
sequences that count upwards.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from lares_kernels import CoreConfig, RefineFunction, catalogue_cross_entropy, explain
from lares_kernels.options import CallOptions, CallTensors
from lares_kernels.parameters import parameter_shapes

ITEMS, LENGTH = 50, 12


class CountingModel(nn.Module):
    """Embeds items, refines them for a few steps, and scores by the newest token's state."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.config = CoreConfig(d_model=32, n_heads=2, d_ff=64, n_layers=1, eps=1e-8)
        self.items = nn.Embedding(ITEMS, 32)
        self.core = nn.ParameterDict(
            {name: torch.zeros(shape) for name, shape in parameter_shapes(self.config).items()}
        )
        for name, parameter in self.core.items():
            if name.endswith("norm_weight"):
                nn.init.ones_(parameter)
            elif parameter.dim() > 2:
                nn.init.normal_(parameter, 0.0, 0.1)
        # Which program runs is settled once, not by every call.
        self.backend = explain(self.config, [LENGTH], steps).backend

    def forward(self, ids: Tensor, lengths: Tensor, seed: int) -> Tensor:
        """States (B, d) of the newest tokens of ids (B, L)."""
        trajectory, _, _ = RefineFunction.apply(
            self.items(ids),  # hidden (B, L, d)
            None,  # the initial state is drawn
            *CallTensors(lengths, num_steps=None, sequence_ids=None, seed=seed),
            CallOptions(self.config.key, self.backend, "fp32", max_steps=self.steps),
            *(self.core[name] for name in parameter_shapes(self.config)),
        )
        return trajectory[:, -1]


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train; gives the first and the last loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-steps", type=int, default=200)
    parser.add_argument("--reasoning-steps", type=int, default=4)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = CountingModel(options.reasoning_steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(options.train_steps):
        lengths = torch.randint(1, LENGTH + 1, (64,))
        ids = (torch.randint(ITEMS, (64, 1)) + torch.arange(LENGTH)) % ITEMS
        target = (ids[:, 0] + lengths) % ITEMS
        states = model(ids, lengths, seed=step)
        loss = catalogue_cross_entropy(states, model.items.weight, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == options.train_steps - 1:
            print(f"step {step}: loss {losses[-1]:.3f} on backend {model.backend}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
