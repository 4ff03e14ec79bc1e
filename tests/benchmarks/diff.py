"""The difference of two versions of a table of millions of rows that share no file, beside a plain read of both."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from tests.benchmarks.measure import measure
from tests.conftest import ROOT

READ = "from deltalake import DeltaTable as T; [T('lake/t', version=v).to_pyarrow_table() for v in (0, 1)]"


def rows(n: int, changed: bool) -> pa.Table:
    """n rows of six columns; `changed`: one in a hundred has another number, one in a thousand is new."""
    ids = np.arange(n) + (n // 1000 if changed else 0)
    numbers = ids * 0.5 + np.where((ids % 100 == 0) & changed, 1, 0)
    keys = pa.array(ids).cast(pa.string())
    texts = {f"c{i}": pa.array((ids * (i + 7)) % 1000).cast(pa.string()) for i in range(3)}
    return pa.table({"_row_id": keys, "id": ids, "x": numbers, **texts})


def run(n: int = 3_000_000) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for changed in (False, True):
            write_deltalake(str(folder / "lake" / "t"), rows(n, changed), mode="overwrite")
        plain = measure([sys.executable, "-c", READ], folder)
        cost = measure([sys.executable, "-m", "headgate", "diff", "t@0", "t@1"], folder, PYTHONPATH=str(ROOT))
        print(cost.stdout.rstrip())
        print(f"{n:,} rows, both versions read  {plain}")
        print(f"{n:,} rows, headgate diff       {cost}  ({cost.cpu / plain.cpu:.1f} of the plain read's CPU)")
