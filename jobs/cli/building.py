"""Commands that build a pipeline, or check it before it is built."""

import contextlib
from datetime import date, timedelta
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
@click.option("--retries", type=click.IntRange(0), default=0, show_default=True, help="Tries again after a lost race.")
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
            return
        with places.spark_of(environment) as start:
            outcome = runs.run(checked, environment, lake, start, progress, **choice)
    if json_:
        click.echo(json_text(outcome.asdict()))
    else:
        summary(outcome)


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
