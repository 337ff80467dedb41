"""Run the notebooks of docs/ anew and store what their cells give.

    python -m website.run_notebooks             # all of them
    python -m website.run_notebooks docs/guide/notebooks/sasrec_swap.ipynb

Each runs in a folder of its own, which is removed afterwards, with the `lares` of this Python.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "guide" / "notebooks"


def executed(path: Path, folder: Path) -> Any:
    """Return a notebook with its outputs, without times of day and what a bar has drawn over.

    Args:
        path: of the notebook, which stays as it is.
        folder: to run it in.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises; the message has cell and traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    quiet = {"KINETO_LOG_LEVEL": "99"}  # torch's profiler says when it starts and stops
    client.execute(env={**os.environ, **quiet, "PATH": programs})
    notebook.metadata = metadata  # without the version of this Python
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_blank(output)]
    return notebook


def _is_blank(output: Any) -> bool:
    return output.output_type == "stream" and not output.text.strip()


def main() -> None:
    """Run notebooks and write them, each as a whole."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=sorted(NOTEBOOKS.glob("*.ipynb"))
    )
    for path in parser.parse_args().notebooks:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
