"""Commits to a table's log: data files that are there already become visible all at once, or not at all.

A commit is one object, put only where there is none of its version yet: a hard link on disk, a conditional put on an
object store. Of two writers that start from the same version, one is refused. Source: the Delta transaction log
protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from deltalake import DeltaTable

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.conflicts import VersionTaken
from headgate.jobs.lake.datafiles import DataFile
from headgate.jobs.lake.log import LOG
from headgate.jobs.lake.storage import file_system, open_table, put_new
from headgate.jobs.lake.system import CHECKPOINT_EVERY, LASTING
from headgate.version import VERSION

KEPT_FEATURES = {"appendOnly", "invariants", "changeDataFeed", "timestampNtz", "vacuumProtocolCheck"}
NOT_KEPT = ("delta.constraints.", "delta.columnMapping.mode", "delta.enableDeletionVectors", "delta.appendOnly")
IN_FIELDS = ("delta.generationExpression", "delta.identity.", "delta.invariants", "CURRENT_DEFAULT")


@dataclass(frozen=True)
class Change:
    """The change that a commit makes.

    added: data files below the table. removed: paths of files as the log has them; None: all that the version before
    has. schema: Spark's JSON of the columns; None where they stay. facts: what the commit tells of itself.
    application: the name and version of a transaction that a table takes once. changes_rows: false where the files that
    are added hold just the rows of those that are removed.
    """

    operation: str
    added: Sequence[DataFile]
    removed: Collection[str] | None
    application: tuple[str, int]
    facts: Mapping[str, Any]
    schema: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict)  # of all added files
    description: str | None = None  # of the table; None: as it is
    changes_rows: bool = True


def commit(path: str, base: int, change: Change) -> int:
    """Commit a change on top of version `base` (-1: there is no table yet); return the new version.

    Raises `VersionTaken` where another writer was first, `UsageError` where the table has a feature of Delta that the
    change would break.
    """
    now = int(time.time() * 1000)
    actions: list[dict[str, Any]] = [commit_info(change, base, now)]
    if base < 0:
        actions += [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}]
        told = {"description": change.description} if change.description else {}
        actions += [{"metaData": {**told, **metadata(str(uuid.uuid4()), now, str(change.schema), LASTING)}}]
        gone: Collection[str] = ()
    else:
        delta = open_table(path, version=base)
        need_plain(delta, all_replaced=change.removed is None and change.schema is not None, by=change.partition)
        gone = paths(delta) if change.removed is None else change.removed
        known = delta.metadata()
        told_anew = change.description is not None and change.description != (known.description or "")
        if change.schema is not None or told_anew:
            schema = change.schema or delta.schema().to_json()
            made = metadata(str(known.id), known.created_time or now, schema, known.configuration)
            named = {"name": known.name, "description": change.description if told_anew else known.description}
            actions += [{"metaData": {**{k: v for k, v in named.items() if v is not None}, **made}}]
    actions += [{"txn": {"appId": change.application[0], "version": change.application[1], "lastUpdated": now}}]
    same = {"dataChange": change.changes_rows}
    actions += [{"remove": {"path": p, "deletionTimestamp": now, **same}} for p in sorted(gone)]
    actions += [{"add": {**added(file, change.partition, now), **same}} for file in change.added]
    body = "".join(json.dumps(a, ensure_ascii=False, separators=(",", ":")) + "\n" for a in actions)
    name, mine = f"{LOG}/{base + 1:020}.json", actions[0]["commitInfo"]["txnId"]
    if not put_new(path, name, body.encode()) and not holds(f"{path}/{name}", mine):
        raise VersionTaken(f"version {base + 1} of {path} was written by another writer")
    if (base + 1) % CHECKPOINT_EVERY == 0 and base >= 0:
        with contextlib.suppress(Exception):  # readers need none, they are only faster with it
            open_table(path).create_checkpoint()
    return base + 1


def holds(path: str, text: str) -> bool:
    """Return whether an object holds a text: a store may have written one though its answer was lost on the way."""
    files, name = file_system(path)
    with files.open_input_stream(name) as stream:
        return text.encode() in stream.readall()


def commit_info(change: Change, base: int, now: int) -> dict[str, Any]:
    rows, size = sum(f.rows for f in change.added), sum(f.size for f in change.added)
    metrics = {"numFiles": len(change.added), "numOutputRows": rows, "numOutputBytes": size}
    info = {
        "timestamp": now,
        "operation": change.operation,
        "operationParameters": {"mode": "Append" if change.removed == () else "Overwrite"},
        "readVersion": base,
        "isBlindAppend": False,
        "operationMetrics": {k: str(v) for k, v in metrics.items()},
        "engineInfo": f"headgate/{VERSION}",
        "txnId": str(uuid.uuid4()),
        "userMetadata": json.dumps(change.facts),
    }
    return {"commitInfo": {k: v for k, v in info.items() if k != "readVersion" or base >= 0}}


def metadata(identity: str, created: int, schema: str, configuration: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "id": identity,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": [],
        "configuration": {k: v for k, v in configuration.items() if v is not None},
        "createdTime": created,
    }


def added(file: DataFile, partition: Mapping[str, str], now: int) -> dict[str, Any]:
    return {
        "path": quote(file.path, safe="/=-_.~"),
        "partitionValues": dict(partition),
        "size": file.size,
        "modificationTime": now,
        "stats": json.dumps({"numRecords": file.rows}),
    }


def paths(delta: DeltaTable) -> list[str]:
    """Return the paths of the data files of an open version, as its log has them."""
    return [str(p) for p in delta.get_add_actions().column("path").to_pylist()]


def need_plain(delta: DeltaTable, all_replaced: bool = False, by: Collection[str] = ()) -> None:
    """Raise `UsageError` for a table with a feature of Delta that a commit of plain files would break.

    all_replaced: whether nothing of the open version stays, its columns included. by: partition columns that are known.
    """
    used = set(delta.protocol().writer_features or ()) - KEPT_FEATURES
    configured = delta.metadata().configuration
    used -= {"checkConstraints", "columnMapping"}  # the configuration tells whether they are used
    used |= {k for k, v in configured.items() if k.startswith(NOT_KEPT) and v not in ("false", "none")}
    if not all_replaced:
        for column in json.loads(delta.schema().to_json())["fields"]:
            used |= set() if column.get("nullable", True) else {"NOT NULL"}
            used |= {k for k in column.get("metadata", {}) if k.startswith(IN_FIELDS)}
        used |= {f"partitions ({c})" for c in set(delta.metadata().partition_columns) - set(by)}
    if used:
        raise UsageError(
            f"the table {delta.table_uri} uses {', '.join(sorted(used))}, which headgate does not support: "
            "drop that, or publish into a table of another name"
        )
