"""A fit in the kernel of a notebook: what it shows, and that the stop button loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lares import Recommender
from tests.kernels.tools import cannot_run
from tests.recommender.helpers import lists

pytestmark = pytest.mark.long
OPTIONS = {"model": {"d_model": 16, "d_ff": 16}, "trainer": {"max_epochs": 20, "patience": 20}}


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A kernel that has been started in an empty folder."""
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        cannot_run("a kernel needs the extra docs")
    from jupyter_client.manager import KernelManager

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    yield manager
    manager.shutdown_kernel(now=True)


def run(
    manager: Any, code: str, sees: Callable[[str], None] = lambda text: None
) -> tuple[str, str]:
    """Run a cell; return what it shows and the name of what it raises, empty if it raises nothing.

    ``sees`` is called with every text as soon as it comes.
    """
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    shown = []

    def hook(message: dict[str, Any]) -> None:
        text = message["content"].get("text", "")
        shown.append(text)
        sees(text)

    reply = client.execute_interactive(code, output_hook=hook, timeout=300)
    client.stop_channels()
    return "".join(shown), reply["content"].get("ename", "")


def test_a_stopped_fit_goes_on_when_its_cell_is_run_again(
    manager: Any, interactions: Path, tmp_path: Path
) -> None:
    cell = (
        "from lares import Recommender\n"
        f"rec = Recommender(**{OPTIONS!r})\n"
        f"rec.fit({str(interactions)!r}, folder='run')\n"
        "rec.save('saved')"
    )

    def stop(text: str) -> None:
        if "epoch   3 " in text:
            manager.interrupt_kernel()

    shown, raised = run(manager, cell, stop)
    assert raised == "Interrupted", shown
    assert "epoch 1/20" in shown, "there is a bar"
    assert "ipywidgets" not in shown
    assert "epoch  20 " not in shown

    shown, raised = run(manager, cell)
    assert not raised
    assert "run folder run, from step " in shown
    assert "epoch   2 " not in shown
    assert "epoch  20 " in shown

    whole = Recommender(**OPTIONS).fit(interactions, progress=False)
    assert lists(Recommender.load(tmp_path / "saved").recommend()) == lists(whole.recommend())
