"""The columns of each table and their types, followed through its steps before Spark starts."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from headgate.expectations.suites import Suite
from headgate.jobs.config.document import Complaints, Yaml
from headgate.jobs.config.models import Table
from headgate.jobs.config.source_checks import ddl_columns
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.columns import columns_in
from headgate.jobs.lake.lake import Lake
from headgate.transforms.balancing.split import check_split
from headgate.transforms.cleaning.expressions import checked as checked_expression
from headgate.transforms.kinds import simple
from headgate.transforms.rows import FILE, FILE_DATE, SOURCE, is_own
from headgate.transforms.step import Columns, NoSuchColumn, Step, StepError, follow
from headgate.transforms.steps import STEPS
from headgate.words import did_you_mean

UNWRITABLE = " ,;{}()\n\t="  # in names of columns that are published
NOT_HELD = "cannot be published: Delta allows none of space , ; { } ( ) = and line breaks in a name"
NOT_WRITABLE = f"{NOT_HELD}. Rename it before (step rename)"
ARRIVES = {FILE: "string", FILE_DATE: "date"}  # what steps see of where a row came from


def source_columns(ddl: str, where: str) -> Columns:
    """Return the columns of a source with a schema, with those of where a row came from."""
    return {**{name: simple(kind) for name, kind in ddl_columns(ddl, where)}, **ARRIVES}


def seen_in(lake: Lake) -> Callable[[str], Columns | None]:
    """Return what gives the columns that a table has in a lake, as steps see them; None for one that is not there.

    So the steps behind a source without a schema of its own are checked before Spark starts, too. Columns that a source
    brings for the first time are known once it was read: `headgate run --table` of its raw table reads it alone.
    """

    def seen(table: str) -> Columns | None:
        found = columns_in(lake, table)
        return None if found is None else {c: kind for c, kind in found.items() if not is_own(c) or c in ARRIVES}

    return seen


def starting_columns(starts: Sequence[str], known: Mapping[str, Columns | None]) -> Columns | None:
    """Return the columns of the rows that a table starts from; None where only Spark can tell.

    Raises `StepError` where two tables have one column with different types.
    """
    columns: dict[str, str | None] = {}
    for start in starts:
        theirs = known.get(start)
        if theirs is None:
            return None
        for name, kind in theirs.items():
            before = columns.setdefault(name, kind)
            if before is not None and kind is not None and before != kind:
                raise StepError(
                    f"column '{name}' is {kind} in table '{start}' and {before} in one before it; put a cast there"
                )
    return columns | {SOURCE: "string"} if len(starts) > 1 else columns


def follow_table(
    document: Yaml,
    written: str,
    name: str,
    table: Table,
    steps: Sequence[Step],
    suite: Suite | None,
    splits: Sequence[set[str]],
    known: Mapping[str, Columns | None],
    complaints: Complaints,
) -> Columns | None:
    """Return the published columns of a table as far as they can be known without Spark; None: only Spark can tell.

    written: the name under which the document has it. splits: before each step, the columns that a split made.
    Steps, keys, orders and rules that name a column which is not there are noted in `complaints`, all of them.
    """
    here = ("tables", written)
    have: Columns | None
    if table.source is not None:
        ddl = getattr(table.source, "columns", None)
        have = source_columns(ddl, document.at(*here, "source", "schema")) if ddl else known.get(name)
    else:
        try:
            have = starting_columns(table.starts, known)
        except StepError as e:
            raise UsageError(f"{document.at(*here, 'from')}: {e}") from e
    others = {name: columns for name, columns in known.items() if columns is not None}
    for i, (step, entry) in enumerate(zip(steps, table.steps, strict=True)):
        where = document.at(*here, "steps", i, next(iter(entry)))
        if have is None or not set(step.tables()) <= set(others):
            have = None
            check_options(step, others, where, complaints)
        else:
            have = followed(step, have, others, splits[i], where, complaints)
    if have is not None and table.source is None:
        have = {c: kind for c, kind in have.items() if c not in ARRIVES}
    if have is not None:
        check_published(document, written, table, have, complaints, raw=written != name)
    check_rules(name, suite, None if have is None else list(have))
    return have


def followed(
    step: Step, have: Columns, others: Mapping[str, Columns], split: set[str], where: str, complaints: Complaints
) -> Columns | None:
    """Return the columns after a step, noting in `complaints` what is wrong; None where that leaves them unclear.

    A column that is not there is taken for one of any type, so that all of them are noted, and what comes after.
    """
    missing: list[str] = []
    while True:
        try:
            check_split(step, have, split)
            after = follow(step, {**have, **dict.fromkeys(missing)}, others)
            return None if after is None else {c: kind for c, kind in after.items() if c not in missing or c in have}
        except NoSuchColumn as e:
            complaints.add(UsageError(f"{where}: {NoSuchColumn(e.column, [*have], e.place)}"))
            if e.column in missing:
                return None
            missing.append(e.column)
        except StepError as e:
            after = untyped_after(step, {**have, **dict.fromkeys(missing)}, others)
            if after is not None or not missing:  # else it may come of what was taken for given
                complaints.add(UsageError(f"{where}: {e}"))
            if after is not None:
                return {c: kind for c, kind in after.items() if c not in missing or c in have}
            check_options(step, others, where, complaints)
            return None


def untyped_after(step: Step, have: Columns, others: Mapping[str, Columns]) -> Columns | None:
    """Return the columns after a step that only their types are wrong for; those that it names are of no known type.

    None for a step that is not headgate's own: it may know no columns without types.
    """
    if type(step) not in STEPS.values():
        return None
    try:
        after = follow(step, dict.fromkeys(have), others)
    except StepError:
        return None
    named = repr(step)
    return None if after is None else {c: None if repr(c) in named else have.get(c) for c in after}


def check_options(step: Step, others: Mapping[str, Columns], where: str, complaints: Complaints) -> None:
    """Note what is wrong with the options of a step of headgate's own whatever columns there are, all of it.

    Each column that it names is taken for one that is there, of any type; an option of which something is wrong for one
    that was left out, and what is wrong then is noted where it is of another option that is written.
    """
    if type(step) not in STEPS.values():
        return
    defaults = {f.name: f.default for f in dataclasses.fields(step) if f.default is not dataclasses.MISSING}
    named: dict[str, None] = {}
    theirs: dict[str, None] = {}  # columns of tables of which none are known
    changed = False
    while True:
        written = {name for name, default in defaults.items() if getattr(step, name) != default}
        try:
            follow(step, named, {table: others.get(table, theirs) for table in step.tables()})
            return
        except StepError as e:
            lacking = e if isinstance(e, NoSuchColumn) else e.__cause__
            if isinstance(lacking, NoSuchColumn):
                of_others = lacking is not e and lacking.column not in theirs
                if not of_others and lacking.column in named:
                    return  # of another table, whose columns are known
                (theirs if of_others else named)[lacking.column] = None
                continue
            wrong = {name for name in written if re.search(rf"\b{name}\b", str(e))}
            if wrong or not changed:
                complaints.add(UsageError(f"{where}: {e}"))
            if not wrong:
                return
            changed = True
            step = dataclasses.replace(step, **{name: defaults[name] for name in wrong})


def stored_name(column: str) -> str:
    """Return the name under which a raw table that stands for a source with steps keeps a column.

    Delta holds no spaces and brackets in names: such characters are written as in URLs, and steps see them as they are.
    """
    return "".join(f"%{ord(c):02X}" if c in UNWRITABLE or c == "%" else c for c in column)


def name_of(stored: str) -> str:
    """Return the name of a column that is kept under its `stored_name`."""
    return re.sub(r"%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), stored)


def writable_names(columns: Iterable[str]) -> dict[str, str]:
    """Return a name that Delta can hold for each column whose own it cannot: `Price (USD)` is `Price_USD`.

    Columns that need no other name keep theirs; a number tells two apart that would have one name, in any case.
    """
    names = list(columns)
    odd = sorted(c for c in names if set(c) & set(UNWRITABLE))
    taken = {c.lower() for c in names if c not in odd}
    found = {}
    for column in odd:
        base = "_".join(filter(None, re.split(f"[{re.escape(UNWRITABLE)}]+", column))) or "column"
        tried = (base if n == 1 else f"{base}_{n}" for n in itertools.count(1))
        found[column] = next(name for name in tried if name.lower() not in taken and not is_own(name))
        taken.add(found[column].lower())
    return found


def check_published(
    document: Yaml, written: str, table: Table, have: Columns, complaints: Complaints, raw: bool
) -> None:
    """Note columns that Delta cannot hold, and a key or an order of publishing that names none that is there."""
    unwritable = next((c for c in have if set(c) & set(UNWRITABLE)), None)
    if unwritable is not None and not raw:
        complaints.add(UsageError(f"{document.at('tables', written)}: the column {unwritable!r} {NOT_WRITABLE}"))
    for option, columns in (("key", table.publish.key), ("sort_by", table.publish.sort_by)):
        for column in columns:
            if column not in have:
                where = document.at("tables", written, "publish", option)
                complaints.add(UsageError(f"{where}: there is no column '{column}'{did_you_mean(column, have)}"))


def check_rules(table: str, suite: Suite | None, have: Sequence[str] | None) -> None:
    """Refuse rules that name a column which is not there, or whose SQL is not that of a row; all of them at once.

    have: the columns, where they are known without Spark.
    """
    wrong = []
    for rule in suite.rules if suite else ():
        for column in dict.fromkeys((*rule.columns, *rule.condition_columns)):
            if have is not None and column not in have and not is_own(column):
                known = f"{did_you_mean(column, have)} (columns: {', '.join(have)})"
                wrong.append(f"{rule.where}: table '{table}' has no column '{column}'{known}")
        for option, sql in rule.expressions.items():
            try:
                checked_expression(sql, have)
            except StepError as e:
                wrong.append(f"{rule.where}: kwargs.{option}: {e}")
    if wrong:
        raise UsageError("\n".join(wrong))
