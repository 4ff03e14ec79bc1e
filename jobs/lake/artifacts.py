"""What builds keep beside the tables: indexes of rows."""

from pyarrow import fs

from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system


def index_of(lake: Lake, table: str) -> str:
    return f"{lake.root}/_system/index/{table}"


def indexes(lake: Lake, table: str) -> list[str]:
    """The Delta tables of a table's index."""
    files, base = file_system(index_of(lake, table))
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    return sorted(f"{index_of(lake, table)}/{f.base_name}" for f in found if f.type == fs.FileType.Directory)
