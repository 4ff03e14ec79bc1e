"""A multivariate normal model of numbers with gaps, fitted by expectation-maximisation; numpy alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REACH = 64.0  # standard deviations beyond which a value counts as one so far off
ARRAYS = ("mean", "scale", "covariance", "low", "high")
LARGEST = 1e150  # from here on a value counts as unknown
RIDGE = 1e-6  # added to each variance: collinear and constant columns stay solvable


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Hold a fitted model: plain values, saved as JSON.

    columns: k names. mean, scale, low, high: (k,) in the columns' units, NaN without a known value.
    covariance: (k, k) of the standardised columns.
    rows, iterations, change: how it was fitted (the largest last change of a parameter).
    """

    columns: tuple[str, ...]
    mean: Any
    scale: Any
    covariance: Any
    low: Any
    high: Any
    rows: int
    iterations: int
    change: float

    def state(self) -> dict[str, Any]:
        """Return the model as JSON values, null for NaN."""
        state: dict[str, Any] = {"columns": list(self.columns), "rows": self.rows, "iterations": self.iterations}
        for name in ARRAYS:
            numbers = getattr(self, name)
            cells: Any = np.where(np.isfinite(numbers), numbers.astype(object), None)
            state[name] = cells.tolist()
        return state | {"change": self.change}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Gaussian":
        """Return the model of `state`."""
        arrays: dict[str, Any] = {name: np.array(state[name], dtype=float) for name in ARRAYS}
        arrays["covariance"].shape = (len(state["columns"]),) * 2  # of no column too
        plain = {name: state[name] for name in ("rows", "iterations", "change")}
        return cls(columns=tuple(state["columns"]), **arrays, **plain)


def known_cells(values: Any) -> Any:
    """Return where a value is known: null, NaN, infinities and numbers whose squares no double holds are not."""
    return np.abs(values) < LARGEST


def moments(values: Any) -> tuple[Any, Any, Any, Any]:
    """Return mean, standard deviation, lowest and highest known value a column; (n, k) -> four (k,).

    A column without known values has NaN in all four; a constant one has a deviation of 0.
    """
    known = known_cells(values)
    n = known.sum(axis=0)
    safe = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = safe.sum(axis=0) / n
        spread = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / n)
        low = np.where(n > 0, np.where(known, values, np.inf).min(axis=0, initial=np.inf), np.nan)
        high = np.where(n > 0, np.where(known, values, -np.inf).max(axis=0, initial=-np.inf), np.nan)
    return mean, spread, low, high


def standardised(values: Any, mean: Any, scale: Any) -> Any:
    """Return (values - mean) / scale, NaN where unknown, cut off at `REACH`; constant and empty columns give 0."""
    steady = ~(scale > 0)
    z = (np.where(known_cells(values), values, np.nan) - np.where(np.isfinite(mean), mean, 0.0)) / np.where(
        steady, 1.0, scale
    )
    z = np.clip(z, -REACH, REACH)
    z[:, steady] = np.where(np.isnan(z[:, steady]), np.nan, 0.0)
    return z


def regular(mu: Any, sigma: Any, dead: Any) -> tuple[Any, Any]:
    """Return the parameters with a ridge, and with columns that know nothing cut loose."""
    sigma = (sigma + sigma.T) / 2 + RIDGE * np.eye(len(mu))
    sigma[dead, :] = sigma[:, dead] = 0.0
    sigma[dead, dead] = 1.0
    return np.where(dead, 0.0, mu), sigma


def positive(sigma: Any) -> Any:
    """Return the nearest covariance whose eigenvalues are at least `RIDGE` of the largest."""
    values, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
    return (vectors * np.maximum(values, RIDGE * values.max(initial=1.0))) @ vectors.T


def built(
    columns: Sequence[str], mean: Any, scale: Any, mu: Any, sigma: Any,
    low: Any, high: Any, rows: int, iterations: int, change: float,
) -> Gaussian:  # fmt: skip
    """Return the model with its mean in the columns' units."""
    return Gaussian(
        columns=tuple(columns), mean=mean + np.where(scale > 0, scale, 0.0) * mu, scale=scale, covariance=sigma,
        low=low, high=high, rows=rows, iterations=iterations, change=change,
    )  # fmt: skip


def fit_rows(values: Any, columns: Sequence[str], *, iterations: int = 100, tolerance: float = 1e-4) -> Gaussian:
    """Fit mean and covariance on the rows (n, k) of a sample; NaN and infinities are unknown.

    Rows must come in an order of their own (by hash of their id), so that sums have the same bits each time. Stops when
    no standardised parameter moves by `tolerance` or more, or after `iterations`. Start: means 0, covariances from the
    rows that know both columns, shrunk by a tenth towards none. Columns without known values keep variance 1 and no
    correlation, and are never filled. Source: Little & Rubin, Statistical Analysis with Missing Data, ch. 11; Dempster
    et al. 1977.
    """
    mean, scale, low, high = moments(values)
    z = standardised(values, mean, scale)
    known = ~np.isnan(z)
    safe = np.where(known, z, 0.0)
    pairs = known.T.astype(float) @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        start = np.where(pairs > 0, safe.T @ safe / pairs, 0.0)
    sigma = 0.9 * start
    np.fill_diagonal(sigma, np.maximum(np.diag(start), RIDGE))
    mu, sigma = np.zeros(z.shape[1]), positive(sigma)
    dead = ~known.any(axis=0) | ~(scale > 0)
    change, done = math.inf, 0
    while done < iterations and change >= tolerance:
        filled, groups = conditional(z, mu, np.linalg.inv(sigma))
        second = filled.T @ filled
        for _, places, covariance in groups:
            np.add.at(second, (places[:, :, None], places[:, None, :]), covariance)
        new_mu = filled.mean(axis=0)
        new_mu, new_sigma = regular(new_mu, second / len(z) - np.outer(new_mu, new_mu), dead)
        change = max(np.abs(new_mu - mu).max(initial=0.0), np.abs(new_sigma - sigma).max(initial=0.0))
        mu, sigma, done = new_mu, new_sigma, done + 1
    return built(columns, mean, scale, mu, sigma, low, high, len(values), done, float(change))


def conditional(z: Any, mu: Any, precision: Any) -> tuple[Any, list[tuple[Any, Any, Any]]]:
    """Fill standardised rows with conditional means; return them, and (rows, columns, covariances) by number missing.

    In terms of the precision Q the missing part of a row has mean mu - Qmm⁻¹ Qmo (x - mu)o and covariance Qmm⁻¹, so
    that rows with m missing cells need one m × m solution each, whatever their patterns.
    """
    unknown = np.isnan(z)
    apart = np.where(unknown, 0.0, z - mu)
    pull = product(apart, precision)
    filled = np.where(unknown, mu, z)
    counts = unknown.sum(axis=1)
    groups = []
    for m in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == m)
        for part in np.array_split(rows, max(1, len(rows) * m * m // 4_000_000)):
            columns = np.nonzero(unknown[part])[1].reshape(len(part), m)
            block = precision[columns[:, :, None], columns[:, None, :]]
            inverse = np.linalg.inv(block)
            step = -times(inverse, np.take_along_axis(pull[part], columns, axis=1))
            filled[part[:, None], columns] = mu[columns] + step
            groups.append((part, columns, inverse))
    return filled, groups


def product(rows: Any, matrix: Any) -> Any:
    """Return rows (n, k) times a matrix (k, k), summed in one order whatever the number of rows."""
    out = np.zeros_like(rows)
    for j in range(len(matrix)):
        out += rows[:, j : j + 1] * matrix[j]
    return out


def times(matrices: Any, vectors: Any) -> Any:
    """Return each matrix (n, m, m) times its vector (n, m), summed in one order whatever the number of rows."""
    out = np.zeros_like(vectors)
    for j in range(vectors.shape[1]):
        out += matrices[:, :, j] * vectors[:, j : j + 1]
    return out


def fill(values: Any, model: Gaussian, *, ids: Any | None = None, seed: int | None = None) -> Any:
    """Fill unknown cells of (n, k) doubles, in the model's order of columns; known ones stay bit for bit.

    With `seed`, and `ids` (n,) of 64-bit row ids, cells are drawn from their conditional distribution instead of set to
    its mean: the same row, column and seed give the same draw wherever the row is. Results stay within the known range
    of the column. A row that knows nothing gets the means; a column without any known value stays unknown. Infinities
    count as unknown. No result depends on the other rows of a batch.
    """
    z = standardised(values, model.mean, model.scale)
    precision = np.linalg.inv(model.covariance)
    filled, groups = conditional(z, np.zeros(len(model.mean)), precision)
    if seed is not None:
        if ids is None:
            raise ValueError("draws need the rows' ids")
        noise = normals(ids, len(model.columns), seed)
        for rows, columns, covariance in groups:
            root = np.linalg.cholesky(covariance)
            cells = np.take_along_axis(noise[rows], columns, axis=1)
            filled[rows[:, None], columns] += times(root, cells)
    scale = np.where(model.scale > 0, model.scale, 0.0)
    result = np.clip(model.mean + scale * filled, model.low, model.high)
    return np.where(known_cells(values), values, result)


def mixed_bits(x: Any) -> Any:
    """Return 64-bit integers well mixed (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def uniforms(ids: Any, columns: int, seed: int, stream: int = 0) -> Any:
    """Return (n, columns) numbers in (0, 1), each a function of row id, column, seed and stream alone."""
    golden = 0x9E3779B97F4A7C15
    with np.errstate(over="ignore"):
        salt = mixed_bits(np.array([(seed * golden + stream + 1) % 2**64], dtype=np.uint64))
        per_column = mixed_bits(salt + np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(golden))
        bits = mixed_bits(mixed_bits(ids.astype(np.uint64))[:, None] + per_column[None, :])
    return ((bits >> np.uint64(12)).astype(float) + 0.5) / 2.0**52


def normals(ids: Any, columns: int, seed: int) -> Any:
    """Return (n, columns) standard normal numbers, by Box and Muller."""
    radius = np.sqrt(-2.0 * np.log(uniforms(ids, columns, seed)))
    return radius * np.cos(2.0 * np.pi * uniforms(ids, columns, seed, stream=1))
