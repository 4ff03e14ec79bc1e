"""`headgate drift`: how far two versions of a table, or two of its splits, are apart."""

import re
import sys

import click

from headgate.jobs.cli.options import Command, FiniteRange, as_json, in_lake, listed
from headgate.jobs.cli.output import json_text, show
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError

DRIFTED = 0.25  # population stability index from which on distributions count as different


@click.command(cls=Command)
@click.argument("table")
@click.option("--versions", metavar="A:B", help="Compare two versions (default: the newest with the one before).")
@click.option("--splits", metavar="A:B", help="Compare two splits of the newest version (default: versions).")
@click.option("--columns", metavar="COL,…", help="Columns to compare (default: all that are plain).")
@click.option("--by", metavar="COL,…", help="Compare inside each stratum of these (default: none; all rows).")
@click.option("--auc", is_flag=True, help="Ask a classifier to tell the two apart (adversarial validation).")
@click.option(
    "--at-most", type=FiniteRange(0), default=DRIFTED, help="Greatest index that is no drift (default: 0.25)."
)
@in_lake
@as_json
def drift(
    table: str,
    place: Place,
    versions: str | None,
    splits: str | None,
    columns: str | None,
    by: str | None,
    auc: bool,
    at_most: float,
    json_: bool,
) -> None:
    """Measure how far two versions of TABLE, or two of its splits, are apart, column by column. Needs no JVM.

    \b
    headgate drift flights                               the newest version and the one before
    headgate drift flights --versions 3:7 --by carrier   inside each stratum
    headgate drift flights_training --splits train:test --auc

    psi is the population stability index (below .1 alike, above .25 different), js the Jensen-Shannon distance (0 to
    1), ks the Kolmogorov-Smirnov statistic of numbers. --auc: .5 if no classifier tells the two apart, 1 if one always
    does. Exits with 1 if an index is above --at-most, as `headgate diff` does where something differs.
    """
    from headgate.jobs.explore import drift as drifts

    if versions and splits:
        raise UsageError("--versions: cannot be combined with --splits, which are of the newest version")
    lake = place.lake()
    pair = re.fullmatch(r"([^:]+):([^:]+)", splits) if splits else None
    if splits and pair is None:
        raise UsageError(f"--splits: '{splits}' is not two splits such as train:test")
    newest = lake.need_table(table).version()
    numbers = re.fullmatch(r"(\d+):(\d+)", versions) if versions else None
    if versions and numbers is None:
        raise UsageError(f"--versions: '{versions}' is not two versions such as 3:7")
    if not splits and not versions and not newest:
        raise UsageError(f"table '{table}' has one version; compare splits by --splits train:test")
    chosen = (int(numbers[1]), int(numbers[2])) if numbers else (newest - 1, newest)
    sides = drifts.sides_of(lake, table, None if pair else chosen, (pair[1], pair[2]) if pair else None)
    strata = drifts.columns_of(sides, listed(by, "--by"), "--by") if by else []
    names = drifts.columns_of(sides, listed(columns, "--columns"), "--columns")
    rows = drifts.drift(sides, names, strata)
    area = drifts.told_apart(sides, names) if auc else None
    if json_:
        click.echo(json_text({"columns": rows, "auc": area}))
    else:
        rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
        show(rounded, False, list(rows[0]) if rows else ["column"])
        if area is not None:
            click.echo(f"area under the curve of a classifier that tells the two apart: {area:.3f}")
    if any(r["psi"] > at_most for r in rows):
        sys.exit(1)
