"""Commands that build a pipeline, or check it before it is built."""

import contextlib
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, duration, in_lake
from headgate.jobs.cli.output import json_text, show, summary
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import HeadgateError, UsageError

if TYPE_CHECKING:
    from headgate.jobs.config.pipeline import Pipeline

retries_option = click.option(
    "--retries", type=click.IntRange(0), default=0, show_default=True, help="How many tries more after a lost race."
)
wait_option = click.option(
    "--wait",
    callback=duration,
    default="0s",
    show_default=True,
    metavar="TIME",
    help="How long to wait for another run of the pipeline to end, as 30m.",
)
pipeline_argument = click.argument("pipeline", type=click.Path(path_type=Path))


@click.command(cls=Command)
@pipeline_argument
@in_lake
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Only this table and its inputs (default: all).")
@click.option("--as-of", metavar="DAY", help="Leave out files of later days (default: none are left out).")
@click.option("--release", metavar="NAME", help="Name of the release (default: pipeline and number).")
@click.option("--rebuild", is_flag=True, help="Build also what is up to date.")
@click.option("--dry-run", is_flag=True, help="Only say what would be built, and why.")
@retries_option
@wait_option
@as_json
def run(
    pipeline: Path,
    place: Place,
    tables: tuple[str, ...],
    as_of: str | None,
    release: str | None,
    rebuild: bool,
    dry_run: bool,
    retries: int,
    wait: timedelta,
    json_: bool,
) -> None:
    """Build all tables of PIPELINE that are not up to date, and release them.

    \b
    headgate run conf/flights.yaml                        what is new since the last run
    headgate run conf/flights.yaml --as-of 2013-03-01     as it stood on that day
    headgate run conf/flights.yaml --dry-run              what would be built, and why
    headgate run conf/flights.yaml --table weather        one table and its inputs, no release

    A run that was killed is taken up where it stopped by running again. Spark starts only if there is something to
    build. Finished tables are reported on standard error; HEADGATE_LOG=json gives one JSON line for each phase instead.
    """
    from headgate.jobs.config.columns import seen_in
    from headgate.jobs.config.pipeline import load_pipeline
    from headgate.jobs.notify.watching import watched
    from headgate.jobs.pipeline import run as runs
    from headgate.jobs.progress import Progress

    runs.check_release(release, tables)
    environment = place.environment(pipeline)
    day = day_of(as_of)
    progress = Progress()
    choice: dict[str, Any] = {"tables": tables, "as_of": day, "release": release, "force": rebuild}
    choice |= {"retries": retries, "wait": wait}
    with contextlib.nullcontext() if dry_run else watched(progress, environment, pipeline):
        lake = places.lake_of(environment, needed=False)
        checked = load_pipeline(pipeline, seen_in(lake), tables, thorough=False)
        if dry_run:
            plans = runs.dry_run(checked, environment, lake, tables, day, rebuild)
            show(plans, json_, ["table", "build", "why", "what"])
            if not lake.is_writable() and any(plan["build"] for plan in plans):
                progress.tell("warning", message=f"the lake {lake.root} cannot be written: a run would fail")
            return
        with places.spark_of(environment) as start:
            outcome = runs.run(checked, environment, lake, start, progress, **choice)
    if json_:
        click.echo(json_text(outcome.asdict()))
    else:
        summary(outcome)


@click.command(cls=Command)
@pipeline_argument
@in_lake
@click.option("--from", "first", required=True, metavar="DAY", help="The first day.")
@click.option("--to", "last", required=True, metavar="DAY", help="The last day.")
@click.option("--again", is_flag=True, help="Run days once more that are done.")
@click.option("--dry-run", is_flag=True, help="Only list the days, and which of them are done.")
@retries_option
@wait_option
@as_json
def backfill(
    pipeline: Path,
    place: Place,
    first: str,
    last: str,
    again: bool,
    dry_run: bool,
    retries: int,
    wait: timedelta,
    json_: bool,
) -> None:
    """Run PIPELINE as of one day after the other.

    \b
    headgate backfill conf/flights.yaml --from 2013-01-01 --to 2013-01-31
    headgate backfill conf/flights.yaml --from 2013-01-01 --to 2013-01-31 --dry-run    the days, and what is done

    It stops at the first day that fails, with the exit code of its run. Started again it goes on there: days that are
    done are skipped.
    """
    from headgate.jobs.config.columns import seen_in
    from headgate.jobs.config.environment import parse_date
    from headgate.jobs.config.pipeline import load_pipeline
    from headgate.jobs.notify.watching import watched
    from headgate.jobs.pipeline import backfill as backfills
    from headgate.jobs.progress import Progress

    days = backfills.days_between(parse_date(first, "--from"), parse_date(last, "--to"))
    environment = place.environment(pipeline)
    lake = places.lake_of(environment, needed=False)
    checked = load_pipeline(pipeline, seen_in(lake), thorough=False)
    if dry_run:
        done = set() if again else backfills.done_days(lake, checked)
        show([{"day": day, "done": day in done} for day in days], json_, ["day", "done"])
        return
    progress = Progress()
    rows: list[dict[str, Any]] = []
    with places.spark_of(environment) as start:
        around = partial(watched, progress, environment, pipeline)
        options: dict[str, Any] = {"again": again, "around": around, "retries": retries, "wait": wait}
        try:
            for done_day in backfills.backfill(checked, environment, lake, start, progress, days, **options):
                ran = done_day.outcome
                facts = {"built": ran.built, "release": ran.release} if ran else {"built": None, "release": None}
                rows.append({"day": done_day.day, "done": "now" if ran else "before", **facts})
        finally:
            show(rows, json_, ["day", "done", "built", "release"])


def day_of(text: str | None) -> date | None:
    from headgate.jobs.config.environment import parse_date

    return parse_date(text) if text else None


@click.command(cls=Command)
@pipeline_argument
@in_lake
@as_json
def check(pipeline: Path, place: Place, json_: bool) -> None:
    """Check PIPELINE, its suites and the environment in full; needs no landing files, no lake and no Spark.

    \b
    headgate check conf/flights.yaml                  a line for each table; exits 2 with all complaints
    headgate check conf/flights.yaml --env cluster    with another environment (default: local)
    """
    from headgate.jobs.config.pipeline import load_pipeline

    complaints: list[str] = []
    checked = None
    try:
        checked = load_pipeline(pipeline)
    except HeadgateError as e:
        complaints.append(str(e))
    try:
        place.environment(pipeline)
    except HeadgateError as e:
        complaints.append(str(e))
    if complaints or checked is None:
        raise UsageError("\n".join(complaints))
    show(described(checked), json_, ["table", "starts_from", "steps", "suite", "rules"])


def described(pipeline: "Pipeline") -> list[dict[str, Any]]:
    rows = []
    for name in pipeline.order:
        table, suite = pipeline.tables[name], pipeline.suites[name]
        rows.append(
            {
                "table": name,
                "starts_from": ", ".join(table.starts) or f"{getattr(table.source, 'format', 'source')} source",
                "steps": len(pipeline.steps[name]),
                "suite": table.suite,
                "rules": len(suite.rules) if suite else 0,
            }
        )
    return rows
