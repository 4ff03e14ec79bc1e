"""Commands that look at a lake. None of them starts a JVM, but for `sql --engine spark`."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake
from headgate.jobs.cli.output import CELL, console, json_text, pairs_text, plain_table, shortened, show, show_answer
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import InputMissing, UsageError

CELLS = 8  # of an example of `diff`; --json has all


@click.command(cls=Command)
@in_lake
@click.option("--release", metavar="NAME", help="Versions that this release pins; 'latest' (default: newest versions).")
@as_json
def tables(place: Place, release: str | None, json_: bool) -> None:
    """List the tables with version, rows and the newest release that holds that version.

    \b
    headgate tables
    headgate tables --release latest
    """
    from headgate.jobs.explore import queries

    show(queries.tables(place.lake(), release), json_, ["table", "version", "rows", "release", "path"])


@click.command(cls=Command)
@click.argument("table")
@in_lake
@as_json
def versions(table: str, place: Place, json_: bool) -> None:
    """List the versions of TABLE, newest first: rows, rejected rows, run and the releases that pin them.

    \b
    headgate versions flights_training

    Of a version that is not readable, `headgate vacuum` removed files; an archive holds others.
    """
    from headgate.jobs.explore import queries

    columns = [
        "version",
        "at",
        "operation",
        "rows_in",
        "published",
        "rejected",
        "as_of",
        "run_id",
        "releases",
        "readable",
    ]
    show(queries.versions(place.lake(), table), json_, columns)


@click.command(cls=Command)
@in_lake
@as_json
def releases(place: Place, json_: bool) -> None:
    """List the releases, newest first, with the version of every table.

    \b
    headgate releases
    headgate releases --json
    """
    from headgate.jobs.explore import queries

    found = queries.releases(place.lake())
    rows = found if json_ else [{**r, "tables": pairs_text(r["tables"])} for r in found]
    show(rows, json_, ["release", "at", "as_of", "run_id", "tables"])


@click.command(cls=Command)
@click.argument("query")
@in_lake
@click.option("--release", metavar="NAME", help="Versions that this release pins; 'latest' (default: newest versions).")
@click.option(
    "--engine", type=click.Choice(["duckdb", "spark"]), default="duckdb", show_default=True, help="Spark needs a JVM."
)
@click.option("--limit", type=click.IntRange(0), default=1000, show_default=True, help="Rows at most; 0 for all.")
@click.option("--all-columns", is_flag=True, help="Show bookkeeping columns that the query does not name, too.")
@click.option("--csv", "csv_", is_flag=True, help="Print CSV (default: a table).")
@as_json
def sql(
    query: str, place: Place, release: str | None, engine: str, limit: int, all_columns: bool, csv_: bool, json_: bool
) -> None:
    """Answer QUERY over the lake's tables and its system tables.

    \b
    headgate sql "select split, count(*) from flights_training group by 1"
    headgate sql "select reason, evidence from ledger limit 5" --json
    headgate sql "select * from flights" --limit 0 --csv > flights.csv
    headgate sql "select * from flights limit 3" --release flights-1

    Bookkeeping columns (_row_id, _changed …) are left out unless the query names them or --all-columns is given. Rows
    that are wider than the terminal are shown one value a line.
    """
    from headgate.jobs.explore import queries

    if csv_ and json_:
        raise UsageError("--csv cannot be combined with --json")
    environment = place.environment()
    lake = places.lake_of(environment)
    if engine == "duckdb":
        answer = queries.sql(lake, query, release, limit or None)
    else:
        with places.spark_of(environment) as start:
            answer = queries.sql_by_spark(start(), lake, query, release, limit or None)
    show_answer(answer, "json" if json_ else "csv" if csv_ else "table", query, all_columns)


@click.command(cls=Command)
@click.argument("row_id", required=False)
@click.option("--key", "keys", multiple=True, metavar="COLUMN=VALUE", help="Find rows by a column of --table.")
@click.option("--table", metavar="NAME", help="The table of --key.")
@in_lake
@as_json
def trace(row_id: str | None, keys: tuple[str, ...], table: str | None, place: Place, json_: bool) -> None:
    """Tell the whole story of a row: where it arrived, what changed it, where it is, or why it is not.

    \b
    headgate trace 9e107d9d372bb6826bd81d3542a419d6
    headgate trace --table flights --key tailnum=N14228 --key flight=1545

    ROW_ID is the `_row_id` of a published row or the `row_id` of a ledger entry. By --key, rows that are not in the
    table are found as well: rejected ones by what its inputs hold, malformed ones by the text that the ledger holds.
    Of an entity or a golden record it tells the records, the links with their weights, the weakest bridge, and every
    claim behind a value.
    Needs no JVM.
    """
    from headgate.jobs.explore import trace as tracing

    if (row_id is None) == (not keys) or bool(keys) != bool(table):
        raise UsageError("trace: give ROW_ID, or --table with --key COLUMN=VALUE")
    environment = place.environment()
    lake = places.lake_of(environment)
    ids = [row_id] if row_id else tracing.ids_of(lake, str(table), pairs_of(keys))
    if not ids:
        raise InputMissing(f"table '{table}' has no row with {' and '.join(keys)}, and none was rejected from it")
    story = [{"row_id": i, **event} for i in ids for event in tracing.trace(lake, environment.landing, i)]
    if json_:
        show(story, True, [])
        return
    for i in ids:
        click.echo(f"row {i}")
        mine = [e for e in story if e["row_id"] == i]
        show(mine, False, ["table", "event", "detail"])
        for entry in mine:
            if "kept" in entry:
                show_beside(entry["row"], entry["kept"])


def pairs_of(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--key: '{text}' is not COLUMN=VALUE")
    return dict(text.split("=", 1) for text in texts)


def show_beside(row: dict[str, Any], kept: dict[str, Any], lines: int = 40) -> None:
    """Print the cells of a row that went, beside those of the one that stayed."""
    from rich.text import Text

    from headgate.jobs.explore.trace import side_by_side

    out = console(120)
    compared = side_by_side(row, kept, max(20, (out.width - 24) // 2))
    table = plain_table()
    for name in ("column", "this row", "the row that stayed"):
        table.add_column(name, no_wrap=True)
    for column, one, other in compared[:lines]:
        table.add_row(*(Text(t, style="" if one == other else "bold") for t in (column, one, other)))
    out.print(table)
    if len(compared) > lines:
        click.echo(f"({len(compared) - lines} more lines; --json has all)")


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@click.option("--key", "key", multiple=True, metavar="COLUMN", help="Columns that pair the rows (default: _row_id).")
@in_lake
@as_json
def diff(a: str, b: str, key: tuple[str, ...], place: Place, json_: bool) -> None:
    """Say what differs between A and B: schema, rows added, removed and changed, each column's rate, examples.

    \b
    headgate diff flights@3 flights@latest      two versions of a table
    headgate diff flights@flights-1 flights@5   the version that a release pins, and another
    headgate diff flights-1 flights-2           two releases, table by table

    Exits with 1 if anything differs, as diff(1) does. Reads only the files that the two do not share; needs no JVM.
    """
    from headgate.jobs.explore import diff as diffs

    compared = diffs.diff(place.lake(), a, b, key)
    if json_:
        show(compared, True, [])
    else:
        show(compared, False, ["table", "from", "to", "added", "removed", "changed"])
        for one in compared:
            show_differences(one)
    if any(diffs.is_different(t) for t in compared):
        sys.exit(1)


def show_differences(compared: Mapping[str, Any]) -> None:
    """Print what changed in the schema and the columns of one table, and examples of rows with their cells."""
    lines = [f"  {change}" for change in compared["schema"]]
    lines += [f"  {c}: {n['cells']:,} cells differ ({n['rate']:.2%})" for c, n in compared["columns"].items()]
    shown = Counter(e["kind"] for e in compared["examples"])
    for e in compared["examples"]:
        named = ", ".join(f"{k}={v}" for k, v in e["key"].items())
        cells = [shortened(cell, CELL) for cell in e["cells"][:CELLS]]
        cells += [f"{len(e['cells']) - CELLS} more"] if len(e["cells"]) > CELLS else []
        lines.append(f"  {e['kind']}: {named}" + (f" ({'; '.join(cells)})" if cells else ""))
    more = {kind: compared[kind] - n for kind, n in sorted(shown.items()) if compared[kind] > n}
    lines += [f"  {kind}: {n:,} more" for kind, n in more.items()]
    if lines:
        click.echo("\n".join([compared["table"], *lines]))


@click.command(cls=Command)
@click.argument("target", metavar="TABLE[.COLUMN]")
@in_lake
@as_json
def lineage(target: str, place: Place, json_: bool) -> None:
    """Draw what TABLE, or a column of it, was made of: inputs with their versions, steps, files. Needs no JVM.

    \b
    headgate lineage flights_training
    headgate lineage flights_training.plane_age
    """
    from rich.tree import Tree

    from headgate.jobs.explore.lineage import lineage as tree_of

    tree = tree_of(place.lake(), target)
    if json_:
        click.echo(json_text(tree))
        return

    def drawn(node: dict[str, Any], into: Any) -> None:
        for below in node["inputs"]:
            drawn(below, into.add(compared(below)))

    def compared(node: dict[str, Any]) -> str:
        return f"{node['name']}  ({node['detail']})" if node["detail"] else str(node["name"])

    root = Tree(compared(tree))
    drawn(tree, root)
    console(200).print(root)
