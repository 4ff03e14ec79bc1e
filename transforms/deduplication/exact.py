"""Exact duplicates by columns, as they stand or by what is left of their text."""

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.batches import by_batches
from headgate.transforms.deduplication.forms import Ignored, compatible, without_accents
from headgate.transforms.deduplication.keep import has_order, need_order, order_of, ordering
from headgate.transforms.rows import FILE, ROW_ID, Rejection, canonical, content_hash, is_kept, is_own, quoted, reject
from headgate.transforms.step import Columns, Context, Step, require_columns

KEYS = "keys"
MANY = 10_000_000  # rows of a build from which on crowded keys are looked for: with one, it costs half as much again
STAYS = "_hg_stays"
CROWD, DRAWN = 500_000, 64  # a key is crowded from about so many records on; one in so many is looked at
SHOWN = r"(?U)[^\s\p{Cf}\p{Cc}]"  # a character that is seen


@dataclass(frozen=True, kw_only=True)
class DropDuplicates(Step):
    """Keep one of the rows that are equal in some columns and mark the others.

    columns: rows equal in all of these are duplicates; NaN equals NaN, and a map one with the same entries.
    ignore: what of a text makes no difference: `case`, `accents`, `spaces` (runs of white space count as one, those at
        the ends not at all), `unicode` (the forms that Unicode holds for compatible, by NFKC, and what shows nothing),
        `punctuation` (with symbols).
    nulls: `distinct` (default) compares no row in which one of `columns` is null, or a text that is blank or of which
        `ignore` leaves nothing; `equal` takes these for values like others.
    keep: which copy stays, as an ORDER BY list: `arr_time desc, _file`; a name with spaces or commas stands in
        backquotes. Nulls and NaN come last. Ties fall to the smaller `_row_id`, file and hash of the content, so that
        no order of the input matters. In a table that grows by increments, rows of earlier builds stay; new rows find
        them by an MD5 (128 bits) of the compared values.
    Evidence: the kept row's id and file. Cost: one shuffle of the rows by key, and from 10,000,000 rows on a look at
    the keys of one in 64; rows of a key that some 500,000 records share are spread, and read once more. `unicode` and
    `accents` add an Arrow round trip of the columns, an increment a scan of the keys of the rows before.
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
        need_order(order_of(self.keep), have)
        return have

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        marked = self.marked(df, context.recorded(KEYS), crowds=self.crowds(df, context))
        if context.lasting:
            known = [ROW_ID, *files_of(df)]
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
        kinds = {f.name: f.dataType for f in df.schema.fields}
        return [self.without(F.col(quoted(c)), kinds[c]) for c in self.columns]

    def without(self, value: Column, kind: T.DataType) -> Column:
        """A value without what makes no difference; as text where Spark cannot compare it, as maps."""
        if not has_order(kind.simpleString()):
            return canonical(value, kind)
        if kind.simpleString() != "string":
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
        kinds = [df.schema[c].dataType for c in self.columns]
        texts = [k if has_order(k.simpleString()) else T.StringType() for k in kinds]
        values = zip(self.values(df), texts, strict=True)
        return F.unhex(F.md5(F.concat(*(canonical(v, kind) for v, kind in values))))

    def compared(self, df: DataFrame) -> Column:
        """Rows that an earlier step marked stay out of the competition."""
        return is_kept() & self.comparable(df)

    def comparable(self, df: DataFrame) -> Column:
        """Return whether a row has what is compared."""
        compared = F.lit(True)
        if self.nulls == "distinct":
            kinds = dict(df.dtypes)
            for column, value in zip(self.columns, self.values(df), strict=True):
                compared = compared & F.col(quoted(column)).isNotNull()
                if kinds[column] in ("string", "binary"):
                    compared = compared & (value.rlike(SHOWN) if kinds[column] == "string" else F.length(value) > 0)
        return compared

    def crowds(self, df: DataFrame, context: Context) -> DataFrame | None:
        """Return the keys that very many records share, each with the row that stays; None where there are none.

        A sample tells which they are: it decides where rows are compared, and nothing of what comes out.
        """
        if (context.rows_in or 0) < MANY:
            return None
        names = [f"_hg_crowd{i}" for i in range(len(self.columns))]
        # Marked rows too: so nothing is done for it that marked them.
        drawn = df.where(F.pmod(F.xxhash64(ROW_ID), F.lit(DRAWN)) == 0).where(self.comparable(df))
        sizes = drawn.groupBy(*map(Column.alias, self.values(df), names)).agg(F.count("*").alias("_hg_n"))
        crowded = sizes.where(F.col("_hg_n") >= CROWD // DRAWN).select(names)
        if not crowded.count():
            return None
        crowded = context.keep(crowded, "crowded")
        first = W.partitionBy(*names).orderBy(*ordering(order_of(self.keep), df), ROW_ID, *files_of(df))
        rows = df.where(self.compared(df)).join(F.broadcast(crowded), on=self.matches(df, names), how="inner")
        # Spark leaves one row of each key in each task before it shuffles, and reads no other columns.
        firsts = rows.withColumn("_hg_rank", F.row_number().over(first)).where("_hg_rank = 1")
        stays = (F.col(c).alias(STAYS + c) for c in (ROW_ID, *files_of(df)))
        return context.keep(firsts.select(*names, *stays), "crowds")

    def matches(self, df: DataFrame, names: Iterable[str]) -> Column:
        """Return whether a row has the values that stand in other columns."""
        pairs = zip(self.values(df), names, strict=True)
        return functools.reduce(operator.and_, (value.eqNullSafe(F.col(name)) for value, name in pairs))

    def marked(
        self,
        df: DataFrame,
        known: DataFrame | None,
        step: str = "",
        reason: str = "exact_duplicate",
        crowds: DataFrame | None = None,
    ) -> DataFrame:
        data = [c for c, kind in df.dtypes if not is_own(c) and "variant" not in kind]
        files = files_of(df)
        content = content_hash(df, data)
        ties = [F.col(ROW_ID), *map(F.col, files), content]
        compared = self.compared(df)
        # A row that is not compared competes with itself alone.
        alone = F.when(~compared, F.concat_ws("/", F.col(ROW_ID), content.cast("string")))
        if crowds is not None:
            # One of a crowded key competes with those of its own id: which id of the key stays is known.
            keys = [c for c in crowds.columns if not c.startswith(STAYS)]
            df = df.join(F.broadcast(crowds), on=compared & self.matches(df, keys), how="left")
            alone = alone.when(F.col(STAYS + ROW_ID).isNotNull(), F.concat(F.lit("="), ROW_ID))
        copies = W.partitionBy(*self.values(df), alone)
        ranked = copies.orderBy(*ordering(order_of(self.keep), df), *ties).rowsBetween(
            W.unboundedPreceding, W.currentRow
        )
        kept = {
            "kept_row_id": F.first(ROW_ID).over(ranked),
            **({"kept_file": F.first(FILE).over(ranked)} if files else {}),
        }
        df = df.withColumns({"_hg_rank": F.row_number().over(ranked), **{f"_hg_{n}": c for n, c in kept.items()}})
        repeats = (F.col("_hg_rank") > 1) & compared
        evidence = {n: F.col(f"_hg_{n}") for n in kept}
        extra = ["_hg_rank", *(f"_hg_{n}" for n in kept)]
        if crowds is not None:
            crowded = F.col(STAYS + ROW_ID).isNotNull()
            repeats = repeats | (crowded & (F.col(ROW_ID) != F.col(STAYS + ROW_ID)))
            stays = zip(kept, (ROW_ID, *files), strict=True)
            evidence = {n: F.when(crowded, F.col(STAYS + c)).otherwise(evidence[n]) for n, c in stays}
            extra += crowds.columns
        if known is not None:
            before = known.select("_hg_key", *(F.col(c).alias(f"_hg_before{c}") for c in (ROW_ID, *files)))
            df = df.withColumn("_hg_key", F.when(compared, self.key(df))).join(before, on="_hg_key", how="left")
            there = F.col(f"_hg_before{ROW_ID}").isNotNull()
            repeats = repeats | there
            columns = zip(kept, (ROW_ID, *files), strict=True)
            evidence = {n: F.when(there, F.col(f"_hg_before{c}")).otherwise(evidence[n]) for n, c in columns}
            extra += ["_hg_key", *(f"_hg_before{c}" for c in (ROW_ID, *files))]
        if named := ", ".join(c for c in self.columns if not is_own(c)):
            evidence = {"columns": F.lit(named), **evidence}
        again = Rejection(repeats, reason, evidence)
        return reject(df, step or self.id, again).drop(*extra)


def files_of(df: DataFrame) -> list[str]:
    return [FILE] if FILE in df.columns else []
