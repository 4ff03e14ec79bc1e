"""Events of runs for OpenLineage: a job for the pipeline, one for each table below it, and one for each gate.

The form of events: https://openlineage.io/docs/spec/object-model; names of datasets: https://openlineage.io/docs/spec/naming.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated.base import DatasetFacet, InputDatasetFacet, OutputDatasetFacet, RunFacet
from openlineage.client.generated.column_lineage_dataset import ColumnLineageDatasetFacet, Fields, InputField
from openlineage.client.generated.data_quality_assertions_dataset import Assertion, DataQualityAssertionsDatasetFacet
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.nominal_time_run import NominalTimeRunFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from openlineage.client.generated.parent_run import Job as ParentJob
from openlineage.client.generated.parent_run import ParentRunFacet
from openlineage.client.generated.parent_run import Run as ParentRun
from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet
from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields
from openlineage.client.generated.tags_run import TagsRunFacet, TagsRunFacetFields
from openlineage.client.uuid import generate_static_uuid

from headgate.jobs.config.models import FileSource, JdbcSource, Source
from headgate.jobs.config.nightly import OpenLineage
from headgate.jobs.disclosure import without_secrets
from headgate.jobs.errors import Interrupted
from headgate.jobs.lake.columns import type_of
from headgate.jobs.lake.lake import Lake
from headgate.jobs.notify.wording import said
from headgate.jobs.pipeline.events import (
    ColumnsTraced,
    RunEnded,
    RunStarted,
    TableDone,
    TableFailed,
    TableJudged,
    TableStarted,
)
from headgate.jobs.pipeline.outcome import UP_TO_DATE, TableOutcome
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.landing import absolute
from headgate.transforms.rows import is_own
from headgate.version import VERSION

if TYPE_CHECKING:
    from headgate.expectations.verdict import Verdict

PRODUCER = f"urn:headgate:{VERSION}"
SEVERITIES = {"critical": "error", "warning": "warn"}
Name = tuple[str, str]  # namespace and name of a dataset


@dataclass
class Table:
    """What is known of a table that is being built."""

    began: datetime
    inputs: Mapping[str, int]
    source: Source | None
    verdict: "Verdict | None" = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Emitting:
    """Emits the events of a run as it goes on."""

    def __init__(self, options: OpenLineage, landing: str) -> None:
        logging.getLogger("openlineage").setLevel(logging.CRITICAL)  # it tells as well what it raises
        self.client = OpenLineageClient(config=configured(options))
        self.namespace, self.landing = options.namespace, landing
        self.run: RunStarted | None = None
        self.began = datetime.now(timezone.utc)
        self.tables: dict[str, Table] = {}

    def __call__(self, event: object) -> None:
        now = datetime.now(timezone.utc)
        if isinstance(event, RunStarted):
            self.run, self.began, self.tables = event, now, {}
            self.emit("", "START", now, self.of_run(event))
        elif self.run is None:
            return  # it ended before it began
        elif isinstance(event, RunEnded):
            for name in list(self.tables):  # that were interrupted
                self.emit(name, "ABORT", now)
            facets = self.of_run(self.run, event.outcome.release if event.outcome else None)
            state = "ABORT" if isinstance(event.error, Interrupted) else "FAIL" if event.error else "COMPLETE"
            self.emit("", state, now, facets | failed(event.error))
        elif isinstance(event, TableStarted):
            table = self.tables[event.table] = Table(now, event.inputs, event.source)
            self.emit(event.table, "START", now, inputs=self.inputs(self.run.lake, table))
        elif isinstance(event, TableJudged):
            self.tables[event.table].verdict = event.verdict
        elif isinstance(event, ColumnsTraced):
            self.tables[event.table].columns = event.columns
        elif isinstance(event, TableFailed):
            table = self.tables.pop(event.table)
            self.gate(self.run.lake, event.table, table, None, now)
            self.emit(event.table, "FAIL", now, failed(event.error), self.inputs(self.run.lake, table))
        elif isinstance(event, TableDone) and event.outcome.table in self.tables:
            self.done(self.run.lake, event.outcome, now)

    def done(self, lake: Lake, outcome: TableOutcome, now: datetime) -> None:
        table = self.tables.pop(outcome.table)
        self.gate(lake, outcome.table, table, outcome.version, now)
        outputs = []
        if outcome.status != UP_TO_DATE and outcome.version is not None:
            outputs = [self.output(lake, outcome, table)]
        self.emit(outcome.table, "COMPLETE", now, inputs=self.inputs(lake, table), outputs=outputs)

    def gate(self, lake: Lake, name: str, table: Table, version: int | None, now: datetime) -> None:
        """Emit the verdict on a table, which is that of a job of its own: what it judged is what it read."""
        if table.verdict is None:
            return
        facets: dict[str, InputDatasetFacet] = {"dataQualityAssertions": assertions(table.verdict)}
        namespace, place = dataset_of(lake.path(name))
        judged = [InputDataset(namespace, place, facets=versioned(version), inputFacets=facets)]
        self.emit(f"{name}.gate", "START", table.began)
        self.emit(f"{name}.gate", "FAIL" if table.verdict.blocking else "COMPLETE", now, inputs=judged)

    def inputs(self, lake: Lake, table: Table) -> list[InputDataset]:
        pinned = [(dataset_of(lake.path(name)), version) for name, version in sorted(table.inputs.items())]
        found = [InputDataset(*name, facets=versioned(version)) for name, version in pinned]
        return [*found, *([InputDataset(*self.source(table.source))] if table.source is not None else [])]

    def source(self, source: Source) -> Name:
        """Return the name of what a source reads; it holds no secret."""
        if isinstance(source, FileSource):
            return dataset_of(f"{absolute(self.landing)}/{source.path}")
        if isinstance(source, JdbcSource):
            namespace, database = database_of(source.url)
            return namespace, ".".join(filter(None, (database, source.table or "query")))
        url = urlsplit(source_name(source))
        return (f"{url.scheme}://{url.hostname}", url.path) if url.hostname else ("python", url.path)

    def output(self, lake: Lake, outcome: TableOutcome, table: Table) -> OutputDataset:
        assert outcome.version is not None
        fields = json.loads(lake.columns_json(outcome.table, outcome.version))["fields"]
        facets: dict[str, DatasetFacet] = {
            **versioned(outcome.version),
            "schema": SchemaDatasetFacet([SchemaDatasetFacetFields(f["name"], type_of(f["type"])) for f in fields]),
        }
        traced = {column: self.origins(lake, origins) for column, origins in table.columns.items() if origins}
        if table.source is not None:  # its columns have the names that they have there
            source = self.source(table.source)
            traced = {f["name"]: [InputField(*source, f["name"])] for f in fields if not is_own(f["name"])}
        if traced:
            facets["columnLineage"] = ColumnLineageDatasetFacet({c: Fields(found) for c, found in traced.items()})
        statistics: dict[str, OutputDatasetFacet] = {}
        if outcome.built:
            statistics["outputStatistics"] = OutputStatisticsOutputDatasetFacet(rowCount=outcome.published)
        namespace, name = dataset_of(lake.path(outcome.table))
        return OutputDataset(namespace, name, facets=facets, outputFacets=statistics)

    def origins(self, lake: Lake, origins: Sequence[str]) -> list[InputField]:
        split = [origin.partition(".") for origin in origins]
        return [InputField(*dataset_of(lake.path(table)), column) for table, _, column in split]

    def of_run(self, run: RunStarted, release: str | None = None) -> dict[str, RunFacet]:
        told = {"run_id": run.run_id, **({"release": release} if release else {})}
        facets: dict[str, RunFacet] = {"tags": TagsRunFacet([TagsRunFacetFields(*t, "HEADGATE") for t in told.items()])}
        if run.as_of is not None:
            facets["nominalTime"] = NominalTimeRunFacet(f"{run.as_of}T00:00:00Z")
        return facets

    def emit(
        self,
        table: str,
        state: str,
        at: datetime,
        facets: Mapping[str, RunFacet] | None = None,
        inputs: list[InputDataset] | None = None,
        outputs: list[OutputDataset] | None = None,
    ) -> None:
        """Emit an event of the run, or of the job of a table below it."""
        assert self.run is not None
        engine = ProcessingEngineRunFacet(version=VERSION, name="headgate")
        common: dict[str, RunFacet] = {"processing_engine": engine, **(facets or {})}
        if table:
            parent = ParentJob(self.namespace, self.run.pipeline)
            common["parent"] = ParentRunFacet(ParentRun(self.uuid("")), parent)
        kind = JobTypeJobFacet("BATCH", "HEADGATE", "TABLE" if table else "PIPELINE")
        name = f"{self.run.pipeline}.{table}" if table else self.run.pipeline
        event = RunEvent(
            eventTime=at.isoformat(),
            producer=PRODUCER,
            run=Run(self.uuid(table), common),
            job=Job(self.namespace, name, {"jobType": kind}),
            eventType=RunState[state],
            inputs=inputs or [],
            outputs=outputs or [],
        )
        self.client.emit(event)

    def uuid(self, table: str) -> str:
        """Return the identity of the run of a job, the same in all of its events."""
        assert self.run is not None
        return str(generate_static_uuid(self.began, f"{self.run.run_id} {table}".encode()))


def configured(options: OpenLineage) -> dict[str, Any] | None:
    """Return the client's configuration; None where its own variables and files say it."""
    plain = {"facets": {"source_code_location": {"disabled": True}}}  # of the folder where it runs, which is the data's
    if options.file is not None:
        return {"transport": {"type": "file", "log_file_path": options.file, "append": True}, **plain}
    if options.url is None:
        return None
    key = options.api_key.read("openlineage.api_key") if options.api_key else None
    auth = {"auth": {"type": "api_key", "apiKey": key}} if key else {}
    retry = {"total": 2, "backoff_factor": 0.3}
    return {"transport": {"type": "http", "url": options.url, "timeout": 5, "retry": retry, **auth}, **plain}


def database_of(url: str) -> Name:
    """Return the namespace of a database by its JDBC URL, and its name there; neither user nor options."""
    scheme, _, rest = url.removeprefix("jdbc:").partition(":")
    host = re.search(r"//(?:[^/?;]*@)?([^/?;@\s]+)", rest)
    named = re.search(r"[;?&]database(?:name)?=([^;&]+)", rest, re.IGNORECASE) or re.search(r"//[^/?;]+/([^?;]+)", rest)
    kind = scheme.replace("postgresql", "postgres")
    if host is None:  # a file, or one in memory
        return kind, without_secrets(re.split("[?;]", rest)[0].rpartition("@")[2])
    return f"{kind}://{without_secrets(host[1])}", named[1].strip("/") if named else ""


def dataset_of(place: str) -> Name:
    """Return namespace and name of a folder or file: `s3://bucket` and the key, `file` and the path."""
    scheme, found, rest = without_secrets(place).partition("://")
    if not found:
        return "file", place
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}" if scheme == "hdfs" else path or "/"


def versioned(version: int | None) -> dict[str, DatasetFacet]:
    return {} if version is None else {"version": DatasetVersionDatasetFacet(str(version))}


def failed(error: BaseException | None) -> dict[str, RunFacet]:
    return {} if error is None else {"errorMessage": ErrorMessageRunFacet(said(error), "PYTHON")}


def assertions(verdict: "Verdict") -> DataQualityAssertionsDatasetFacet:
    """Return the rules of a verdict; of several columns, or of none, a rule is one of the table."""
    found = []
    for r in verdict.results:
        column = r.rule.columns[0] if len(r.rule.columns) == 1 else None
        severity, success = SEVERITIES.get(r.rule.severity, r.rule.severity), r.success and not r.raised
        found.append(Assertion(assertion=r.rule.type, success=success, column=column, severity=severity))
    return DataQualityAssertionsDatasetFacet(found)
