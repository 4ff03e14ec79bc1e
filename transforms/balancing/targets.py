"""How many rows, or units of text, each stratum gets: no Spark, no order of its input matters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from headgate.transforms.step import StepError
from headgate.words import value_or_null


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one stratum shall have: `rows` or a `share` of the result, not fewer than `least`, not more than `most`.

    values: those of the columns that make the strata, in their order, as text; null for a missing one.
    """

    values: tuple[str | None, ...]
    rows: int | None = None
    share: float | None = None
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of all strata, as the options of a step say it, in one unit.

    rows: of every stratum; equal: as many for all; total, of_all: of all together, as a number or a share of what there
    is; none of them: as much as the shares of `targets` allow. temperature: of natural shares. least, most: of every
    stratum. targets: of single strata.
    """

    rows: int | None = None
    equal: bool = False
    total: int | None = None
    of_all: float | None = None
    temperature: float = 1.0
    least: int = 0
    most: int | None = None
    targets: Mapping[str, Target] | None = None


def wanted_of(wish: Wish, sizes: Mapping[str, int], times: float) -> dict[str, int]:
    """Return the exact target of each stratum.

    sizes: what it has; times: how often a row may be taken. A stratum never gets more than its size times `times`, nor
    more than its `most`. Raises `StepError` for floors that add up to more than the total.
    """
    names = sorted(sizes)
    if not names:
        return {}
    targets = wish.targets or {}
    often = Fraction(str(times))
    caps = {n: math.floor(often * sizes[n]) for n in names}
    for n in names:
        own = targets[n].most if n in targets and targets[n].most is not None else wish.most
        caps[n] = caps[n] if own is None else min(caps[n], own)
    floors = {n: wish.least for n in names}
    floors |= {n: least for n in names if n in targets and (least := targets[n].least) is not None}
    if wish.targets is not None and any(t.rows is not None for t in targets.values()):
        return {n: min(max(targets[n].rows or 0, floors[n]), caps[n]) for n in names}
    if wish.rows is not None:
        return {n: min(max(wish.rows, floors[n]), caps[n]) for n in names}
    if wish.equal and wish.total is None and wish.of_all is None:
        common = min(max(sizes.values()), min(caps.values()))
        return {n: min(max(common, floors[n]), caps[n]) for n in names}
    if wish.targets is not None:
        weights = {n: float(targets[n].share or 0) for n in names}
    elif wish.equal:
        weights = dict.fromkeys(names, 1.0)
    else:
        weights = natural({n: sizes[n] for n in names}, wish.temperature)
    total = wish.total
    if wish.of_all is not None:  # of 100 rows, .29 is 29: as a binary fraction it would be a little less
        total = math.floor(Decimal(str(wish.of_all)) * sum(sizes.values()))
    if total is None:
        shares = [Fraction(caps[n]) / Fraction(str(weights[n])) for n in names if weights[n] > 0]
        total = math.floor(min(shares) * sum(Fraction(str(w)) for w in weights.values())) if shares else 0
        total = max(total, sum(min(floors[n], caps[n]) for n in names))
    return spread(total, weights, caps, floors)


def natural(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Return weights in proportion to sizes^(1/temperature), of any temperature above 0."""
    power = min(1 / temperature, 1e300)
    try:
        return {n: float(size) ** power if size else 0.0 for n, size in sizes.items()}
    except OverflowError:  # no double holds them, but their shares of the largest one
        largest = max(sizes.values())
        return {n: (size / largest) ** power for n, size in sizes.items()}


def spread(
    total: int, weights: Mapping[str, float], caps: Mapping[str, int], floors: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Divide `total` in proportion to `weights` into whole numbers between floors and caps, by largest remainders.

    What a capped entry cannot take, and what floors take, is spread again over the others. A cap goes before a floor.
    An entry of weight 0 gets its floor. Ties fall to the smaller name. Where the caps add up to less than `total`,
    every entry is at its cap. Raises `StepError` where the floors add up to more. Cost: a sort.
    """
    names = sorted(weights)
    weight = np.array([weights[n] for n in names], dtype=float)
    low = np.array([min((floors or {}).get(n, 0), caps[n]) for n in names], dtype=np.int64)
    high = np.where(weight > 0, np.array([caps[n] for n in names], dtype=np.int64), low)
    if low.sum() > total:
        raise StepError(f"the least that strata shall have adds up to {low.sum():,}, more than the total of {total:,}")
    total = min(total, int(high.sum()))
    share = np.clip(level(total, weight, low, high) * weight, low, high)
    whole = np.clip(np.floor(share + 1e-9).astype(np.int64), low, high)
    missing = total - int(whole.sum())
    while missing:  # once; where sums of doubles are off by more than the entries, again
        room = (whole < high) if missing > 0 else (whole > low)
        order = np.argsort(np.where(room, (whole - share) * np.sign(missing), np.inf), kind="stable")
        chosen = order[: min(abs(missing), int(room.sum()))]
        whole[chosen] += np.sign(missing)
        missing = total - int(whole.sum())
    return {name: int(n) for name, n in zip(names, whole, strict=True)}


def level(total: int, weight: Any, low: Any, high: Any) -> float:
    """Return the factor of the weights at which they, held between low and high, add up to the total."""
    some = weight > 0
    weight, least, most = weight[some], low[some].astype(float), high[some].astype(float)
    left = total - float(low[~some].sum())
    if not len(weight):
        return 0.0
    # Between two neighbours of these points the sum grows linearly: an entry begins to grow, or stops.
    at = np.concatenate([least / weight, most / weight])
    slope, order = np.concatenate([weight, -weight]), np.argsort(at, kind="stable")
    at, slopes = at[order], np.cumsum(slope[order])
    sums = least.sum() + np.concatenate([[0.0], np.cumsum(np.maximum(slopes[:-1], 0) * np.diff(at))])
    place = int(np.searchsorted(sums, left, side="right")) - 1
    if place < 0:
        return float(at[0])
    if place >= len(at) - 1 or slopes[place] <= 0:
        return float(at[min(place, len(at) - 1)])
    return float(at[place] + (left - sums[place]) / slopes[place])


def check_wish(wish: Wish, times: float) -> None:
    """Raise `StepError` for numbers that no target can be."""
    numbers = [wish.rows, wish.total, wish.of_all, wish.least, wish.most]
    numbers += [x for t in (wish.targets or {}).values() for x in (t.rows, t.share, t.least, t.most)]
    given = [x for x in numbers if x is not None]
    if not all(math.isfinite(x) and x >= 0 for x in given):
        raise StepError("rows, total, share, least and most must be at least 0")
    if not math.isfinite(times) or times <= 0 or not math.isfinite(wish.temperature) or wish.temperature <= 0:
        raise StepError("temperature and how often a row may be taken must be above 0")
    if wish.most is not None and wish.least > wish.most:
        raise StepError(f"least is {wish.least}, more than most, which is {wish.most}")


def check_targets(
    targets: Sequence[Target], by: Sequence[str], shares_only: bool = False, what: str = "targets"
) -> None:
    """Raise `StepError` for targets that name another number of values, or rows and shares, or one stratum twice."""
    seen = set()
    for target in targets:
        name = ", ".join(map(value_or_null, target.values))
        if len(target.values) != len(by):
            raise StepError(f"{what}: [{name}] names {len(target.values)} values, and `by` has {len(by)} columns")
        if target.values in seen:
            raise StepError(f"{what}: [{name}] is there twice")
        seen.add(target.values)
        if (target.rows is None) == (target.share is None):
            raise StepError(f"{what}: [{name}]: give exactly one of rows and share")
        check_wish(Wish(targets={"": target}), 1)
    kinds = {t.rows is None for t in targets}
    if shares_only and False in kinds:
        raise StepError(f"{what}: give shares for all of them")
    if len(kinds) > 1:
        raise StepError(f"{what}: give rows for all of them, or shares for all of them")
    if True in kinds:
        total = sum((Decimal(str(t.share)) for t in targets), Decimal(0))
        if abs(total - 1) > Decimal("1e-6"):
            raise StepError(f"{what}: they add up to {total.normalize():f}, not to 1")
