"""Keyed joins with other tables of the pipeline."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import TIMES
from headgate.transforms.rows import JOINED, JOINED_TYPE, ROW_ID, quoted
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns
from headgate.words import cell, did_you_mean


@dataclass(frozen=True, kw_only=True)
class JoinTable(Step):
    """Look up columns of another table by a key that is unique there (a left join: no row is lost or doubled).

    table: the other table of the pipeline.
    on: column here -> key column there, of the same type; whole numbers of different widths are compared too, and
        decimals. Other types raise `StepError`: Spark would make 7 and '007' equal, or two numbers beyond 2^53.
    columns: new column here -> column there. Keys and columns may be `_row_id` too, here and there.
    matched: name of an added boolean column that says whether the key was found; a suite gates the match rate by it.
    The joined row's id and the columns that it brought are added to `_joined`. A null in the key matches nothing. A key
    that occurs twice in the other table raises `StepError` naming it; rows there with a null in the key are left out.
    Cost: a shuffle of both sides by key, or none where the other table is small enough to be broadcast; and one
    aggregate over the other table's key.
    """

    name: ClassVar[str] = "join_table"
    table: str
    on: Mapping[str, str]
    columns: Mapping[str, str]
    matched: str

    def tables(self) -> tuple[str, ...]:
        return (self.table,)

    def keys_of(self, table: str) -> Mapping[str, str]:
        return self.on

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        have_here = {ROW_ID: "string", **have}
        require_columns(self.on, have_here)
        if self.table not in tables:
            raise StepError(f"there is no table '{self.table}' to join{did_you_mean(self.table, tables)}")
        try:
            other = {ROW_ID: "string", **tables[self.table]}
            require_columns([*self.on.values(), *self.columns.values()], other)
        except StepError as e:
            raise StepError(f"table '{self.table}': {e}") from e
        taken = {c.lower() for c in have} & {c.lower() for c in (*self.columns, self.matched)}
        if taken:
            raise StepError(f"the column '{min(taken)}' is there already; give the joined one another name")
        for here, there in self.on.items():
            mine, theirs = have_here[here], other[there]
            if mine is not None and theirs is not None and not comparable(mine, theirs):
                raise StepError(
                    f"'{here}' is {mine.lower()} and '{there}' of table '{self.table}' is {theirs.lower()}: keys of "
                    "different types would match by chance. Put a cast before"
                )
        return {**have, **{new: other[there] for new, there in self.columns.items()}, self.matched: "boolean"}

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        if context.is_unique(self.table, tuple(self.on.values())):
            return
        other = context.table(self.table)
        names = [f"_hg_k{i}" for i in range(len(self.on))]
        keys = other.select(*(F.col(quoted(c)).alias(n) for c, n in zip(self.on.values(), names, strict=True)))
        repeated = keys.dropna().groupBy(*names).agg(F.count(F.lit(1)).alias("_hg_rows")).where("_hg_rows > 1")
        # As text, for a time that Python reads would be one of the machine's zone.
        example = repeated.orderBy(*names).select(*(F.col(n).cast("string") for n in names), "_hg_rows").first()
        if example is not None:
            key = ", ".join(f"{c}={cell(v)}" for c, v in zip(self.on.values(), example, strict=False))
            raise StepError(
                f"table '{self.table}' has {example['_hg_rows']} rows with {key}: the key of a join must be unique "
                "there. Put drop_duplicates before, or join on more columns"
            )

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        other = context.table(self.table)
        keys = {f"_hg_k{i}": there for i, there in enumerate(self.on.values())}
        values = {f"_hg_v{i}": there for i, there in enumerate(self.columns.values())}
        looked_up = other.select(
            *(F.col(quoted(there)).alias(new) for new, there in (keys | values).items()),
            F.lit(True).alias("_hg_found"),
            (F.col(ROW_ID) if ROW_ID in other.columns else F.lit(None).cast("string")).alias("_hg_id"),
        )
        matches = F.lit(True)
        for i, here in enumerate(self.on):
            matches = matches & (F.col(f"_hg_here.{quoted(here)}") == F.col(f"_hg_there._hg_k{i}"))
        return (
            df.alias("_hg_here")
            .join(looked_up.alias("_hg_there"), on=matches, how="left")
            .select(
                *(F.col(f"_hg_here.{quoted(c)}").alias(c) for c in df.columns if c != JOINED),
                *(F.col(f"_hg_there._hg_v{i}").alias(new) for i, new in enumerate(self.columns)),
                F.coalesce(F.col("_hg_there._hg_found"), F.lit(False)).alias(self.matched),
                joined_to(df, f"_hg_here.{JOINED}", self.table, F.col("_hg_there._hg_id"), self.columns).alias(JOINED),
            )
        )


def joined_to(df: DataFrame, before: str, table: str, row_id: Column, columns: Iterable[str]) -> Column:
    """Return the rows of other tables that were joined so far (column `before`), and the one that is joined here."""
    so_far = F.col(before) if JOINED in df.columns else F.array().cast(JOINED_TYPE)
    brought = F.array(*map(F.lit, columns)).cast("array<string>")
    this = F.struct(F.lit(table).alias("table"), row_id.alias("row_id"), brought.alias("columns"))
    return F.concat(so_far, F.when(row_id.isNotNull(), F.array(this)).otherwise(F.array().cast(JOINED_TYPE)))


def comparable(mine: str, theirs: str) -> bool:
    """Return whether equal keys of two types are equal values: one type, or whole numbers or decimals of two widths."""
    return family(mine) == family(theirs)


def family(kind: str) -> str:
    """A type of DDL without its width."""
    plain = re.sub(r"\s+", "", kind.lower())
    word = plain.split("(")[0]
    whole = ("tinyint", "smallint", "int", "bigint", "byte", "short", "integer", "long")
    names = dict.fromkeys(whole, "whole number") | {"varchar": "string", "char": "string", "real": "float"}
    names |= dict.fromkeys(("decimal", "dec", "numeric"), "decimal") | dict.fromkeys(TIMES, "timestamp")
    return names.get(word, plain)
