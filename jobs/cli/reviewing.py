"""`headgate review`: the uncertain pairs of a linkage, for people to decide, and pictures of its scores."""

import csv
from pathlib import Path

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake
from headgate.jobs.cli.output import show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError


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
        show(rows, json_, columns)
        return
    try:
        with Path(csv_).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as e:
        raise UsageError(f"--csv: {csv_} cannot be written: {e.strerror}") from e
    click.echo(f"{len(rows):,} pairs in {csv_}: write yes or no in the column same")
