"""`headgate missing`: what is missing in a table, and with what."""

import click

from headgate.jobs.cli.options import Command, as_json, in_lake, listed
from headgate.jobs.cli.output import json_text, show
from headgate.jobs.cli.places import Place


@click.command(cls=Command)
@click.argument("table")
@click.option("--columns", metavar="COL,…", help="Columns that are looked at (default: all).")
@click.option("--by", metavar="COL", help="Tell the groups of this column apart (default: none).")
@click.option("--over", metavar="COL", help="Tell the days, months or years of this column apart (default: none).")
@click.option("--release", metavar="NAME", help="Versions that this release pins; 'latest' (default: newest versions).")
@in_lake
@as_json
def missing(
    table: str,
    place: Place,
    columns: str | None,
    by: str | None,
    over: str | None,
    release: str | None,
    json_: bool,
) -> None:
    """Show what is missing in TABLE and with what, and values that may stand for missing ones.

    \b
    headgate missing passengers
    headgate missing weather --by station --over hour
    headgate missing houses --columns rooms,age --json

    Null cells and NaN are missing. Values such as -999, 9999-12-31 or "N/A" are named, with the number of their rows;
    the step null_markers empties them. `lift` says how many times as often two columns are missing together as they
    were by chance. Fill what is missing by `headgate impute`.
    """
    from headgate.jobs.explore.missing import missing as look

    report = look(place.lake(), table, listed(columns, "--columns"), by, over, release)
    if json_:
        click.echo(json_text(report))
        return
    cells = [
        {**r, "hidden": ", ".join(f"{h['value']!r} {h['rows']:,} ({h['kind']})" for h in r["hidden"])}
        for r in report["columns"]
        if r["missing"] or r["hidden"]
    ]
    if not cells:
        click.echo(f"nothing is missing in the {report['rows']:,} rows")
        return
    show(cells, False, ["column", "type", "missing", "share", "hidden"])
    for title, part in (("patterns of missing columns", "patterns"), ("missing together", "pairs")):
        if report[part]:
            click.echo(f"\n{title}:")
            name = "missing" if part == "patterns" else "columns"
            shown = [{**r, name: ", ".join(r[name]) or "(none)"} for r in report[part]]
            show(shown, False, [name, "rows", "share", *(["lift"] if part == "pairs" else [])])
    for part, column in (("groups", by), ("periods", over)):
        if column is not None:
            click.echo(f"\nshare that is missing, by {column}:")
            shown = [{**r, "missing": ", ".join(f"{c} {s:.1%}" for c, s in r["missing"].items())} for r in report[part]]
            show(shown, False, [column, "rows", "missing"])
