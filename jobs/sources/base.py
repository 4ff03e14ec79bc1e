"""The protocol of pull-based sources, and their result."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from headgate.jobs.config.models import HttpSource, JdbcSource, PythonSource
from headgate.jobs.disclosure import without_secrets


def source_name(source: JdbcSource | HttpSource | PythonSource) -> str:
    """Return how the source is called in the table of files, in `_file` and in messages; it holds no secret."""
    if isinstance(source, JdbcSource):
        return f"jdbc:{source.table or 'query'}"
    return without_secrets(source.url) if isinstance(source, HttpSource) else f"python:{source.function}"


@dataclass(frozen=True)
class PullResult:
    """The result of a pull: its columns, `PLACES`, `_hg_rejected`; and where the next run begins."""

    rows: DataFrame
    schema: T.StructType
    sha256: str
    watermark: str | None
