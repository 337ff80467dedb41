"""Memory of text ids: that of their letters, however long one of them is."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.data.tables import peak_megabytes

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells a process its own peak"
)

PROGRAM = """
import sys
from pathlib import Path
path, n, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if what == "write":
    import numpy as np, pyarrow as pa, pyarrow.csv, pyarrow.compute as pc
    generator = np.random.default_rng(0)
    def names(word, numbers):
        return pc.binary_join_element_wise(word, pa.array(numbers).cast(pa.string()), "-")
    columns = {
        "user_id": names("user", generator.integers(n // 10, size=n)),
        "item_id": names("item", generator.permutation(n)),
        "timestamp": pa.array(generator.integers(2**40, size=n)),
    }
    pa.csv.write_csv(pa.table(columns), path)
    with path.open("a") as file:
        file.write("user-1," + "x" * 40_000 + ",5\\n")
    sys.exit()
from lares.data import load_dataset
dataset = load_dataset(path)
assert len(dataset.vocabulary) == n + 1
assert dataset.vocabulary.find(["item-7", "x" * 40_000, "x" * 39_999]).tolist()[1:] == [n + 1, 0]
dataset.digest()
print(Path("/proc/self/status").read_text())
"""


@pytest.mark.parametrize(
    ("rows", "most"), [(100_000, 300), pytest.param(10_000_000, 1500, marks=pytest.mark.long)]
)
def test_text_ids(tmp_path: Path, rows: int, most: int) -> None:
    """One text of 40,000 letters among ``rows`` short ones; ``most`` MB at the peak, all told."""
    run = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "x.csv"), str(rows)]
    subprocess.run([*run, "write"], check=True)
    done = subprocess.run([*run, "read"], check=True, capture_output=True, text=True)
    assert peak_megabytes(done.stdout) < most
