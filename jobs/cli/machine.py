"""Commands about this machine: what is there, what is missing, what quickens later starts."""

import sys

import click

from headgate.jobs.cli.options import Command, as_json, in_lake
from headgate.jobs.cli.output import show
from headgate.jobs.cli.places import Place


@click.command(cls=Command)
@in_lake
@as_json
def doctor(place: Place, json_: bool) -> None:
    """Say what headgate needs, what it found on this machine, and what is missing (exit 1 if anything is).

    \b
    headgate doctor
    headgate doctor --env cluster --json

    A landing folder may come later. Jars of Delta that are not here count as missing where they cannot be fetched.
    """
    from headgate.jobs.spark.doctor import examine

    environment = place.environment()
    findings = list(examine(environment.lake, environment.landing))
    states = ["ok" if f.ok else "missing" if f.needed else "not there yet" for f in findings]
    rows = [{"what": f.what, "state": s, "found": f.found} for f, s in zip(findings, states, strict=True)]
    show(rows, json_, ["what", "state", "found"])
    if "missing" in states:
        sys.exit(1)


@click.command(cls=Command)
@click.option(
    "--with",
    "more",
    type=click.Choice(["s3"]),
    multiple=True,
    help="For lakes in an object store, which need more jars (default: for those on disks).",
)
def prepare(more: tuple[str, ...]) -> None:
    """Create an archive of Spark's classes for this Java, so that Spark starts quicker on this machine from now on.

    \b
    headgate prepare
    headgate prepare --with s3

    Once for each Python environment, in about a minute; Delta's jars are fetched if they are not there yet. The archive
    (some 200 MB) lies in the environment; it is for the jars of one kind of lake, and replaces one for the other.
    Without it everything works as well, and each start takes some seconds more. Needs Java 17; with Java 21 nothing is
    made.
    """
    from headgate.jobs.cli.warm_up import small_lake
    from headgate.jobs.progress import Progress
    from headgate.jobs.spark.class_archive import prepare as made
    from headgate.jobs.spark.jars import SETS

    with Progress(watched=True).phase("classes", "archive"):
        found = made(small_lake, *(SETS[name] for name in dict.fromkeys(more)))
    none = "only Java 17 takes an archive of Spark's classes; with the one that is here Spark starts as before"
    click.echo(f"{found}" if found else none)


@click.command(cls=Command)
@click.option(
    "--with", "more", type=click.Choice(["s3"]), multiple=True, help="Those of an object store too (default: none)."
)
def jars(more: tuple[str, ...]) -> None:
    """Fetch Delta's jars if they are not there yet, and print their paths, as `spark-submit --jars` takes them.

    \b
    headgate jars
    headgate jars --with s3     10 MB more; an environment whose lake lies in S3 fetches them when Spark starts
    """
    from headgate.jobs.spark.jars import BASE, SETS, local_jars

    click.echo(",".join(local_jars(BASE, *(SETS[name] for name in dict.fromkeys(more)))))
