"""A pipeline, checked in full before Spark starts."""

import dataclasses
import graphlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic

from headgate.expectations.suites import Suite, SuiteError, check_values, load_suite
from headgate.jobs.config.columns import check_options, follow_table, name_of
from headgate.jobs.config.document import Complaints, Yaml, checked, read_yaml
from headgate.jobs.config.in_time import check_time
from headgate.jobs.config.models import PipelineFile, Publish, PythonSource, Table
from headgate.jobs.config.own_steps import code_of_step, steps_of
from headgate.jobs.config.shorthand import RAW, expanded, with_mappings
from headgate.jobs.config.source_checks import check_source, code_of
from headgate.jobs.config.source_names import check_source_names
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.system import SYSTEM_TABLES, TABLE_NAME
from headgate.transforms.balancing.split import splits_after
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.features.as_of import ABLE, LearnAsOf
from headgate.transforms.step import Columns, Estimator, Step
from headgate.words import did_you_mean


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A checked pipeline: every step built, every suite loaded, tables in building order."""

    name: str
    tables: Mapping[str, Table]
    steps: Mapping[str, Sequence[Step]]
    suites: Mapping[str, Suite | None]
    code: Mapping[str, str | None]  # what a table is made by beside headgate: a source's Python file, hashes of steps'
    raw_of: Mapping[str, str] = dataclasses.field(default_factory=dict)  # raw table -> the table it was written with
    mapped: Mapping[str, str] = dataclasses.field(default_factory=dict)  # table of a mapping -> the source it is of
    pins: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)  # table -> version and day to read
    unchecked: Callable[[], None] = dataclasses.field(default=lambda: None, compare=False)  # checks left for later

    @cached_property
    def order(self) -> list[str]:
        """Table names, each after the tables that it reads; those of the lake alone are not among them."""
        sorter = graphlib.TopologicalSorter({t: sorted(self.inputs(t)) for t in self.tables})
        return [t for t in sorter.static_order() if t in self.tables]

    def made_from(self, table: str) -> set[str]:
        """The tables that a table's rows are made from; none of one that is not the pipeline's."""
        return {*self.starts(table), *(name for step in self.steps.get(table, ()) for name in step.tables())}

    def starts(self, table: str) -> tuple[str, ...]:
        """The tables whose rows a table takes over."""
        return tuple(self.tables[table].starts) if table in self.tables else ()

    def inputs(self, table: str) -> set[str]:
        """The tables that a table is built from or judged against."""
        suite = self.suites[table]
        return self.made_from(table) | (set(suite.parents) if suite else set())

    def splits(self, table: str, steps: int | None = None) -> set[str]:
        """The columns that a split_by_hash of this pipeline made, in a table after its first `steps` steps."""
        if table not in self.tables:
            return set()
        found = set().union(*(self.splits(start) for start in self.tables[table].starts))
        for step in self.steps[table][:steps]:
            found = splits_after(step, found, {name: self.splits(name) for name in step.tables()})
        return found

    def check_thoroughly(self, tables: Iterable[str]) -> None:
        """Raise `UsageError` for what `load_pipeline` left unchecked: columns, and arguments of the tables' suites."""
        self.unchecked()
        for name in tables:
            suite = self.suites[name]
            try:
                if suite is not None:
                    check_values(suite)
            except SuiteError as e:
                raise UsageError(f"{e} (suite of table '{name}')") from e

    def upstream(self, tables: Sequence[str]) -> list[str]:
        """The given tables and all that they are built from, in building order."""
        wanted, queue = set(), list(tables)
        while queue:
            table = queue.pop()
            if table not in wanted and table in self.tables:
                wanted.add(table)
                queue.extend(self.inputs(table))
        return [t for t in self.order if t in wanted]


def load_pipeline(
    file: Path,
    seen: Callable[[str], Columns | None] = lambda table: None,
    tables: Iterable[str] = (),
    thorough: bool = True,
) -> Pipeline:
    """Read and check a pipeline in full; raises `UsageError` with all of its problems, a line each.

    seen: the columns that a table of a source without a schema had when it was last read. tables: those that are
    wanted, of which alone, and of what they are made from, the columns are followed; none: of all. Not thorough: what
    costs much (columns behind steps and expressions, values in suites) is left to `Pipeline.check_thoroughly`.
    """
    document = read_yaml(file)
    if document.data is None:
        raise UsageError(f"{file}: the file is empty")
    return check_pipeline(document, seen=seen, tables=tables, thorough=thorough)


def check_pipeline(
    document: Yaml,
    there: Mapping[str, Columns] | None = None,
    seen: Callable[[str], Columns | None] = lambda table: None,
    tables: Iterable[str] = (),
    thorough: bool = True,
) -> Pipeline:
    """Check a pipeline in full; raises `UsageError` with all of its problems, a line each.

    there: columns that the document does not tell, by table: of tables that are in the lake, which may be read besides,
    and of the document's own whose files tell them. seen, tables: as in `load_pipeline`.
    """
    there = there or {}
    with Complaints() as complaints:
        document, mapped = with_mappings(document, complaints)
        read = models_of(document, complaints)
        pipeline = check_models(document, *read, complaints, there, seen, tables, thorough)
        check_source_names(document, pipeline.steps, pipeline.starts, mapped, complaints)
        return dataclasses.replace(pipeline, mapped=mapped)


def check_models(
    document: Yaml,
    read: PipelineFile,
    repaired: set[str],
    complaints: Complaints,
    there: Mapping[str, Columns],
    seen: Callable[[str], Columns | None],
    tables: Iterable[str],
    thorough: bool,
) -> Pipeline:
    """Return the pipeline of these models, with its problems noted in `complaints`; `repaired`: as of `models_of`."""
    folder = document.file.parent
    known_steps = steps_of({folder / p: document.at("steps_from", i) for i, p in enumerate(read.steps_from)})
    readable = list(dict.fromkeys([*read.tables, *there]))
    unclear: set[str] = set()  # tables of which the columns are unknown, because something is wrong
    placed: dict[str, dict[int, Step]] = {}
    written: dict[str, tuple[Step, ...]] = {}
    for name, table in read.tables.items():
        before = len(complaints.problems)
        if name not in repaired:
            with complaints.collecting():
                check_table(document, name, table, readable)
        if table.source is not None:
            with complaints.collecting():
                check_source(document, ("tables", name, "source"), table.source)
        placed[name] = build_steps(document, name, table, known_steps, complaints, name in repaired)
        written[name] = tuple(placed[name].values())
        if len(complaints.problems) > before or name in repaired:
            unclear.add(name)
    whole, raw_of = expanded(document, read.tables)
    suites_in = (folder / read.suites).resolve()
    suites: dict[str, Suite | None] = {}
    code: dict[str, str | None] = {}
    for n, table in whole.items():
        with complaints.collecting():
            suites[n] = None if n in raw_of else suite_of(document, n, table, suites_in, thorough)
        with complaints.collecting():
            code[n] = code_behind(document, raw_of.get(n, n), table, () if n in raw_of else written[n])
    pipeline = Pipeline(
        name=read.pipeline,
        tables=whole,
        steps={name: () if name in raw_of else written[name] for name in whole},
        suites={name: suites.get(name) for name in whole},
        code=code,
        raw_of=raw_of,
    )
    for name in read.tables:
        for joined in sorted(
            pipeline.inputs(name) - {*whole, *there, *(s for s in read.tables[name].starts if not s.endswith(RAW))}
        ):
            hint = did_you_mean(joined, [*whole, *there])
            complaints.add(UsageError(f"{document.at('tables', name)}: there is no table '{joined}'{hint}"))
            unclear.add(name)
    for name in unclear:
        for i, step in placed[name].items():
            check_options(step, {}, document.at("tables", name, "steps", i, step.name), complaints)
    try:
        order = pipeline.order
    except graphlib.CycleError as e:
        raise UsageError(f"{document.at('tables')}: circular dependency: {' → '.join(e.args[1])}") from e

    def follow(problems: Complaints) -> None:
        check_time(document, pipeline.steps, pipeline.splits, pipeline.made_from, pipeline.starts, problems)
        follow_columns(document, pipeline, order, unclear, there, seen, tables, problems)

    if thorough:
        follow(complaints)
        return pipeline

    def later() -> None:
        with Complaints() as problems:
            follow(problems)

    return dataclasses.replace(pipeline, unchecked=later)


def follow_columns(
    document: Yaml,
    pipeline: Pipeline,
    order: Sequence[str],
    unclear: Collection[str],
    there: Mapping[str, Columns],
    seen: Callable[[str], Columns | None],
    tables: Iterable[str],
    complaints: Complaints,
) -> None:
    """Follow the columns of the wanted tables, noting in `complaints` what names one that is not there.

    unclear: tables of which the columns are unknown, because something is wrong.
    """
    known: dict[str, Columns | None] = dict.fromkeys(order) | dict(there)
    wanted = [name for name in pipeline.upstream(list(tables)) if name] if tables else order
    for name in wanted:
        table = pipeline.tables[name]
        written = pipeline.raw_of.get(name, name)
        if written in unclear:
            continue
        if table.source is not None and getattr(table.source, "columns", None) is None and name not in there:
            found = seen(name)
            known[name] = {name_of(c): k for c, k in found.items()} if found and name in pipeline.raw_of else found
        splits = [pipeline.splits(name, i) for i in range(len(pipeline.steps[name]))]
        with complaints.collecting():
            found = follow_table(
                document,
                written,
                name,
                table,
                pipeline.steps[name],
                pipeline.suites[name],
                splits,
                known,
                complaints,
            )
            known[name] = found if found is not None else known.get(name)


def models_of(document: Yaml, complaints: Complaints) -> tuple[PipelineFile, set[str]]:
    """Return the models of a pipeline, and the tables that have only those of their options that are valid.

    What is invalid is noted in `complaints`.
    """
    with complaints.collecting():
        return checked(PipelineFile, document, document.data, ()), set()
    data, tables, repaired = document.data, {}, set()
    written = data.get("tables")
    for name, options in written.items() if isinstance(written, dict) else ():
        options = options if isinstance(options, dict) else {}
        valid = {k: v for k, v in options.items() if is_valid(Table, {"suite": None, k: v})}
        tables[str(name)] = Table.model_validate({"suite": None, **valid})
        if not is_valid(Table, options) or not isinstance(name, str):
            repaired.add(str(name))
    others = {k: data[k] for k in ("suites", "steps_from") if k in data}
    head = {"pipeline": "p", "tables": {"t": {"suite": None}}, **others}
    head = head if is_valid(PipelineFile, head) else {**head, "suites": ".", "steps_from": ()}
    return PipelineFile.model_validate(head).model_copy(update={"tables": tables}), repaired


def is_valid(model: type[pydantic.BaseModel], data: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(data)
    except pydantic.ValidationError:
        return False
    return True


def check_table(document: Yaml, name: str, table: Table, names: Sequence[str]) -> None:
    here = ("tables", name)
    if not re.match(TABLE_NAME, name):
        raise UsageError(
            f"{document.at(*here)}: '{name}' is not a valid table name: use lower-case letters, digits and '_'"
        )
    if name in SYSTEM_TABLES:
        raise UsageError(f"{document.at(*here)}: '{name}' is a system table; choose another name")
    if table.mapping:
        raise UsageError(f"{document.at(*here, 'mapping')}: it is of a table that starts from others: give from")
    if (table.source is None) == (not table.starts):
        raise UsageError(f"{document.at(*here)}: give exactly one of source and from")
    for i, start in enumerate(table.starts):
        where = document.at(*here, "from", *([i] if len(table.starts) > 1 else []))
        if start not in names and not (start.endswith(RAW) and start.removesuffix(RAW) in names):
            raise UsageError(f"{where}: there is no table '{start}'{did_you_mean(start, names)}")
        if start in table.starts[:i]:
            raise UsageError(f"{where}: duplicate table '{start}'")
    if (table.publish.mode == "merge") != bool(table.publish.key):
        raise UsageError(f"{document.at(*here, 'publish')}: give key and mode merge together, or neither")
    derived = bool(table.starts or table.steps)
    if derived and table.publish.mode == "append":
        raise UsageError(
            f"{document.at(*here, 'publish', 'mode')}: append would add the whole result again at every build; use "
            "increment, which adds what the new rows of its input give, or merge with a key"
        )
    if table.source is not None and not derived and table.publish != Publish():
        raise UsageError(f"{document.at(*here, 'publish')}: a table with a source appends; leave publish out")


def build_steps(
    document: Yaml, name: str, table: Table, known: Mapping[str, type[Step]], complaints: Complaints, repaired: bool
) -> dict[int, Step]:
    """Return the table's steps by their places, without those that are wrong, which are noted in `complaints`.

    repaired: the table's other options are not all known.
    """
    steps: dict[int, Step] = {}
    before = len(complaints.problems)
    for i, entry in enumerate(table.steps):
        with complaints.collecting():
            steps[i] = build_step(document, ("tables", name, "steps", i), table, entry, known)
    if not repaired and len(complaints.problems) == before:
        with complaints.collecting():
            check_grain(document, name, table, list(steps.values()))
            check_refit(document, name, table, list(steps.values()))
    return steps


def build_step(
    document: Yaml, here: tuple[Any, ...], table: Table, entry: Mapping[str, Any], known: Mapping[str, type[Step]]
) -> Step:
    """Return a step at its place; raises `UsageError` for one that is not known or does not fit."""
    if len(entry) != 1:
        raise UsageError(f"{document.at(*here)}: a step is written as one name and its options")
    (step, options), *_ = entry.items()
    if step not in known:
        raise UsageError(f"{document.at(*here, step)}: there is no step '{step}'{did_you_mean(str(step), known)}")
    with Complaints() as complaints:
        with complaints.collecting():
            made: Step = checked(known[step], document, options, (*here, step))
        within = options.get("step") if known[step] is LearnAsOf and isinstance(options, dict) else None
        if isinstance(within, dict) and len(within) == 1 and set(within) <= set(ABLE):  # else it tells itself
            ((inner, theirs),) = within.items()
            with complaints.collecting():
                checked(known[inner], document, theirs, (*here, step, "step", inner))
    if isinstance(made, DropDuplicates) and "nulls" not in options and set(made.columns) == set(table.publish.key):
        made = dataclasses.replace(made, nulls="equal")  # a merge takes the null of its key for one value
    if made.scope == "table" and not made.state and table.publish.mode == "increment":
        raise UsageError(
            f"{document.at(*here)}: '{step}' looks at all rows, so the table cannot grow by publish.mode increment"
        )
    return made.at(f"{here[1]}/{here[3]}-{made.name}")


def check_refit(document: Yaml, name: str, table: Table, steps: Sequence[Step]) -> None:
    """Raise `UsageError` for a `refit` that speaks of no step, or of one that does not say what it learns from."""
    place = document.at("tables", name, "refit")
    learning = [step for step in steps if isinstance(step, Estimator)]
    if table.refit != "always" and not learning:
        raise UsageError(f"{place}: no step of the table learns from its rows; leave refit out")
    mute = [step.name for step in learning if type(step).learns_from is Estimator.learns_from]
    if table.refit == "on_drift" and mute:
        raise UsageError(f"{place}: '{mute[0]}' does not say which columns it learns from (learns_from)")


def check_grain(document: Yaml, name: str, table: Table, steps: Sequence[Step]) -> None:
    """Raise `UsageError` unless the table says so where, and only where, a step makes rows of another grain."""
    makes = next((i for i, step in enumerate(steps) if step.grain == "new"), None)
    if (makes is not None) != (table.grain == "new"):
        place = ("tables", name, "grain") if makes is None else ("tables", name, "steps", makes)
        why = (
            "no step of the table makes rows of another grain; leave grain out"
            if makes is None
            else f"'{steps[makes].name}' gives rows that are others than those that came: add grain: new to the table"
        )
        raise UsageError(f"{document.at(*place)}: {why}")
    if makes is not None and table.publish.mode == "increment":
        raise UsageError(f"{document.at('tables', name, 'publish')}: a table of grain new cannot grow by increments")


def code_behind(document: Yaml, written: str, table: Table, steps: Sequence[Step]) -> str | None:
    """Return what a table is made by beside headgate: the text of a source's Python file, hashes of its own steps'."""
    if isinstance(table.source, PythonSource):
        return code_of(document, written, table)
    hashes = {step.name: code for step in steps if (code := code_of_step(type(step))) is not None}
    return str(sorted(hashes.items())) if hashes else None


def suite_of(document: Yaml, name: str, table: Table, folder: Path, thorough: bool) -> Suite | None:
    if table.suite is None:
        return None
    try:
        file = folder / f"{table.suite}.yaml"
        if not file.is_file():
            hint = did_you_mean(table.suite, [p.stem for p in folder.glob("*.yaml")])
            where = document.at("tables", name, "suite")
            raise SuiteError(f"{where}: {folder.name}/{table.suite}.yaml: there is no such suite{hint}")
        suite_document = read_yaml(file)
        return load_suite(suite_document.data, lambda *place: suite_document.at(*place), thorough)
    except SuiteError as e:
        raise UsageError(str(e)) from e
