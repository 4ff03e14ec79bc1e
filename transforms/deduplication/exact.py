"""Exact duplicates by columns, as they stand or by what is left of their text."""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.deduplication.forms import Ignored, compatible, without_accents
from headgate.transforms.deduplication.keep import order_of, ordering
from headgate.transforms.rows import FILE, ROW_ID, Rejection, canonical, is_kept, is_own, quoted, reject
from headgate.transforms.step import Columns, Context, Step, require_columns

KEYS = "keys"
SHOWN = r"(?U)[^\s\p{Cf}\p{Cc}]"  # a character that is seen


@dataclass(frozen=True, kw_only=True)
class DropDuplicates(Step):
    """Keep one of the rows that are equal in some columns and mark the others.

    columns: rows equal in all of these are duplicates; NaN equals NaN.
    ignore: what of a text makes no difference: `case`, `accents`, `spaces` (runs of white space count as one, those at
        the ends not at all), `unicode` (the forms that Unicode holds for compatible, by NFKC, and what shows nothing),
        `punctuation` (with symbols).
    nulls: `distinct` (default) compares no row in which one of `columns` is null, or a text that is blank or of which
        `ignore` leaves nothing; `equal` takes these for values like others.
    keep: which copy stays, as an ORDER BY list: `arr_time desc, _file`. Nulls come last. Ties fall to the smaller
        `_row_id`, file and hash of the content, so that no order of the input matters. In a table that grows by
        increments, rows of earlier builds stay; new rows find them by an MD5 (128 bits) of the compared values.
    Evidence: the kept row's id and file. Cost: one shuffle of the rows by key; `unicode` and `accents` add an Arrow
    round trip of the columns, an increment a scan of the keys of the rows before.
    """

    name: ClassVar[str] = "drop_duplicates"
    scope: ClassVar[Literal["row", "table"]] = "table"
    state: ClassVar[str] = KEYS
    columns: tuple[str, ...]
    ignore: tuple[Ignored, ...] = ()
    keep: str = ROW_ID
    nulls: Literal["equal", "distinct"] = "distinct"

    def for_new_rows(self) -> None:
        return None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns((c for c in self.columns if c != ROW_ID), have)
        require_columns((c for c, _ in order_of(self.keep) if not is_own(c)), have)
        return have

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        marked = self.marked(df, context.recorded(KEYS))
        if context.lasting:
            known = [ROW_ID, *([FILE] if FILE in df.columns else [])]
            keys = marked.where(is_kept() & self.compared(df)).select(*known, self.key(df).alias("_hg_key"))
            context.keep(keys, KEYS)
            context.record(KEYS, KEYS, keys.columns)
        return marked

    def tie(self, df: DataFrame) -> Column:
        if self.nulls == "equal":
            return self.key(df)
        whole = functools.reduce(operator.and_, (F.col(quoted(c)).isNotNull() for c in self.columns))
        return F.when(whole, self.key(df))

    def values(self, df: DataFrame) -> list[Column]:
        kinds = dict(df.dtypes)
        return [self.without(F.col(quoted(c)), kinds[c]) for c in self.columns]

    def without(self, value: Column, kind: str) -> Column:
        """A value without what makes no difference."""
        if kind != "string":
            return value
        if "unicode" in self.ignore:
            value = by_batches(compatible, "string", value)
        if "case" in self.ignore:
            value = F.lower(value)
        if "accents" in self.ignore:
            value = by_batches(without_accents, "string", value)
        if "punctuation" in self.ignore:
            value = F.regexp_replace(value, r"[\p{P}\p{S}]+", "")
        if "spaces" in self.ignore:
            value = F.regexp_replace(F.regexp_replace(value, r"(?U)\s+", " "), r"^ | $", "")
        return value

    def key(self, df: DataFrame) -> Column:
        kinds = {f.name: f.dataType for f in df.schema.fields}
        values = zip(self.columns, self.values(df), strict=True)
        return F.unhex(F.md5(F.concat(*(canonical(v, kinds[c]) for c, v in values))))

    def compared(self, df: DataFrame) -> Column:
        """Rows that an earlier step marked stay out of the competition."""
        compared = is_kept()
        if self.nulls == "distinct":
            kinds = dict(df.dtypes)
            for column, value in zip(self.columns, self.values(df), strict=True):
                compared = compared & F.col(quoted(column)).isNotNull()
                if kinds[column] in ("string", "binary"):
                    compared = compared & (value.rlike(SHOWN) if kinds[column] == "string" else F.length(value) > 0)
        return compared

    def marked(
        self, df: DataFrame, known: DataFrame | None, step: str = "", reason: str = "exact_duplicate"
    ) -> DataFrame:
        data = [c for c, kind in df.dtypes if not is_own(c) and "map<" not in kind and "variant" not in kind]
        files = [FILE] if FILE in df.columns else []
        content = F.xxhash64(*(F.col(quoted(c)) for c in data))
        ties = [F.col(ROW_ID), *map(F.col, files), content]
        compared = self.compared(df)
        # A row that is not compared competes with itself alone.
        alone = F.when(~compared, F.concat_ws("/", F.col(ROW_ID), content.cast("string")))
        copies = W.partitionBy(*self.values(df), alone)
        ranked = copies.orderBy(*ordering(order_of(self.keep)), *ties).rowsBetween(W.unboundedPreceding, W.currentRow)
        kept = {
            "kept_row_id": F.first(ROW_ID).over(ranked),
            **({"kept_file": F.first(FILE).over(ranked)} if files else {}),
        }
        df = df.withColumns({"_hg_rank": F.row_number().over(ranked), **{f"_hg_{n}": c for n, c in kept.items()}})
        repeats = (F.col("_hg_rank") > 1) & compared
        evidence = {n: F.col(f"_hg_{n}") for n in kept}
        extra = ["_hg_rank", *(f"_hg_{n}" for n in kept)]
        if known is not None:
            before = known.select("_hg_key", *(F.col(c).alias(f"_hg_before{c}") for c in (ROW_ID, *files)))
            df = df.withColumn("_hg_key", F.when(compared, self.key(df))).join(before, on="_hg_key", how="left")
            there = F.col(f"_hg_before{ROW_ID}").isNotNull()
            repeats = repeats | there
            columns = zip(kept, (ROW_ID, *files), strict=True)
            evidence = {n: F.when(there, F.col(f"_hg_before{c}")).otherwise(F.col(f"_hg_{n}")) for n, c in columns}
            extra += ["_hg_key", *(f"_hg_before{c}" for c in (ROW_ID, *files))]
        if named := ", ".join(c for c in self.columns if not is_own(c)):
            evidence = {"columns": F.lit(named), **evidence}
        again = Rejection(repeats, reason, evidence)
        return reject(df, step or self.id, again).drop(*extra)
