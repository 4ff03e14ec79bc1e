"""The room that tables take: files, bytes and rows, what other versions hold, how well each column is compressed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pyarrow.parquet as pq
from pyarrow import fs

from headgate.jobs.errors import HeadgateError
from headgate.jobs.keep.optimize import SMALL, plan_of
from headgate.jobs.keep.retention import GRACE_HOURS, vacuum
from headgate.jobs.lake.commits import count_rows
from headgate.jobs.lake.datafiles import FILE_BYTES, readers
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import stored_files
from headgate.jobs.lake.storage import file_system


def storage(
    lake: Lake,
    retention_days: int,
    tables: Collection[str] = (),
    size: int = FILE_BYTES,
    grace_hours: float = GRACE_HOURS,
    days_of: Mapping[str, int] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Return what tables take (default: all, and the system tables).

    other_bytes: of data files that the newest version does not name; vacuum_bytes: of those that `vacuum` would remove.
    files_after: about how many files `optimize` would leave; None where it cannot. columns: of the newest version, with
    bytes as stored and before compression. Cost: a listing, a reading of the log, and all footers of each table.
    """
    chosen = lake.chosen(tables) if tables else ()
    vacuumed = {r["table"]: r for r in vacuum(lake, retention_days, grace_hours, chosen, True, days_of)}
    return [of_table(lake, name, row, size) for name, row in vacuumed.items() if row["versions"] is not None]


def of_table(lake: Lake, table: str, vacuumed: Mapping[str, Any], size: int) -> dict[str, Any]:
    delta = lake.need_table(table)
    version = delta.version()
    sizes = lake.file_sizes(table, version)
    there = sum(info.size for info in stored_files(lake.path(table)).values())
    rows, held = count_rows(delta), sum(sizes.values())
    try:
        after: int | None = plan_of(lake, table, delta, None, size).files_after(size)
    except HeadgateError:
        after = None
    return {
        "table": table,
        "version": version,
        "rows": rows,
        "bytes": held,
        "bytes_per_row": round(held / rows, 1) if rows else None,
        "files": len(sizes),
        "small_files": sum(n < SMALL * size for n in sizes.values()),
        "files_after": after,
        "versions": vacuumed["versions"],
        "versions_kept": vacuumed["kept"],
        "other_bytes": there - held,
        "vacuum_bytes": vacuumed["bytes_removed"],
        "columns": columns_of(lake.path(table), list(sizes)),
    }


def columns_of(table: str, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the columns of data files by their bytes, the largest first, as their footers tell."""
    files, base = file_system(table)
    stored: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    with ThreadPoolExecutor(readers(files)) as pool:
        for found in pool.map(lambda path: footer(files, f"{base}/{path}"), paths):
            for group in map(found.row_group, range(found.num_row_groups)):
                for part in map(group.column, range(group.num_columns)):
                    name = part.path_in_schema.partition(".")[0]
                    stored[name] += part.total_compressed_size
                    raw[name] += part.total_uncompressed_size
    return [
        {"column": name, "bytes": n, "raw_bytes": raw[name], "ratio": round(raw[name] / n, 2) if n else None}
        for name, n in stored.most_common()
    ]


def footer(files: fs.FileSystem, path: str) -> pq.FileMetaData:
    with files.open_input_file(path) as opened:
        return pq.read_metadata(opened)
