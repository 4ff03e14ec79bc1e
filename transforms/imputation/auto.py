"""The choice of a fill per column, by masking known cells of a sample and filling them again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pyspark.sql import DataFrame

from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.imputation.chain import Table, fill_chain, fit_chain, unknown
from headgate.transforms.imputation.simple import FillMissing, ImputeMean, ImputeMedian, ImputeMode
from headgate.transforms.imputation.trees import FillTrees, is_category, need_cells, sampled_table
from headgate.transforms.kinds import is_number
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

CELLS = 1_000  # masked cells a column that settle a choice; small tables are masked several times for it
TURNS = 5
LEAD = 2.0  # standard errors by which a model must beat the simple fill
Masking = Literal["random", "pattern"]


def choose(
    table: Table,
    targets: Sequence[str],
    *,
    masking: Masking = "pattern",
    share: float = 0.1,
    rounds: int = 2,
    seed: int = 0,
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Choose a method per column on masked cells of a sample; return them, and the scores of all.

    The methods are `simple` (mean, mode), `median`, `gaussian` (numbers) and `trees`. Each turn masks known cells of
    all columns at once; turns are repeated, at most `TURNS` times, until the scarcest has `CELLS` cells. The winner
    has the smallest loss among the methods that beat the simple fill by `LEAD` standard errors of the paired losses;
    without one, the simple fill. A score's error is relative to the simple fill's: root mean squares of numbers, wrong
    cells of categories. Deterministic for the same rows and seed.
    """
    gone = {c: unknown(v) for c, v in table.items()}
    targets = [c for c in targets if (~gone[c]).sum() > 3]
    if not targets:
        return {}, []
    scarcest = min(int((~gone[c]).sum()) for c in targets)
    turns = min(TURNS, max(1, math.ceil(CELLS / max(1.0, share * scarcest))))
    losses: dict[tuple[str, str], list[Any]] = {}
    for turn in range(turns):
        masks = masked_cells(gone, targets, masking, share, np.random.default_rng([seed, turn]))
        seen = dict(table)
        for c in targets:
            seen[c] = np.where(masks[c], None if table[c].dtype == object else np.nan, table[c])
        chain = fit_chain(seen, targets, rounds=rounds, seed=seed)
        numbers = [c for c in targets if table[c].dtype != object]
        filled = {"trees": fill_chain(seen, chain, targets), "gaussian": fill_chain(seen, chain, numbers, numbers)}
        filled["simple"] = {c: np.full(len(table[c]), middle(seen[c], "mean"), table[c].dtype) for c in targets}
        filled["median"] = {c: np.full(len(table[c]), middle(seen[c], "median"), table[c].dtype) for c in numbers}
        for method, columns in filled.items():
            for c, values in columns.items():
                guess, truth = values[masks[c]], table[c][masks[c]]
                loss = (guess != truth).astype(float) if table[c].dtype == object else (guess - truth) ** 2
                losses.setdefault((c, method), []).append(loss)
    methods, scores = {}, []
    for c in targets:
        found = {m: np.concatenate(losses[c, m]) for m in ("simple", "median", "gaussian", "trees") if (c, m) in losses}
        base = found["simple"]
        eligible = ["simple"]
        for m, loss in found.items():
            gain = base - loss
            wide = float(gain.std(ddof=1) / math.sqrt(len(gain))) if len(gain) > 1 else math.inf
            lead = float(gain.mean()) / wide if wide > 0 else 0.0
            ratio = float(loss.mean() / base.mean()) if len(base) and base.mean() > 0 else 1.0
            error = ratio if table[c].dtype == object else math.sqrt(ratio)
            entry = {"column": c, "method": m, "error": round(error, 4), "lead": round(lead, 2), "cells": len(loss)}
            scores.append(entry)
            if m != "simple" and lead >= LEAD:
                eligible.append(m)
        methods[c] = min(eligible, key=lambda m: found[m].mean()) if len(base) else "simple"
    return methods, scores


def masked_cells(
    gone: Mapping[str, Any], targets: Sequence[str], masking: Masking, share: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Choose known cells to mask: a share of each column at random, or what another row of the sample lacks too."""
    rows = len(next(iter(gone.values())))
    donors = rng.integers(rows, size=rows)
    masks = {}
    for c in targets:
        chance = rng.random(rows)
        chosen = chance < share
        if masking == "pattern":
            chosen = gone[c][donors] | (chance < share - gone[c].mean())
        masks[c] = chosen & ~gone[c]
        if (~gone[c]).sum() - masks[c].sum() < 2:
            masks[c][:] = False
    return masks


def middle(values: Any, how: str) -> Any:
    """Return mean, median or mode of the known values; of equally frequent ones the smaller text."""
    known = values[~unknown(values)]
    if values.dtype != object:
        return (np.median(known) if how == "median" else known.mean()) if len(known) else np.nan
    texts, counts = np.unique(known.astype(str), return_counts=True)
    return texts[counts.argmax()] if len(texts) else None


@dataclass(frozen=True, kw_only=True)
class FillChosen(Step):
    """Fill each column by the method that was chosen for it: what `impute_auto` becomes.

    values: of columns filled by a constant. trees, gaussian: columns filled by a chain, and by its normal model alone.
    using, chain: as in `fill_trees`. scores: what each method erred on masked cells, relative to mean or mode.
    Cost: one pass, in Arrow batches where a model was chosen.
    """

    name: ClassVar[str] = "fill_chosen"
    values: Mapping[str, Any]
    trees: tuple[str, ...] = ()
    gaussian: tuple[str, ...] = ()
    using: tuple[str, ...] = ()
    chain: Mapping[str, Any] | None = None
    scores: tuple[Mapping[str, Any], ...] = ()

    @property
    def steps(self) -> list[Step]:
        """Return the steps that fill: those by a model first, as they read what the others fill."""
        modelled = (*self.trees, *self.gaussian)
        filling = FillTrees(columns=modelled, using=self.using, chain=self.chain, plain=self.gaussian)
        return [*([filling] if modelled else []), FillMissing(values=self.values)]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.values, *self.using], have)
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
class ImputeAuto(Estimator):
    """Fill each column by what errs least on known cells that were masked: mean or mode, median, normal model, trees.

    columns: columns to fill: numbers, booleans and texts.
    using: further columns that help to tell; dates and times too.
    masking: `pattern` (default) masks in a row what another row lacks, so that columns that are missing together are
        masked together; `random` masks each column by itself, which flatters what reads the others.
    share: of the known cells of a column that are masked (.1).
    rounds, seed: as in `impute_trees`. sample: training rows on which methods are compared and fitted (5,000).
    A model is used only where it beats mean or mode by two standard errors of its masked cells; on few cells that is
    cautious on purpose. The scores of all methods are saved with the fitted step. Constants come of all training rows.
    Null and NaN are missing; filled cells are noted in `_changed`. Needs the extra `models` to fit. Cost: one pass to
    draw the sample, up to six fits of `impute_trees` on it, one pass for the constants; one pass to apply.
    """

    name: ClassVar[str] = "impute_auto"
    columns: tuple[str, ...]
    using: tuple[str, ...] = ()
    masking: Masking = "pattern"
    share: float = 0.1
    rounds: int = 2
    sample: int = 5_000
    seed: int = 0

    @property
    def modelled(self) -> tuple[str, ...]:
        """Return all columns that are looked at."""
        return tuple(dict.fromkeys([*self.columns, *self.using]))

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.modelled, have)
        if not self.columns or len(self.modelled) > 200:
            raise StepError("columns: name one or more, with `using` at most 200")
        if not 0 < self.share <= 0.5 or not 1 <= self.rounds <= 10 or not 2 <= self.sample <= 1_000_000:
            raise StepError("share must be above 0 and at most .5, rounds 1 to 10, and sample 2 to 1,000,000")
        need_scikit()
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_cells(df, self.name, self.modelled)
        kinds = dict(df.dtypes)
        for column in self.columns:
            if not is_number(kinds[column]) and not is_category(kinds[column]):
                raise StepError(f"{self.name}: '{column}' is {kinds[column]}, not a number, a boolean or a text")

    def learns_from(self) -> tuple[str, ...]:
        return self.modelled

    def fit(self, df: DataFrame, context: Context) -> FillChosen:
        kinds = dict(df.dtypes)
        table = sampled_table(df, self.modelled, self.sample, self.seed)
        options = {"masking": self.masking, "share": self.share, "rounds": self.rounds, "seed": self.seed}
        methods, scores = choose(table, self.columns, **options)  # type: ignore[arg-type]
        by = {
            m: tuple(c for c in self.columns if methods.get(c, "simple") == m) for m in ("trees", "gaussian", "median")
        }
        constant = [c for c in self.columns if c not in (*by["trees"], *by["gaussian"])]
        values: dict[str, Any] = {}
        numbers = tuple(c for c in constant if is_number(kinds[c]) and c not in by["median"])
        for learner, columns in (
            (ImputeMean, numbers),
            (ImputeMedian, by["median"]),
            (ImputeMode, tuple(c for c in constant if is_category(kinds[c]))),
        ):
            values |= learner(columns=columns).fit(df, context).values if columns else {}
        chain = None
        if by["trees"] or by["gaussian"]:
            rounds = self.rounds if by["trees"] else 0
            chain = fit_chain(table, self.columns, rounds=rounds, seed=self.seed).state()
        return FillChosen(
            values={c: values[c] for c in constant},
            trees=by["trees"],
            gaussian=by["gaussian"],
            using=self.modelled if chain else (),
            chain=chain,
            scores=tuple(scores),
        )
