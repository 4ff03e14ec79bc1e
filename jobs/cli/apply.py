"""`headgate apply`: new rows prepared as a table's training rows were, or brought back from that."""

from pathlib import Path

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake, listed
from headgate.jobs.cli.output import json_text, summary
from headgate.jobs.cli.places import Place


@click.command(cls=Command)
@click.argument("table", metavar="TABLE[@RELEASE]")
@click.argument("source", metavar="INPUT")
@in_lake
@click.option("--into", required=True, metavar="TABLE", help="The table of the new rows.")
@click.option("--inverse", is_flag=True, help="Undo scaling and encoding, the last step first.")
@click.option("--without", metavar="COL,…", help="Columns that INPUT lacks, taken as null (default: it has all).")
@click.option("--key", metavar="COL,…", help="Columns that identify a row (default: its whole content).")
@click.option("--delimiter", metavar="CHAR", help="Of csv (default: the one in the header of , ; tab |).")
@click.option("--suite", metavar="FILE", help="Suite that gates the new rows (default: none).")
@click.option("--steps-from", metavar="FILE", multiple=True, help="File with steps of your own (default: none).")
@as_json
def apply(
    table: str,
    source: str,
    place: Place,
    into: str,
    inverse: bool,
    without: str | None,
    key: str | None,
    delimiter: str | None,
    suite: str | None,
    steps_from: tuple[str, ...],
    json_: bool,
) -> None:
    """Do to INPUT (a file, a folder of files, or a table of the lake) what TABLE's steps did to its rows.

    \b
    headgate apply orders new_orders.csv --into new_orders                    by what the newest version learned
    headgate apply orders@shop-3 new_orders.csv --into new_orders             by what release shop-3 holds
    headgate apply orders new.parquet --without label --into scored           rows without the label
    headgate apply orders predictions.csv --inverse --into predicted          back from scaled to what it was

    Nothing is learned: steps that learn are applied as that version left them, lookups read the tables as they were
    then. INPUT must have the columns, with their types, that TABLE's first step had. New rows are of no split (where
    there is a column `split`, it says `new`): so sampling, resampling and duplicates are left out, class weights are
    null, and target means are those of all training rows. Tables whose steps sum up, link or fill from neighbouring
    rows cannot be applied. What a step rejects is in the ledger. Run again when files have come or changed.

    --inverse takes columns of TABLE, some or all, and brings back what scaling, logarithms, powers, quantiles, ordinal
    and one-hot encoding changed; steps before these stay. A step that cannot be undone is named.
    """
    from headgate.jobs.cli import applying, one_table, own_words
    from headgate.jobs.config.models import FileSource
    from headgate.jobs.pipeline import run as runs
    from headgate.jobs.progress import Progress

    environment = place.environment()
    lake = places.lake_of(environment)
    request = applying.Application(
        table=table,
        given=source,
        into=into,
        key=listed(key, "--key"),
        delimiter=delimiter,
        without=listed(without, "--without"),
        inverse=inverse,
        suite=suite,
        steps_from=steps_from,
    )
    applied = applying.pipeline_of(request, lake)
    taken = applied.pipeline.tables[applied.begins].source if applied.begins in applied.pipeline.tables else None
    if isinstance(taken, FileSource) and Path(source).is_dir():
        notice = one_table.passed_over(applied.landing, taken)
        if notice:
            click.echo(notice, err=True)
    environment = environment.model_copy(update={"landing": applied.landing})
    with places.spark_of(environment) as start, own_words.files_as_given():
        outcome = runs.run(applied.pipeline, environment, lake, start, Progress())
    one_table.need_some_rows(lake, outcome, source, applied.begins)
    if json_:
        done = {"made_by": applied.made_by, "steps": applied.steps, "left_out": applied.left_out}
        click.echo(json_text({**outcome.asdict(), **done}))
        return
    summary(outcome)
    click.echo(f"by {applied.made_by}: {', '.join(applied.steps) or 'no step'}")
    if applied.left_out:
        click.echo(f"left out for new rows: {', '.join(applied.left_out)}")
