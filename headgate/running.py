"""Running a pipeline from Python."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headgate.jobs.config.columns import seen_in
from headgate.jobs.config.environment import load_environment, parse_date
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.lake.lake import Lake as LakeFolder
from headgate.jobs.pipeline.outcome import Outcome, TableOutcome
from headgate.jobs.progress import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["Outcome", "TableOutcome", "run"]

log = logging.getLogger("headgate")
log.addHandler(logging.NullHandler())


class Logged(Progress):
    """Progress of a run in a program: shown where a person watches or asked for JSON, else in the log `headgate`."""

    def tell(self, event: str, **facts: Any) -> None:
        if self.watched or self.as_json or event not in ("warning", "retry"):
            super().tell(event, **facts)
        else:
            log.warning("%s: %s", event, facts.get("message"))

    def write(self, line: str) -> None:
        if self.watched or self.as_json:
            super().write(line)
        else:
            log.info(line)


def run(
    pipeline: str | PathLike[str],
    spark: "SparkSession | None" = None,
    *,
    env: str | None = None,
    lake: str | PathLike[str] | None = None,
    landing: str | PathLike[str] | None = None,
    tables: Sequence[str] = (),
    as_of: date | str | None = None,
    release: str | None = None,
    rebuild: bool = False,
    retries: int = 0,
    wait: timedelta = timedelta(0),
) -> Outcome:
    """Build the tables of a pipeline that are not up to date, and release them, as `headgate run` does.

    spark: a session with Delta, which is left running with its settings as they are; without one, a session is started
        where something is to be built, and stopped.
    env, lake, landing: as the options of the command line, environment variables and `conf/env` included.
    tables: only these and what they are built from, without a release. as_of: leave out files of later days.
    rebuild: build also what is up to date. retries: how often to try again after a lost race.
    wait: how long to wait for another run of the pipeline to end.

    Raises `UsageError`, `InputMissing`, `GateBlocked` or `LostRace`, all of them `HeadgateError`.
    """
    from headgate.jobs.notify.watching import watched
    from headgate.jobs.pipeline import run as runs
    from headgate.jobs.spark import given, session

    path = Path(pipeline)
    runs.check_release(release, tables)
    environment = load_environment(env, path, lake=text_of(lake), landing=text_of(landing))
    progress = Logged()
    with watched(progress, environment, path):
        folder = LakeFolder(environment.lake)
        folder.need_folder(exists=False)
        checked = load_pipeline(path, seen_in(folder), tables, thorough=False)
        sessions: Any
        if spark is None:
            given.need_none()
            sessions = session.on_demand(environment.spark_settings(), environment.secret_settings(), lambda: None)
        else:
            sessions = given.lent(spark, environment.lake, environment.landing)
        with sessions as start:
            return runs.run(
                checked,
                environment,
                folder,
                start,
                progress,
                tables=tables,
                as_of=parse_date(as_of, "as_of") if isinstance(as_of, str) else as_of,
                release=release,
                force=rebuild,
                retries=retries,
                wait=wait,
            )


def text_of(path: str | PathLike[str] | None) -> str | None:
    return None if path is None else fspath(path)
