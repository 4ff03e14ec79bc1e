"""Counts of the values of many columns, in one shuffle of their distinct values."""

from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import FLOATS, as_text, is_number, present
from headgate.transforms.rows import quoted

MOST_VALUES = 20_000  # distinct values of a column that come to the driver


def texts_of(columns: Sequence[str], kinds: Mapping[str, str]) -> Column:
    """Return cells as a struct of texts, null where they are NaN; fields are numbered."""
    cells = []
    for i, c in enumerate(columns):
        value = F.col(quoted(c))
        text = as_text(value, kinds[c])
        cells.append((F.when(~F.isnan(value), text) if kinds[c] in FLOATS else text).alias(f"c{i}"))
    return F.struct(*cells)


def value_counts(
    df: DataFrame,
    columns: Sequence[str],
    kinds: Mapping[str, str],
    keep: Callable[[DataFrame], DataFrame] = lambda counts: counts,
) -> dict[str, tuple[int, dict[str, int]]]:
    """Return for each column how many cells are known, and the counts of its values as text, in their order.

    Null, NaN and empty text are left out. Of a column with more than `MOST_VALUES` values, the most frequent ones, the
    least, the greatest and, of numbers, zero. keep: writes the counts, which are read several times.
    """
    if not columns:
        return {}
    cells = F.array(*(texts_of(columns, kinds)[f"c{i}"] for i in range(len(columns))))
    each = df.select(F.posexplode(cells).alias("_hg_column", "_hg_value")).where("_hg_value <> ''")
    counted = keep(each.groupBy("_hg_column", "_hg_value").agg(F.count(F.lit(1)).alias("_hg_n")))
    sizes = {
        r[0]: (r[1], r[2])
        for r in counted.groupBy("_hg_column").agg(F.count(F.lit(1)), F.sum("_hg_n")).orderBy("_hg_column").collect()
    }
    small = [i for i, (n, _) in sizes.items() if n <= MOST_VALUES]
    large = [i for i in sizes if i not in small]
    rows = counted.where(F.col("_hg_column").isin(small)).collect() if small else []
    for i in large:
        mine = counted.where(F.col("_hg_column") == i)
        rows += mine.orderBy(F.col("_hg_n").desc(), "_hg_value").limit(MOST_VALUES).collect()
        value = present(columns[i], kinds[columns[i]])
        ends = df.select(*(as_text(end, kinds[columns[i]]) for end in (F.min(value), F.max(value)))).first() or ()
        zero = [as_text(F.lit(0).cast(kinds[columns[i]]), kinds[columns[i]])] if is_number(kinds[columns[i]]) else []
        rows += mine.where(F.col("_hg_value").isin(*ends, *zero)).collect()
    found: dict[str, dict[str, int]] = {c: {} for c in columns}
    for i, value, n in sorted({(r[0], r[1], r[2]) for r in rows}):
        found[columns[i]][value] = n
    return {c: (sizes.get(i, (0, 0))[1], found[c]) for i, c in enumerate(columns)}
