"""The choice of a fill per column, by masking known cells of a sample and filling them again; numpy alone."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from headgate.transforms.imputation.chain import CLASSES, Table, fill_chain, fit_chain, unknown

CELLS = 1_000  # masked cells a column that settle a choice; small tables are masked several times for it
TURNS = 10
TRIES = 20  # rows among which one is looked for that another is masked as
ENOUGH = 0.2  # of the cells that would be masked without that
HALF = 0.5  # of the share, which is masked of columns with gaps of their own as well
FOLDS = 5
LEAD = {"number": 1.0, "category": 0.5}  # standard errors by which a method must beat the simple fill
BULK = 0.99  # of the cells decides: a few far ones do not
MODELS = ("gaussian", "trees")
Masking = Literal["random", "pattern", "group", "threshold"]
Method = Literal["auto", "simple", "median", "group", "gaussian", "trees"]
Weights = dict[str, float]


def choose(
    table: Table,
    targets: Sequence[str],
    *,
    groups: Any | None = None,
    method: Method = "auto",
    masking: Masking = "pattern",
    share: float = 0.1,
    rounds: int = 2,
    seed: int = 0,
) -> tuple[dict[str, Weights], list[dict[str, Any]]]:
    """Choose a fill per column on masked cells of a sample; return its methods with their weights, and all scores.

    groups: (n,) the group of each row as text, None for none. method: one that is taken wherever it can be, and scored.
    The methods are `simple` (mean, mode), `median`, `group` (mean or mode of the group), `gaussian` (numbers), `trees`.
    A column of three known cells or fewer has no entry. Each turn masks known cells of all
    columns at once; turns are repeated, at most `TURNS` times, until the scarcest has `CELLS` cells. Models of a number
    are blended: the mean plus their weighted departures from it, with the weights, at least 0 and together at most 1,
    that fit the masked cells best (stacking, Breiman 1996); a blend is judged on cells that its weights did not see.
    The smallest loss wins, of the methods that beat the simple fill by `LEAD` standard errors of the paired losses;
    those of numbers above the simple fill's 99 % quantile count as that, yet none is taken that errs more than the
    simple fill when they do not. A score's error is relative to the simple fill's: root mean squares of numbers, wrong
    cells of categories. Deterministic for the same rows and seed.
    """
    gone = {c: unknown(v) for c, v in table.items()}
    chosen: dict[str, Weights] = {}
    scores: list[dict[str, Any]] = []
    targets = [c for c in targets if (~gone[c]).sum() > 3]
    if not targets:
        return chosen, scores
    scarcest = min(int((~gone[c]).sum()) for c in targets)
    turns = min(TURNS, max(1, math.ceil(CELLS / max(1.0, share * scarcest))))
    guesses: dict[str, dict[str, list[Any]]] = {c: defaultdict(list) for c in targets}
    for turn in range(turns):
        masks = masked_cells(table, targets, masking, share, seed, turn, groups)
        seen = dict(table)
        for c in targets:
            seen[c] = np.where(masks[c], None if table[c].dtype == object else np.nan, table[c])
        for name, filled in candidates(seen, targets, groups, method, rounds, seed).items():
            for c, values in filled.items():
                guesses[c][name].append(values[masks[c]])
        for c in targets:
            guesses[c]["truth"].append(table[c][masks[c]])
    for c in targets:
        found = {name: np.concatenate(parts) for name, parts in guesses[c].items()}
        chosen[c], own = settled(found.pop("truth"), found, None if method == "auto" else method)
        scores += [{"column": c, **score} for score in own]
    return chosen, scores


def free_texts(table: Table) -> list[str]:
    """Return the texts of `CLASSES` values or more in a sample: names, addresses, which no other text tells."""
    return [c for c, v in table.items() if v.dtype == object and len({*v[~unknown(v)]}) >= CLASSES]


def candidates(
    seen: Table, targets: Sequence[str], groups: Any | None, method: Method, rounds: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return by method what each column is filled with."""
    numbers = [c for c in targets if seen[c].dtype != object]
    wide = {c: np.full(len(seen[c]), middle(seen[c], "mean"), seen[c].dtype) for c in targets}
    filled: dict[str, dict[str, Any]] = {"simple": wide}
    if method in ("auto", "median"):
        filled["median"] = {c: np.full(len(seen[c]), middle(seen[c], "median")) for c in numbers}
    if groups is not None and method in ("auto", "group"):
        filled["group"] = {c: of_groups(seen[c], groups, wide[c]) for c in targets}
    if method in ("auto", *MODELS):
        chain = fit_chain(seen, targets, rounds=0 if method == "gaussian" else rounds, seed=seed)
        filled["gaussian"] = fill_chain(seen, chain, numbers, {c: {"gaussian": 1.0} for c in numbers})
        filled["trees"] = fill_chain(seen, chain, targets) if method != "gaussian" else {}
    return filled


def settled(truth: Any, found: Mapping[str, Any], forced: str | None) -> tuple[Weights, list[dict[str, Any]]]:
    """Return the methods of one column with their weights, and the scores of all, from their guesses at the truth."""
    if forced:
        return {forced if forced in found else "simple": 1.0}, scores_of(truth, found)[0]
    number, models = truth.dtype != object, [m for m in MODELS if m in found]
    guesses = dict(found)
    if number and models and len(truth) >= FOLDS:
        fold, guess = np.arange(len(truth)) % FOLDS, found["simple"].astype(float)
        for k in range(FOLDS):
            guess[fold == k] = blended(found, blend(truth, found, models, fold != k))[fold == k]
        guesses["blend"] = guess
    scores, losses = scores_of(truth, guesses)
    able = {"simple", "median", "group", "blend" if number else "trees"}
    needed = LEAD["number" if number else "category"]
    beats = [s["method"] for s in scores if s["method"] in able and s["lead"] >= needed and s["error"] <= 1]
    ahead = ["simple", *beats]
    best = min(ahead, key=lambda m: losses[m].mean()) if len(truth) else "simple"
    every = np.ones(len(truth), dtype=bool)
    return blend(truth, found, models, every) if best == "blend" else {best: 1.0}, scores


def scores_of(truth: Any, guesses: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the scores of methods, and the losses that decide."""
    number = truth.dtype != object
    losses = {m: (g - truth) ** 2 if number else (g != truth).astype(float) for m, g in guesses.items()}
    cap = float(np.quantile(losses["simple"], BULK)) if number and len(truth) else 0.0
    bulk = {m: np.minimum(loss, cap) if cap > 0 else loss for m, loss in losses.items()}
    scores = []
    for m, loss in bulk.items():
        gain = bulk["simple"] - loss
        wide = float(gain.std(ddof=1) / math.sqrt(len(gain))) if len(gain) > 1 else 0.0
        lead = float(gain.mean()) / wide if wide > 0 else 0.0
        error = relative(losses[m], losses["simple"], number)
        scores.append({"method": m, "error": error, "lead": round(lead, 2), "cells": len(truth)})
    return scores, bulk


def relative(loss: Any, base: Any, number: bool) -> float:
    """Return a loss relative to the simple fill's; 1 where that errs nowhere."""
    ratio = float(loss.mean() / base.mean()) if len(base) and base.mean() > 0 else 1.0
    return round(math.sqrt(ratio) if number else ratio, 4)


def blend(truth: Any, found: Mapping[str, Any], models: Sequence[str], cells: Any) -> Weights:
    """Return the weights of models with which their departures from the mean fit some cells best.

    At least 0 and together at most 1, so that what is unsure is drawn to the mean. The hundredth of the cells that the
    best single model misses most is left out.
    """
    from scipy.optimize import nnls

    missed = {m: (found[m] - truth)[cells] ** 2 for m in models}
    best = min(models, key=lambda m: missed[m].mean())
    near = missed[best] <= np.quantile(missed[best], BULK)
    apart = np.column_stack([(found[m] - found["simple"])[cells][near] for m in models])
    rest = (truth - found["simple"])[cells][near]
    weights, _ = nnls(apart, rest)
    if weights.sum() > 1:  # a heavy row holds the sum at 1
        heavy = 1e3 * max(float(np.abs(apart).max()), 1e-300) * math.sqrt(len(rest))
        weights, _ = nnls(np.vstack([apart, np.full((1, len(models)), heavy)]), np.append(rest, heavy))
        weights /= max(weights.sum(), 1.0)
    return {m: round(float(w), 4) for m, w in zip(models, weights, strict=True)}


def blended(found: Mapping[str, Any], weights: Weights) -> Any:
    """Return the mean plus the weighted departures of models from it."""
    return found["simple"] + sum(w * (found[m] - found["simple"]) for m, w in weights.items())


def masked_cells(
    table: Table, targets: Sequence[str], masking: Masking, share: float, seed: int, turn: int = 0, groups: Any = None
) -> dict[str, Any]:
    """Choose known cells to mask: about a share of each column, as `masking` says (see `impute_auto`).

    `pattern` borrows gaps, and draws cells where they and a column's own gaps are less than the share, or they alone
    less than half: a few cells choose by luck, but trees learn less of rows with many gaps, and seem worse than they
    are. Those that are drawn are others each turn (nearly so in the second case), until all cells had theirs: so turns
    tell as much as they can.
    """
    gone = {c: unknown(table[c]) for c in targets}
    lacking = np.column_stack([gone[c] for c in targets])
    by_pattern = masking == "pattern"
    seed %= 2**64
    borrowed = borrowed_gaps(lacking, np.random.default_rng([seed, turn])) if by_pattern else np.zeros_like(lacking)
    rng = np.random.default_rng([seed])
    masks = {}
    for j, c in enumerate(targets):
        chosen = borrowed[:, j].copy()
        rest = max(share - gone[c].mean(), HALF * share - borrowed[:, j].mean(), 0.0) if by_pattern else share
        for part, rate in parts_of(table[c], gone[c], masking, groups):
            few = round(min(rest * rate, 0.9) * len(part))
            chosen[part] |= (rng.permutation(len(part)) - turn * few) % len(part) < few
        masks[c] = chosen & ~gone[c]
        if (~gone[c]).sum() - masks[c].sum() < 2:
            masks[c][:] = False
    return masks


def borrowed_gaps(lacking: Any, rng: Any) -> Any:
    """Return the gaps that rows (n, k) take from others, each from one that lacks at least what it lacks itself.

    That one is looked for among `TRIES`. A row with the gaps of any other added to its own would know less than any row
    that is to be filled, which favours models that read few columns; that is done only where hardly any row finds one,
    as where each of many columns is missing by itself.
    """
    new, open_ = np.zeros_like(lacking), np.ones(len(lacking), dtype=bool)
    beside = None
    for _ in range(TRIES):
        other = lacking[rng.integers(len(lacking), size=len(lacking))]
        beside = other & ~lacking if beside is None else beside
        fits = open_ & (lacking <= other).all(axis=1)
        new[fits] = (other & ~lacking)[fits]
        open_ &= ~fits
    return new if beside is None or new.sum() >= ENOUGH * beside.sum() else beside


def parts_of(values: Any, gone: Any, masking: Masking, groups: Any) -> list[tuple[Any, float]]:
    """Return parts of the rows, and how many times as many cells of each are masked as of all."""
    if masking == "group" and gone.any():
        places = [np.flatnonzero(groups == g) for g in sorted({*groups}, key=str)]
        return [(part, gone[part].mean() / gone.mean()) for part in places]
    if masking == "threshold" and values.dtype != object:
        high = values > np.median(values[~gone])
        return [(np.flatnonzero(high), len(values) / max(high.sum(), 1))] if high.any() else []
    return [(np.arange(len(values)), 1.0)]


def middle(values: Any, how: str) -> Any:
    """Return mean, median or mode of the known values; of equally frequent ones the smaller text."""
    known = values[~unknown(values)]
    if values.dtype != object:
        return (np.median(known) if how == "median" else known.mean()) if len(known) else np.nan
    counts = Counter(known)
    return min(counts, key=lambda v: (-counts[v], v)) if counts else None


def of_groups(values: Any, groups: Any, otherwise: Any) -> Any:
    """Return for each row the mean or mode of its group's known values; `otherwise` for groups without any."""
    out = otherwise.copy()
    places: dict[Any, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        if group is not None:
            places[group].append(i)
    for rows in places.values():
        found = middle(values[rows], "mean")
        if found is not None and found == found:
            out[rows] = found
    return out
