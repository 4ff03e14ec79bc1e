"""How far two versions of a table, or two of its splits, are apart: per column, per stratum, and as a whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from headgate.expectations.distances import DECILES, MISSING, jensen_shannon, stability
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake
from headgate.transforms.rows import is_own
from headgate.words import did_you_mean, stratum_of_values

MOST_VALUES = 1_000  # of a column that is no number: the others are one bin
MOST_STRATA = 1_000
SAMPLE = 20_000  # rows of each side that a classifier is asked to tell apart
FOLDS = 5
OTHER = "other values"


@dataclass(frozen=True)
class Sides:
    """Two sets of rows, as SQL relations `one` and `other`, with their columns in common."""

    connection: duckdb.DuckDBPyConnection
    kinds: Mapping[str, pa.DataType]


def sides_of(lake: Lake, table: str, versions: tuple[int, int] | None, splits: tuple[str, str] | None) -> Sides:
    """Return two versions of a table, or two splits of its newest one."""
    connection = connect()
    kinds: dict[str, pa.DataType] = {}
    chosen = versions or (lake.need_table(table).version(),) * 2
    for name, version in zip(("one", "other"), chosen, strict=True):
        delta = lake.open(table, version)
        if delta is None:
            raise InputMissing(f"table '{table}' has no version {version}")
        rows = dataset(delta)
        known = {f.name: f.type for f in rows.schema}
        kinds = known if not kinds else {c: k for c, k in kinds.items() if c in known and known[c] == k}
        connection.register(f"{name}_rows", rows)
    for i, name in enumerate(("one", "other")):
        where = ""
        if splits is not None:
            if "split" not in kinds:
                raise UsageError(f"--splits: table '{table}' has no column 'split'")
            where = f"WHERE split = {text_of(splits[i])}"
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {name}_rows {where}")
        if not number_of(connection, f"SELECT count(*) FROM {name}"):
            raise InputMissing(f"table '{table}': no row is in {splits[i] if splits else f'version {chosen[i]}'}")
    return Sides(connection, {c: k for c, k in kinds.items() if not is_own(c) and c != "split"})


def text_of(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def name_of(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def number_of(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def columns_of(sides: Sides, wanted: Sequence[str], option: str) -> list[str]:
    """Return the columns that are compared; raise `UsageError` for one that is not there."""
    for column in wanted:
        if column not in sides.kinds:
            known = ", ".join(sides.kinds)
            hint = did_you_mean(column, sides.kinds)
            raise UsageError(f"{option}: there is no column '{column}' on both sides{hint} (columns: {known})")
    plain = [c for c, k in sides.kinds.items() if not pa.types.is_nested(k) and not pa.types.is_binary(k)]
    return list(wanted) or plain


def drift(sides: Sides, columns: Sequence[str], by: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each column, and for each stratum of `by`, its distances between the two sides, the farthest first.

    psi: of numbers and times by the deciles of the first side, as `expect_distribution_to_stay_near` has it; of others
    by values. js: the Jensen-Shannon distance of the same bins. ks: of numbers and times, the largest distance of the
    cumulative distributions, exact. Null and NaN are a bin, but not in `ks`.
    """
    rows = []
    keys = ", ".join(f"{name_of(c)}" for c in by)
    strata: list[tuple[Any, ...]] = [()]
    if by:
        query = f"SELECT DISTINCT {keys} FROM (SELECT {keys} FROM one UNION ALL SELECT {keys} FROM other) ORDER BY ALL"
        strata = sides.connection.execute(f"{query} LIMIT {MOST_STRATA + 1}").fetchall()
        if len(strata) > MOST_STRATA:
            raise UsageError(f"--by: more than {MOST_STRATA:,} strata of {', '.join(by)}")
    for stratum in strata:
        where = " AND ".join(f"{name_of(c)} IS NOT DISTINCT FROM ?" for c in by) or "true"
        for column in columns:
            if column not in by:
                found = compared(sides, column, where, stratum)
                shown = stratum_of_values(stratum)
                rows.append({"column": column, **({"stratum": shown} if by else {}), **found})
    return sorted(rows, key=lambda r: (-r["psi"], r["column"], r.get("stratum", "")))


def compared(sides: Sides, column: str, where: str, stratum: Sequence[Any]) -> dict[str, Any]:
    kind, name = sides.kinds[column], name_of(column)
    numeric = is_number(kind) or is_time(kind)
    value = f"{name}::VARCHAR"
    if numeric:
        value = f"epoch({name})" if is_time(kind) else f"{name}::DOUBLE"
    value = f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" if numeric else value
    run = sides.connection.execute
    for side in ("one", "other"):
        run(f"CREATE OR REPLACE TEMP TABLE {side}_values AS SELECT {value} AS v, count(*) AS n FROM {side} "
            f"WHERE {where} GROUP BY ALL", list(stratum))  # fmt: skip
    ks = None
    if numeric:
        binned = "(0" + "".join(f" + (v > '{edge}'::DOUBLE)::INT" for edge in deciles(sides)) + ")::VARCHAR"
        ks = kolmogorov_smirnov(sides)
    else:
        run(f"CREATE OR REPLACE TEMP TABLE common AS SELECT v FROM one_values ORDER BY n DESC, v LIMIT {MOST_VALUES}")
        binned = f"CASE WHEN v IN (SELECT v FROM common WHERE v IS NOT NULL) THEN '=' || v ELSE '{OTHER}' END"
    counts = []
    for side in ("one", "other"):
        name = f"CASE WHEN v IS NULL THEN '{MISSING}' ELSE {binned} END"
        query = f"SELECT {name}, sum(n)::BIGINT FROM {side}_values GROUP BY 1"
        counts.append({str(k): int(n) for k, n in run(query).fetchall()})
    rows = [sum(side.values()) for side in counts]
    missing = [side.get(MISSING, 0) / n if n else 0.0 for side, n in zip(counts, rows, strict=True)]
    return {
        "rows_one": rows[0],
        "rows_other": rows[1],
        "missing_one": missing[0],
        "missing_other": missing[1],
        "psi": stability(counts[0], counts[1]),
        "js": jensen_shannon(counts[0], counts[1]),
        "ks": ks,
    }


def deciles(sides: Sides) -> list[float]:
    """Return the inner deciles of the first side's values, interpolated as Spark's are, without equal ones."""
    counts = "SELECT v, sum(n) OVER (ORDER BY v) AS upto FROM one_values WHERE v IS NOT NULL ORDER BY v"
    found: pa.Table = sides.connection.execute(counts).to_arrow_table()
    values, upto = found["v"].to_numpy(), found["upto"].cast(pa.int64()).to_numpy()
    if not len(values):
        return []
    edges = set()
    for share in DECILES:
        place = (float(upto[-1]) - 1) * share
        low, high = (values[np.searchsorted(upto, number, side="right")] for number in (int(place), math.ceil(place)))
        edges.add(float(low if low == high else (math.ceil(place) - place) * low + (place - int(place)) * high))
    return sorted(edges)


def kolmogorov_smirnov(sides: Sides) -> float | None:
    """Return the largest distance of the cumulative distributions of both sides; None where one has no value.

    Source: Smirnov 1939; the statistic of scipy's `ks_2samp`.
    """
    both = """SELECT v, sum(a) AS a, sum(b) AS b FROM (SELECT v, n AS a, 0 AS b FROM one_values UNION ALL
              SELECT v, 0, n FROM other_values) WHERE v IS NOT NULL GROUP BY v"""
    upto = "SELECT sum(a) OVER w / sum(a) OVER () AS fa, sum(b) OVER w / sum(b) OVER () AS fb"
    found = sides.connection.execute(f"SELECT max(abs(fa - fb)) FROM ({upto} FROM ({both}) WINDOW w AS (ORDER BY v))")
    (worst,) = found.fetchone() or (None,)
    return None if worst is None or worst != worst else float(worst)


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def told_apart(sides: Sides, columns: Sequence[str], seed: int = 0) -> float:
    """Return the area under the ROC curve with which a classifier tells rows of one side from the other's.

    .5: not at all; 1: always. Cross-validated on up to 20,000 rows of each side, those of the smallest hashes of their
    row ids. Numbers as they are, other values as codes of their frequency. Raises `UsageError` without scikit-learn.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from threadpoolctl import threadpool_limits
    except ImportError as e:
        raise UsageError("the library scikit-learn is missing: pip install 'headgate[models]'") from e
    names = ", ".join(name_of(c) for c in columns)
    parts = []
    for side in ("one", "other"):
        query = f"SELECT {names} FROM {side} ORDER BY md5(_row_id || '{seed}'), _row_id LIMIT {SAMPLE}"
        found: pa.Table = sides.connection.execute(query).to_arrow_table()
        parts.append(found)
    labels = np.repeat([0, 1], [p.num_rows for p in parts])
    folds = min(FOLDS, *(p.num_rows for p in parts))
    if folds < 2:
        return math.nan
    both = pa.concat_tables(parts)
    matrix = np.column_stack([numbers_of(both[c], sides.kinds[c]) for c in columns])
    model = HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # threads that wait for each other on a busy machine took ten times as long
        scores = cross_val_predict(model, matrix, labels, cv=cut, method="predict_proba")[:, 1]
    return float(roc_auc_score(labels, scores))


def numbers_of(values: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if is_number(kind):
        return values.cast(pa.float64()).to_numpy()
    if is_time(kind):
        micros = values.cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(pa.int64())
        return micros.cast(pa.float64(), safe=False).to_numpy()
    texts = ["" if v is None else str(v) for v in values.to_pylist()]
    known, code, often = np.unique(np.array(texts, dtype=object).astype(str), return_inverse=True, return_counts=True)
    rank = np.empty(len(known))
    rank[np.lexsort((np.arange(len(known)), -often))] = np.arange(len(known))
    return rank[code]
