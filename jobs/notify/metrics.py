"""Figures of a run in Prometheus' text format: as a file for node_exporter, and to a Pushgateway.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format.
"""

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import requests

from headgate.jobs.config.nightly import Metrics
from headgate.jobs.config.secrets import SecretReference
from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.events import FilesDue, RunEnded, RunStarted, TableDone
from headgate.jobs.pipeline.expected import Due
from headgate.jobs.pipeline.outcome import UP_TO_DATE, TableOutcome

SECONDS = 10  # for which a Pushgateway is waited for
SUCCESS_AT = "headgate_last_success_timestamp_seconds"
METRICS = {  # all of them gauges
    "headgate_run_success": "Whether the last run succeeded",
    "headgate_run_exit_code": "The exit code of the last run",
    "headgate_run_duration_seconds": "How long the last run took",
    "headgate_run_timestamp_seconds": "When the last run ended",
    SUCCESS_AT: "When a run last succeeded",
    "headgate_run_tables_built": "Tables that the last run built",
    "headgate_run_warnings": "Warnings of the last run",
    "headgate_table_version": "The newest version of the table",
    "headgate_table_rows": "Rows of the table",
    "headgate_table_published_timestamp_seconds": "When that version was published",
    "headgate_table_rows_in": "Rows that came into the build",
    "headgate_table_rows_made": "Rows that steps of the build made",
    "headgate_table_rows_published": "Rows that the build published",
    "headgate_table_rows_rejected": "Rows that the build's source and steps rejected",
    "headgate_table_rows_quarantined": "Rows that the gate set aside",
    "headgate_table_expectations": "Expectations that the gate evaluated",
    "headgate_table_expectations_passed": "Expectations that held",
    "headgate_table_warnings": "Warnings of the table's steps and gate",
    "headgate_table_build_seconds": "How long the build took",
    "headgate_source_files_expected": "Files of the day that the source expects",
    "headgate_source_files_found": "Files of the day that are there",
}
Sample = tuple[str, Mapping[str, str], float]  # name, labels, value


class Measuring:
    """Writes the figures of a run when it has ended."""

    def __init__(self, options: Metrics) -> None:
        self.folder, gateway = options.textfile, options.pushgateway
        self.gateway = gateway.read("metrics.pushgateway") if isinstance(gateway, SecretReference) else gateway
        self.lake: Lake | None = None
        self.tables: list[TableOutcome] = []
        self.due: list[Due] = []

    def __call__(self, event: object) -> None:
        if isinstance(event, RunStarted):
            self.lake, self.tables, self.due = event.lake, [], []
        elif isinstance(event, TableDone):
            self.tables.append(event.outcome)
        elif isinstance(event, FilesDue):
            self.due.append(event.due)
        elif isinstance(event, RunEnded) and not event.again:
            self.write(event)

    def write(self, event: RunEnded) -> None:
        """Write the file and push the figures; raise `HeadgateError` that names what did not work."""
        samples = [*self.of_run(event), *self.of_tables(event.pipeline)]
        problems = []
        if self.folder is not None:
            try:
                write_file(Path(self.folder, f"headgate_{event.pipeline}.prom"), samples)
            except OSError as e:
                problems.append(f"{self.folder} cannot be written: {e.strerror}")
        if self.gateway is not None:
            problems += push(self.gateway, event.pipeline, samples, whole=event.error is None)
        if problems:
            raise HeadgateError("; ".join(problems))

    def of_run(self, event: RunEnded) -> Iterable[Sample]:
        labels, now = {"pipeline": event.pipeline}, time.time()
        yield "headgate_run_success", labels, float(event.error is None)
        yield "headgate_run_exit_code", labels, event.exit_code
        yield "headgate_run_duration_seconds", labels, event.seconds
        yield "headgate_run_timestamp_seconds", labels, now
        if event.error is None:
            yield SUCCESS_AT, labels, now
        yield "headgate_run_tables_built", labels, sum(t.built for t in self.tables)
        late = sum(bool(due.missing) for due in self.due)
        yield "headgate_run_warnings", labels, sum(len(t.warnings) for t in self.tables) + late
        for due in self.due:
            named = labels | {"table": due.table}
            yield "headgate_source_files_expected", named, due.expected
            yield "headgate_source_files_found", named, due.found

    def of_tables(self, pipeline: str) -> Iterable[Sample]:
        """Give the figures of the tables that are done; of a build where there was one."""
        for table in self.tables:
            labels = {"pipeline": pipeline, "table": table.table}
            if table.version is not None and self.lake is not None:
                yield "headgate_table_version", labels, table.version
                yield "headgate_table_rows", labels, table.rows or 0
                published = self.lake.published(table.table, table.version)
                if published is not None:
                    yield "headgate_table_published_timestamp_seconds", labels, published.at.timestamp()
            if table.built:
                yield "headgate_table_rows_in", labels, table.rows_in
                yield "headgate_table_rows_made", labels, table.made
                yield "headgate_table_rows_published", labels, table.published
                yield "headgate_table_rows_rejected", labels, sum(table.rejected.values()) - table.quarantined
                yield "headgate_table_rows_quarantined", labels, table.quarantined
                yield "headgate_table_build_seconds", labels, table.seconds
            if table.status != UP_TO_DATE:
                yield "headgate_table_expectations", labels, table.expectations
                yield "headgate_table_expectations_passed", labels, table.passed
                yield "headgate_table_warnings", labels, len(table.warnings)


def text_of(samples: Iterable[Sample]) -> str:
    """Return samples in the text format, those of a metric together."""
    lines: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in samples:
        named = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
        lines[name].append(f"{name}{{{named}}} {float(value)!r}\n")
    return "".join(
        f"# HELP {name} {METRICS[name]}\n# TYPE {name} gauge\n{''.join(found)}"
        for name, found in lines.items()
        if found
    )


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write_file(file: Path, samples: Iterable[Sample]) -> None:
    """Put a file in place at once; of a run that failed, it keeps when one last succeeded."""
    text = text_of(samples)
    if SUCCESS_AT not in text and file.exists():
        kept = re.search(rf"^# HELP {SUCCESS_AT} .*\n# TYPE .*\n{SUCCESS_AT}.*\n", file.read_text(), re.MULTILINE)
        text += kept[0] if kept else ""
    part = file.with_name(f".{file.name}.{os.getpid()}")  # a name that the collector passes over
    part.write_text(text)
    os.replace(part, file)


def push(gateway: str, pipeline: str, samples: Iterable[Sample], whole: bool) -> list[str]:
    """Push samples as a pipeline's group, in place of all that is there or of the same metrics; return what failed."""
    url = f"{gateway.rstrip('/')}/metrics/job/headgate/pipeline/{quote(pipeline, safe='')}"
    try:
        answer = requests.request("PUT" if whole else "POST", url, data=text_of(samples).encode(), timeout=SECONDS)
    except requests.RequestException as e:
        return [f"the Pushgateway gave no answer ({type(e).__name__})"]  # the error may quote a password
    return [] if answer.ok else [f"the Pushgateway answered {answer.status_code}"]
