"""Entering the tables of a lake in a catalogue."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake
from headgate.jobs.cli.output import show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError

if TYPE_CHECKING:
    from headgate.jobs.config.models import Environment
    from headgate.jobs.keep.catalogues.entries import Catalogue
    from headgate.jobs.lake.lake import Lake


@click.command(cls=Command)
@in_lake
@click.option(
    "--catalog", "kind", type=click.Choice(["hive", "glue", "unity"]), help="Kind (default: the environment's)."
)
@click.option("--database", metavar="NAME", help="Database or schema (default: the environment's).")
@click.option("--release", "releases", multiple=True, metavar="NAME", help="Only views of this release (default: all).")
@click.option("--prune", is_flag=True, help="Drop entries of this lake that it has no more.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@as_json
def register(
    place: Place,
    kind: str | None,
    database: str | None,
    releases: tuple[str, ...],
    prune: bool,
    dry_run: bool,
    json_: bool,
) -> None:
    """Enter the tables of the lake in a catalogue: each at its place and, in Hive, as a view for each release.

    \b
    headgate register --catalog hive --database shop
    headgate register --env production --prune

    Only entries are made, changed and dropped, never data; what is the same stays.
    """
    from headgate.jobs.keep.catalogues.entries import register as enter

    environment = place.environment()
    chosen = kind or environment.catalog.kind
    named = database or environment.catalog.database
    if chosen is None or named is None:
        raise UsageError("register: give --catalog and --database, or `catalog` in the environment")
    lake = places.lake_of(environment)
    for name in releases:  # before anything is started
        lake.release(name)
    with opened(environment, lake, chosen, named) as catalogue:
        rows = enter(lake, catalogue, releases, prune, dry_run)
    show(rows, json_, ["entry", "release", "version", "what"])


@contextlib.contextmanager
def opened(environment: "Environment", lake: "Lake", kind: str, database: str) -> "Iterator[Catalogue]":
    """Give a database of a catalogue; what was started for it is stopped."""
    options = environment.catalog
    if kind == "glue":
        from headgate.jobs.keep.catalogues.glue import glue

        with glue(options.uri, environment.store.store(), database) as catalogue:
            yield catalogue
    elif kind == "unity":
        from headgate.jobs.keep.catalogues.unity import UnityCatalogue

        if options.uri is None or options.name is None:
            raise UsageError("register: unity needs catalog.uri and catalog.name in the environment")
        token = options.token.read("catalog.token") if options.token else None
        yield UnityCatalogue(options.uri, options.name, database, token)
    else:
        from headgate.jobs.keep.catalogues.hive import HiveCatalogue

        spark = {"spark.sql.catalogImplementation": "hive", **environment.spark}
        with places.spark_of(environment.model_copy(update={"spark": spark})) as start:
            yield HiveCatalogue(start(), database, lake.root)
