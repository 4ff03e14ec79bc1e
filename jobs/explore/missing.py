"""What is missing in a table and with what: by column, pattern, pair of columns, group and time; no JVM."""

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.explore.queries import readable
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import quoted
from headgate.transforms.imputation.hidden import hidden_in
from headgate.transforms.rows import is_own
from headgate.words import did_you_mean

MOST = 20  # patterns, pairs, groups and periods that are shown
WIDE = 50  # columns of which pairs are counted: those that are missing most
VALUES = 20_000  # of a column, in which hidden missing values are looked for
PERIODS = (("day", 62), ("month", 62 * 31))  # up to how many days each is taken; years beyond


def missing(
    lake: Lake, table: str, columns: Sequence[str] = (), by: str | None = None, over: str | None = None,
    release: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what is missing in a table: null cells and NaN; and values that may stand for missing ones.

    columns: those that are looked at; none: all. by: a column whose groups are told apart. over: a date or time, whose
    days, months or years are. Shares are of the rows; of a pair, `lift` says how many times as often both are missing
    as if they were so by chance. Raises `UsageError` for a column that is not there. Cost: five passes over the columns
    named, in DuckDB; memory in proportion to the distinct patterns and values.
    """
    delta = lake.need_table(table) if release is None else lake.open(table, readable(lake, release).get(table))
    if delta is None:
        raise InputMissing(f"release '{release}' has no table '{table}'")
    rows = dataset(delta)
    kinds = {f.name: f.type for f in rows.schema if not is_own(f.name)}
    for column in (*columns, *filter(None, (by, over))):
        if column not in kinds:
            known = f" (columns: {', '.join(kinds)})"
            raise UsageError(f"table '{table}' has no column '{column}'{did_you_mean(column, kinds)}{known}")
    if over is not None and not pa.types.is_temporal(kinds[over]):
        raise UsageError(f"--over: '{over}' is {kinds[over]}, neither a date nor a time")
    looked = list(columns) or [c for c in kinds if c not in (by, over)]
    gone = {c: gap(c, kinds[c]) for c in looked}
    connection = connect()
    connection.register("_hg_rows", rows)

    def ask(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query).fetchall()

    counts = ", ".join(f"count(*) FILTER (WHERE {g})" for g in gone.values())
    ((total, *missed),) = ask(f"SELECT count(*), {counts} FROM _hg_rows")
    found = dict(zip(looked, missed, strict=True))
    lacking = sorted((c for c in looked if found[c]), key=lambda c: (-found[c], c))
    report: dict[str, Any] = {"table": table, "rows": total, "columns": [], "patterns": [], "pairs": []}
    for c in looked:
        hidden = [
            {"value": h.value, "rows": h.rows, "kind": h.kind, "sure": h.apply} for h in hidden_of(ask, c, kinds[c])
        ]
        entry = {"column": c, "type": str(kinds[c]), "missing": found[c], "share": share(found[c], total)}
        report["columns"].append(entry | {"hidden": hidden})
    if lacking:
        bits = ", ".join(f"CASE WHEN {gone[c]} THEN '1' ELSE '0' END" for c in lacking)
        pattern = f"SELECT concat({bits}) AS p, count(*) AS n FROM _hg_rows GROUP BY p"
        report["patterns"] = [
            {
                "missing": [c for c, bit in zip(lacking, p, strict=True) if bit == "1"],
                "rows": n,
                "share": share(n, total),
            }
            for p, n in ask(f"SELECT * FROM ({pattern}) ORDER BY n DESC, p LIMIT {MOST}")
        ]
        report["pairs"] = pairs_of(ask, lacking[:WIDE], gone, found, total)
    for option, told in (("groups", by), ("periods", over)):
        if told is None:
            continue
        value = quoted(told)
        if option == "periods":
            value = f"date_trunc('{period_of(ask, value)}', {value})::DATE"
        order = "v" if option == "periods" else "n DESC, v"
        counts = ", ".join(f"count(*) FILTER (WHERE {gone[c]})" for c in lacking) or "0"
        listed = ask(f"SELECT {value}::VARCHAR AS v, count(*) AS n, {counts} FROM _hg_rows GROUP BY v ORDER BY {order}")
        report[option] = [
            {told: group, "rows": n, "missing": {c: share(m, n) for c, m in zip(lacking, each, strict=False) if m}}
            for group, n, *each in (listed if option == "periods" else listed[:MOST])
        ]
    return report


def share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def gap(column: str, kind: pa.DataType) -> str:
    nan = f" OR isnan({quoted(column)})" if pa.types.is_floating(kind) else ""
    return f"({quoted(column)} IS NULL{nan})"


def pairs_of(ask: Any, columns: Sequence[str], gone: Any, found: Any, total: int) -> list[dict[str, Any]]:
    """Return the pairs of columns that are missing together, those first that are so in most rows."""
    pairs = list(itertools.combinations(columns, 2))
    if not pairs:
        return []
    counts = ", ".join(f"count(*) FILTER (WHERE {gone[a]} AND {gone[b]})" for a, b in pairs)
    (both,) = ask(f"SELECT {counts} FROM _hg_rows")
    ranked = sorted(zip(pairs, both, strict=True), key=lambda x: (-x[1], x[0]))
    return [
        {"columns": [a, b], "rows": n, "share": share(n, total), "lift": round(n * total / (found[a] * found[b]), 2)}
        for (a, b), n in ranked[:MOST]
        if n
    ]


def period_of(ask: Any, value: str) -> str:
    """Return the period by which the days of a column are told apart."""
    ((days,),) = ask(f"SELECT date_diff('day', min({value}), max({value})) FROM _hg_rows")
    return next((period for period, most in PERIODS if (days or 0) <= most), "year")


def hidden_of(ask: Any, column: str, kind: pa.DataType) -> list[Any]:
    """Return the values of a column that may stand for missing ones, by counts of its most frequent and outer ones."""
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (plain or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_date(kind)):
        return []
    value = quoted(column)
    counted = f"SELECT {value} AS v, count(*) AS n FROM _hg_rows WHERE NOT {gap(column, kind)} GROUP BY v"
    frequent = f"(SELECT * FROM c ORDER BY n DESC, v LIMIT {VALUES})"
    ends = "(SELECT * FROM c WHERE v IN (SELECT unnest([min(v), max(v)]) FROM c))"
    zero = " UNION (SELECT * FROM c WHERE v = 0)" if plain else ""
    known = ask(f"WITH c AS MATERIALIZED ({counted}) SELECT v::VARCHAR, n FROM ({frequent} UNION {ends}{zero})")
    ((rows,),) = ask(f"SELECT count(*) FROM _hg_rows WHERE NOT {gap(column, kind)}")
    return hidden_in(column, dict(sorted(known)), rows=rows)
