"""A fill per column that is chosen by what errs least on known cells that were masked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.imputation.chain import fit_chain
from headgate.transforms.imputation.choice import MODELS, Masking, Method, choose, free_texts
from headgate.transforms.imputation.models import measure_of
from headgate.transforms.imputation.simple import FillMissing, ImputeMean, ImputeMedian, ImputeMode, ImputeStatistic
from headgate.transforms.imputation.trees import FillTrees, ImputeByTrees, sampled_table
from headgate.transforms.kinds import FLOATS, LARGEST, is_category, missing, need_kinds
from headgate.transforms.rows import quoted, with_columns
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class FillChosen(Step):
    """Fill each column by the method that was chosen for it: what `impute_auto` becomes.

    columns: those that were looked at. constants: fills by constants, of all rows or of groups, in their order, each
        with the options of `fill_missing`. modelled: columns that models fill. using, chain, blends: as in
        `fill_trees`. chosen: column -> methods with their weights. scores: what each method erred on masked cells,
        relative to mean or mode. missing: column -> training rows that lack it; rows: training rows.
    Cost: one pass, in Arrow batches where a model was chosen.
    """

    name: ClassVar[str] = "fill_chosen"
    columns: tuple[str, ...]
    constants: tuple[Mapping[str, Any], ...] = ()
    modelled: tuple[str, ...] = ()
    using: tuple[str, ...] = ()
    chain: Mapping[str, Any] | None = None
    blends: Mapping[str, Mapping[str, float]] | None = None
    chosen: Mapping[str, Mapping[str, float]] | None = None
    scores: tuple[Mapping[str, Any], ...] = ()
    missing: Mapping[str, int] | None = None
    rows: int = 0

    @property
    def steps(self) -> list[Step]:
        """Return the steps that fill: those by a model first, as they read what the others fill."""
        model = FillTrees(columns=self.modelled, using=self.using, chain=self.chain, blends=self.blends)
        return [*([model] if self.modelled else []), *(FillMissing(**c) for c in self.constants)]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.using], have)
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        for step in self.steps:
            step.check(df, context)

    def learned(self) -> bool:
        return any(step.learned() for step in self.steps)

    def apply(self, df: DataFrame) -> DataFrame:
        for step in self.steps:
            df = step.at(self.id).apply(df)
        return df


@dataclass(frozen=True, kw_only=True)
class ImputeAuto(ImputeByTrees):
    """Fill each column by what errs least on known cells that were masked: mean or mode, median, normal model, trees.

    columns: columns to fill: numbers, dates, times, booleans and texts.
    using: further columns of these types that help to tell.
    by: columns of groups, whose own mean or mode is tried as well.
    method: `auto` (default) tries all; `simple` (mean, mode), `median`, `group`, `gaussian` or `trees` is taken for
        each column that it can fill, the others get mean or mode, and the scores show how it does beside these.
    masking: `pattern` (default) gives a row the gaps of another one, which has at least its own: so columns that are
        missing together are masked together; `group` masks most where the groups of `by` lack most; `threshold` masks
        numbers above the median alone, as where large ones are kept back; `random` masks each column by itself, which
        flatters what reads the others.
    share: part of the known cells of a column that is masked (.1).
    rounds: how often the trees of a column are learned anew from what was filled before (2).
    sample: training rows on which methods are compared and fitted (5,000).
    seed: of masks and trees.
    A model is used only where it beats mean or mode on the masked cells beyond their noise (one standard error; half
    of one for texts and booleans). The
    models of a number are blended with its mean, with the weights that fit the masked cells best: what is unsure is
    drawn to the mean. Only columns that lack a cell in the training rows are modelled; another has mean or mode for
    cells that come later. A text with 50 values or more in the sample is left alone, and a warning says so. The scores
    of all methods are saved with the fitted step. Constants come of all training rows; whole numbers and dates are
    rounded. Null and NaN are missing; filled cells are noted in `_changed`. Needs the extra `models` to fit. Cost: one
    pass to count what is missing, one to draw the sample, up to eleven fits of `impute_trees` on it, one pass for the
    constants; one pass to apply.
    """

    name: ClassVar[str] = "impute_auto"
    revision: ClassVar[int] = 5
    by: tuple[str, ...] = ()
    method: Method = "auto"
    masking: Masking = "pattern"
    share: float = 0.1
    sample: int = 5_000

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.by, have)
        if not 0 < self.share <= 0.5:
            raise StepError(f"share: {self.share} is not above 0 and at most .5")
        if set(self.by) & set(self.columns):
            raise StepError(f"'{min(set(self.by) & set(self.columns))}' cannot be filled and be in `by` as well")
        for option in ("method", "masking"):
            if getattr(self, option) == "group" and not self.by:
                raise StepError(f"{option} group: name the columns of the groups in `by`")
        need_kinds(have, self.name, self.by, numbers=False)
        return super().columns_after(have, tables)

    def learns_from(self) -> tuple[str, ...]:
        return (*self.modelled, *self.by)

    def fit(self, df: DataFrame, context: Context) -> FillChosen:
        kinds = dict(df.dtypes)
        counts = [F.count_if(missing(c, kinds[c])) for c in self.columns]
        rows, *gone = df.agg(F.count(F.lit(1)), *counts).first() or (0, *(0 for _ in self.columns))
        table, groups = sampled_table(df, self.modelled, self.sample, self.seed, self.by)
        free = free_texts(table)
        lacking = [c for c, n in zip(self.columns, gone, strict=True) if n and c not in free]
        for c in (c for c, n in zip(self.columns, gone, strict=True) if n and c in free):
            context.warn(f"{self.name}: '{c}' holds free text and was not filled; impute_mode or impute_constant can")
        options: dict[str, Any] = {"masking": self.masking, "share": self.share, "rounds": self.rounds}
        options |= {"method": self.method, "seed": self.seed, "groups": groups if self.by else None}
        chosen, scores = choose(table, lacking, **options)
        plain = [c for c in self.columns if c not in free]
        floats = {c: F.col(quoted(c)) for c in self.columns if kinds[c] in FLOATS}
        # Infinities are known, but have no part in what is learned.
        df = with_columns(df, {c: F.when(F.abs(v) <= F.lit(LARGEST[kinds[c]]), v) for c, v in floats.items()})
        constants = [
            self.constant(df, kinds, name, tuple(c for c in plain if name in chosen.get(c, {"simple": 1})))
            for name in ("simple", "median", "group")
        ]
        modelled = tuple(c for c in lacking if any(m in chosen.get(c, {}) for m in MODELS))
        chain, blends = None, {}
        if modelled:
            rounds = self.rounds if any("trees" in chosen[c] for c in modelled) else 0
            chain = fit_chain(table, modelled, rounds=rounds, seed=self.seed).state()
            numbers = tuple(c for c in modelled if not is_category(kinds[c]))
            centres = means_of(df, numbers, kinds)
            blends = {c: {**chosen[c], "centre": centres[c]} for c in numbers}
        return FillChosen(
            columns=self.columns,
            constants=tuple(c for c in constants if c),
            modelled=modelled,
            using=self.modelled if chain else (),
            chain=chain,
            blends=blends,
            chosen=chosen,
            scores=tuple(scores),
            missing=dict(zip(self.columns, gone, strict=True)),
            rows=rows,
        )

    def constant(
        self, df: DataFrame, kinds: Mapping[str, str], method: str, columns: tuple[str, ...]
    ) -> dict[str, Any] | None:
        """Return the options of `fill_missing` for columns that get a constant by one method; None for no columns."""
        by = self.by if method == "group" else ()
        numbers = tuple(c for c in columns if not is_category(kinds[c]))
        learner: type[ImputeStatistic] = ImputeMedian if method == "median" else ImputeMean
        parts = [learner(columns=numbers, by=by)] if numbers else []
        others = tuple(c for c in columns if is_category(kinds[c]))
        parts += [ImputeMode(columns=others, by=by)] if others else []
        found = [part.groups_of(df, kinds, by) for part in parts]
        values = {c: v for overall, _ in found for c, v in overall.items()}
        groups: dict[tuple[str, ...], dict[str, Any]] = {}
        for _, listed in found:
            for group in listed:
                groups.setdefault(tuple(group["key"]), {}).update(group["values"])
        keyed = tuple({"key": list(k), "values": v} for k, v in sorted(groups.items()))
        return {"values": values} | ({"by": by, "groups": keyed} if by else {}) if columns else None


def means_of(df: DataFrame, columns: Sequence[str], kinds: Mapping[str, str]) -> dict[str, float]:
    """Return the means of numbers, days and times as models measure them."""
    if not columns:
        return {}
    measures = df.select(*(measure_of(c, kinds[c]).alias(c) for c in columns))
    return ImputeMean(columns=tuple(columns)).groups_of(measures, dict(measures.dtypes), ())[0]
