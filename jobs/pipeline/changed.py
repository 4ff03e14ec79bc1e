"""The rows of a table that differ between two of its versions."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.jobs.lake.frames import parquet
from headgate.jobs.lake.log import moved_files
from headgate.jobs.pipeline.prepare import renamed_as
from headgate.jobs.pipeline.work import STAYS, Run
from headgate.transforms.rows import ROW_ID, arrow_frame, content_hash

AT_ONCE = 500_000  # ids that the driver may hold for the tables of a run that read one, some 40 bytes each
LITTLE = 128 << 20  # bytes of files gained in which they are looked for so
AFFECTED = "_hg_affected"
GONE = "_hg_gone"


def changed_rows(run: Run, table: str, then: int, now: int) -> DataFrame:
    """Return the rows of a table that differ between two versions, as they were and as they are.

    Cost: see `changed_ids`, and a pass over the files that were lost and gained.
    """
    old, new, _ = sides(run, table, then, now)
    if old is None:
        return new
    return of(old.unionByName(new), changed_ids(run, table, then, now))


def changed_ids(run: Run, table: str, then: int, now: int) -> DataFrame:
    """Return the ids of the rows that differ between two versions, each once: up to `AT_ONCE` are found once in a run.

    Cost: of one build, the ids of all rows of the files that it wrote anew, and hashes of those that it replaced.
    """
    place = (table, then, now)
    if place not in run.changed:
        gained = (moved_files(run.lake.path(table), then, now) or ({}, {}))[1]
        few = None
        if sum(size for file, size in gained.items() if f"/{STAYS}" not in file) <= LITTLE:
            few = differing(run, table, then, now).limit(AT_ONCE + 1).toArrow()
        run.changed[place] = few if few is not None and len(few) <= AT_ONCE else None
    few = run.changed[place]
    return differing(run, table, then, now) if few is None else F.broadcast(arrow_frame(run.spark, few))


def differing(run: Run, table: str, then: int, now: int) -> DataFrame:
    """Return the ids of the rows that differ between two versions, each once."""
    old, new, stays = sides(run, table, then, now)
    if old is None:
        return new.select(ROW_ID).distinct()
    if stays is not None:  # they are among the old ones
        key = F.xxhash64(ROW_ID).alias(GONE)
        signed = old.select(key, F.lit(-1).alias("n")).unionByName(stays.select(key, F.lit(1).alias("n")))
        gone = signed.groupBy(GONE).agg(F.sum("n").alias("n")).where("n != 0").select(GONE)
        old = old.join(gone, on=F.xxhash64(ROW_ID) == F.col(GONE), how="left_semi")
    hashed = [
        rows.select(ROW_ID, content_hash(rows, rows.columns).alias("hash"), F.lit(sign).alias("sign"))
        for rows, sign in ((old, -1), (new, 1))
    ]
    differs = hashed[0].unionByName(hashed[1]).groupBy(ROW_ID, "hash").agg(F.sum("sign").alias("n")).where("n != 0")
    return differs.select(ROW_ID).distinct()


def sides(run: Run, table: str, then: int, now: int) -> tuple[DataFrame | None, DataFrame, DataFrame | None]:
    """Return the rows of the files that a table lost between two versions (None: it lost none), and of those gained.

    Of one build, those gained are without the rows that it wrote anew as they were, which come third.
    """
    lost, gained = moved_files(run.lake.path(table), then, now) or ({}, {})
    kind = run.read(table, now).schema.jsonValue()
    stay = [f for f in gained if f"/{STAYS}" in f and now == then + 1]
    parts = (list(lost), [f for f in gained if f not in stay], stay)
    read = [parquet(run.spark, kind, [f"{run.lake.path(table)}/{f}" for f in files]) for files in parts]
    old, new, stays = (renamed_as(run, table, rows) for rows in read)
    return (old if lost else None), new, (stays if stay else None)


def of(rows: DataFrame, ids: DataFrame, others: bool = False) -> DataFrame:
    """Return the rows with some ids; `others`: all but these."""
    named = ids.select(F.col(ROW_ID).alias(AFFECTED))
    return rows.join(named, on=F.col(ROW_ID) == F.col(AFFECTED), how="left_anti" if others else "left_semi")


def union(frames: Sequence[DataFrame]) -> DataFrame:
    first, *others = frames
    for other in others:
        first = first.unionByName(other)
    return first
