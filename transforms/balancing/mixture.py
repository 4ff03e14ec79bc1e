"""Mixtures of sources to a budget of rows, characters, bytes or tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.draws import (
    Order,
    edges_of,
    keys_of,
    keys_of_values,
    measured,
    need_known,
    shown,
    stratum_of,
)
from headgate.transforms.balancing.resample import Draw, ResampleStrata, fitted_draw
from headgate.transforms.balancing.targets import Target, Wish, check_targets, check_wish, wanted_of
from headgate.transforms.kinds import is_text, known_kinds, need_kinds, scale_of
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Context, Estimator, StepError, require_columns, with_new
from headgate.words import cell, few_of, read_value

NEAR = 0.005  # of what was asked of a source: beyond it, a warning says so


@dataclass(frozen=True, kw_only=True)
class MixSources(Estimator):
    """Draw the training rows of several sources in given shares of a budget: a mixture of a corpus.

    by: the columns that tell the sources: domain, language, a bin of a quality score.
    bins: numeric columns of `by` whose ranges are sources, as in `sample_strata`.
    shares: source -> share of the budget, for one column `by`; they add up to 1. `(null)` is the source of rows without
        a value, `\\(null)` that of the text.
    targets: the same for several columns: each {values: [en, web], share: 0.3}, with `least` and `most` of its own.
    temperature: without shares, sources have shares in proportion to (their units)^(1/temperature): 1 (default) are the
        natural ones, larger ones even them out.
    budget: units of all sources together; without it, as many as the shares allow. Needed without shares.
    unit: what is counted: `rows` (default); `characters` or `bytes` (of UTF-8) of the text `column`; `tokens`, which
        the whole-number `column` holds (see `count_tokens`).
    column: see `unit`. A null text has no characters; a null or negative number of tokens is an error.
    epochs: how often a row may be taken at most (1); 1.5 is the half of them twice. A source that reaches it passes on
        what it cannot give to the others, and a warning says so.
    least: units that every source gets, as far as its epochs reach (0).
    others: sources without a share: `refuse` (default) is an error, `drop` takes none of their rows, `keep` leaves them
        as they are, beside the budget.
    number: a new column with the number of the epoch that a row is of, from 0.
    seed: another seed draws other rows.
    Whole epochs are taken whole; of what is left, the rows of the smallest hashes, up to where the source's units are
    nearest to its target: so it is off by half a row at most, and a warning says where that is more than .5 %. The
    same in any partitioning; with a larger budget a source draws a superset, but for a row where rounding gives it one
    less. Rows with one row id are taken together. Further epochs are new rows that name their parent. What share each
    of up to 1,000 sources has, beside what was asked for, is a figure of the build that draws: in its summary, and in
    the table `metrics`.
    Cost: two passes over the sources and the column to fit, one to apply. Source: temperatures as in Conneau et al.
    2020 (XLM-R); epochs as in Raffel et al. 2020 (T5).
    """

    name: ClassVar[str] = "mix_sources"
    revision: ClassVar[int] = 2
    by: tuple[str, ...]
    bins: Mapping[str, int | tuple[float, ...]] | None = None
    shares: Mapping[str, float] | None = None
    targets: tuple[Target, ...] = ()
    temperature: float = 1.0
    budget: int | None = None
    unit: Literal["rows", "characters", "bytes", "tokens"] = "rows"
    column: str | None = None
    epochs: float = 1.0
    least: int = 0
    others: Literal["refuse", "drop", "keep"] = "refuse"
    number: str | None = None
    seed: int = 0

    @property
    def asked(self) -> tuple[Target, ...]:
        """Return the shares as targets."""
        shares = (self.shares or {}).items()
        return self.targets or tuple(Target(values=(read_value(s),), share=share) for s, share in shares)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *([self.column] if self.column else [])], have)
        require_columns(self.bins or (), self.by)
        if not self.by or (self.shares is not None and len(self.by) > 1):
            raise StepError("by: name at least one column; with several, give `targets` in place of `shares`")
        if self.shares is not None and (self.targets or not self.shares):
            raise StepError("give shares or targets, with at least one source")
        check_targets(self.asked, self.by, True, "shares" if self.shares else "targets")
        if not self.asked and self.budget is None:
            raise StepError("budget: needed where no shares are given")
        if (self.unit == "rows") != (self.column is None):
            raise StepError(f"column: {'leave it out for' if self.column else 'needed for'} unit {self.unit}")
        check_wish(self.wish(None), self.epochs)
        need_kinds(have, self.name, self.bins or (), numbers=True)
        for column, kind in known_kinds(have, [self.column] if self.column else []):
            right = scale_of(kind) == 0 if self.unit == "tokens" else is_text(kind)
            if not right and not (self.unit == "bytes" and kind == "binary"):
                wanted = "a whole number" if self.unit == "tokens" else "a text"
                raise StepError(f"column: '{column}' is {kind}, not {wanted}")
        return with_new(have, {self.number: "int"}) if self.number else have

    def learns_from(self) -> tuple[str, ...]:
        return self.by

    def wish(self, targets: Mapping[str, Target] | None) -> Wish:
        return Wish(total=self.budget, temperature=self.temperature, least=self.least, targets=targets)

    def amount(self) -> Column:
        if self.column is None:
            return F.lit(1)
        value = F.col(quoted(self.column))
        if self.unit == "tokens":
            return value
        return F.coalesce(F.length(value) if self.unit == "characters" else F.octet_length(value), F.lit(0))

    def fit(self, df: DataFrame, context: Context) -> ResampleStrata:
        edges = edges_of(df, self.bins or {})
        order = Order(seed=self.seed)
        keys = keys_of(df, stratum_of(df, self.by, edges), order, self.amount())
        if self.unit == "tokens":
            bad = keys.where("amount is null or amount < 0").count()
            if bad:
                raise StepError(f"column: '{self.column}' is null or negative in {bad:,} training rows")
        found = measured(keys, self.by)
        named, left, dropped = None, dict(found.sizes), []
        if self.asked:
            names = keys_of_values(df, self.by, edges, [t.values for t in self.asked])
            need_known([n for n, t in zip(names, self.asked, strict=True) if t.share], found.sizes, "shares")
            named = {n: t for n, t in zip(names, self.asked, strict=True) if n in found.sizes}
            unnamed = [s for s in sorted(left) if s not in named]
            if unnamed and self.others == "refuse":
                raise StepError(
                    f"no share for {few_of([*map(shown, unnamed)])}; add them, or say `others: drop` or `others: keep`"
                )
            dropped = unnamed if self.others == "drop" else []
            left = {s: n for s, n in left.items() if s in named}
        targets = wanted_of(self.wish(named), left, self.epochs)
        self.warn_of_caps(context, named, left, targets)
        pools = {s: s for s in [*left, *dropped]}
        draw = Draw(
            by=self.by,
            edges=edges,
            order=order,
            keys=keys,
            found=found,
            pools=pools,
            targets=targets | dict.fromkeys(dropped, 0),
            asked=self.shares_of(named, targets),
            number=self.number,
            near=NEAR,
            unit=self.unit,
        )
        return fitted_draw(draw, context)

    def shares_of(self, named: Mapping[str, Target] | None, targets: Mapping[str, int]) -> dict[str, float]:
        """Return the share that was asked for of each source; without shares, that by its size and temperature."""
        total = sum(targets.values()) or 1
        return {s: float((named[s].share or 0.0) if named else n / total) for s, n in sorted(targets.items())}

    def warn_of_caps(
        self, context: Context, named: Mapping[str, Target] | None, sizes: Mapping[str, int], targets: Mapping[str, int]
    ) -> None:
        """Warn of sources that give less than their share, and of a budget that is not reached."""
        total = sum(targets.values())
        if self.budget is not None and total < self.budget:
            context.warn(f"the budget is {self.budget:,} {self.unit}; within their epochs the sources give {total:,}")
        goal = self.budget if self.budget is not None else total
        for stratum, target in (named or {}).items():
            asked = float(Decimal(str(target.share)) * goal)
            cap = math.floor(Decimal(str(self.epochs)) * sizes[stratum])
            if targets[stratum] == cap < asked * (1 - NEAR):
                wished = f"{asked:,.0f} {self.unit} were asked for"
                context.warn(f"{cell(shown(stratum))}: {wished}; {self.epochs:g} epochs give {cap:,}")
