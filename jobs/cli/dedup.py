"""`headgate dedup`: one table without its duplicates."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import listed
from headgate.jobs.cli.output import json_text, show, summary
from headgate.jobs.cli.places import Place
from headgate.jobs.cli.step_options import StepCommand, chosen_step, one_table

if TYPE_CHECKING:
    from headgate.jobs.cli.one_table import Request


class Dedup(StepCommand):
    steps = {"exact": "drop_duplicates", "text": "drop_near_duplicates"}


@click.command(cls=Dedup)
@click.option("--exact", metavar="COL,…", help="Rows equal in these columns are duplicates.")
@click.option("--text", metavar="COL,…", help="Rows nearly equal in this text are duplicates; several count as one.")
@one_table
@click.pass_context
def dedup(
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
    **given: Any,
) -> None:
    """Publish INPUT (a file, a folder of files, or a table of the lake) without its duplicates.

    \b
    headgate dedup docs.parquet --key id --text text --into clean_docs
    headgate dedup landing/articles --text title,body --similarity 0.7 --keep "published, length desc" --into articles
    headgate dedup poems.jsonl --text text --measure containment --into whole_poems   also what lies within another
    headgate dedup customers.csv --exact email --ignore case,spaces --keep "updated desc" --into customers
    headgate dedup events.csv --exact id --where "kind <> 'test'" --into events
    headgate trace --table clean_docs --key id=17   why a row went, beside the one that stayed

    With --text a row goes only if it is proved similar to one that stays. Run again when files have come: only they
    are compared, with each other and with what is published. Every removed row is in the ledger with the row that
    stayed, the score and the threshold. `headgate steps` says more of the options: drop_duplicates (--exact) and
    drop_near_duplicates (--text).
    """
    from headgate.jobs.cli.one_table import Request

    step, options = chosen_step(ctx, dedup, given)
    build(
        place,
        Request("dedup", source, into, listed(key, "--key"), schema or "", delimiter, where),
        step,
        options,
        json_,
    )


def build(place: Place, request: "Request", step: str, options: Mapping[str, Any], json_: bool) -> None:
    from headgate.jobs.cli import deduping, one_table, text_types
    from headgate.transforms.deduplication.keep import order_of

    environment = place.environment()
    lake = places.lake_of(environment, needed=False)
    pipeline, start = deduping.pipeline_of(request, [(step, options)], lake)
    for notice in text_types.text_orders(start, [c for c, _ in order_of(options["keep"])] if "keep" in options else []):
        click.echo(notice, err=True)
    outcome = one_table.built(request, start, pipeline, environment, lake)
    report(lake, request.into, step, options, outcome, start.table, json_)


def report(lake: Any, into: str, step: str, options: Mapping[str, Any], outcome: Any, begins: str, json_: bool) -> None:
    """Print what a run did, how many rows could not be compared, and the largest clusters."""
    from headgate.jobs.cli import deduping
    from headgate.jobs.lake.confirmations import later_builds

    columns, exact = options["columns"], step == "drop_duplicates"
    without = deduping.without_value(lake, begins, columns, every=not exact, ignore=options.get("ignore", ()))
    found = lake.published(into)
    build = found.facts["build"] if found else ""
    build = next(reversed(later_builds(lake, into, build)), build)
    biggest = deduping.clusters(lake, into, build, options.get("cluster")) if found else []
    if json_:
        click.echo(json_text({**outcome.asdict(), "biggest": biggest, "without_value": without}))
        return
    summary(outcome)
    if without:
        how = "compared as equal" if options.get("nulls") == "equal" else "not compared"
        click.echo(f"{without:,} rows of {begins} have no value in {', '.join(columns)}: {how}")
    if biggest:
        click.echo("largest duplicate clusters:")
        show(biggest, False, ["row_id", "others", "weakest"])
    for one in biggest:
        if one["giant"]:
            click.echo(
                f"warning: row {one['row_id']} stands for {one['others']:,} others; perhaps the similarity is too low, "
                "or the texts share a frame that drop_repeated_lines takes out"
            )
