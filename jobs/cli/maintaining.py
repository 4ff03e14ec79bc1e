"""Commands that look after the files of a lake: their layout, their room, copies of them elsewhere."""

import re
import sys
from functools import partial

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake, listed
from headgate.jobs.cli.output import show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def bytes_of(ctx: click.Context, option: click.Parameter, text: str) -> int:
    """Return a size such as `64M` in bytes."""
    found = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if found is None or not int(found[1]):
        raise UsageError(f"--target-size: '{text}' is not a size like 64M (units: K, M, G)")
    return int(found[1]) * UNITS[found[2]]


size_option = click.option(
    "--target-size", "size", default="64M", show_default=True, callback=bytes_of, help="Bytes of a file."
)


@click.command(cls=Command)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@in_lake
@click.option("--sort", metavar="COLUMNS", help="Write all rows again, ordered by these columns.")
@click.option("--zorder", metavar="COLUMNS", help="Or by all of these columns alike, on a Z-shaped curve.")
@size_option
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@as_json
def optimize(
    tables: tuple[str, ...],
    place: Place,
    sort: str | None,
    zorder: str | None,
    size: int,
    dry_run: bool,
    json_: bool,
) -> None:
    """Put the small files of tables (default: of all) together, by a new version with the same rows.

    \b
    headgate optimize --dry-run
    headgate optimize flights
    headgate optimize flights --zorder origin,day     queries that filter by either read less

    The next run finds the tables up to date, and releases the new versions. The old files stay for the versions that
    name them, until `headgate vacuum`.
    """
    from headgate.jobs.keep.optimize import optimize as put_together
    from headgate.jobs.lake.arranging import Order

    if sort and zorder:
        raise UsageError("optimize: give --sort or --zorder, not both")
    columns = listed(sort or zorder, "--sort" if sort else "--zorder")
    if columns and not tables:
        raise UsageError("optimize: --sort and --zorder need a TABLE")
    order = Order(tuple(columns), zorder is not None) if columns else None
    rows = put_together(place.lake(), tables, order, size, dry_run, partial(click.echo, err=True))
    show(rows, json_, ["table", "version", "files", "bytes", "files_after", "bytes_after"])


@click.command(cls=Command)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@in_lake
@size_option
@as_json
def storage(tables: tuple[str, ...], place: Place, size: int, json_: bool) -> None:
    """Show the room that tables take (default: all), what old versions hold of it, and what could be saved.

    \b
    headgate storage
    headgate storage flights          also each column, with how well it is compressed
    """
    from headgate.jobs.keep.storage import storage as measure

    environment = place.environment()
    lake = places.lake_of(environment)
    rows = measure(lake, environment.retention_days, tables, size, days_of=environment.table_retention_days)
    show(rows, json_, [c for c in rows[0] if c != "columns"] if rows else ["table"])
    for row in rows if tables and not json_ else ():
        click.echo(f"\n{row['table']}:")
        show(row["columns"], json_, ["column", "bytes", "raw_bytes", "ratio"])


@click.command(cls=Command)
@in_lake
@click.option("--to", "root", required=True, metavar="ROOT", help="Folder of the backups, outside the lake.")
@click.option("--release", metavar="NAME", help="Only what this release pins (default: all versions).")
@click.option("--keep", type=click.IntRange(1), help="Remove all but this many of the newest (default: none).")
@as_json
def backup(place: Place, root: str, release: str | None, keep: int | None, json_: bool) -> None:
    """Copy the lake to a folder elsewhere; only files that no backup there holds are copied.

    \b
    headgate backup --to /mnt/backups/shop
    headgate backup --to s3://backups/shop --keep 7
    headgate backup --to /mnt/backups/shop --release orders-7

    A backup that was killed does not count; the next goes on where it stopped. Backups of before an erasure still hold
    what was erased, and are named: --keep removes them.
    """
    from headgate.jobs.keep.backup import backup as copy

    environment = place.environment()
    root = places.elsewhere(environment, root)
    told = copy(places.lake_of(environment), root, release, keep, partial(click.echo, err=True))
    show([told], json_, ["backup", "files", "bytes", "files_copied", "bytes_copied"])
    for name in told["backups_removed"]:
        click.echo(f"removed: {name}", err=json_)
    for name in told["erased_since"]:
        click.echo(f"{name} still holds what was erased since; --keep 1 removes it", err=json_)


@click.command(cls=Command)
@in_lake
@click.option("--from", "root", required=True, metavar="ROOT", help="Folder of the backups.")
@click.option("--backup", "name", metavar="NAME", help="Which backup (default: the newest).")
@click.option("--check", "only_check", is_flag=True, help="Only prove every file of it; exits 1 if not whole.")
@as_json
def recover(place: Place, root: str, name: str | None, only_check: bool, json_: bool) -> None:
    """Make a lake of a backup, in an empty folder; every file is proved by its SHA-256.

    \b
    headgate recover --from /mnt/backups/shop --lake new_lake
    headgate recover --from /mnt/backups/shop --check

    A recovery that was killed leaves a lake that cannot be opened; the same command again goes on where it stopped.
    """
    from headgate.jobs.keep import backup as keeping

    environment = place.environment()
    root = places.elsewhere(environment, root)
    columns = ["backup", "made", "tables", "files", "bytes"]
    if not only_check:
        told = keeping.recover(places.lake_of(environment, needed=False), root, name)
        show([told], json_, columns)
        return
    told = keeping.check(root, name)
    show([told], json_, [*columns, "damaged"])
    if told["damaged"]:
        sys.exit(1)
