"""Commands that keep, bring back, check, discard and erase what a lake holds."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, Commands, FiniteRange, as_json, in_lake
from headgate.jobs.cli.output import pairs_text, show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError
from headgate.words import did_you_mean

if TYPE_CHECKING:
    from headgate.jobs.keep.erasure.reach import Reach
    from headgate.jobs.lake.lake import Lake


@click.command(cls=Command)
@click.argument("table", required=False)
@in_lake
@click.option("--version", "version", type=click.IntRange(0), help="The version of TABLE to bring back.")
@click.option("--release", metavar="NAME", help="Bring back what this release pins, of TABLE or of all its tables.")
@as_json
def restore(table: str | None, place: Place, version: int | None, release: str | None, json_: bool) -> None:
    """Make an older version the newest again, by a new commit; nothing is lost.

    \b
    headgate restore weather --version 3
    headgate restore --release flights-1        all tables of the release

    A raw table that goes back takes up the later files again in the next run.
    """
    from headgate.jobs.keep.restore import restore as bring_back

    if (version is None) == (release is None) or (version is not None and table is None):
        raise UsageError("restore: give TABLE with --version, or --release (with TABLE for one table of it)")
    lake = place.lake()
    targets = [(str(table), int(version or 0))] if release is None else pinned_by(lake, release, table)
    rows = bring_back(lake, targets, uuid.uuid4().hex[:12])
    show(rows, json_, ["table", "version", "content_of", "rows"])


def pinned_by(lake: "Lake", release: str, table: str | None) -> list[tuple[str, int]]:
    """Return the tables of a release, or one of them, with the versions that it pins."""
    return [*lake.pins(release, [] if table is None else [table]).items()]


@click.command(cls=Command)
@in_lake
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Only this table (default: all).")
@click.option("--retain-days", type=click.IntRange(0), help="Days to keep versions (default: the environment's).")
@click.option("--grace-hours", type=FiniteRange(0, 1e6), default=24.0, show_default=True, help="Spare newer files.")
@click.option("--archive", metavar="ROOT", help="Copy versions there before they go (default: nowhere).")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@as_json
def vacuum(
    place: Place,
    tables: tuple[str, ...],
    retain_days: int | None,
    grace_hours: float,
    archive: str | None,
    dry_run: bool,
    json_: bool,
) -> None:
    """Remove the files that no release, no recent version and no running job needs, and compact the system tables.

    \b
    headgate vacuum --dry-run                   what would go
    headgate vacuum --retain-days 7             keep a week of versions, and all that releases hold
    headgate vacuum --archive /mnt/archive      copy versions there before they go
    headgate release drop --keep 30             drop old releases first
    """
    from headgate.jobs.keep.contents import need_apart
    from headgate.jobs.keep.retention import vacuum as clean

    environment = place.environment()
    lake, root = places.lake_of(environment), archive and places.elsewhere(environment, archive)
    days = environment.retention_days if retain_days is None else retain_days
    days_of = environment.table_retention_days if retain_days is None else {}
    if root is not None:
        need_apart(lake, root, "archive")
    known = lake.tables()
    for name in [n for n in days_of if n not in known]:
        hint = did_you_mean(name, known)
        click.echo(f"warning: table_retention_days names '{name}', which the lake does not have{hint}", err=True)
    rows = clean(lake, days, grace_hours, tables, dry_run, days_of, root)
    show(rows, json_, ["table", "versions", "kept", "files_removed", "mb_removed"])


@click.group(cls=Commands)
def release() -> None:
    """Drop releases, so that their versions may go at the next vacuum.

    \b
    headgate release drop --keep 30
    """


@release.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@in_lake
@click.option("--keep", type=click.IntRange(1), help="Drop all but this many of the newest, of each pipeline.")
@click.option("--older-than", type=click.IntRange(0), metavar="DAYS", help="Drop only those older than this.")
@click.option("--pipeline", metavar="NAME", help="Only releases of this pipeline (default: of all).")
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@as_json
def drop(
    names: tuple[str, ...],
    place: Place,
    keep: int | None,
    older_than: int | None,
    pipeline: str | None,
    dry_run: bool,
    json_: bool,
) -> None:
    """Drop releases, so that `headgate vacuum` may remove what only they hold; the newest of a pipeline always stays.

    \b
    headgate release drop flights-3
    headgate release drop --keep 30                  all but the newest 30 of each pipeline
    headgate release drop --keep 5 --older-than 90   of those beyond 5, the ones older than 90 days
    """
    from headgate.jobs.keep.retention import drop_releases

    if bool(names) == (keep is not None or older_than is not None):
        raise UsageError("release drop: give the names of releases, or --keep, --older-than or both")
    rows = drop_releases(place.lake(), names, keep, older_than, pipeline, dry_run)
    show(rows, json_, ["release", "pipeline", "at"])


@click.command(cls=Command)
@click.argument("name", metavar="RELEASE")
@in_lake
@click.option("--rebuild", metavar="PIPELINE", type=click.Path(path_type=Path), help="Also make every table again.")
@as_json
def verify(name: str, place: Place, rebuild: Path | None, json_: bool) -> None:
    """Check that RELEASE is what was published: files, rows, content hashes, the balance of rows. Exits 1 if not.

    \b
    headgate verify flights-1
    headgate verify latest --rebuild conf/flights.yaml

    With --rebuild, every table is made again from its pinned inputs, where those and its configuration still exist,
    and compared; nothing is written.
    """
    from headgate.jobs.config.pipeline import load_pipeline
    from headgate.jobs.keep.verify import verify as check
    from headgate.jobs.progress import Progress

    environment = place.environment(rebuild)
    lake = places.lake_of(environment)
    lake.release(name)
    pipeline = load_pipeline(rebuild) if rebuild else None
    with places.spark_of(environment) as start:
        checks = check(start(), lake, name, Progress(), pipeline, environment)
    columns = ["table", "version", "rows", "files", "content", "balance", *(["rebuilt"] if rebuild else [])]
    show(checks, json_, columns)
    if any(t["failed"] for t in checks):
        sys.exit(1)


@click.command(cls=Command)
@in_lake
@click.option("--table", metavar="NAME", help="The table in which the rows are looked for, in all its versions.")
@click.option("--where", metavar="CONDITION", help="Which rows: a condition in SQL.")
@click.option("--keys", type=click.Path(path_type=Path), metavar="FILE", help="Or a CSV or Parquet file of their keys.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the certificate, so write nothing personal.")
@click.option("--signed-by", metavar="NAME", help="Who answers for it (default: the user).")
@click.option("--yes", is_flag=True, help="Erase (default: only say what would be erased).")
@click.option("--resume", is_flag=True, help="Finish an erasure that was killed.")
@as_json
def erase(
    place: Place,
    table: str | None,
    where: str | None,
    keys: Path | None,
    reason: str | None,
    signed_by: str | None,
    yes: bool,
    resume: bool,
    json_: bool,
) -> None:
    """Erase rows from every table, version, release, ledger entry and fitted state that they reached.

    \b
    headgate erase --table customers --where "customer_id = 42" --reason "request 7"          what would go
    headgate erase --table customers --where "customer_id = 42" --reason "request 7" --yes    erase it
    headgate erase --table customers --keys people.csv --reason "request 8" --yes

    Releases stay readable under their names. A certificate is written to the table `erasures`; rows that had been
    rejected as repeating an erased row are judged again by the next run. Files that brought the rows are named: what
    lies in the landing folder is yours to remove, and is not taken up again.
    """
    from headgate.jobs.keep.erasure import certificate as erasure
    from headgate.jobs.keep.erasure.reach import reach
    from headgate.jobs.lake.processes import user
    from headgate.jobs.progress import Progress

    if resume:
        resume_erasures(place, json_)
        return
    if table is None or (where is None) == (keys is None) or reason is None:
        raise UsageError("erase: give --table, --reason, and one of --where and --keys")
    environment = place.environment()
    lake = places.lake_of(environment)
    if lake.unfinished_erasures:
        raise UsageError("an erasure is not finished: headgate erase --resume")
    found = reach(lake, table, where, keys)
    show(found.by_table(), json_, ["table", "rows", "cells"])
    if not found.row_ids:
        click.echo(f"nothing to erase: no version of table '{table}' has such a row", err=json_)
        return
    for line in remarks(found, yes):
        click.echo(line, err=json_)
    if yes:
        asked = where if where is not None else Path(str(keys)).read_bytes().hex()
        with places.spark_of(environment) as start:
            by = signed_by or user()
            done = erasure.erase(start(), lake, found, str(asked), reason, by, user(), Progress())
        message = f"erased; {done['searched']} files searched, nothing left; certificate {done['certificate']}"
        click.echo(message, err=json_)


def resume_erasures(place: Place, json_: bool) -> None:
    from headgate.jobs.keep.erasure import certificate as erasure
    from headgate.jobs.progress import Progress

    environment = place.environment()
    lake = places.lake_of(environment)
    waiting = lake.unfinished_erasures
    if not waiting:
        click.echo("no erasure is unfinished")
        return
    with places.spark_of(environment) as start:
        done: list[dict[str, Any]] = [erasure.finish(start(), lake, e, Progress()) for e in waiting]
    show(done, json_, ["erasure", "signed_by", "reason", "searched", "certificate"])


def remarks(found: "Reach", yes: bool) -> Iterator[str]:
    """Yield what a person should know of an erasure beside its tables."""
    if found.duplicates:
        yield f"{found.duplicates:,} rows that repeat an erased one will be judged again by the next run"
    if found.landing:
        yield f"the rows came from {', '.join(sorted(found.landing))}: not touched, not taken up again"
    if found.elsewhere:
        yield f"texts of theirs that other rows hold as well stay there: {pairs_text(found.elsewhere)}"
    yield "backups of before hold the rows until new ones take their place: headgate backup --to ROOT --keep 1"
    if not yes:
        yield "nothing was erased: add --yes to erase"
