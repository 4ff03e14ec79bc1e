"""One column for each category of a column: one-hot encoding."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.rows import Rejection, is_own, quoted, reject
from headgate.transforms.scaling.categories import (
    count_categories,
    in_order,
    need_categories,
    require_categories,
    text_of,
)
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns
from headgate.words import cell

Unseen = Literal["zeros", "rare", "reject"]
MOST_COLUMNS = 2_000  # that one step makes
LONGEST = 60  # characters of a category in a name
MOST_RARE = 10_000  # rare categories that are told from unseen ones


@dataclass(frozen=True, kw_only=True)
class AddIndicators(Step):
    """Replace columns by one of 0 and 1 for each category: what `encode_one_hot` becomes.

    columns: column -> its categories, each {"value": text, "into": the new column}; a value of null stands for nulls, a
        category without a column is zeros in all.
    rare: column -> {"into": the new column of rare categories, "values": [these]}.
    kinds: column -> the type that it had, to which `headgate apply --inverse` brings it back.
    unseen, nulls: as in `encode_one_hot`. Cost: one pass.
    """

    name: ClassVar[str] = "add_indicators"
    columns: Mapping[str, tuple[Mapping[str, Any], ...]]
    kinds: Mapping[str, str]
    rare: Mapping[str, Mapping[str, Any]]
    unseen: Unseen = "zeros"

    def made(self, column: str) -> list[str]:
        """Return the columns that stand for one."""
        rare = [self.rare[column]["into"]] if column in self.rare else []
        return [*(entry["into"] for entry in self.columns[column] if entry["into"]), *rare]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        after: dict[str, str | None] = {}
        for name, kind in have.items():
            after |= dict.fromkeys(self.made(name), "int") if name in self.columns else {name: kind}
        need_categories(have, self.name, self.columns)
        return after

    def learned(self) -> bool:
        return any(self.columns.values()) or bool(self.rare)

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        cells: list[Column] = []
        kept = {c.lower() for c in df.columns if c not in self.columns}
        rejections = []
        for name in df.columns:
            if name not in self.columns:
                cells.append(F.col(quoted(name)))
                continue
            taken = next((c for c in self.made(name) if c.lower() in kept), None)
            if taken is not None:
                raise StepError(
                    f"'{name}' would make a column {cell(taken)}, which is there already; rename one of them"
                )
            text = text_of(name, kinds[name])
            values = [e["value"] for e in self.columns[name]]
            listed = text.isin(*(v for v in values if v is not None))
            known = F.coalesce(listed, F.lit(False))
            for entry in (e for e in self.columns[name] if e["into"]):
                is_it = text.isNull() if entry["value"] is None else text == F.lit(entry["value"])
                cells.append(F.coalesce(is_it, F.lit(False)).cast("int").alias(entry["into"]))
            others = F.lit(False)
            if name in self.rare:
                rare = F.coalesce(text.isin(*self.rare[name]["values"]), F.lit(False))
                others = text.isNotNull() & ~known if self.unseen == "rare" else rare
                cells.append(others.cast("int").alias(self.rare[name]["into"]))
            if self.unseen == "reject":
                evidence = {"column": F.lit(name), "value": F.col(quoted(name))}
                rejections.append(Rejection(text.isNotNull() & ~known & ~others, "unseen_category", evidence))
        return reject(df, self.id, *rejections).select(*cells) if rejections else df.select(*cells)

    def undone(self) -> Sequence[str]:
        return tuple(name for column in self.columns for name in self.made(column))

    def undo(self, df: DataFrame) -> DataFrame:
        values, gone = {}, set()
        for column, entries in self.columns.items():
            made = self.made(column)
            lacking = [c for c in made if c not in df.columns]
            if lacking == made:
                continue
            if lacking:
                raise StepError(f"'{column}' cannot be brought back without the column {cell(lacking[0])}")
            kind = self.kinds[column]
            told = [e for e in entries if e["into"]]
            hits = [F.when(F.col(quoted(e["into"])) == 1, F.lit(e["value"]).cast(kind)) for e in told]
            values[made[0]] = F.coalesce(*hits, F.lit(None).cast(kind)).alias(column)
            gone |= {*made}
        cells = [values.get(c, F.col(quoted(c))) for c in df.columns if c in values or c not in gone]
        return df.select(*cells)


@dataclass(frozen=True, kw_only=True)
class EncodeOneHot(Estimator):
    """Replace columns by one column of 0 and 1 for each category of the training rows.

    columns: columns of any plain type. The new columns, whole numbers, stand in their place, in the order of the
        categories (numbers by size, others as texts), and are named `<column>_<category>`, with `_` for what is neither
        letter nor digit; of equal names the later get `_2`, `_3` and so on.
    least: rows (or, below 1, share of the training rows) that a category must have for a column of its own; the others
        are rare and share the column `<column>_rare`.
    most: columns at most for each column (default: no limit): beyond it the rarest categories are rare, of equally
        frequent ones the later.
    unseen: what becomes of a value that no training row has: `zeros` (default) in all columns; `rare`: as a rare one,
        where there are such; `reject` marks the row with the value as evidence.
    nulls: whether null and NaN are a category of their own, `<column>_null`, if a training row has them (false: zeros).
    drop_first: whether the first category gets no column, as models without regularisation need; it is zeros then, and
        can no longer be told from what is unseen.
    More than 2,000 new columns are refused: encode_target serves columns of many categories. Not noted in `_changed`.
    Can be undone (`headgate apply --inverse`), but for rare and unseen values and with `drop_first`, which give null.
    Same numbers as scikit-learn's `OneHotEncoder`.
    Cost: one aggregate over all columns to fit, one pass to apply.
    """

    name: ClassVar[str] = "encode_one_hot"
    columns: tuple[str, ...]
    least: float = 1
    most: int | None = None
    unseen: Unseen = "zeros"
    nulls: bool = False
    drop_first: bool = False

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        require_categories(self.columns, have)
        if not self.least > 0 or not math.isfinite(self.least) or (self.most is not None and self.most < 2):
            raise StepError("least must be above 0, and most at least 2")
        need_categories(have, self.name, self.columns)
        return None

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, df: DataFrame, context: Context) -> AddIndicators:
        kinds = dict(df.dtypes)
        counted = count_categories(df, self.columns, self.name)
        taken: set[str] = set()
        made, rare = {}, {}
        for column in dict.fromkeys(self.columns):
            counts, kind = counted[column], kinds[column]
            known, few = self.kept(counts, kind)
            entries: list[dict[str, str | None]] = []
            for i, value in enumerate(known):
                bare = self.drop_first and i == 0
                entries.append({"value": value, "into": None if bare else new_name(column, value, taken)})
            if self.nulls and None in counts:
                entries.append({"value": None, "into": new_name(column, "null", taken)})
            made[column] = tuple(entries)
            if few:
                if len(few) > MOST_RARE and self.unseen != "rare":
                    raise StepError(
                        f"encode_one_hot: '{column}' has more than {MOST_RARE:,} rare categories, too many to tell "
                        "from unseen ones; write unseen: rare"
                    )
                values_of_rare = [] if self.unseen == "rare" else few
                rare[column] = {"into": new_name(column, "rare", taken), "values": values_of_rare}
        if len(taken) > MOST_COLUMNS:
            raise StepError(
                f"encode_one_hot: {', '.join(self.columns)} would make {len(taken):,} columns, more than "
                f"{MOST_COLUMNS:,}; set least or most, or use encode_target"
            )
        had = {c: kinds[c] for c in made}
        return AddIndicators(columns=made, kinds=had, rare=rare, unseen=self.unseen)

    def kept(self, counts: Mapping[str | None, int], kind: str) -> tuple[list[str], list[str]]:
        """Return the categories with columns of their own, and the rare ones."""
        texts = in_order((t for t in counts if t is not None), kind)
        least = self.least if self.least >= 1 else self.least * sum(counts.values())
        often = [t for t in texts if counts[t] >= least]
        if self.most is not None and len(often) + (len(often) < len(texts)) > self.most:
            first = sorted(often, key=lambda t: (-counts[t], texts.index(t)))[: self.most - 1]
            often = [t for t in often if t in set(first)]
        kept = set(often)
        return often, [t for t in texts if t not in kept]


def new_name(column: str, value: str, taken: set[str]) -> str:
    """Return the name of a category's column, which no other has in any case of its letters, and note it as taken."""
    slug = re.sub(r"\W+", "_", value)[:LONGEST]
    base = f"{column}_{slug or 'empty'}"
    name, number = base, 1
    while name.lower() in taken or is_own(name):
        number += 1
        name = f"{base}_{number}"
    taken.add(name.lower())
    return name
