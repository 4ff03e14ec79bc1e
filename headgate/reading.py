"""Reading a lake from Python."""

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, overload

from headgate.jobs.errors import UsageError
from headgate.jobs.explore import queries
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake as LakeFolder
from headgate.jobs.lake.stores import for_java, scheme_of

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow
    import pyarrow.dataset
    from pyspark.sql import DataFrame, SparkSession

Form = Literal["arrow", "duckdb", "polars", "pandas", "spark"]


class Lake:
    """A lake, to be read: its tables in any form, at any version or release, and SQL over them.

    path: a folder, or the URI of one on an object store; by default the lake of the environment. env: the environment,
    as --env of the command line, which says how an object store is reached. Raises `InputMissing` if there is no lake.
    """

    def __init__(self, path: str | PathLike[str] | None = None, env: str | None = None) -> None:
        place = None if path is None else fspath(path)
        if place is None or env is not None or scheme_of(place):  # a folder of a disk needs no environment
            from headgate.jobs.config.environment import load_environment

            place = load_environment(env, lake=place).lake
        self.folder = LakeFolder(place)
        self.folder.need_folder()

    def __repr__(self) -> str:
        return f"Lake({self.folder.root!r})"

    @overload
    def read(
        self, table: str, release: str | None = None, version: int | None = None, as_: Literal["arrow"] = "arrow"
    ) -> "pyarrow.dataset.Dataset": ...
    @overload
    def read(
        self, table: str, release: str | None = None, version: int | None = None, *, as_: Literal["duckdb"]
    ) -> "duckdb.DuckDBPyRelation": ...
    @overload
    def read(
        self, table: str, release: str | None = None, version: int | None = None, *, as_: Literal["polars"]
    ) -> "polars.LazyFrame": ...
    @overload
    def read(
        self, table: str, release: str | None = None, version: int | None = None, *, as_: Literal["pandas"]
    ) -> "pandas.DataFrame": ...
    @overload
    def read(
        self,
        table: str,
        release: str | None = None,
        version: int | None = None,
        *,
        as_: Literal["spark"],
        spark: "SparkSession | None" = None,
    ) -> "DataFrame": ...
    def read(
        self,
        table: str,
        release: str | None = None,
        version: int | None = None,
        as_: Form = "arrow",
        spark: "SparkSession | None" = None,
    ) -> Any:
        """Return a table at its newest version, at `version`, or at the one that `release` pins (`latest`: the newest).

        as_: `arrow` (a dataset), `duckdb` (a relation), `polars` (a lazy frame), `pandas` (the whole table in memory)
        or `spark` (a data frame of the session `spark`, or of the active one). System tables are read by their names.

        Raises `InputMissing` for a table, version or release that does not exist, `UsageError` for other mistakes.
        """
        if as_ not in FORMS:
            raise UsageError(f"as_: unknown form '{as_}'; expected one of {', '.join(FORMS)}")
        if spark is not None and as_ != "spark":
            raise UsageError(f"spark= cannot be combined with as_='{as_}'")
        if release is not None:
            if version is not None:
                raise UsageError("release and version cannot be combined")
            version = self.folder.pinned_version(table, release)
        return FORMS[as_](self.folder, table, version, spark)

    def sql(self, query: str, release: str | None = None) -> "pyarrow.Table":
        """Answer a query in DuckDB's SQL over the tables and system tables, at the versions that `release` pins."""
        return queries.sql(self.folder, query, release, None)

    def tables(self, release: str | None = None) -> list[dict[str, Any]]:
        """Return every table with path, version, rows and the newest release that holds that version."""
        return queries.tables(self.folder, release)

    def versions(self, table: str) -> list[dict[str, Any]]:
        """Return the versions of a table, newest first, with what their commits say."""
        return queries.versions(self.folder, table)

    def releases(self) -> list[dict[str, Any]]:
        """Return the releases, newest first, with the version of every table."""
        return queries.releases(self.folder)


def as_arrow(lake: LakeFolder, table: str, version: int | None, spark: Any) -> Any:
    return lake.dataset(table, version)


def as_duckdb(lake: LakeFolder, table: str, version: int | None, spark: Any) -> Any:
    return connect().from_arrow(lake.dataset(table, version))


def as_polars(lake: LakeFolder, table: str, version: int | None, spark: Any) -> Any:
    rows = lake.dataset(table, version)
    try:
        import polars
    except ImportError as e:
        raise UsageError("as_='polars' needs the package polars: pip install polars") from e
    return polars.scan_pyarrow_dataset(rows)


def as_pandas(lake: LakeFolder, table: str, version: int | None, spark: Any) -> Any:
    return lake.dataset(table, version).to_table().to_pandas()


def as_spark(lake: LakeFolder, table: str, version: int | None, spark: Any) -> Any:
    from pyspark.sql import SparkSession

    from headgate.jobs.spark.given import need_delta

    spark = spark or SparkSession.getActiveSession()
    if spark is None:
        raise UsageError("as_='spark' needs a session: pass it as spark=")
    need_delta(spark)
    opened = lake.open(table, version) or lake.need_table(table)
    return spark.read.format("delta").option("versionAsOf", opened.version()).load(for_java(lake.path(table)))


FORMS = {"arrow": as_arrow, "duckdb": as_duckdb, "polars": as_polars, "pandas": as_pandas, "spark": as_spark}
