"""Looking at a lake without a JVM: tables, versions, releases, SQL over any of them."""

import re
from typing import Any

import duckdb
import pyarrow as pa

from headgate.jobs.errors import InputMissing, UsageError, first_line
from headgate.jobs.lake.commits import describe
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import history, stored_files
from headgate.jobs.lake.releases import CLOCKS
from headgate.jobs.lake.system import SYSTEM_TABLES
from headgate.words import did_you_mean

ANSWERING = ("SELECT", "EXPLAIN", "PRAGMA", "CALL", "MULTI")  # statements; a pivot is of several

QUERIES = ("SELECT", "WITH", "FROM", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC", "EXPLAIN")  # begin those of Spark


def tables(lake: Lake, release: str | None) -> list[dict[str, Any]]:
    """Every table at its newest version, or at the one that a release pins, with the newest release pinning it."""
    pinned = lake.pins(release) if release else None
    releases = lake.releases
    rows = []
    for name in lake.tables() if pinned is None else sorted(pinned):
        found = lake.published(name, None if pinned is None else pinned[name])
        if found is None:  # it was removed just now
            continue
        holding = [r["release"] for r in releases if {"table_name": name, "version": found.version} in r["tables"]]
        rows.append(
            {
                "table": name,
                "path": found.path,
                "version": found.version,
                "rows": found.rows,
                "release": release if release else holding[-1] if holding else None,
            }
        )
    return rows


def versions(lake: Lake, table: str) -> list[dict[str, Any]]:
    """The versions of a table, newest first, with what its commits tell.

    readable: whether their files are there, which `vacuum` removes, and of which an archive has a part.
    """
    delta = lake.need_table(table)
    held = stored_files(lake.path(table)).keys()
    named = history(lake.path(table)).files
    pins: dict[int, list[str]] = {}
    for release in lake.releases:
        for pinned in release["tables"]:
            if pinned["table_name"] == table:
                pins.setdefault(pinned["version"], []).append(release["release"])
    rows = []
    newest = delta.version()
    for age, commit in enumerate(delta.history()):
        found = describe(table, lake.path(table), delta, commit, newest - age)
        counts = found.facts.get("rows", {})
        rows.append(
            {
                "version": found.version,
                "at": found.at.isoformat(timespec="seconds"),
                "operation": found.operation,
                "rows_in": counts.get("rows_in"),
                "published": counts.get("published"),
                "rejected": sum(counts.get("rejected", {}).values()) if counts else None,
                "as_of": found.facts.get("as_of") or None,
                "run_id": found.facts.get("run_id"),
                "releases": pins.get(found.version, []),
                "readable": found.version in named and named[found.version] <= held,
            }
        )
    return rows


def releases(lake: Lake) -> list[dict[str, Any]]:
    """The releases, newest first."""
    return [
        {
            "release": r["release"],
            "at": r["recorded_at"].isoformat(timespec="seconds"),
            "pipeline": r["pipeline"],
            "as_of": r["as_of"].isoformat() if r["as_of"] else None,
            "run_id": r["run_id"],
            "note": r["note"],
            "tables": {t["table_name"]: t["version"] for t in r["tables"]},
        }
        for r in reversed(lake.releases)
    ]


def readable(lake: Lake, release: str | None) -> dict[str, int | None]:
    """The tables that a query may name, with the version of each (None: the newest).

    Of a release those are not among them that are gone, or were made anew since.
    """
    if release is None:
        chosen: dict[str, int | None] = dict.fromkeys(lake.tables())
    else:
        pinned, anew = lake.release(release), lake.made_anew(lake.release(release), CLOCKS)
        chosen = {t["table_name"]: t["version"] for t in pinned["tables"] if t["table_name"] not in anew}
    return chosen | {name: None for name in SYSTEM_TABLES if name not in chosen}


def sql(lake: Lake, query: str, release: str | None, limit: int | None) -> pa.Table:
    """Answer a query over the lake's tables (with `release`: at the versions that it pins) with DuckDB.

    System tables are there under their names. At most `limit` rows come back.
    """
    connection = connect()
    # A query reads the tables named here and nothing else of the machine.
    connection.execute("SET enable_external_access = false")
    for name, version in readable(lake, release).items():
        delta = lake.open(name, version)
        if delta is not None:
            connection.register(name, dataset(delta))
        elif name in SYSTEM_TABLES:
            connection.register(name, lake.system(name))  # without rows: nothing was written to it yet
    try:
        kinds = [statement.type.name for statement in connection.extract_statements(query)]
        if len(kinds) != 1:
            raise UsageError(f"sql: give one query, not {len(kinds)}")
        if kinds[0] not in ANSWERING:
            raise UsageError(f"sql: {kinds[0]} is not a query; a lake is read here, not changed")
        relation = connection.sql(query)
        if relation is None:  # of a PRAGMA that only sets something
            return pa.table({})
        answer = relation.limit(limit) if limit is not None else relation
        return answer.to_arrow_table()
    except duckdb.Error as e:
        lines = str(e).splitlines()
        message = " ".join(line.strip() for line in lines if line and not line.startswith("LINE ") and line.strip(" ^"))
        missing = re.match(r"Catalog Error: Table with name (\S+) does not exist", message)
        if missing is None:
            raise UsageError(f"sql: {message}") from e
        if release is not None and missing[1] not in SYSTEM_TABLES:
            lake.pins(release, [missing[1]])
        known = lake.tables()
        hint = f"{did_you_mean(missing[1], [*known, *SYSTEM_TABLES])} (tables: {', '.join([*known, *SYSTEM_TABLES])})"
        raise InputMissing(f"sql: there is no table '{missing[1]}'{hint}") from e


def sql_by_spark(spark: Any, lake: Lake, query: str, release: str | None, limit: int | None) -> pa.Table:
    """The same by Spark, for what DuckDB cannot say or hold."""
    from pyspark.errors import AnalysisException, ParseException

    begins = re.match(r"(?:[\s(]|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)", query, re.DOTALL)
    word = begins[1].upper() if begins else ""
    if word not in QUERIES:  # Spark would carry it out, on the tables behind the views
        raise UsageError(f"sql: {word or 'this'} is not a query; a lake is read here, not changed")
    for name, version in readable(lake, release).items():
        if lake.open(name) is not None:
            reader = spark.read.format("delta")
            if version is not None:
                reader = reader.option("versionAsOf", version)
            reader.load(lake.path(name)).createOrReplaceTempView(name)
        elif name in SYSTEM_TABLES:
            spark.createDataFrame(lake.system(name)).createOrReplaceTempView(name)
    try:
        rows = spark.sql(query)
        return (rows.limit(limit) if limit is not None else rows).toArrow()
    except (AnalysisException, ParseException) as e:
        missing = e.getCondition() == "TABLE_OR_VIEW_NOT_FOUND"
        raise (InputMissing if missing else UsageError)(f"sql: {first_line(e)}") from e
