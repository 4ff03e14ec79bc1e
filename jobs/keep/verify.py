"""Verification that a release is what it was when published: its files, rows, content and balance, and a rebuild."""

import functools
import json
import uuid
from datetime import date
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from headgate.jobs.config.models import Environment, FileSource, Publish
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.frames import frame
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import missing_files
from headgate.jobs.lake.releases import CLOCKS
from headgate.jobs.lake.storage import remove
from headgate.jobs.pipeline import writing
from headgate.jobs.pipeline.arrivals import landed_rows
from headgate.jobs.pipeline.fitted import is_there
from headgate.jobs.pipeline.judging import Counts, gate_of
from headgate.jobs.pipeline.layout import published_columns
from headgate.jobs.pipeline.prepare import prepare
from headgate.jobs.pipeline.work import Arrival, Pin, Run, Work, build_key
from headgate.jobs.progress import Progress
from headgate.jobs.sources.files import assert_unchanged, columns_known, count_records
from headgate.jobs.sources.landing import LandedFile
from headgate.transforms.rows import REJECTED, content_hash, content_of, hash_sum, total_of

OK, NOT_RECORDED = "ok", "not recorded"


def verify(
    spark: SparkSession,
    lake: Lake,
    release: str,
    progress: Progress,
    pipeline: Pipeline | None = None,
    environment: Environment | None = None,
) -> list[dict[str, Any]]:
    """Check every table of a release; `failed` says whether anything is not as recorded.

    files: all are there. rows and content: as the commit recorded them, or the certificate of an erasure since.
    balance: rows in + made = published + rejected, the rejected ones counted in the ledger. rebuilt (with a pipeline):
    the build's rows made again from its pinned inputs, where those and its configuration still exist. Cost: one pass
    over each table, and one build without writing for each that is rebuilt.
    """
    verdicts = []
    anew = lake.made_anew(lake.release(release), CLOCKS)
    for pin in lake.release(release)["tables"]:
        table, version = pin["table_name"], pin["version"]
        found: dict[str, Any] = {"table": table, "version": version, "rows": None}
        missing = missing_files(lake, table, version)
        found["files"] = OK if not missing else f"{len(missing)} are gone, such as {missing[0]}"
        published = lake.published(table, version) if not missing and table not in anew else None
        if published is None and not missing:
            found["files"] = f"of another table, made at {anew[table]:%F %T} UTC" if table in anew else "no such table"
        if published is None:
            verdicts.append(found | {"content": "", "balance": "", "rebuilt": "", "failed": True})
            continue
        with progress.phase(table, "verify"):
            rows = frame(spark, lake, table, version)
            count, content = content_of(rows)
        found |= {"rows": count, "content": compared(lake.content_total(table, version), content)}
        found["balance"] = balance(lake, published)
        found["rebuilt"] = ""
        if pipeline is not None and environment is not None:
            with progress.phase(table, "rebuild"):
                found["rebuilt"] = rebuilt(spark, lake, pipeline, environment, progress, published)
        found["failed"] = any("differ" in str(found[k]) for k in ("content", "balance", "rebuilt"))
        verdicts.append(found)
    return verdicts


def compared(recorded: str | None, content: str) -> str:
    if recorded is None:
        return NOT_RECORDED
    return OK if recorded == content else f"differs: {content}, recorded {recorded}"


def balance(lake: Lake, published: Published) -> str:
    """Return whether the rows of a version's build are all accounted for, by what is on disk."""
    rows = published.facts.get("rows")
    if not rows:
        return NOT_RECORDED
    build, table = published.facts["build"], published.table
    ledger = lake.open("ledger")
    wanted = (pc.field("table_name") == table) & (pc.field("build") == build)
    rejected = dataset(ledger).count_rows(filter=wanted) if ledger else 0
    expected = sum(rows["rejected"].values()) - lake.erased_entries(build)
    if rejected != expected:
        return f"differs: the ledger holds {rejected:,} rejected rows, {expected:,} were recorded"
    lost = Counts(**rows).lost(published.facts.get("grain", "rows"))
    return OK if not lost else f"differs: {lost:,} rows are not accounted for"


def rebuilt(
    spark: SparkSession,
    lake: Lake,
    pipeline: Pipeline,
    environment: Environment,
    progress: Progress,
    published: Published,
) -> str:
    """Make the rows of a version's build again and compare their content; says why where that cannot be done."""
    facts, table = published.facts, published.table
    if table not in pipeline.tables:
        return "not possible: the pipeline has no such table"
    if "content" not in facts:
        return "not possible: no content is recorded"
    if lake.erased_versions(table):
        return "not possible: rows were erased since"
    recorded = facts["content"] if facts.get("moved") is None else facts.get("content_total")
    if recorded is None:
        return "not possible: the content of the whole table is not recorded"
    if facts.get("increment"):
        return "not possible: it is what an increment added"
    inputs = {n: Pin(v, date.fromisoformat(day) if day else None) for n, (v, day) in facts["inputs"].items()}
    run = Run(spark, pipeline, environment, lake, progress, "verify", None, lake.erasing)
    source, arrival, state = pipeline.tables[table].source, None, None
    if source is None:
        state = facts.get("state") if facts.get("state") != facts["build_key"] else None
        if state is not None and not is_there(lake, table, state):
            return "not possible: what its steps applied was removed"
        key = build_key(pipeline, table, facts["inputs"], state)
        before = {table: Pin(facts["base"])} if any(s.reads_previous for s in pipeline.steps[table]) else {}
        gone = [
            n
            for n, pin in {**inputs, **before}.items()
            if pin.version >= 0 and missing_files(lake, n, lake.rearranged(n, pin.version))
        ]
        if gone:
            return f"not possible: version {({**before, **inputs})[gone[0]].version} of '{gone[0]}' was removed"
    elif isinstance(source, FileSource):
        files = [landed(r) for r in lake.files_of_build(table, facts["build"])]
        try:
            assert_unchanged(environment.landing, files)
        except HeadgateError as e:
            return f"not possible: {str(e).split(';')[0]}"
        key = build_key(pipeline, table, {"files": [[f.path, f.sha256] for f in files], "base": facts["base"]})
        known = columns_known(f for f in lake.files_of(table).values() if f["base"] < facts["base"])
        rows = functools.partial(landed_rows, run, table, files, known)
        arrival = Arrival(files, rows, count_records(files), Publish(**facts["publish"]))
    else:
        return "not possible: its source is not asked again for the past"
    if key != facts["build_key"]:
        return "not possible: configuration or the meaning of a step changed since"
    work = Work(
        table=table,
        key=uuid.uuid4().hex,
        made_by=key,
        mode=Publish(**(facts["publish"] | ({"mode": "replace"} if facts["publish"]["mode"] == "auto" else {}))),
        inputs=inputs,
        base=facts["base"],
        arrival=arrival,
        state=state,
        parents=facts["parents"],
    )
    scratch = f"{lake.staging(table)}/verify-{work.key}"
    df = writing.conformed(prepare(run, work, scratch, save=False).rows, writing.columns_before(run, work))
    gate, _ = gate_of(run, work)
    quarantined = F.lit(False)
    if gate is not None:
        df = df.withColumns(gate.masks(df))
        quarantined = gate.is_quarantined()
    columns = published_columns(df, raw=source is not None)
    kept = df.where(F.col(REJECTED).isNull() & ~quarantined)
    sums = kept.agg(hash_sum(content_hash(df, columns)).alias("s")).collect()[0]["s"]
    remove(scratch)
    content = f"{total_of(*sums):016x}"
    return "same" if content == recorded else f"differs: {content}, recorded {recorded}"


def landed(row: dict[str, Any]) -> LandedFile:
    """The file of a record of the table of files."""
    return LandedFile(
        row["path"],
        row["date"],
        row["size"],
        row["modified"],
        sha256=row["sha256"],
        columns=json.loads(row["columns"]) if row["columns"] else None,
        problem=row["problem"],
        records=row["records"],
    )
