"""Building one table: read pinned inputs, apply steps, stage, judge, publish."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.gate import MASK, Gate, Verdict
from headgate.expectations.suites import SuiteError
from headgate.jobs.config.models import Environment, FileSource, Publish, PullSource
from headgate.jobs.config.pipeline import NOT_WRITABLE, UNWRITABLE, Pipeline
from headgate.jobs.errors import GateBlocked, HeadgateError, InputMissing, UsageError, source_failure
from headgate.jobs.lake.artifacts import index_of
from headgate.jobs.lake.lake import Lake, Published
from headgate.jobs.lake.storage import remove, size_of
from headgate.jobs.lake.system import SAME_CONTENT, is_conflict, now
from headgate.jobs.pipeline.increments import BuildSpace, config_key, drop_indexes, new_part, save_index, step_name
from headgate.jobs.pipeline.origins import Origins
from headgate.jobs.pipeline.planning import Pin, TablePlan, build_key
from headgate.jobs.pipeline.publishing import (
    KEY_LENGTH,
    ledger_entries,
    publish,
    published_columns,
    remove_abandoned,
    stage,
    write_ledger,
)
from headgate.jobs.progress import Progress
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.delta import with_delta_facts
from headgate.jobs.sources.files import assert_unchanged, columns_before, count_records, fingerprint, read_files
from headgate.jobs.sources.landing import LandedFile
from headgate.jobs.sources.policy import apply_file_policy
from headgate.jobs.sources.pull import pull
from headgate.jobs.sources.rows import with_identity
from headgate.transforms.balancing.split import check_split, fitted
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.parsing import without_ntz
from headgate.transforms.rows import (
    CONTENT,
    FILE,
    FILE_DATE,
    MADE,
    OWN,
    REJECTED,
    ROW_ID,
    Rejection,
    content_hash,
    content_key,
    hash_sum,
    local_frame,
    quoted,
    reject,
    total_of,
    with_bookkeeping,
)
from headgate.transforms.step import Comparer, Estimator, Step, StepError
from headgate.transforms.steps import STEPS, options_of

WORK = "-work"  # beside a build's staged rows: what its steps wrote for themselves


@dataclass
class Counts:
    """Where the rows of a build went."""

    rows_in: int = 0
    made: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # "step: reason" -> rows
    quarantined: int = 0
    published: int = 0
    content: int = 0  # sum of the hashes of the published rows

    @property
    def lost(self) -> int:
        return self.rows_in + self.made - self.published - sum(self.rejected.values())


@dataclass(frozen=True)
class Built:
    """What became of one table in a run."""

    table: str
    published: Published
    counts: Counts
    verdict: Verdict | None
    warnings: list[str]  # of its steps and its gate


@dataclass(frozen=True)
class Arrival:
    """What a table's source has that is new, and how it reaches the table."""

    files: list[LandedFile]  # of a source that is asked for its rows, one that stands for the night
    rows: Callable[[], tuple[DataFrame, int]]  # and how many there are, counted apart
    how: Publish
    replaces: tuple[str, ...]  # files whose earlier rows these replace
    scratch: str | None = None  # a folder to be removed once this is published


@dataclass(frozen=True)
class Builder:
    """What all builds of a run share."""

    spark: SparkSession
    pipeline: Pipeline
    environment: Environment
    lake: Lake
    progress: Progress
    run_id: str
    as_of: date | None
    origins: dict[str, Origins] = field(default_factory=dict)  # lineage of the columns of each table built

    def build(self, plan: TablePlan) -> Built | None:
        """Build and publish one table; None if its source turns out to hold what it held before."""
        try:
            return self.build_table(plan)
        except PySparkException as e:
            failure = source_failure(e)
            if failure is None:
                raise
            raise failure from e

    def build_table(self, plan: TablePlan) -> Built | None:
        table, source = plan.table, self.pipeline.tables[plan.table].source
        if source is None:
            how = self.pipeline.tables[table].publish
            part = new_part(self.pipeline, self.lake, plan)
            if how.mode == "increment":
                how = how.model_copy(update={"mode": "replace" if part is None else "append"})
            builds = () if part is None else tuple(self.lake.present_builds(table))
            key = self.work_key(plan, str(plan.build_key), how, part, builds)
            work = f"{self.lake.staging(table)}/{key}-{self.run_id}{WORK}"
            lasting = self.pipeline.tables[table].publish.mode == "increment"
            space = BuildSpace(self.spark, work, index_of(self.lake, table), lasting, builds)
            rows = lambda: self.derived(plan, space, part=part)  # noqa: E731
            return self.stage_and_publish(
                plan, str(plan.build_key), key, rows, how, space=space, increment=part is not None
            )
        self.lake.forget_unpublished_files(table)
        with self.progress.phase(table, "ingest"):
            taken = self.files_to_take(plan, source) if isinstance(source, FileSource) else self.pulled(plan, source)
        if taken is None:
            return None
        files = [[f.path, f.sha256] for f in taken.files]
        made_by = build_key(self.pipeline, table, {"files": files, "base": plan.base})
        day = None if isinstance(source, FileSource) else str(self.as_of or datetime.now(timezone.utc).date())
        erased = [e["erasure"] for e in self.lake.erasures]
        details = [[f.problem, f.watermark] for f in taken.files]
        key = self.work_key(plan, made_by, taken.how, taken.replaces, day, erased, details, files=taken.files)
        rows = lambda: self.ingested(table, taken.rows())  # noqa: E731
        built = self.stage_and_publish(plan, made_by, key, rows, taken.how, taken)
        if taken.scratch:
            remove(taken.scratch)
        return built

    def work_key(
        self, plan: TablePlan, made_by: str, how: Publish, *more: Any, files: Sequence[LandedFile] = ()
    ) -> str:
        """A hash of all that decides what a build stages and how it is published.

        Only what a dead run staged under the same key is taken up; the names of builds begin with it, so that what one
        has written of itself is never taken for another's. made_by: the key of configuration and inputs. more: what
        else the rows are made of.
        """
        suite = self.pipeline.suites[plan.table]
        parents, parameters = self.gate_inputs(plan, files) if suite else ({}, {})
        rules = json.dumps(suite.configurations() if suite else None, default=str)
        used = {name: value for name, value in parameters.items() if f'"{name}"' in rules}
        facts = [made_by, plan.base, how.model_dump(mode="json"), more, parents, used]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:KEY_LENGTH]

    # -- where the rows come from

    def files_to_take(self, plan: TablePlan, source: FileSource) -> Arrival | None:
        """The files whose content is new, as they look; those that replace an earlier content replace its rows."""
        landing, spark = self.environment.landing, self.spark
        taken: list[LandedFile] = []
        changed, touched = [], []
        before_all: dict[str, str] | None = None
        if source.format == "delta":
            taken = [apply_file_policy(source, with_delta_facts(spark, landing, f), None) for f in plan.fresh]
            changed = [f.path for f in plan.fresh]
        else:
            reference = before_all = columns_before(plan.known.values())
            for file in fingerprint(spark, landing, source, plan.fresh):
                before = plan.known.get(file.path)
                if before is not None and before["sha256"] == file.sha256:
                    touched.append(replace(file, problem=before.get("problem")))
                    continue
                if before is not None:
                    if source.on_changed_file == "refuse" and not before.get("problem"):
                        how = "shrank" if file.size < before["size"] else "changed"
                        raise InputMissing(
                            f"{file.path}: the file {how} since it was taken up ({before['size']:,} bytes then, "
                            f"{file.size:,} now). Put it back, or set source.on_changed_file: replace"
                        )
                    changed.append(file.path)
                file = apply_file_policy(source, file, reference)
                if file.problem is None and reference is None:
                    reference = file.columns
                if file.problem is not None:
                    self.progress.tell("warning", table=plan.table, message=f"set aside {file.path}: {file.problem}")
                taken.append(file)
        if touched and plan.current:
            last = self.lake.last_build(plan.table) or {}
            self.record_files(plan.table, touched, last.get("base", plan.base), SAME_CONTENT)
        if not taken:
            return None

        how = Publish(mode="append")
        # A commit that replaces rows may hold none of other files: those that are new have none to be replaced.
        replaced = tuple(f.path for f in taken) if changed and plan.base >= 0 else ()
        return Arrival(taken, lambda: self.landed_rows(plan.table, taken, before_all), how, replaced)

    def pulled(self, plan: TablePlan, source: PullSource) -> Arrival | None:
        """What a source that is asked for its rows has that is not yet in the table."""
        table, name = plan.table, source_name(source)
        before = plan.known.get(name, {})
        scratch = f"{self.lake.staging(table)}/pulled-{self.run_id}"
        found = pull(self.spark, source, self.pipeline.code[table], before.get("watermark"), scratch)
        rows = with_identity(found.rows, table, found.schema, source)
        day = F.lit(self.as_of or datetime.now(timezone.utc).date()).cast("date").alias(FILE_DATE)
        columns = found.schema.names
        rows = rows.select(*(F.col(quoted(c)) for c in columns), ROW_ID, FILE, day, REJECTED)
        whole = source.watermark is None
        if not whole and plan.base >= 0:
            rows = not_yet_in(rows, self.read(table, plan.base), source, columns)
        count = rows.count()
        nothing_new = before.get("sha256") == found.sha256 if whole else not count
        if nothing_new and plan.base >= 0:
            remove(scratch)
            return None
        landed = LandedFile(
            name,
            None,
            count,
            now(),
            sha256=found.sha256,
            records=count,
            watermark=found.watermark or before.get("watermark"),
        )
        merged = Publish(mode="merge", key=(ROW_ID,))
        how = Publish(mode="replace") if whole else merged if source.key else Publish(mode="append")
        return Arrival([landed], lambda: (newest_of_each(rows, source), count), how, (), scratch)

    def landed_rows(
        self, table: str, files: list[LandedFile], reference: Mapping[str, str] | None
    ) -> tuple[DataFrame, int]:
        source = self.pipeline.tables[table].source
        assert isinstance(source, FileSource)
        rows = read_files(self.spark, self.environment.landing, source, table, files, reference)
        return rows, count_records(files)

    def ingested(self, table: str, given: tuple[DataFrame, int]) -> tuple[DataFrame, int]:
        """Rows that arrived, without those that were erased, after the table's steps."""
        rows, rows_in = given
        erased = sorted({i for e in self.lake.erasures for i in e["row_ids"]})
        df = with_bookkeeping(rows)
        if erased:
            known = F.broadcast(local_frame(self.spark, [(i,) for i in erased], "_hg_erased string"))
            again = Rejection(F.col("_hg_erased").isNotNull(), "was erased on request", {})
            joined = df.join(known, on=F.col(ROW_ID) == F.col("_hg_erased"), how="left")
            df = reject(joined, "ingest", again).drop("_hg_erased")
        return self.with_steps(table, df, {}), rows_in

    def derived(
        self, plan: TablePlan, space: BuildSpace, save: bool = True, part: list[str] | None = None
    ) -> tuple[DataFrame, int]:
        """The table's steps on its pinned inputs; `save`: keep what they learned; `part`: on these new files alone."""
        frames = {name: self.pinned(name, pin) for name, pin in plan.pins.items()}
        start = str(self.pipeline.tables[plan.table].from_)
        pin = plan.pins[start]
        looked_up = {t: frames[t] for step in self.pipeline.steps[plan.table] for t in step.tables()}
        # Read twice where the table looks up itself, so that what it has and what a join brought are told apart.
        rows = self.pinned(start, pin) if start in looked_up else frames[start]
        if part is not None:
            rows = self.read_files(start, rows, part)
        if pin.as_of is None and part is None:
            found = self.lake.published(start, pin.version)
            rows_in = found.rows if found else 0
        else:
            rows_in = rows.count()
        df = self.with_steps(plan.table, with_bookkeeping(rows), frames, plan.build_key if save else None, space)
        self.origins[plan.table] = Origins.of(df, start, rows, looked_up)
        return df, rows_in

    def pinned(self, table: str, pin: Pin) -> DataFrame:
        """The rows of an input at its pinned version, without those of later files."""
        rows = self.read(table, pin.version)
        return rows if pin.as_of is None else rows.where(F.col(FILE_DATE).isNull() | (F.col(FILE_DATE) <= pin.as_of))

    def read(self, table: str, version: int) -> DataFrame:
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.lake.path(table))

    def read_files(self, table: str, like: DataFrame, files: list[str]) -> DataFrame:
        """Some of the data files of a table, `like` the whole of it."""
        path = self.lake.path(table)
        if not files:
            return like.limit(0)
        reader = self.spark.read.schema(like.schema).option("basePath", path)
        return reader.parquet(*(f"{path}/{file}" for file in files))

    # -- steps

    def with_steps(
        self,
        table: str,
        df: DataFrame,
        frames: Mapping[str, DataFrame],
        build_key: str | None = None,
        space: BuildSpace | None = None,
    ) -> DataFrame:
        """Apply the table's steps, fitting those that learn; what they learned is saved beside the lake's tables.

        Times without a zone become timestamps, in UTC: a Delta table that held them could not be read by version 1.
        """
        frozen: list[Step] = []
        for i, step in enumerate(self.pipeline.steps[table]):
            try:
                step.check(df, frames)
                check_split(step, df.columns, self.pipeline.splits(table, i))
                if isinstance(step, Estimator):
                    with self.progress.phase(table, f"fit {step.name}"):
                        step = fitted(step, df)
                if isinstance(step, Comparer) and space is not None:
                    with self.progress.phase(table, f"compare: {step.name}"):
                        df = step.compare(df, replace(space, step=step_name(self.pipeline.steps[table], i, df)))
                else:
                    df = step.apply(df, frames)
            except (StepError, AnalysisException) as e:
                told = str(e).splitlines()[0]
                raise UsageError(f"tables.{table}.steps[{i}].{step.name}: {told}") from e
            frozen.append(step)
        if build_key:
            save_fitted(self.lake, table, build_key, frozen)
        unwritable = next((c for c in df.columns if set(c) & set(UNWRITABLE)), None)
        if unwritable is not None:  # of a source without a schema, that only its files tell
            raise UsageError(f"table '{table}': the column {unwritable!r} {NOT_WRITABLE}")
        return zoned(df)

    # -- stage, judge, publish

    def stage_and_publish(
        self,
        plan: TablePlan,
        made_by: str,
        key: str,
        rows: Callable[[], tuple[DataFrame, int]],
        how: Publish,
        taken: Arrival | None = None,
        space: BuildSpace | None = None,
        increment: bool = False,
    ) -> Built:
        table, lake, spark = plan.table, self.lake, self.spark
        files = taken.files if taken else []
        build = f"{key[:16]}-{plan.base + 1}"
        # Each run stages in a folder of its own, so that two at once do not write over each other.
        staging = f"{lake.staging(table)}/{key}-{self.run_id}"
        marker = f"{lake.staging(table)}/{key}"
        gate = self.gate(plan, files)
        left = staged_before(marker)
        if left is not None:
            # A run that died left this behind: the same inputs, configuration and code.
            staging, rows_in, recorded = left["staging"], left["rows_in"], left["recorded"]
            if space is not None:
                space.warnings.extend(left["warnings"])
            if left["origins"] is not None:
                self.origins[table] = Origins(**left["origins"])
            staged = spark.read.schema(T.StructType.fromJson(left["schema"])).parquet(staging)
            if gate is not None:
                masked = [c for c in staged.columns if c.startswith(MASK)]
                gate.masks(staged.drop(CONTENT, *masked))
                if not masked:
                    gate.without_masks()
        else:
            with self.progress.phase(table, "steps"):
                df, rows_in = rows()
                masks: dict[str, Column] = {}
                if gate is not None:
                    try:
                        masks = gate.masks(df)
                    except SuiteError as e:
                        raise UsageError(str(e)) from e
                content = {CONTENT: content_hash(df, published_columns(df, raw=bool(files)))}
                plain, df = df.withColumns(content), df.withColumns({**masks, **content})
            with self.progress.phase(table, "stage"):
                try:
                    stage(df, staging)
                except PySparkException as e:
                    # Perhaps a row rule raises on some row. If a step does, it does so again.
                    if gate is None or source_failure(e) is not None:
                        raise
                    gate.without_masks()
                    df = plain
                    stage(df, staging)
                if isinstance(self.pipeline.tables[table].source, FileSource):
                    assert_unchanged(self.environment.landing, files)
                recorded = space.recorded if space else {}
                told = {"rows_in": rows_in, "staging": staging, "recorded": recorded, "schema": df.schema.jsonValue()}
                told["warnings"] = space.warnings if space else []
                origins = self.origins.get(table)
                write_small(marker, told | {"origins": dataclasses.asdict(origins) if origins else None})
            staged = spark.read.schema(df.schema).parquet(staging)
        masked = [c for c in staged.columns if c.startswith(MASK)]
        quarantined = gate.is_quarantined() if gate else F.lit(False)
        with self.progress.phase(table, "balance"):
            counts = count_staged(staged, quarantined, rows_in)
            if counts.lost:
                raise HeadgateError(
                    f"table '{table}': the rows do not balance: {counts.rows_in:,} in + {counts.made:,} made, but "
                    f"{counts.published:,} kept + {sum(counts.rejected.values()):,} rejected"
                )
        columns = published_columns(staged, raw=bool(files))
        kept = staged.where(F.col(REJECTED).isNull())
        verdict = None
        if gate is not None:
            with self.progress.phase(table, "gate"):
                verdict = gate.judge(
                    kept.select(*map(quoted, columns), *masked),
                    counts.published + counts.quarantined,
                    counts.quarantined,
                )
                self.record_metrics(table, build, verdict)
                if verdict.blocking:
                    raise GateBlocked(blocked_message(table, verdict, plan, self.pipeline))
        warnings = [*(space.warnings if space else ()), *(verdict.warnings if verdict else ())]
        for warning in warnings:
            self.progress.tell("warning", table=table, message=f"table '{table}': {warning}")
        with self.progress.phase(table, "publish"):
            rejected = sum(counts.rejected.values())
            if rejected:
                reason = gate.quarantine_reason() if gate else F.lit(None).cast("string")
                entries = ledger_entries(staged, quarantined, reason)
                write_ledger(lake, entries, run_id=self.run_id, build=build, table=table, expected=rejected)
            self.record_lineage(plan, build)
            if files:
                self.record_files(table, files, plan.base, build)
            indexes: list[str] | None = None
            if self.pipeline.tables[table].publish.mode == "increment":
                indexes = sorted(recorded)
                save_index(spark, lake, table, build, recorded, kept.where(~quarantined))
            facts = {
                "run_id": self.run_id,
                "pipeline": self.pipeline.name,
                "build": build,
                "build_key": made_by,
                "base": plan.base,
                "config": config_key(self.pipeline, table),
                "increment": increment,
                "indexes": indexes,
                "inputs": {n: [p.version, str(p.as_of or "")] for n, p in plan.pins.items()},
                "as_of": str(self.as_of or ""),
                "rows": {k: v for k, v in dataclasses.asdict(counts).items() if k != "content"},
                "content": f"{counts.content:016x}",
            }
            published = publish(
                spark,
                lake,
                table,
                kept.where(~quarantined).select(*map(quoted, columns)),
                how,
                base=plan.base,
                staged_bytes=size_of(staging),
                facts=facts,
                replaced_files=taken.replaces if taken else (),
                evolves=taken is not None,
            )
        if indexes is not None and not increment:
            drop_indexes(lake, table, but=indexes)
        remove(marker)
        remove(staging)
        remove(f"{staging}{WORK}")
        remove_abandoned(lake.staging(table))
        return Built(table=table, published=published, counts=counts, verdict=verdict, warnings=warnings)

    def gate(self, plan: TablePlan, files: Sequence[LandedFile]) -> Gate | None:
        suite = self.pipeline.suites[plan.table]
        if suite is None:
            return None
        versions, parameters = self.gate_inputs(plan, files)
        parents = {name: self.read(name, version) for name, version in versions.items()}
        ceiling = self.pipeline.tables[plan.table].quarantine_ceiling
        try:
            return Gate(self.spark, suite, parents=parents, parameters=parameters, ceiling=ceiling)
        except SuiteError as e:
            raise UsageError(str(e)) from e

    def gate_inputs(self, plan: TablePlan, files: Sequence[LandedFile]) -> tuple[dict[str, int], dict[str, Any]]:
        """The versions of the tables that a table's suite reads, and the values that a suite may name."""
        suite = self.pipeline.suites[plan.table]
        parents = {}
        for name in suite.parents if suite else ():
            pin = plan.pins.get(name)
            found = self.lake.published(name) if pin is None else None
            version = pin.version if pin else found.version if found else None
            if version is None:
                raise InputMissing(f"the suite of table '{plan.table}' reads '{name}', which has not been built")
            parents[name] = version
        days = [f.date for f in files if f.date]
        parameters = {
            "as_of": str(self.as_of or datetime.now(timezone.utc).date()),
            "newest_file_date": str(max(days)) if days else "",
            "previous_rows": plan.current.rows if plan.current else -1,
        }
        return parents, parameters

    # -- what is recorded

    def record_metrics(self, table: str, build: str, verdict: Verdict) -> None:
        common = {"run_id": self.run_id, "table": table, "build": build, "at": now()}
        rows: list[dict[str, Any]] = [
            {
                **common,
                "kind": "expectation",
                "name": r.rule.type,
                "columns": list(r.rule.columns),
                "dimension": r.rule.dimension,
                "severity": r.rule.severity,
                "success": r.success,
                "element_count": r.element_count,
                "unexpected_count": r.unexpected_count,
                "value": r.observed,
                "result": json.dumps({"kwargs": dict(r.rule.kwargs), "result": r.result, "raised": r.raised}),
            }
            for r in verdict.results
        ]
        rows += [
            {**common, "kind": "dimension", "name": name, "dimension": name, "value": value}
            for name, value in verdict.dimensions().items()
        ]
        rows.append(
            {
                **common,
                "kind": "validation",
                "name": str(verdict.document.get("suite_name")),
                "success": not verdict.blocking,
                "result": json.dumps(verdict.document, default=str),
            }
        )
        self.lake.record("metrics", rows, build)

    def record_lineage(self, plan: TablePlan, build: str) -> None:
        steps = json.dumps([{s.name: dataclasses.asdict(s)} for s in self.pipeline.steps[plan.table]], default=str)
        source = self.pipeline.tables[plan.table].source
        origins = self.origins.get(plan.table)
        common = {"run_id": self.run_id, "table": plan.table, "build": build, "steps": steps}
        common |= {k: json.dumps(v) for k, v in dataclasses.asdict(origins).items()} if origins else {}
        rows = [
            {**common, "input": name, "input_version": pin.version, "as_of": pin.as_of}
            for name, pin in plan.pins.items()
        ]
        if source is not None:
            name = f"landing:{source.path}" if isinstance(source, FileSource) else source_name(source)
            rows.append({**common, "input": name, "as_of": self.as_of})
        self.lake.record("lineage", rows, build)

    def record_files(self, table: str, files: list[LandedFile], base: int, build: str) -> None:
        self.lake.record(
            "files",
            [
                {
                    "table": table,
                    "path": f.path,
                    "date": f.date,
                    "size": f.size,
                    "modified": f.modified,
                    "sha256": f.sha256,
                    "columns": json.dumps(f.columns) if f.columns is not None else None,
                    "watermark": f.watermark,
                    "records": f.records,
                    "problem": f.problem,
                    "at": now(),
                    "base": base,
                    "build": build,
                    "run_id": self.run_id,
                }
                for f in files
            ],
            build if build != SAME_CONTENT else None,
        )


def staged_before(marker: str) -> dict[str, Any] | None:
    """What a run that died left of the same work, whole; None if there is nothing."""
    if not DeltaTable.is_deltatable(marker):
        return None
    left = read_small(marker)
    folders = [left["staging"], *(path for path, *_ in left["recorded"].values())]
    return left if all(size_of(folder) for folder in folders) else None


def zoned(df: DataFrame) -> DataFrame:
    """The rows with every time without a zone, nested ones too, as a timestamp in the session's zone."""
    kinds = {f.name: without_ntz(f.dataType) for f in df.schema.fields}
    return df.withColumns(
        {f.name: F.col(quoted(f.name)).cast(kinds[f.name]) for f in df.schema.fields if kinds[f.name] != f.dataType}
    )


def count_staged(staged: DataFrame, quarantined: Any, rows_in: int) -> Counts:
    """Count the staged rows by what happens to them, in one aggregate over the marks."""
    groups = (
        staged.groupBy(
            F.col(REJECTED)["step"].alias("step"),
            F.col(REJECTED)["reason"].alias("reason"),
            F.col(MADE).isNotNull().alias("made"),
            quarantined.alias("quarantined"),
        )
        .agg(F.count("*").alias("count"), hash_sum(F.col(CONTENT)).alias("content"))
        .collect()
    )
    counts = Counts(rows_in=rows_in)
    for group in groups:
        n = group["count"]
        counts.made += n if group["made"] else 0
        if group["step"] is not None:
            why = f"{group['step']}: {group['reason']}"
            counts.rejected[why] = counts.rejected.get(why, 0) + n
        elif group["quarantined"]:
            counts.rejected["gate: fails a row rule"] = counts.rejected.get("gate: fails a row rule", 0) + n
            counts.quarantined += n
        else:
            counts.published += n
            counts.content = (counts.content + total_of(*group["content"])) % (1 << 64)
    counts.rejected = dict(sorted(counts.rejected.items(), key=lambda x: (-x[1], x[0])))
    return counts


def not_yet_in(rows: DataFrame, table: DataFrame, source: PullSource, columns: list[str]) -> DataFrame:
    """The rows of a look-back without the records whose newest form the table has, or has a newer one of.

    Without a key a record is its content, so that one that is there has nothing new. Rows that were rejected come
    again, and are judged again.
    """
    there = table.select(ROW_ID)
    if not source.key:
        return rows.join(there, on=ROW_ID, how="left_anti")
    mark = quoted(str(source.watermark))
    shared = [c for c in columns if c in table.columns]
    newest = rows.groupBy(ROW_ID).agg(F.max(mark).alias("mark"))
    present = table.select(
        ROW_ID,
        content_key(table, shared).alias("there"),
        *([F.col(mark).alias("at")] if source.watermark in table.columns else []),
    )
    asked = rows.select(ROW_ID, content_key(rows, shared).alias("content"), F.col(mark).alias("own"))
    both = asked.join(newest, on=ROW_ID).join(present, on=ROW_ID)
    same = (F.col("own").eqNullSafe(F.col("mark"))) & (F.col("content") == F.col("there"))
    later = F.col("at") > F.col("mark") if "at" in present.columns else F.lit(False)
    settled = both.where(same | later).select(ROW_ID).distinct()
    return rows.join(settled, on=ROW_ID, how="left_anti")


def newest_of_each(rows: DataFrame, source: PullSource) -> DataFrame:
    """The rows with all forms of a record marked but the one of the highest watermark."""
    if source.watermark is None:
        return DropDuplicates(columns=(ROW_ID,)).apply(rows, {})
    ordered = rows.withColumn(f"{OWN}mark", F.col(quoted(source.watermark)))
    return DropDuplicates(columns=(ROW_ID,), keep=f"{OWN}mark desc").apply(ordered, {}).drop(f"{OWN}mark")


def blocked_message(table: str, verdict: Verdict, plan: TablePlan, pipeline: Pipeline) -> str:
    suite = pipeline.suites[table]
    stays = f"version {plan.current.version} stays" if plan.current else "nothing was published"
    reasons = "\n".join(f"  - {reason}" for reason in verdict.blocking)
    return f"the gate blocked table '{table}' (suite '{suite.name if suite else ''}'); {stays}:\n{reasons}"


def fitted_path(lake: Lake, table: str, build_key: str) -> str:
    return f"{lake.root}/_system/fitted/{table}/{build_key}"


def save_fitted(lake: Lake, table: str, build_key: str, steps: list[Step]) -> None:
    """Save the frozen steps of a build, as a pipeline file would write them."""
    state = [{s.name: options_of(type(s)).dump_python(s, mode="json")} for s in steps]
    write_small(fitted_path(lake, table, build_key), {"steps": state})


def load_fitted(lake: Lake, table: str, build_key: str) -> list[Step]:
    """The frozen steps of a build, ready to be applied to other rows."""
    state = read_small(fitted_path(lake, table, build_key))["steps"]
    return [options_of(STEPS[name]).validate_python(options) for entry in state for name, options in entry.items()]


def write_small(path: str, value: dict[str, Any]) -> None:
    """A JSON value as a Delta table of one row, so that it is there whole or not at all, on any storage.

    The path is made of a key of the value, so where another run writes it at the same moment, its value will do.
    """
    try:
        write_deltalake(path, pa.table({"value": [json.dumps(value, default=str)]}), mode="overwrite")
    except Exception as e:
        if not is_conflict(e):
            raise


def read_small(path: str) -> dict[str, Any]:
    return json.loads(DeltaTable(path).to_pyarrow_table()["value"][0].as_py())
