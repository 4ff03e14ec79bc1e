"""The landing folder, and a file that landed there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from pyarrow import fs

from headgate.jobs.lake.storage import file_system, located


@dataclass(frozen=True)
class LandedFile:
    """A file of a source, by its path below the landing folder."""

    path: str
    date: date | None
    size: int
    modified: datetime
    sha256: str | None = None
    columns: Mapping[str, str] | None = None  # name -> type ('' where the format has none), in the file's order
    records: int = 0
    parts: tuple[tuple[int, int], ...] | None = None  # where tasks may start to read: offset (or row group), line
    watermark: str | None = None  # of a source that is asked for its rows: the highest so far
    problem: str | None = None  # why the file is set aside


def open_landing(landing: str) -> tuple[fs.FileSystem, str]:
    return file_system(absolute(landing))


def absolute(landing: str) -> str:
    return located(landing)
