"""`headgate review`: the uncertain pairs of a linkage, for people to decide, and pictures of its scores."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake
from headgate.jobs.cli.output import as_it_is, console, plain_table, shortened, show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError

NAME = 24  # characters of a column's name that are shown


@click.command(cls=Command)
@click.argument("table")
@in_lake
@click.option("--limit", type=click.IntRange(1), default=50, help="Pairs at most (default: 50).")
@click.option(
    "--csv",
    "csv_",
    metavar="FILE",
    help="Write the pairs to a file whose column `same` people fill in (default: show).",
)
@click.option("--pair", nargs=2, metavar="KEY KEY", help="Explain this pair of records alone (default: all).")
@click.option("--plot", metavar="FILE", help="Draw all scores, or of --pair its parts, by matplotlib (default: none).")
@as_json
def review(
    table: str,
    place: Place,
    limit: int,
    csv_: str | None,
    pair: tuple[str, str] | None,
    plot: str | None,
    json_: bool,
) -> None:
    """Show the pairs of records that are least sure to be one, or not; people's answers come back as decisions.

    \b
    headgate review products                                      the most uncertain pairs, side by side
    headgate review products --csv review.csv                     fill in `same` with yes or no, then
    headgate fuse abt=abt.csv buy=buy.csv --key id --into products --decisions review.csv
    headgate review products --pair 552 38477 --plot why.png      what speaks for and against one pair
    headgate review products --plot scores.png                    all scores, and where links begin

    TABLE is a table that `link_records` made, or one that was built from such a table. Needs no JVM.
    """
    from headgate.jobs.explore import entities, pictures

    if csv_ and pair:
        raise UsageError("--csv cannot be combined with --pair")
    lake = places.lake_of(place.environment())
    pairs = entities.pairs_of(lake, table)
    if pair:
        one = entities.pair(lake, pairs, *pair)
        if plot:
            pictures.waterfall(one, plot)
        parts = [{"part": name, "bits": round(bits, 2)} for name, bits in dict(one["weights"] or ()).items()]
        rest = [{"part": "score", "bits": round(one["score"], 2)}]
        show([one] if json_ else parts + rest, json_, ["part", "bits"])
        return
    if plot:
        pictures.histogram(entities.scores(lake, pairs), plot)
        if not csv_:
            return
    rows = entities.uncertain(lake, pairs, limit)
    columns = list(rows[0]) if rows else ["key_a", "key_b", "same", "probability", "score"]
    if csv_ is None:
        if json_ or not rows:
            show(rows, json_, columns)
        else:
            show_pairs(rows)
        return
    try:
        with Path(csv_).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as e:
        raise UsageError(f"--csv: {csv_} cannot be written: {e.strerror}") from e
    click.echo(f"{len(rows):,} pairs in {csv_}: write yes or no in the column same")


def show_pairs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each pair by itself, as wide as the terminal: how sure it is, both keys, and the columns that differ."""
    from rich.text import Text

    out = console()
    ends = [[c for c in (f"source_{end}", f"key_{end}") if c in rows[0]] for end in ("a", "b")]
    columns = [c.removesuffix("_a") for c in rows[0] if c.endswith("_a") and c not in ends[0]]
    first = min(max(map(len, columns), default=0), NAME)
    half = max((out.width - first - 4) // 2, 8)  # two blanks between columns
    for number, row in enumerate(rows, 1):
        names = [" ".join(str(row[c]) for c in end if row[c] not in (None, "")) for end in ends]
        cells = {c: (text_or_null(row[f"{c}_a"]), text_or_null(row[f"{c}_b"])) for c in columns}
        differ = {c: both for c, both in cells.items() if both[0] != both[1]}
        table = plain_table()
        table.show_header = False
        for width in (first, half, half):
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        table.add_row("", *(Text(shortened(name, half)) for name in names))
        for name, both in differ.items():
            table.add_row(*map(Text, (shortened(name, first), *side_by_side(*both, half))))
        click.echo(f"-- pair {number}: probability {row['probability']:.3f}, score {row['score']:.1f} bits")
        out.print(table)
        alike = [c for c, both in cells.items() if both[0] is not None and c not in differ]
        if alike:
            click.echo(shortened(f"alike: {', '.join(alike)}", out.width))


def text_or_null(value: Any) -> str | None:
    return None if value is None else as_it_is(value)


def side_by_side(one: str | None, other: str | None, width: int) -> tuple[str, str]:
    """Return two cells that differ in so many characters, from where they differ if that is further on; `-`: a null."""
    if one is not None and other is not None and one[:width] == other[:width]:
        same = zip(one, other, strict=False)
        at = next((i for i, (a, b) in enumerate(same) if a != b), min(len(one), len(other))) - width // 2
        one, other = f"…{one[at:]}", f"…{other[at:]}"
    cells = ["-" if cell is None else shortened(cell, width) for cell in (one, other)]
    return cells[0], cells[1]
