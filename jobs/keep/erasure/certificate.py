"""Erasing rows from every table, version, release, ledger entry and fitted state of a lake, with a certificate.

Versions keep their numbers and releases keep pointing at them: the data files that hold a row are written again without
it, and the log is made to name the new files. At every moment in between, each version reads as either before or
after. What is to be done is recorded first, so that an erasure that was killed is finished by the next.

A row keeps its `_row_id` through all tables, so its id finds it everywhere; rows made from it name it in `_parents`,
and rows that took cells from it by a join name it in `_joined`: those cells become null. What steps learned from it is
removed, named in the certificate, and learned anew by the next run.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties
from pyspark.sql import SparkSession

from headgate.jobs.errors import HeadgateError
from headgate.jobs.keep.erasure.cells import Emptying, with_nulls_at
from headgate.jobs.keep.erasure.files import remove_cut_short
from headgate.jobs.keep.erasure.learned import forget, learned_from
from headgate.jobs.keep.erasure.reach import Reach
from headgate.jobs.keep.erasure.rewrite import (
    erase_entries,
    remove_folders,
    remove_learned,
    replace_whole,
    rewrite,
    scrub,
    without_parents,
)
from headgate.jobs.keep.erasure.texts import Fingerprints, search
from headgate.jobs.lake.artifacts import remove_ties
from headgate.jobs.lake.frames import frame
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.leftovers import claimed, remove_unnamed, staging_areas
from headgate.jobs.lake.system import now
from headgate.jobs.progress import Progress
from headgate.transforms.rows import JOINED, PARENTS, ROW_ID, content_of


def erase(
    spark: SparkSession,
    lake: Lake,
    found: Reach,
    asked: str,
    reason: str,
    signed_by: str,
    user: str,
    progress: Progress,
) -> dict[str, Any]:
    """Erase what was found; returns the certificate. Raises `HeadgateError` if anything of it is left at the end.

    Cost: the files that hold an erased row are written again; each version that a release holds or that is the newest,
    of the tables touched, is read once for its content.
    """
    plan = {
        "emptying": found.emptying.written(),
        "cells": {t: sorted(found.cells[t]) for t in found.emptied},
        "rows": {t: found.rows_of(t, ids) for t, ids in found.rows.items()},
        "texts": Fingerprints.of(found.texts).written(),
        "elsewhere": found.elsewhere,
        "learned": learned_from(lake, {found.table, *found.rows, *found.emptied}),
    }
    started = {
        "erasure": uuid.uuid4().hex[:12],
        "event": "started",
        "recorded_at": now(),
        "run_by": user,
        "signed_by": signed_by,
        "reason": reason,
        "table_name": found.table,
        "asked_sha256": hashlib.sha256(asked.encode()).hexdigest(),
        "row_ids": sorted(found.row_ids),
        "tables": json.dumps(plan),
        "entries": json.dumps(found.entries),
        "landing": sorted(found.landing),
    }
    lake.record("erasures", [started])
    return finish(spark, lake, started, progress)


def finish(spark: SparkSession, lake: Lake, started: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Carry out a recorded erasure, from whatever point it has come to.

    Raises `HeadgateError` for one that a version of headgate with another form of plans began.
    """
    name, ids, plan = started["erasure"], set(started["row_ids"]), json.loads(started["tables"])
    if "emptying" not in plan:
        raise HeadgateError(f"erasure {name}: another version of headgate began it, and that one alone can finish it")
    wanted, texts = pa.array(sorted(ids), pa.string()), Fingerprints.read(plan["texts"])
    emptying = Emptying.read(plan["emptying"])
    tables = sorted({*plan["rows"], *plan["cells"]})
    for table in tables:
        # A build that runs now loses its race, and the tables made of this one are built anew.
        write_marker_commit(lake, table, name)
    done_to: dict[str, Any] = {}
    for table in tables:

        def change(rows: pa.Table, table: str = table) -> pa.Table | None:
            gone = pc.is_in(rows[ROW_ID], wanted)
            places = emptying.places(table, rows)
            if not places and not pc.any(gone).as_py():
                return None
            rows = with_nulls_at(rows, places)
            if PARENTS in rows.column_names and places:
                rows = without_parents(rows, ids)
            return rows.filter(pc.invert(gone))

        with progress.phase(table, "erase"):
            remove_learned(lake, table)
            files = rewrite(lake.path(table), name, change, [ROW_ID, JOINED])
        cells = plan["cells"].get(table, [])
        done_to[table] = {"rows": plan["rows"].get(table, 0), "cells": cells, "files": files, "versions": {}}
    remove_ties(lake)
    learned = plan.get("learned", {})
    for table, steps in learned.items():
        forget(lake, table)
        done_to.setdefault(table, {})["learned"] = steps
    for table in staging_areas(lake):  # also of tables that were never published
        for folder in claimed(lake, table):
            remove_unnamed(lake, table, folder)
    remove_folders(f"{lake.root}/_staging")
    for table in lake.tables():
        remove_cut_short(lake.path(table))
    erase_entries(lake, name, wanted, texts)
    scrub(lake, tables)
    pinned = {(t["table_name"], t["version"]) for r in lake.releases for t in r["tables"]}
    for table in tables:
        versions = {v for t, v in pinned if t == table} | {lake.need_table(table).version()}
        with progress.phase(table, "content"):
            for version in sorted(versions):
                rows = frame(spark, lake, table, version)
                count, content = content_of(rows)
                done_to[table]["versions"][version] = {"rows": count, "content": content}
    searched = search(lake, wanted, texts)
    for place, number in plan["elsewhere"].items():
        table, _, column = place.partition(".")
        done_to.setdefault(table, {}).setdefault("elsewhere", {})[column] = number
    finished = {**started, "event": "finished", "recorded_at": now(), "tables": json.dumps(done_to)}
    finished["searched"] = searched
    finished["certificate"] = certificate(finished)
    record_finished(lake, finished)
    return finished


def record_finished(lake: Lake, finished: Mapping[str, Any]) -> None:
    """Record the end of an erasure and, in the same commit, forget the hashes of its texts."""

    def change(rows: pa.Table) -> pa.Table:
        listed = rows.to_pylist()
        for row in listed:
            if row["erasure"] == finished["erasure"]:
                plan = {k: v for k, v in json.loads(row["tables"]).items() if k != "texts"}
                row["tables"] = json.dumps(plan)
        return pa.Table.from_pylist([*listed, dict(finished)], schema=rows.schema)

    replace_whole(lake, "erasures", change)


def certificate(row: Mapping[str, Any]) -> str:
    """The SHA-256 of a certificate's fields, by which a change of it shows."""
    facts = {k: str(v) for k, v in sorted(row.items()) if k not in ("certificate", "recorded_at")}
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()


def write_marker_commit(lake: Lake, table: str, name: str) -> None:
    """An empty commit that says so, once."""
    delta = lake.need_table(table)
    if any(json.loads(c.get("userMetadata") or "{}").get("erasure") == name for c in delta.history(20)):
        return
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps({"erasure": name})})
    delta.create_write_transaction(
        [], mode="append", schema=delta.schema(), partition_by=[], commit_properties=properties
    )
