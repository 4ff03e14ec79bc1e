"""Exact stratified resampling by hash thresholds."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame

from headgate.transforms.balancing.draws import (
    MOST_STRATA,
    Order,
    Sizes,
    edges_of,
    keys_of,
    keys_of_values,
    measured,
    need_known,
    shown,
    stratum_of,
)
from headgate.transforms.balancing.resample import Draw, ResampleStrata, fitted_draw, in_pools
from headgate.transforms.balancing.targets import Target, Wish, check_targets, check_wish, wanted_of
from headgate.transforms.kinds import is_plain, need_kinds, scale_of
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Context, Estimator, StepError, require_columns, with_new
from headgate.words import cell, few_of

SMALL = "small strata"  # what those that are merged are drawn as


@dataclass(frozen=True, kw_only=True)
class SampleStrata(Estimator):
    """Bring each stratum of the training split to an exact number of rows.

    by: the columns whose distinct tuples are the strata; a null counts as a value, and so does NaN; 0.0 is -0.0. Of a
        list of labels the set counts: a row is of the stratum of all its labels together, in any order.
    bins: numeric columns of `by` whose strata are ranges, column -> number of quantile bins, or their edges, as
        [18, 65]. Bins are numbered from 1, each from its edge on; NaN is bin 0. Equal quantiles make one edge.
    rows: target rows of every stratum; or
    equal: true for as many rows in each, by default as the largest has, or the smallest can give by `max_copies`; or
    total: target rows of all strata together, spread in proportion to (rows of the stratum)^(1/temperature); or
    share: the same, as a share of the training rows (rounded down).
    targets: targets of single strata, each {values: [en, web], rows: 100} or {values: [en, web], share: 0.3}, with
        `least` and `most` of its own; shares are of `total`, or of as much as they allow.
    target_table: a table with the columns `by` and a column `rows` or `share`, in place of `targets`.
    others: strata that no target names: `refuse` (default) is an error, `drop` takes none of their rows, `keep` leaves
        them as they are.
    temperature: 1 (default) keeps the natural shares, larger evens them out.
    least, most: bounds of every stratum's rows; what a bound takes or leaves is spread again over the others.
    max_copies: how often a row may be taken at most (1: only leave rows out). Strata that reach it pass what they
        cannot take on to the others (`total`, `share`), or stay smaller; then a warning names them, or the total that
        is reached.
    min_rows: strata of fewer training rows are small (0), for which
    small: says what happens: `keep` (default) leaves them as they are, `drop` takes none, `merge` draws from all of
        them as from one stratum, `refuse` is an error.
    weight: a numeric column by which rows are drawn, in proportion, without replacement; rows whose weight is null,
        NaN, infinite or not above 0 are never taken, and a warning counts them.
    replacement: true to draw with replacement, a row at most `max_copies` times (above 1), each draw alone; false
        (default) takes all rows equally often, but for one.
    number: a new column with the number of a row's copy, 0 for the row itself.
    seed: another seed draws other rows.
    Which rows are drawn is decided by a hash of the row id, so it is the same in any partitioning, and a larger target
    of a stratum draws a superset. Rows with one row id are told apart by their content, and those that are equal in
    that too are counted. The place of the step enters the row ids of copies, so that no two steps make the same one.
    Cost: to fit, one pass over the columns `by` for their counts, and one over these and the row ids, which sorts the
    rows near the cuts alone. With `weight` or `replacement` both are over all of these (a histogram of the orders per
    stratum, then the exact cut inside one bin); with more than some 5,000 strata they are three then, and a sort of the
    keys, of which replacement has `max_copies` for each row. Where a cut falls between rows with one row id, one pass
    more over these alone. One pass to apply, with a shuffle if rows at a cut are equal in everything. Sizes and targets
    of the strata, at most 1,000,000, come to the driver.
    Source: Efraimidis and Spirakis 2006 (weights).
    """

    name: ClassVar[str] = "sample_strata"
    revision: ClassVar[int] = 3
    by: tuple[str, ...]
    bins: Mapping[str, int | tuple[float, ...]] | None = None
    rows: int | None = None
    equal: bool = False
    total: int | None = None
    share: float | None = None
    targets: tuple[Target, ...] = ()
    target_table: str | None = None
    others: Literal["refuse", "drop", "keep"] = "refuse"
    temperature: float = 1.0
    least: int = 0
    most: int | None = None
    max_copies: int = 1
    min_rows: int = 0
    small: Literal["keep", "drop", "merge", "refuse"] = "keep"
    weight: str | None = None
    replacement: bool = False
    number: str | None = None
    seed: int = 0

    def tables(self) -> tuple[str, ...]:
        return (self.target_table,) if self.target_table else ()

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *([self.weight] if self.weight else [])], have)
        if not self.by:
            raise StepError("by: name at least one column")
        given = {"rows": self.rows is not None, "equal": self.equal, "total": self.total is not None}
        given |= {"share": self.share is not None, "targets": bool(self.targets), "target_table": bool(self.tables())}
        chosen = {name for name, there in given.items() if there}
        together = ({"equal", "total"}, {"equal", "share"}, {"targets", "total"}, {"target_table", "total"})
        if len(chosen) != 1 and chosen not in together:
            raise StepError(
                "give exactly one of rows, equal, total, share, targets and target_table (total and share also go "
                f"with equal, total with shares of targets), not {', '.join(sorted(chosen)) or 'none of them'}"
            )
        check_targets(self.targets, self.by)
        if self.total is not None and any(t.rows is not None for t in self.targets):
            raise StepError("total: the targets give rows, which add up to the total; leave it out")
        check_wish(self.wish(None), self.max_copies)
        if self.max_copies < 1 or self.min_rows < 0:
            raise StepError("max_copies must be at least 1, and min_rows at least 0")
        if self.replacement and self.max_copies < 2:
            raise StepError("replacement: give max_copies, above 1: how often a row may be drawn")
        require_columns(self.bins or (), self.by)
        for column, bins in (self.bins or {}).items():
            edges = [] if isinstance(bins, int) else list(bins)
            if (
                (isinstance(bins, int) and bins < 2)
                or edges != sorted(set(edges))
                or not all(map(math.isfinite, edges))
            ):
                raise StepError(f"bins: '{column}' needs a number of at least 2, or edges that grow")
        if self.target_table and self.target_table in tables:
            there = tables[self.target_table]
            require_columns(self.by, there)
            if ("rows" in there) == ("share" in there):
                raise StepError(f"target_table: '{self.target_table}' needs a column `rows` or `share`, one of them")
        need_kinds(have, self.name, [*(self.bins or ()), *([self.weight] if self.weight else [])], numbers=True)
        return with_new(have, {self.number: "int"}) if self.number else have

    def learns_from(self) -> tuple[str, ...]:
        return (*self.by, *([self.weight] if self.weight else []))

    def wish(self, targets: Mapping[str, Target] | None) -> Wish:
        return Wish(
            rows=self.rows,
            equal=self.equal,
            total=self.total,
            of_all=self.share,
            temperature=self.temperature,
            least=self.least,
            most=self.most,
            targets=targets,
        )

    def fit(self, df: DataFrame, context: Context) -> ResampleStrata:
        edges = edges_of(df, self.bins or {})
        order = Order(seed=self.seed, weight=self.weight, times=self.max_copies if self.replacement else 0)
        keys = keys_of(df, stratum_of(df, self.by, edges), order)
        alone = order.is_plain and not edges and all(is_plain(dict(df.dtypes)[c]) for c in self.by)
        found = measured(keys, self.by, df if alone else None)
        undrawn = {s: n - found.sizes[s] for s, n in found.rows.items()}
        if any(undrawn.values()):
            context.warn(
                f"{sum(undrawn.values()):,} training rows have no '{self.weight}' above 0, and are never taken"
            )
        if order.times:  # a row is there once for each time that it may be drawn
            rows = {s: n // order.times + undrawn[s] for s, n in found.sizes.items()}
            found = dataclasses.replace(found, rows=rows)
        pools, targets = self.planned(df, context, edges, found)
        draw = Draw(
            by=self.by,
            edges=edges,
            order=order,
            keys=keys,
            found=found,
            pools=pools,
            targets=targets,
            number=self.number,
        )
        return fitted_draw(draw, context)

    def planned(
        self, df: DataFrame, context: Context, edges: Mapping[str, list[float]], found: Sizes
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Return what each stratum is drawn with, without those that stay as they are, and the target of each pool."""
        small = [s for s, n in sorted(found.rows.items()) if n < self.min_rows]
        if small and self.small == "refuse":
            raise StepError(f"fewer than {self.min_rows:,} training rows (min_rows): {few_of([*map(shown, small)])}")
        named = self.named(df, context, edges, found)
        left = {s: n for s, n in found.sizes.items() if s not in small}
        dropped = [] if self.small == "keep" else small
        if named is not None:
            unnamed = [s for s in sorted(left) if s not in named]
            if unnamed and self.others == "refuse":
                raise StepError(
                    f"no target for {few_of([*map(shown, unnamed)])}; add them, or say `others: drop` or `others: keep`"
                )
            dropped = [*dropped, *(unnamed if self.others == "drop" else ())]
            left = {s: n for s, n in left.items() if s in named}
        pools = {s: s for s in left}
        if self.small == "merge" and small and named is None:
            pools |= dict.fromkeys(small, SMALL)
            dropped = [s for s in dropped if s not in small]
        elif self.small == "merge" and small:
            raise StepError("small: merge cannot be combined with targets of single strata")
        drawn = {s: n // (self.max_copies if self.replacement else 1) for s, n in found.sizes.items()}
        targets = wanted_of(self.wish(named), in_pools(drawn, pools), self.max_copies)
        short = [p for p, n in targets.items() if n < self.asked(named, p)]
        if short:
            context.warn(f"fewer rows than asked for, as copies do not reach: {few_of([*map(shown, sorted(short))])}")
        reached = sum(targets.values())
        if self.total is not None and reached < self.total:
            given = f"the strata give {reached:,} (max_copies: {self.max_copies})"
            context.warn(f"total: {self.total:,} rows were asked for; {given}")
        pools |= {s: s for s in dropped}
        return pools, targets | dict.fromkeys(dropped, 0)

    def asked(self, named: Mapping[str, Target] | None, pool: str) -> int:
        """Return the rows that were asked for of one stratum alone."""
        asked = named[pool].rows if named and pool in named else self.rows
        return asked if asked is not None and self.most is None else 0

    def named(
        self, df: DataFrame, context: Context, edges: Mapping[str, list[float]], found: Sizes
    ) -> dict[str, Target] | None:
        """Return the targets of single strata by their keys; None where all strata are asked for alike."""
        if self.targets:
            keys = keys_of_values(df, self.by, edges, [t.values for t in self.targets])
            need_known(keys, found.sizes, "targets")
            return dict(zip(keys, self.targets, strict=True))
        return self.from_table(df, context.table(self.target_table), found) if self.target_table else None

    def from_table(self, df: DataFrame, table: DataFrame, found: Sizes) -> dict[str, Target]:
        here, there = dict(df.dtypes), dict(table.dtypes)
        kind = "rows" if "rows" in there else "share"
        for column in self.by:
            if column in (self.bins or {}):
                raise StepError(f"target_table: '{column}' is in bins; name its bins in `targets`")
            if here[column] != there[column]:
                name = self.target_table
                raise StepError(f"target_table: '{column}' is {there[column]} in '{name}' and {here[column]} here")
        if kind == "rows" and scale_of(there[kind]) != 0:
            raise StepError(f"target_table: `rows` is {there[kind]}, not a whole number")
        chosen = table.select(stratum_of(table, self.by).alias("key"), quoted(kind)).limit(MOST_STRATA + 1)
        targets: dict[str, Target] = {}
        for key, number in chosen.collect():
            if key in targets or number is None:
                raise StepError(f"target_table: {cell(shown(key))} is there twice, or has no {kind}")
            rows, share = (int(number), None) if kind == "rows" else (None, float(number))
            targets[key] = Target(values=(key,), rows=rows, share=share)
        if kind == "share":
            check_targets([*targets.values()], ("key",))
        check_wish(Wish(targets=targets), self.max_copies)
        return {key: target for key, target in targets.items() if key in found.sizes}
