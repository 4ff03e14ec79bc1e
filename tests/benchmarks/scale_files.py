"""What the files of a commit cost the driver, whatever is in them: their footers are read, and the log names them.

`python -m tests.benchmarks.scale_files FILES OUT` writes the figures as JSON; no Spark.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headgate.jobs.lake.datafiles import data_files
from headgate.jobs.lake.storage import open_table
from headgate.jobs.lake.transaction import Change, commit
from tests.benchmarks.scale_run import X

VERB, THOUSAND = "commit files", 1_000


def main(files: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "table"
        (table / "part").mkdir(parents=True)
        pq.write_table(pa.table({c: [1.0, 2.0] for c in X}), table / "one")
        for i in range(int(files)):
            os.link(table / "one", table / "part" / f"part-{i:05}-0b1c7a3e-6f1d-4c55-9d53-2f1c0c1f8a77-c000.parquet")
        before, began, cpu = peak_mb(), time.monotonic(), time.process_time()
        found = data_files(str(table), "part")
        fields = [{"name": c, "type": "double", "nullable": True, "metadata": {}} for c in X]
        schema = json.dumps({"type": "struct", "fields": fields})
        commit(str(table), -1, Change("WRITE", found, (), ("scale", 1), {}, schema))
        assert len(open_table(str(table)).file_uris()) == int(files)
        spent = time.process_time() - cpu
        (log,) = (table / "_delta_log").glob("*.json")
        figures = {
            "verb": VERB,
            "size": int(files) // THOUSAND,
            "rows": int(files),
            "skewed": False,
            "cpu": round(spent, 2),
            "seconds": round(time.monotonic() - began, 2),
            "driver_mb": round(peak_mb() - before, 1),
            "log_mb": log.stat().st_size / 1e6,
        }
    Path(out).write_text(json.dumps([figures]))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
