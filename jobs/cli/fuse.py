"""`headgate fuse`: the records of one or several sources as entities, with one golden record each."""

from typing import TYPE_CHECKING

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, as_json, in_lake, listed
from headgate.jobs.cli.output import json_text, summary
from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError
from headgate.words import cell, counted

if TYPE_CHECKING:
    from headgate.jobs.cli.fusing import Fusion

RULES = ("vote", "truth", "priority", "longest", "complete")


@click.command(cls=Command)
@click.argument("inputs", metavar="[NAME=]INPUT…", nargs=-1, required=True)
@in_lake
@click.option("--into", metavar="TABLE", help="The table of golden records.")
@click.option("--suggest", is_flag=True, help="Print how columns of later inputs map to the first's; build nothing.")
@click.option("--key", metavar="COL,…", help="Columns that a record is known by in its source (default: its content).")
@click.option("--labels", metavar="CSV", help="Known pairs: key_a, key_b, same (default: none; nothing is labelled).")
@click.option(
    "--decisions", metavar="CSV", help="Pairs that people decided, in the same form (default: as in earlier runs)."
)
@click.option(
    "--one-to-one/--many",
    default=None,
    help="At most one partner for a record in each other source, or many (default: by what the sources show).",
)
@click.option("--threshold", type=float, help="Least probability of a link (default: the best expected F1).")
@click.option("--columns", metavar="COL,…", help="Compare these columns alone (default: all that the sources share).")
@click.option("--mapping", metavar="YAML", help="How columns are mapped, as --suggest prints it (default: by name).")
@click.option(
    "--refit",
    is_flag=True,
    help="Learn anew what tells records apart (default: when options changed, or the sources drifted).",
)
@click.option("--rule", type=click.Choice(RULES), default="vote", help="How golden values are chosen (default: vote).")
@click.option("--delimiter", metavar="CHAR", help="Of csv (default: the one in the header of , ; tab |).")
@as_json
def fuse(
    place: Place,
    inputs: tuple[str, ...],
    into: str | None,
    suggest: bool,
    key: str | None,
    labels: str | None,
    decisions: str | None,
    one_to_one: bool | None,
    threshold: float | None,
    columns: str | None,
    mapping: str | None,
    refit: bool,
    rule: str,
    delimiter: str | None,
    json_: bool,
) -> None:
    """Link the records of INPUTs that are the same thing, and publish one golden record for each.

    \b
    headgate fuse abt=abt.csv buy=buy.csv --key id --into products
    headgate fuse people.csv --key id --into persons          one source: its duplicates are found
    headgate fuse a=a.csv b=b.csv --key id --labels pairs.csv --into products
    headgate fuse crm=crm.csv new=new.csv --key id --suggest > new.yaml    how columns of `new` may be those of `crm`
    headgate fuse crm=crm.csv new=new.csv --key id --mapping new.yaml --into customers
    headgate fuse crm=crm.parquet web=web.jsonl --key id --one-to-one --threshold 0.9 --into customers

    INPUT is a file, a folder of files of one kind, or a table of the lake. The columns that the sources share, by name,
    are compared; nothing need be said of them, and no pair be labelled. Publishes TABLE (golden records with evidence),
    TABLE_xref (source, key, entity_id), TABLE_links (source_a, key_a, source_b, key_b, score, probability), and what
    they are made of: TABLE_pairs (all pairs worth a look, explained) and TABLE_entities. Run again when sources
    changed: pairs, entities and golden records of what changed are made again, by what was learned before; ids last.
    `headgate steps` says more: link_records, assign_entities, golden_records.
    """
    from headgate.jobs.cli.fusing import Fusion

    if suggest:
        propose(place, inputs, listed(key, "--key"), delimiter, json_)
        return
    if into is None:
        raise UsageError("--into: name the table of golden records")
    build(
        place,
        Fusion(
            inputs=inputs,
            into=into,
            key=listed(key, "--key"),
            labels=labels,
            decisions=decisions,
            one_to_one=one_to_one,
            threshold=threshold,
            columns=listed(columns, "--columns"),
            mapping=mapping,
            refit=refit,
            rule=rule,
            delimiter=delimiter,
        ),
        json_,
    )


def propose(place: Place, inputs: tuple[str, ...], key: list[str], delimiter: str | None, json_: bool) -> None:
    from headgate.jobs.cli import suggesting

    lake = places.lake_of(place.environment(), needed=False)
    found = suggesting.suggest(inputs, key, delimiter, lake)
    click.echo(json_text(suggesting.as_plain(found)) if json_ else suggesting.as_yaml(found))


def build(place: Place, fusion: "Fusion", json_: bool) -> None:
    from headgate.jobs.cli import fusing, one_table, own_words
    from headgate.jobs.pipeline import run as runs
    from headgate.jobs.progress import Progress

    environment = place.environment()
    lake = places.lake_of(environment, needed=False)
    pipeline, folder = fusing.pipeline_of(fusion, lake)
    for table, names in fusing.renamed_in(pipeline).items():
        shown = ", ".join(f"{cell(given)} as {name}" for given, name in names.items())
        source = table.removeprefix(f"{fusion.into}_")
        click.echo(f"{source}: published under names that Delta can hold: {shown}", err=True)
    environment = environment.model_copy(update={"landing": folder})
    with places.spark_of(environment) as start, own_words.files_as_given():
        outcome = runs.run(pipeline, environment, lake, start, Progress())
    starts = pipeline.starts(f"{fusion.into}_pairs")
    for table in pipeline.upstream(starts):
        if pipeline.tables[table].source is not None:
            one_table.need_some_rows(lake, outcome, table, table)
    for source, records in fusing.without_key(lake, pipeline, fusion.into).items():
        key, xref = " or ".join(fusion.key), f"{fusion.into}_xref"
        click.echo(f"{source}: {counted(records, 'record')} without {key}: {xref} shows no key of theirs", err=True)
    if fusion.refit and not any(t.built for t in outcome.tables if t.table == f"{fusion.into}_pairs"):
        click.echo("--refit: the records are those that the present pairs were learned from", err=True)
    if json_:
        click.echo(json_text(outcome.asdict()))
    else:
        summary(outcome)
