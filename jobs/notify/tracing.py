"""Traces of runs for OpenTelemetry: a span for the run, below it one for each table, below these one for each phase."""

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import IO

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headgate.jobs.config.nightly import Tracing
from headgate.jobs.errors import HeadgateError, UsageError
from headgate.jobs.notify.wording import said
from headgate.jobs.pipeline.events import RunEnded, RunStarted, TableDone, TableFailed, TableStarted
from headgate.jobs.progress import PhaseDone
from headgate.version import VERSION

Facts = Mapping[str, str | int]


class Kept(SpanProcessor):
    """Keeps the spans that are over until the run is."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Recording:
    """Records the spans of a run, and exports them when it has ended."""

    def __init__(self, options: Tracing) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what cannot be exported is told once, below
        self.exporter = exporter_of(options)
        self.kept = Kept()
        service = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "headgate"), SERVICE_VERSION: VERSION}
        provider = TracerProvider(resource=Resource.create(service))
        provider.add_span_processor(self.kept)
        self.tracer = provider.get_tracer("headgate", VERSION)
        self.run: trace.Span | None = None
        self.tables: dict[str, trace.Span] = {}

    def __call__(self, event: object) -> None:
        now = time.time()
        if isinstance(event, RunStarted):
            known = {"pipeline": event.pipeline, "run_id": event.run_id, "lake": event.lake.root}
            self.run = self.begin(f"run {event.pipeline}", None, now, known | {"as_of": str(event.as_of or "")})
            self.tables = {}
        elif isinstance(event, PhaseDone) and self.run is not None:
            parent = self.tables.get(event.table, self.run)
            self.begin(event.phase, parent, event.began, {"table": event.table}).end(nanoseconds(event.ended))
        elif isinstance(event, TableStarted):
            self.tables[event.table] = self.begin(f"table {event.table}", self.run, now, {"table": event.table})
        elif isinstance(event, TableDone) and event.outcome.table in self.tables:
            done = event.outcome
            facts: Facts = {"status": done.status, "rows": done.rows or 0, "version": done.version or 0}
            self.finish(self.tables.pop(done.table), now, None, facts)
        elif isinstance(event, TableFailed):
            self.finish(self.tables.pop(event.table), now, event.error, {})
        elif isinstance(event, RunEnded) and self.run is not None:
            release = event.outcome.release if event.outcome else None
            for span in [*self.tables.values(), self.run]:  # tables that were interrupted
                self.finish(span, now, event.error, {"exit_code": event.exit_code, "release": release or ""})
            self.run = None
            self.export()

    def begin(self, name: str, parent: trace.Span | None, at: float, facts: Facts) -> trace.Span:
        """Begin a span; one without a parent is below that of the variable TRACEPARENT, where there is one."""
        caller = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})
        context = trace.set_span_in_context(parent) if parent is not None else caller
        named = {f"headgate.{fact}": value for fact, value in facts.items()}
        return self.tracer.start_span(name, context, attributes=named, start_time=nanoseconds(at))

    def finish(self, span: trace.Span, at: float, error: BaseException | None, facts: Facts) -> None:
        span.set_attributes({f"headgate.{fact}": value for fact, value in facts.items()})
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, said(error)))
        span.end(nanoseconds(at))

    def export(self) -> None:
        """Export what was kept; raise `HeadgateError` where nobody takes it."""
        spans, self.kept.spans = self.kept.spans, []
        if spans and self.exporter is not None and self.exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise HeadgateError(f"{len(spans)} spans could not be exported")


def exporter_of(options: Tracing) -> SpanExporter | None:
    """Return what takes the spans; None where a variable of OpenTelemetry's says that nothing does."""
    if options.file is not None:
        return lines_to(open(options.file, "a", encoding="utf-8"))
    kind = options.exporter or os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if kind == "none":
        return None
    if kind == "console":
        return lines_to(sys.stderr)
    if kind != "otlp":
        raise UsageError(f"OTEL_TRACES_EXPORTER: unknown exporter '{kind}'; expected one of otlp, console, none")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def lines_to(out: IO[str]) -> SpanExporter:
    return ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
