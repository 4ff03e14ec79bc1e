"""A pipeline, checked in full before Spark starts."""

import dataclasses
import graphlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from headgate.expectations.suites import Suite, SuiteError, load_suite
from headgate.jobs.config.document import Yaml, checked, read_yaml
from headgate.jobs.config.models import PipelineFile, Publish, Table
from headgate.jobs.config.source_checks import check_source, code_of, ddl_columns
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.system import SYSTEM_TABLES, TABLE_NAME
from headgate.transforms.balancing.split import check_split, splits_after
from headgate.transforms.cleaning.expressions import checked as checked_expression
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.rows import FILE, FILE_DATE, is_own
from headgate.transforms.step import Comparer, Step, StepError, Types, columns_after
from headgate.transforms.steps import STEPS
from headgate.words import did_you_mean

UNWRITABLE = " ,;{}()\n\t="  # in names of columns that are published

NOT_WRITABLE = (
    "cannot be published: Delta allows none of space , ; { } ( ) = and line breaks in a name. Rename it before (step "
    "rename)"
)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A checked pipeline: every step built, every suite loaded, tables in building order."""

    name: str
    tables: Mapping[str, Table]
    steps: Mapping[str, Sequence[Step]]
    suites: Mapping[str, Suite | None]
    code: Mapping[str, str | None]  # of tables with a Python function as their source: the text of its file

    @cached_property
    def order(self) -> list[str]:
        """Table names, each after the tables that it reads; those of the lake alone are not among them."""
        sorter = graphlib.TopologicalSorter({t: sorted(self.inputs(t)) for t in self.tables})
        return [t for t in sorter.static_order() if t in self.tables]

    def inputs(self, table: str) -> set[str]:
        """The tables that a table is built from or judged against."""
        start = self.tables[table].from_
        joined = {name for step in self.steps[table] for name in step.tables()}
        suite = self.suites[table]
        return joined | ({start} if start else set()) | (set(suite.parents) if suite else set())

    def splits(self, table: str, steps: int | None = None) -> set[str]:
        """The columns that a split_by_hash of this pipeline made, in a table after its first `steps` steps."""
        if table not in self.tables:
            return set()
        start = self.tables[table].from_
        found = self.splits(start) if start else set()
        for step in self.steps[table][:steps]:
            found = splits_after(step, found, {name: self.splits(name) for name in step.tables()})
        return found

    def upstream(self, tables: Sequence[str]) -> list[str]:
        """The given tables and all that they are built from, in building order."""
        wanted, queue = set(), list(tables)
        while queue:
            table = queue.pop()
            if table not in wanted and table in self.tables:
                wanted.add(table)
                queue.extend(self.inputs(table))
        return [t for t in self.order if t in wanted]


def load_pipeline(file: Path) -> Pipeline:
    """Read and check a pipeline in full; raises `UsageError` for the first thing that is wrong."""
    document = read_yaml(file)
    if document.data is None:
        raise UsageError(f"{file}: the file is empty")
    return check_pipeline(document)


def check_pipeline(document: Yaml, there: Mapping[str, list[str]] | None = None) -> Pipeline:
    """Check a pipeline in full; raises `UsageError` for the first thing that is wrong.

    there: columns that the document does not tell, by table: of tables that are in the lake, which may be read besides,
    and of the document's own whose files tell them.
    """
    there = there or {}
    read: PipelineFile = checked(PipelineFile, document, document.data, ())
    names = list(read.tables)
    readable = list(dict.fromkeys([*names, *there]))
    for name, table in read.tables.items():
        check_table(document, name, table, readable)
    steps = {name: build_steps(document, name, table) for name, table in read.tables.items()}
    folder = (document.file.parent / read.suites).resolve()
    suites = {name: suite_of(document, name, table, folder) for name, table in read.tables.items()}
    code = {name: code_of(document, name, table) for name, table in read.tables.items()}
    pipeline = Pipeline(name=read.pipeline, tables=read.tables, steps=steps, suites=suites, code=code)
    for name in names:
        for joined in pipeline.inputs(name):
            if joined not in readable:
                hint = did_you_mean(joined, readable)
                raise UsageError(f"{document.at('tables', name)}: there is no table '{joined}'{hint}")
    try:
        order = pipeline.order
    except graphlib.CycleError as e:
        raise UsageError(f"{document.at('tables')}: circular dependency: {' -> '.join(e.args[1])}") from e
    known: dict[str, list[str] | None] = {name: list(columns) for name, columns in there.items()}
    types: dict[str, Types] = {}
    for name in order:
        known[name] = follow_columns(document, name, pipeline, known, types) or known.get(name)
    return pipeline


def check_table(document: Yaml, name: str, table: Table, names: Sequence[str]) -> None:
    here = ("tables", name)
    if not re.match(TABLE_NAME, name):
        raise UsageError(f"{document.at(*here)}: a table is named by lower-case letters, digits and _, not '{name}'")
    if name in SYSTEM_TABLES:
        raise UsageError(f"{document.at(*here)}: '{name}' is a system table; choose another name")
    if (table.source is None) == (table.from_ is None):
        raise UsageError(f"{document.at(*here)}: give exactly one of source and from")
    if table.from_ is not None and table.from_ not in names:
        hint = did_you_mean(table.from_, names)
        raise UsageError(f"{document.at(*here, 'from')}: there is no table '{table.from_}'{hint}")
    if (table.publish.mode == "merge") != bool(table.publish.key):
        raise UsageError(f"{document.at(*here, 'publish')}: key goes with mode merge, and merge needs it")
    if table.from_ is not None and table.publish.mode == "append":
        raise UsageError(
            f"{document.at(*here, 'publish', 'mode')}: append would add the whole result again at every build; use "
            "increment, which adds what the new rows of its input give, or merge with a key"
        )
    for i, entry in enumerate(table.steps):
        step = STEPS.get(str(next(iter(entry), "")))
        at = document.at(*here, "steps", i)
        if step is not None and step.apply is Comparer.apply and table.source is not None:
            raise UsageError(
                f"{at}: '{step.name}' compares all rows; put it into a table of its own, with from: {name}"
            )
        if step is not None and step.needs_all and table.publish.mode == "increment":
            raise UsageError(
                f"{at}: '{step.name}' looks at all rows, so the table cannot grow by publish.mode increment"
            )
    if table.source is not None:
        check_source(document, (*here, "source"), table.source)
        if table.publish != Publish():
            raise UsageError(f"{document.at(*here, 'publish')}: a table with a source appends; leave publish out")


def build_steps(document: Yaml, name: str, table: Table) -> tuple[Step, ...]:
    steps = []
    for i, entry in enumerate(table.steps):
        here = ("tables", name, "steps", i)
        if len(entry) != 1:
            raise UsageError(f"{document.at(*here)}: a step is written as one name and its options")
        (step, options), *_ = entry.items()
        if step not in STEPS:
            raise UsageError(f"{document.at(*here, step)}: there is no step '{step}'{did_you_mean(str(step), STEPS)}")
        made = checked(STEPS[step], document, options, (*here, step))
        if isinstance(made, DropDuplicates) and "nulls" not in options and set(made.columns) == set(table.publish.key):
            made = dataclasses.replace(made, nulls="equal")  # a merge takes the null of its key for one value
        steps.append(made)
    makers = [i for i, step in enumerate(steps) if hasattr(step, "made_in")]
    for number, i in enumerate(makers, 1):
        steps[i] = dataclasses.replace(steps[i], made_in=f"{name}.{number}")
    return tuple(steps)


def suite_of(document: Yaml, name: str, table: Table, folder: Path) -> Suite | None:
    if table.suite is None:
        return None
    try:
        file = folder / f"{table.suite}.yaml"
        if not file.is_file():
            hint = did_you_mean(table.suite, [p.stem for p in folder.glob("*.yaml")])
            raise SuiteError(f"{folder.name}/{table.suite}.yaml: there is no such suite{hint}")
        suite_document = read_yaml(file)
        return load_suite(suite_document.data, lambda *place: suite_document.at(*place))
    except SuiteError as e:
        raise UsageError(f"{e} (suite of table '{name}', {document.at('tables', name, 'suite')})") from e


def follow_columns(
    document: Yaml, name: str, pipeline: Pipeline, known: Mapping[str, list[str] | None], types: dict[str, Types]
) -> list[str] | None:
    """The published columns of a table as far as they can be known without Spark (None: only Spark can tell).

    types: of each table before it, and then of this one, the types that are known.
    """
    table = pipeline.tables[name]
    mine: Types = types.get(str(table.from_), {})
    if table.source is not None:
        columns = getattr(table.source, "columns", None)
        if columns is None:
            check_rules(name, pipeline.suites[name], None)
            return None
        mine = dict(ddl_columns(columns, document.at("tables", name, "source", "schema")))
        have = [*mine, FILE, FILE_DATE]
    else:
        start = known[str(table.from_)]
        if start is None or any(known[t] is None for t in pipeline.inputs(name)):
            check_rules(name, pipeline.suites[name], None)
            return None
        have = list(start)
    others = {t: columns for t, columns in known.items() if columns is not None}
    for i, (step, entry) in enumerate(zip(pipeline.steps[name], table.steps, strict=True)):
        try:
            check_split(step, have, pipeline.splits(name, i))
            have = columns_after(step, have, others)
            step.check_types(mine, types)
            mine = step.types_after(mine, types)
        except StepError as e:
            raise UsageError(f"{document.at('tables', name, 'steps', i, next(iter(entry)))}: {e}") from e
    if table.source is None:
        have = [c for c in have if c not in (FILE, FILE_DATE)]
    types[name] = mine
    unwritable = next((c for c in have if set(c) & set(UNWRITABLE)), None)
    if unwritable is not None:
        raise UsageError(f"{document.at('tables', name)}: the column {unwritable!r} {NOT_WRITABLE}")
    for option, columns in (("key", table.publish.key), ("sort_by", table.publish.sort_by)):
        for column in columns:
            if column not in have:
                where = document.at("tables", name, "publish", option)
                raise UsageError(f"{where}: there is no column '{column}'{did_you_mean(column, have)}")
    check_rules(name, pipeline.suites[name], have)
    return have


def check_rules(table: str, suite: Suite | None, have: Sequence[str] | None) -> None:
    """Refuse rules that name a column which is not there, or whose SQL is not that of a row; all of them at once.

    have: the columns, where they are known without Spark.
    """
    wrong = []
    for rule in suite.rules if suite else ():
        for column in rule.columns:
            if have is not None and column not in have and not is_own(column):
                wrong.append(f"{rule.where}: table '{table}' has no column '{column}'{did_you_mean(column, have)}")
        for option, sql in rule.expressions.items():
            try:
                checked_expression(sql, have)
            except StepError as e:
                wrong.append(f"{rule.where}: kwargs.{option}: {e}")
    if wrong:
        raise UsageError("\n".join(wrong))
