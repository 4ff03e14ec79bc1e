"""The catalogue of a Spark session: a Hive metastore, where the session has one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from headgate.jobs.keep.catalogues.entries import LAKE, MARKS, RELEASE, Entry, Known, is_below
from headgate.jobs.lake.sessions import need_classic
from headgate.jobs.lake.stores import for_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class HiveCatalogue:
    """A database of a Spark session's catalogue: external Delta tables, and views of their versions.

    Delta keeps the properties of a table in its log, so tables of a lake are known by their places.
    """

    spark: "SparkSession"
    database: str
    root: str
    views: ClassVar[bool] = True

    def known(self) -> dict[str, Known]:
        need_classic(self.spark, "a Hive catalogue")
        catalog = self.spark._jsparkSession.sessionState().catalog().externalCatalog()
        if not catalog.databaseExists(self.database):
            return {}
        names = catalog.listTables(self.database)
        found = (catalog.getTable(self.database, names.apply(i)) for i in range(names.size()))
        return {str(table.identifier().table()): self.known_as(table) for table in found}

    def known_as(self, table: Any) -> Known:
        properties, location = table.properties(), table.storage().locationUri()
        options = {k: properties.get(k) for k in MARKS}
        marks = {k: str(v.get()) for k, v in options.items() if v.isDefined()}
        place = unquote(str(location.get().toString())) if location.isDefined() else ""
        return Known(place, marks or ({LAKE: self.root} if is_below(place, self.root) else {}), None)

    def create(self, entry: Entry) -> None:
        self.spark.sql(f"CREATE DATABASE IF NOT EXISTS {ticked(self.database)}")
        name, place = f"{ticked(self.database)}.{ticked(entry.name)}", for_java(entry.location)
        if entry.version is None:
            self.spark.sql(f"CREATE TABLE {name} USING DELTA LOCATION {literal(place)}")
            return
        marks = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in entry.marks.items())
        self.spark.sql(
            f"CREATE OR REPLACE VIEW {name} COMMENT {literal(entry.comment)} TBLPROPERTIES ({marks}) "
            f"AS SELECT * FROM delta.{ticked(place)} VERSION AS OF {entry.version}"
        )

    def replace(self, entry: Entry) -> None:
        self.create(entry)  # a view: a table of the lake is the same as long as its place is

    def drop(self, name: str, known: Known) -> None:
        kind = "VIEW" if RELEASE in known.marks else "TABLE"
        self.spark.sql(f"DROP {kind} IF EXISTS {ticked(self.database)}.{ticked(name)}")


def ticked(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
