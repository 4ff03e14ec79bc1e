"""The observers that an environment asks for, at a run of its own."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headgate.jobs.config.models import Environment
from headgate.jobs.pipeline.events import RunEnded
from headgate.jobs.progress import Observer, Progress


def observers_of(environment: Environment) -> dict[str, Callable[[], Observer]]:
    """Return what makes each observer that an environment asks for; made, it has read its secrets."""
    makers: dict[str, Callable[[], Observer]] = {}
    if (alerts := environment.alerts) is not None:
        from headgate.jobs.notify.alerts import Alerting

        makers["alerts"] = lambda: Alerting(alerts, environment.lake)
    return makers


@contextlib.contextmanager
def watched(progress: Progress, environment: Environment, pipeline: Path) -> Iterator[None]:
    """Let the environment's observers watch what is done to a pipeline; none of them can stop it.

    They are given the end also of a run that did not begin, because its configuration is wrong.
    """
    started = time.monotonic()
    ends: list[object] = []
    progress.observers["ends"] = lambda event: ends.append(event) if isinstance(event, RunEnded) else None
    for name, make in observers_of(environment).items():
        try:
            progress.observers[name] = make()
        except Exception as e:
            progress.tell("warning", message=f"{name}: {e}")
    try:
        yield
    except BaseException as e:
        if not ends:
            progress.emit(RunEnded(pipeline.stem, e, None, time.monotonic() - started))
        raise
