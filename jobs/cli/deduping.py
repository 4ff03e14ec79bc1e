"""The pipeline that `headgate dedup` builds, made of its options, and what its report shows."""

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.cli.given_files import need_columns
from headgate.jobs.cli.one_table import Request, Start, checked, start_of
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.transforms.deduplication.keep import need_order, order_of
from headgate.transforms.rows import ROW_ID, is_own
from headgate.transforms.step import StepError

BIGGEST = 5
GIANT = 100
BLANK = r"^[\p{Z}\p{Cc}\p{Cf}]*$"  # shows nothing
Steps = Sequence[tuple[str, Mapping[str, Any]]]  # the last of which compares


def pipeline_of(request: Request, steps: Steps, lake: Lake) -> tuple[Pipeline, Start]:
    """Return the pipeline that builds `into`, which grows by what its input gained, and what that starts from."""
    start = start_of(request, lake)
    name, options = steps[-1]
    compared = "--exact" if name == "drop_duplicates" else "--text"
    need_columns(compared, options["columns"], list(start.columns))
    keep_order("--keep", options.get("keep", ""), start.columns, compared)
    places = {option: f"--{option}" for _, given in steps for option in given if option != "columns"}
    places |= {"columns": compared} | {step: compared for step, _ in steps}
    return checked(request, start, {request.into: steps}, places, "increment"), start


def keep_order(option: str, keep: str, columns: Mapping[str, str], compared: str) -> None:
    """Raise `UsageError` unless the order names columns whose values have one, or `length` of a text."""
    try:
        order = order_of(keep) if keep else []
        need_order(order, {c: kind.lower() for c, kind in columns.items()})
        named = [c for c, _ in order]
    except StepError as e:
        raise UsageError(f"--{e}") from e
    length = ["length"] if compared == "--text" else []
    need_columns(option, [c for c in named if not is_own(c)], [*columns, *length])


def without_value(lake: Lake, table: str, columns: Sequence[str], every: bool, ignore: Collection[str] = ()) -> int:
    """Return how many rows of a table are null or blank in one of the columns; `every`: in all of them.

    ignore: what of a text makes no difference, so that a text of punctuation alone may be blank, too.
    """
    rows = lake.dataset(table)
    blank = BLANK if "punctuation" not in ignore else BLANK.replace("]", r"\p{P}\p{S}]")

    def none(column: str) -> pc.Expression:
        value, kind = pc.field(column), rows.schema.field(column).type
        if pa.types.is_string(kind):
            return value.is_null() | pc.match_substring_regex(value, blank)
        return value.is_null() | (value == b"") if pa.types.is_binary(kind) else value.is_null()

    found = functools.reduce(operator.and_ if every else operator.or_, map(none, columns))
    return int(rows.count_rows(filter=found))


def clusters(lake: Lake, table: str, build: str, column: str | None = None) -> list[dict[str, Any]]:
    """The rows that stand for most others, by the ledger of a build or a table's cluster column.

    weakest: the least similarity of any of the others with the row itself, null where they are equal by columns.
    giant: whether the others are more than `GIANT` and more than a hundredth of the table; then the threshold is
    perhaps too low, or the texts share a frame that `drop_repeated_lines` takes out.
    """
    rows = lake.dataset(table)
    total = rows.count_rows()
    if column is None:
        if lake.open("ledger") is None:
            return []
        wanted = (pc.field("table_name") == table) & (pc.field("build") == build)
        entries = lake.dataset("ledger").to_table(columns=["evidence"], filter=wanted)
        query = """SELECT evidence['kept_row_id'] AS kept, count(*) AS others,
                     min(try_cast(evidence['score'] AS DOUBLE)) AS weakest FROM entries"""
    else:
        names = [ROW_ID, column, f"{column}_similarity"]
        entries = rows.to_table(columns=names).rename_columns(["id", "kept", "score"])
        query = "SELECT kept, count(*) AS others, min(score) AS weakest FROM entries WHERE kept <> id"
    chosen = f"SELECT * FROM ({query} GROUP BY ALL) WHERE kept IS NOT NULL ORDER BY others DESC, kept LIMIT {BIGGEST}"
    found = duckdb.from_arrow(entries).query("entries", chosen)
    return [
        {"row_id": kept, "others": n, "weakest": weakest, "giant": n > GIANT and n > total / 100}
        for kept, n, weakest in (found.fetchall() if found else ())
    ]
