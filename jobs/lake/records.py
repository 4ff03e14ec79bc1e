"""Reading and appending to the small system tables."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from headgate.jobs.lake.conflicts import is_conflict, retrying
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.folder import Folder
from headgate.jobs.lake.stores import storage_options
from headgate.jobs.lake.system import DESCRIPTIONS, OPTIONS, SCHEMAS, compact_now_and_then


class Records(Folder):
    """The system tables of a lake."""

    def system(self, table: str) -> pa.Table:
        """The whole of a small system table; empty where nothing was written yet."""
        delta = self.open(table)
        return SCHEMAS[table].empty_table() if delta is None else dataset(delta).to_table()

    def record(self, table: str, rows: Sequence[dict[str, Any]], build: str | None = None) -> None:
        """Append rows to a small system table, and compact it now and then, so that reading it stays cheap.

        Those of a `build` are written once, by however many runs at once or after one that died.
        """
        if not rows:
            return
        application = f"headgate:{rows[0]['table_name']}:{build}" if build else ""
        once = CommitProperties(
            app_transactions=[Transaction(application, 1)] if application else None, max_commit_retries=0
        )
        data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
        for attempt in retrying():
            with attempt:
                # Created first: of two that create it with their rows, the second would not see the first's build.
                delta = self.open_or_create(table)
                if application and delta.transaction_version(application) is not None:
                    return
                if not application and attempt.retry_state.attempt_number > 1 and has_row(delta, data):
                    return  # the answer to the attempt before was lost on the way
                write_deltalake(delta, data, mode="append", schema_mode="merge", commit_properties=once)
                compact_now_and_then(delta)

    def open_or_create(self, table: str) -> DeltaTable:
        """Return a system table, made empty where there is none yet; of runs that do so at once, one makes it."""
        found = self.open(table)
        if found is not None:
            return found
        self.write_format()
        path = self.path(table)
        options = {
            "description": DESCRIPTIONS[table],
            "storage_options": storage_options(path),
            **OPTIONS.get(table, {}),
        }
        try:
            return DeltaTable.create(path, SCHEMAS[table], mode="ignore", **options)
        except Exception as e:
            if not is_conflict(e):
                raise
            return self.need_table(table)


def has_row(delta: DeltaTable, rows: pa.Table) -> bool:
    """Return whether a system table whose rows tell their time has the first of some rows."""
    there = dataset(delta).to_table(filter=pc.field("recorded_at") == rows["recorded_at"][0])
    first = rows.slice(0, 1).select([n for n in rows.column_names if n in there.column_names])
    return first.to_pylist()[0] in there.select(first.column_names).to_pylist()
