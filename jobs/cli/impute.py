"""`headgate impute`: one table whose missing cells are filled."""

from typing import Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import listed
from headgate.jobs.cli.output import json_text, show, summary
from headgate.jobs.cli.places import Place
from headgate.jobs.cli.step_options import StepCommand, given_options, one_table
from headgate.jobs.errors import UsageError


class Impute(StepCommand):
    steps = {"columns": "impute_auto"}
    leaves_out = ("by", "using")


@click.command(cls=Impute)
@click.option(
    "--columns", metavar="COL,…", help="Columns to fill; others help to tell them (default: all that can be)."
)
@click.option(
    "--group-by", "group", metavar="COL,…", help="Groups whose own mean or mode is tried as well (default: none)."
)
@click.option(
    "--hidden",
    type=click.Choice(["apply", "propose", "nothing"]),
    default="apply",
    help="Values such as -999 or N/A that stand for missing: empty them, only name them, or look for none "
    "(default: apply).",
)
@click.option(
    "--draws",
    type=click.IntRange(2, 100),
    help="Make so many tables, TABLE_1, TABLE_2, …, whose numbers are drawn from what they may be (default: one table, "
    "of the likeliest values).",
)
@one_table
@click.pass_context
def impute(
    ctx: click.Context,
    /,
    place: Place,
    source: str,
    into: str,
    key: str | None,
    schema: str | None,
    delimiter: str | None,
    where: str | None,
    json_: bool,
    columns: str | None,
    group: str | None,
    hidden: str,
    draws: int | None,
    **given: Any,
) -> None:
    """Publish INPUT (a file, a folder of files, or a table of the lake) with its missing cells filled.

    \b
    headgate impute titanic.csv --into passengers
    headgate impute houses.parquet --columns rooms,age --into houses
    headgate impute readings.csv --group-by station --into readings
    headgate impute houses.parquet --method trees --into houses_by_trees
    headgate impute houses.parquet --draws 5 --into houses     multiple imputation: houses_1 to houses_5

    Known cells are masked and filled again by each method; each column gets the one that errs least, or the mean or
    mode where none is better. The summary shows, for each column, what was missing, the method, and its error on masked
    cells relative to that of mean or mode. Columns of csv and jsonl take the type that all their values have. Free text
    stays as it is. Every filled cell is noted in `_changed`. Run again when files have come or changed. `headgate
    steps` says more of the options: impute_auto, null_markers.
    """
    from headgate.jobs.cli import imputing
    from headgate.jobs.cli import one_table as front

    options = given_options(ctx, impute, "columns", given)
    if group is not None:
        options["by"] = listed(group, "--group-by")
    alone = [option for option in ("by", "method", "masking", "share", "rounds", "sample") if option in options]
    if draws and alone:
        raise UsageError(f"--draws cannot be combined with --{alone[0].replace('by', 'group-by')}")
    environment = place.environment()
    lake = places.lake_of(environment, needed=False)
    request = front.Request("impute", source, into, listed(key, "--key"), schema or "", delimiter, where)
    asked = imputing.Asked(columns=listed(columns, "--columns"), options=options, hidden=hidden, draws=draws or 0)
    plan = imputing.pipeline_of(request, asked, lake)
    for notice in plan.notices:
        click.echo(notice, err=True)
    outcome = front.built(request, plan.start, plan.pipeline, environment, lake)
    if draws:
        means = imputing.pooled(lake, plan.tables, plan.columns, plan.types)
        if json_:
            click.echo(json_text({**outcome.asdict(), "pooled": means}))
            return
        summary(outcome)
        if means:
            click.echo(
                "means over the draws (error: standard error; lost: share of its variance owed to missing cells):"
            )
            show([{**r, "mean": f"{r['mean']:.6g}", "error": f"{r['error']:.3g}"} for r in means], False, [*means[0]])
        return
    report = imputing.filled(lake, request, plan.types)
    if json_:
        click.echo(json_text({**outcome.asdict(), "columns": report}))
        return
    summary(outcome)
    gaps = [r for r in report if r["missing"]]
    if not gaps:
        click.echo("no cell is missing")
        return
    shown = [
        {**r, "missing": f"{r['missing']:,} ({r['share']:.1%})", "error": "" if r["error"] is None else r["error"]}
        for r in gaps
    ]
    click.echo("filled (error on masked cells, that of mean or mode is 1):")
    show(shown, False, ["column", "type", "missing", "left", "method", "error", "cells"])
