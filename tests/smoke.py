"""What an installed package must do, in any environment: ``python -I tests/smoke.py BACKEND``.

``BACKEND`` is ``cpu`` where the install holds the CPU kernel, else ``reference``. Run it from outside a
checkout; ``-I`` keeps Python from looking for packages beside this file. Needs nothing but the
package and what it depends on.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

import lares_kernels
from lares import LaresConfig, LaresModel
from lares_kernels import (
    CoreConfig,
    RecurrentCore,
    available_backends,
    catalogue_top_k,
    use_backend,
)

TREE = Path(__file__).resolve().parent.parent


def check_op(backend: str) -> None:
    """Run the op forward and backward and hold it to the equations."""
    torch.manual_seed(0)
    core = RecurrentCore(CoreConfig(d_model=32, n_heads=2, d_ff=64, n_layers=1))
    hidden, lengths = torch.randn(3, 7, 32), torch.tensor([7, 4, 1])
    found = []
    for name in (backend, "equations"):
        x = hidden.clone().requires_grad_()
        with use_backend(name):
            out = core(x, lengths, num_steps=3, seed=1)
            out.last.square().sum().backward()
        assert x.grad is not None
        found.append((out.last.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def check_catalogue(backend: str) -> None:
    """Find the best items and compare them with those of a full sort."""
    queries, items = torch.randn(5, 32), torch.randn(200, 32)
    with use_backend(backend):
        best = catalogue_top_k(queries, items, 10)
    wanted = (queries @ items.T).topk(10)
    torch.testing.assert_close(best.scores, wanted.values, rtol=1e-5, atol=1e-5)
    assert torch.equal(best.ids, wanted.indices)


def check_model(folder: Path) -> None:
    """Save a model, read it back, and compare what it recommends."""
    model = LaresModel(LaresConfig(n_items=101, max_length=10)).eval()
    model.save_pretrained(folder)
    again = LaresModel.from_pretrained(folder).eval()
    histories = [[3, 14, 15], [92, 6]]
    assert str(model.recommend(histories, k=5)) == str(again.recommend(histories, k=5))


def check_commands() -> None:
    """Run the command line as pip installed it."""
    program = Path(sysconfig.get_path("scripts")) / "lares"
    for argument in ("--help", "doctor"):
        done = subprocess.run([program, argument], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def main(backend: str) -> None:
    """Run all of it and say with what."""
    place = Path(lares_kernels.__file__).resolve()
    assert TREE not in place.parents, f"{place} is the checkout, not what was installed"
    said = available_backends()
    if backend == "cpu":
        assert said["cpu"] == "usable", said["cpu"]
    else:
        assert "not in this wheel" in said["cpu"], said["cpu"]
    check_op(backend)
    check_catalogue(backend)
    with tempfile.TemporaryDirectory() as folder:
        check_model(Path(folder))
    check_commands()
    print(
        f"python {sys.version.split()[0]}, torch {torch.__version__}, backend {backend}: all well"
    )
    print(f"cpu: {said['cpu']}")


if __name__ == "__main__":
    main(sys.argv[1])
