"""The Python workers of a local session."""

import sys
import zipimport

import pyarrow as pa


def archives(batches):
    """What a worker imports from that is an archive."""
    list(batches)
    found = [path for path, finder in sys.path_importer_cache.items() if isinstance(finder, zipimport.zipimporter)]
    yield pa.RecordBatch.from_pydict({"found": [str(found)]})


def test_workers_import_from_no_archive(spark):
    rows = spark.range(1).mapInArrow(archives, "found string").collect()
    assert {r["found"] for r in rows} == {"[]"}
