"""`headgate rebalance`: strata brought to targets, or sources mixed to a budget; a pipeline made of options."""

from typing import TYPE_CHECKING

import click

from headgate.jobs.cli import places
from headgate.jobs.cli.options import Command, listed
from headgate.jobs.cli.output import json_text, show, summary
from headgate.jobs.cli.places import Place
from headgate.jobs.cli.step_options import one_table
from headgate.jobs.errors import UsageError

if TYPE_CHECKING:
    from headgate.jobs.cli.rebalancing import Request

UNITS = ("rows", "characters", "bytes", "tokens")


@click.command(cls=Command)
@click.option("--by", required=True, metavar="COL,…", help="Columns that tell the strata: the label, language, source.")
@click.option(
    "--target",
    help="Rows of each: equal, a number, a=9,b=5, shares a=.7,b=.3, natural (default: a mixture).",
)
@click.option("--total", metavar="N", help="Rows of all strata together, of equal, natural or shares (default: all).")
@click.option("--max-copies", type=click.IntRange(1), metavar="N", help="How often a row may be taken (default: 1).")
@click.option("--mixture", metavar="A=0.5,…", help="Share of each source in the budget (default: natural shares).")
@click.option("--budget", metavar="N", help="Units of all sources together, as 10M (default: what the shares allow).")
@click.option("--unit", type=click.Choice(UNITS), default="rows", help="What the budget counts (default: rows).")
@click.option("--column", metavar="COL", help="The text, or the number of tokens (default: none; rows are counted).")
@click.option("--tokenizer", metavar="FILE", help="tokenizer.json or sentencepiece model (default: none; numbers).")
@click.option("--epochs", type=float, help="How often a row of a source may be taken at most (default: 1).")
@click.option("--temperature", type=float, help="Shares in proportion to size^(1/T) (default: 1, the natural ones).")
@click.option(
    "--others",
    type=click.Choice(["refuse", "drop", "keep"]),
    help="What happens to strata that no target or share names (default: refuse).",
)
@click.option("--seed", type=int, default=0, help="Another seed draws other rows (default: 0).")
@one_table
def rebalance(
    place: Place,
    source: str,
    by: str,
    key: str | None,
    unit: str,
    json_: bool,
    schema: str | None,
    **options: object,
) -> None:
    """Publish INPUT (a file, a folder of files, or a table of the lake) with its strata in other proportions.

    \b
    headgate rebalance loans.csv --by label --target equal --into balanced
    headgate rebalance loans.csv --by label --target equal --max-copies 5 --into balanced
    headgate rebalance loans.csv --by label,region --target yes/north=500,no/north=500 --others drop --into sample
    headgate rebalance corpus --by lang --mixture "en=0.7,zh=0.3" --budget 10M --unit tokens --column n --into mixture
    headgate rebalance corpus --by lang --mixture en=0.8,zh=0.2 --budget 10M --unit tokens --column text \\
        --tokenizer tokenizer.json --epochs 4 --into mixture
    headgate rebalance corpus --by lang --temperature 3 --budget 1G --unit bytes --column text --into mixture

    Which rows are drawn is decided by a hash: exact, and the same on any machine. Rows that are left out are in the
    ledger; copies are new rows that name their parent. Where INPUT has a column `split`, its rows of `train` alone are
    rebalanced. `headgate steps` says more: sample_strata, mix_sources, count_tokens.
    """
    from headgate.jobs.cli.rebalancing import Request

    given = {name: value for name, value in options.items() if value is not None}
    build(
        place,
        Request(given=source, by=listed(by, "--by"), key=listed(key, "--key"), unit=unit, schema=schema or "", **given),  # type: ignore[arg-type]
        json_,
    )


def build(place: Place, request: "Request", json_: bool) -> None:
    from headgate.jobs.cli import one_table, own_words, rebalancing
    from headgate.jobs.pipeline import run as runs
    from headgate.jobs.progress import Progress

    environment = place.environment()
    lake = places.lake_of(environment, needed=False)
    pipeline, folder, begins = rebalancing.pipeline_of(request, lake)
    environment = environment.model_copy(update={"landing": folder})
    with places.spark_of(environment) as start, own_words.files_as_given():
        try:
            outcome = runs.run(pipeline, environment, lake, start, Progress())
        except UsageError as e:
            raise rebalancing.of_option(e) from e
    for table in pipeline.order[:-1]:
        one_table.need_some_rows(lake, outcome, request.given, table)
    strata = rebalancing.before_and_after(lake, request, begins)
    if json_:
        click.echo(json_text({**outcome.asdict(), "strata": strata}))
        return
    summary(outcome)
    click.echo(f"strata of {', '.join(request.by)}:")
    show(strata[: rebalancing.SHOWN], False, rebalancing.columns_shown(strata))
    if len(strata) > rebalancing.SHOWN:
        click.echo(f"… and {len(strata) - rebalancing.SHOWN:,} more; --json has all")
