"""The one commit that publishes a build's files, on top of the version that it was built from."""

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.errors import LostRace, UsageError
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.conflicts import is_conflict
from headgate.jobs.lake.transaction import Change
from headgate.jobs.lake.transaction import commit as commit_change
from headgate.jobs.pipeline.layout import shown
from headgate.jobs.pipeline.replacing import Replaced, write_survivors
from headgate.jobs.pipeline.staging import KEPT, are_there, staged_rows
from headgate.jobs.pipeline.work import Run, Staged, Work
from headgate.jobs.pipeline.writing import columns_before, delta_schema, merged
from headgate.transforms.rows import content_of, quoted
from headgate.words import cell


def commit(run: Run, work: Work, staged: Staged, facts: dict[str, Any], replaced: Replaced) -> Published:
    """Publish staged files in one atomic commit on top of the work's base; raise `LostRace` if another was first.

    Of two writers from the same base one is refused. What is added to a table may bring new columns. Where rows of a
    version are replaced, by their file or by a key, the files that hold any are written again without them.
    Cost: where rows are replaced, one pass over the columns that tell which, and two over the files that hold any.
    """
    lake, table, how, base = run.lake, work.table, work.mode, work.base
    path, columns = lake.path(table), shown(T.StructType.fromJson(staged.schema))
    race = LostRace(f"table '{table}' was changed by another writer while it was being built; run again")
    current = lake.published(table)
    if (current.version if current else -1) != base:
        raise race
    if lake.erasing != run.erasing:
        raise LostRace(f"rows were erased from the lake while table '{table}' was being built; run again")
    before = columns_before(run, work)
    if how.mode == "merge":
        need_unique(table, staged_rows(run, work, staged, None, KEPT), how.key)
    everything = not before.fields
    schema = columns if everything else merged(table, before, columns)
    survivors = write_survivors(run, work, staged, replaced)
    after = content_after(run, current, staged, replaced, None if everything else schema != before)
    facts = {**facts, "content_total": None if after is None else f"{after:016x}"}
    if not are_there(lake, table, staged.files[KEPT]):
        raise LostRace(f"table '{table}': what was staged of it was removed; run again")
    change = Change(
        operation="MERGE" if how.mode == "merge" and base >= 0 else "WRITE",
        added=[*staged.files[KEPT], *survivors],
        removed=None if everything else replaced.paths,
        application=(f"headgate:{table}", base + 1),
        facts=facts,
        schema=delta_schema(schema) if everything or schema != before else None,
        description=run.pipeline.tables[table].description,
    )
    try:
        version = commit_change(path, base, change)
    except Exception as e:
        if is_conflict(e):
            raise race from e
        raise
    done = lake.published(table, version)
    assert done is not None  # it was committed just now
    return done


def need_unique(table: str, rows: DataFrame, key: Sequence[str]) -> None:
    """Raise `UsageError` for rows that are equal in the key by which they are merged."""
    keys = [F.col(quoted(c)) for c in key]
    repeated = rows.groupBy(*keys).agg(F.count("*").alias("_hg_n")).where("_hg_n > 1").orderBy(*keys).first()
    if repeated is not None:
        named = ", ".join(f"{c}={cell(v)}" for c, v in zip(key, repeated, strict=False))
        raise UsageError(
            f"table '{table}' has {repeated['_hg_n']} rows with {named}: the key of a merge must be unique. "
            "Put drop_duplicates before, or merge by more columns"
        )


def content_after(
    run: Run, before: Published | None, staged: Staged, replaced: Replaced, evolves: bool | None
) -> int | None:
    """Return the sum of the hashes of all rows that a table will hold; None where that is not known.

    evolves: whether columns change, in which case it is not known; None: nothing of the version before stays. Where
    that version has no sum on record, as after another writer's commit, all of its rows are read once.
    """
    if before is None or evolves is None:
        return staged.content
    if evolves:
        return None
    known = run.lake.content_total(before.table, before.version)
    total = int(known or content_of(run.read(before.table, before.version))[1], 16)
    return (total + staged.content - replaced.content) % (1 << 64)
