"""The observers that an environment asks for, at a run of its own."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from headgate.jobs.config.models import Environment
from headgate.jobs.errors import UsageError
from headgate.jobs.pipeline.events import RunEnded
from headgate.jobs.progress import Observer, Progress


def observers_of(environment: Environment) -> dict[str, Callable[[], Observer]]:
    """Return what makes each observer that an environment asks for; made, it has read its secrets."""
    makers: dict[str, Callable[[], Observer]] = {}
    if (alerts := environment.alerts) is not None:
        from headgate.jobs.notify.alerts import Alerting

        makers["alerts"] = lambda: Alerting(alerts, environment.lake)
    if (metrics := environment.metrics) is not None:
        from headgate.jobs.notify.metrics import Measuring

        makers["metrics"] = lambda: Measuring(metrics)
    if (openlineage := environment.openlineage) is not None:

        def emitting() -> Observer:
            with needs_extra("lineage"):
                from headgate.jobs.notify.lineage import Emitting
            return Emitting(openlineage, environment.landing)

        makers["openlineage"] = emitting
    if (tracing := environment.tracing) is not None:

        def recording() -> Observer:
            with needs_extra("tracing"):
                from headgate.jobs.notify.tracing import Recording
            return Recording(tracing)

        makers["tracing"] = recording
    return makers


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Say which extra has the packages that an import lacks."""
    try:
        yield
    except ImportError as e:
        raise UsageError(f"the package {e.name} is missing: pip install 'headgate[{extra}]'") from e


def name_in(pipeline: Path) -> str:
    """Return the name that a pipeline's file gives it, as far as that can be read; else that of the file."""
    try:
        name = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["pipeline"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        name = None
    return name if isinstance(name, str) else pipeline.stem


@contextlib.contextmanager
def watched(progress: Progress, environment: Environment, pipeline: Path) -> Iterator[None]:
    """Let the environment's observers watch what is done to a pipeline; none of them can stop it.

    They are given the end also of a run that did not begin, because its configuration is wrong.
    """
    started = time.monotonic()
    ends: list[RunEnded] = []
    progress.observers["ends"] = lambda event: ends.append(event) if isinstance(event, RunEnded) else None
    for name, make in observers_of(environment).items():
        try:
            progress.observers[name] = observer = make()
        except Exception as e:
            progress.tell("warning", message=f"{name}: {e}")
        else:
            for fault in getattr(observer, "faults", ()):
                progress.tell("warning", message=f"{name}: {fault}")
    try:
        yield
    except BaseException as e:
        if not ends or ends[-1].again:
            progress.emit(RunEnded(name_in(pipeline), e, None, time.monotonic() - started))
        raise
