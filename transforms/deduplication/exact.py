"""Exact duplicates by columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from transforms.rows import FILE, ROW_ID, Rejection, is_kept, quoted, reject
from transforms.step import Step, StepError, nearest, need

DIRECTIONS = ("ASC", "DESC")


@dataclass(frozen=True, kw_only=True)
class DropDuplicates(Step):
    """Of the rows that are equal in some columns, keep one and mark the others.

    columns: rows equal in all of these are duplicates; NaN equals NaN.
    nulls: `equal` (default) takes a null as a value; `distinct` compares no row that has a null in `columns`.
    keep: which copy stays, as an ORDER BY list: `arr_time desc, _file`. Nulls come last. Ties fall to the smaller
        `_row_id`, file and hash of the content, so that no order of the input matters.
    Evidence: the kept row's id and file. Cost: one shuffle of the rows by key.
    """

    name: ClassVar[str] = "drop_duplicates"
    columns: tuple[str, ...]
    keep: str = ROW_ID
    nulls: Literal["equal", "distinct"] = "equal"

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        need((c for c, _ in self.order() if not c.startswith("_")), have)
        return list(have)

    def order(self) -> list[tuple[str, bool]]:
        """(column, descending) of each entry of `keep`."""
        entries = []
        for entry in self.keep.split(","):
            words = entry.split()
            if not words or len(words) > 2 or (len(words) == 2 and words[1].upper() not in DIRECTIONS):
                hint = nearest(words[-1].upper(), DIRECTIONS) if words else ""
                raise StepError(f"keep: '{entry.strip()}' is no ORDER BY entry (column [asc|desc]){hint}")
            entries.append((words[0], len(words) == 2 and words[1].upper() == "DESC"))
        return entries

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        ordering = [
            F.col(quoted(c)).desc_nulls_last() if descending else F.col(quoted(c)).asc_nulls_last()
            for c, descending in self.order()
        ]
        data = [c for c, kind in df.dtypes if not c.startswith("_") and not kind.startswith(("map", "variant"))]
        ties = [F.col(ROW_ID), *([F.col(FILE)] if FILE in df.columns else [])]
        content = F.xxhash64(*(F.col(quoted(c)) for c in data))
        ties.append(content)
        # Rows that an earlier step marked stay out of the competition, each apart.
        compared = is_kept()
        if self.nulls == "distinct":
            for column in self.columns:
                compared = compared & F.col(quoted(column)).isNotNull()
        # A row that is not compared competes with itself alone.
        alone = F.when(~compared, F.concat_ws("/", F.col(ROW_ID), content.cast("string")))
        copies = W.partitionBy(*(F.col(quoted(c)) for c in self.columns), alone)
        ranked = copies.orderBy(*ordering, *ties).rowsBetween(W.unboundedPreceding, W.currentRow)
        kept = {"kept_row_id": F.first(ROW_ID).over(ranked)}
        if FILE in df.columns:
            kept["kept_file"] = F.first(FILE).over(ranked)
        df = df.withColumns({"_rank": F.row_number().over(ranked), **{f"_{n}": c for n, c in kept.items()}})
        again = Rejection(
            (F.col("_rank") > 1) & compared,
            f"repeats another row in {', '.join(self.columns)}",
            {n: F.col(f"_{n}") for n in kept},
        )
        marked = reject(df, self.name, again)
        return marked.drop("_rank", *(f"_{n}" for n in kept))
