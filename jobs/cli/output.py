"""Output of the commands: tables, rows one below the other, JSON, CSV, the summary of a run."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from headgate.jobs.errors import UsageError
from headgate.words import NULL, counted, rejected_line

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console
    from rich.table import Table

FIGURES = 20  # of steps in a summary
CELL = 60  # characters of a cell in a table of `sql`; the view of one value a line and --json have all
PIPED = 160  # width of a table where no terminal says it


def console(piped: int | None = None) -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else piped or PIPED)


def plain_table() -> "Table":
    from rich.table import Table

    return Table(box=None, pad_edge=False)


def show(rows: Sequence[Mapping[str, Any]], json_: bool, columns: Sequence[str]) -> None:
    """Print rows as JSON, or these columns of them as a table."""
    if json_:
        click.echo(json_text(rows))
        return
    console().print(table_of(rows, columns))
    if not rows:
        click.echo("(no rows)")


def table_of(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    most: int | None = None,
    written: "Callable[[Any], str] | None" = None,
) -> "Table":
    """Return rows as a table; cells beyond `most` characters end in an ellipsis. `written`: values as texts."""
    from rich.text import Text

    table = plain_table()
    for column in columns:
        given = [r[column] for r in rows if r[column] is not None]
        numeric = bool(rows) and all(isinstance(v, int | float) for v in given)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shortened((written or text_of)(row[c]), most)) for c in columns))
    return table


def shortened(text: str, most: int | None) -> str:
    if most is None:
        return text
    line = "↵".join(text.splitlines())
    return line if len(line) <= most else line[: most - 1] + "…"


# -- answers of `sql`


def show_answer(answer: "pa.Table", form: str, query: str, all_columns: bool) -> None:
    """Print an answer as `table`, `json` or `csv`.

    Bookkeeping columns are left out unless the query names them, or all are asked for. Rows too wide for the terminal
    are printed one value a line.
    """
    from headgate.transforms.rows import is_own

    columns = [c for c in answer.column_names if all_columns or not is_own(c) or is_named(c, query)]
    answer = answer.select(columns or answer.column_names)
    kinds = {f.name: f.type for f in answer.schema}
    try:
        rows = [{c: plain(v, kinds[c]) for c, v in row.items()} for row in answer.to_pylist()]
    except OverflowError as e:
        raise UsageError("sql: a date or time of the answer is outside the years 1 to 9999; cast it to VARCHAR") from e
    if form == "json":
        click.echo(json_text(rows))
    elif form == "csv":
        write_csv(rows, answer.column_names)
    else:
        show_fitting(rows, answer.column_names)


def is_named(column: str, query: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(column)}(?!\w)", query, re.IGNORECASE) is not None


def show_fitting(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.measure import Measurement

    out = console()
    table = table_of(rows, columns, CELL, as_it_is)
    if rows and Measurement.get(out, out.options.update(width=100_000), table).maximum > out.width:
        for number, row in enumerate(rows, 1):
            one = plain_table()
            one.show_header = False
            one.add_column(no_wrap=True)
            one.add_column(overflow="fold")
            for column in columns:
                one.add_row(column, as_it_is(row[column]))
            click.echo(f"-- row {number}")
            out.print(one)
        return
    out.print(table)
    if not rows:
        click.echo("(no rows)")


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print CSV (RFC 4180) in which an empty text is quoted and a null is not, so that they are told apart."""

    for values in (columns, *([row[c] for c in columns] for row in rows)):
        line = ",".join(map(csv_cell, values)) or '""'  # of one null: many readers pass over an empty line
        sys.stdout.write(f"{line}\n")


def csv_cell(value: Any) -> str:
    text = csv_text(value)
    quoted = text == "" or re.search(r'[",\r\n]', text)
    return '"' + text.replace('"', '""') + '"' if value is not None and quoted else text


def csv_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return json_text(value)
    return "" if value is None else json_value(value) if isinstance(value, date) else str(value)


def plain(value: Any, kind: "pa.DataType") -> Any:
    """Return a value of an Arrow type with maps, at any depth, as dictionaries."""
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_map(kind):
        return {str(plain(k, kind.key_type)): plain(v, kind.item_type) for k, v in value}
    if pa.types.is_struct(kind):
        return {f.name: plain(value[f.name], f.type) for f in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [plain(v, kind.value_type) for v in value]
    return value


# -- values as text


def json_text(value: Any) -> str:
    """Return a value as JSON; what JSON has no form of is a text: decimals, days, NaN and infinities."""
    try:
        return json.dumps(value, default=json_value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(with_finite(value), default=json_value, ensure_ascii=False)


def with_finite(value: Any) -> Any:
    """Return a value with NaN and infinities, at any depth, as texts that Spark and Python read: NaN, Infinity."""
    if isinstance(value, dict):
        return {k: with_finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_finite(v) for v in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else str(value)


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json_text(value)
    if isinstance(value, list):
        return ", ".join(json_text(v) if isinstance(v, dict | list) else str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_it_is(value: Any) -> str:
    """Return a value of a user's table as text: a whole number may be a key, so its digits are not grouped."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(value)


def pairs_text(pairs: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in pairs.items())


# -- the summary of a run


def summary(outcome: Any) -> None:
    """Print what a run did, on one screen."""
    table = plain_table()
    for name in ("table", "version", "rows", "in", "made", "rejected", "expectations", "seconds"):
        table.add_column(name, justify="left" if name == "table" else "right")
    reasons: list[str] = []
    warnings: list[str] = []
    figures: list[str] = []
    for r in outcome.asdict()["tables"]:
        rejected = r.get("rejected", {})
        rows = f"{r['rows']:,}" if r["rows"] is not None else ""
        table.add_row(r["table"], str(r["version"]), rows, *cells_of(r))
        reasons += [f"  {r['table']}: {rejected_line(why, n)}" for why, n in rejected.items()]
        warnings += [f"  {r['table']}: {w}" for w in r.get("warnings", ())]
        figures += [f"  {r['table']}: {figure_line(f)}" for f in r.get("figures", ())]
    out = console(120)
    out.print(table)
    if figures:
        out.print("figures of steps and gates:", *figures[:FIGURES], sep="\n")
    if len(figures) > FIGURES:
        out.print(f"  … and {len(figures) - FIGURES:,} more; --json and the table metrics have all")
    if reasons:
        out.print("rejected rows, each with its evidence in the ledger:", *reasons, sep="\n")
    if warnings:
        out.print("warnings:", *warnings, sep="\n")
    for m in outcome.missing:
        out.print(f"missing files: {m['table']} has {m['found']} of {m['expected']} of {m['day']}, due by {m['by']}")
    if outcome.built:
        ending = f"{counted(outcome.built, 'table')} built in {outcome.seconds:.1f} s"
    else:
        ending = f"nothing to build ({outcome.seconds:.1f} s)"
    out.print(f"{ending}; release {outcome.release or 'none'}")


def figure_line(figure: Mapping[str, Any]) -> str:
    """Return what a step measured, as "2-mix_sources: share of a source: 0.4998 (source en, asked 0.5)"."""

    def shown(fact: str | float | None) -> str:
        return NULL if fact is None else fact if isinstance(fact, str) else f"{fact:,.10g}"

    facts = ", ".join(f"{name} {shown(fact)}" for name, fact in figure["facts"].items())
    return f"{figure['step']}: {figure['name']}: {figure['value']:,.4g}" + (f" ({facts})" if facts else "")


def cells_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the summary says of a table beside its name, version and rows."""
    if record["status"] == "up to date":
        return ("", "", "", "up to date", "")
    gate = f"{record['passed']} of {record['expectations']}" if record["expectations"] else "no gate"
    if record["status"] == "judged":
        return ("", "", "", f"{gate}, judged again", f"{record['seconds']:.1f}")
    gate += ", same rows" if record["status"] == "same rows" else ""
    rejected = sum(record["rejected"].values())
    return (f"{record['rows_in']:,}", f"{record['made']:,}", f"{rejected:,}", gate, f"{record['seconds']:.1f}")
