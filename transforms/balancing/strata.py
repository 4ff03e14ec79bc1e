"""Exact stratified resampling by hash thresholds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.rows import (
    MADE,
    PARENTS,
    ROW_ID,
    Rejection,
    content_key,
    is_training,
    local_frame,
    quoted,
    reject,
    stable_hash,
)
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

LARGEST_STRATA = 20_000  # with BINS, what one fit may bring to the driver
BINS = 64


@dataclass(frozen=True, kw_only=True)
class ResampleStrata(Step):
    """Repeat or leave out training rows by fixed thresholds: what `sample_strata` becomes once fitted.

    by, seed: as in `sample_strata`.
    strata: each entry is {"stratum", "rows", "target", "copies", "hash", "row_id", "content", "equal"}: every row of
        the stratum is taken `copies` times, and once more if its (hash, row id) is at most the entry's. Where rows
        share the row id of the cut, "content" (a hash of the whole row) cuts between them, and of rows that are equal
        in that too, "equal" says how many.
    Rows of other splits and of unseen strata stay as they are. Rows taken zero times are marked; further copies are
    new rows that name their parent. Cost: one pass; the strata are broadcast. Where a cut falls between rows that are
    equal in everything, one shuffle.
    """

    name: ClassVar[str] = "resample_strata"
    by: tuple[str, ...]
    strata: tuple[Mapping[str, Any], ...]
    seed: int = 0
    by_split: ClassVar[bool] = True

    @property
    def scope(self) -> Literal["row", "table"]:  # type: ignore[override]
        """Whether a cut falls between rows that are equal in everything, which are counted."""
        return "table" if any(s.get("equal") is not None for s in self.strata) else "row"

    @property
    def whole_rows(self) -> bool:
        return any(s.get("content") is not None for s in self.strata)

    @property
    def most(self) -> int:
        """How often a row is taken at most."""
        return max((s["copies"] + (s["hash"] is not None) for s in self.strata), default=1)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.by, have)
        return have

    def learned(self) -> bool:
        return bool(self.strata)

    def for_new_rows(self) -> None:
        return None

    def copies(self, ids: DataFrame) -> DataFrame:
        numbered = ids.withColumn("_hg_copy", F.explode(F.sequence(F.lit(0), F.lit(max(self.most, 1) - 1))))
        return numbered.where("_hg_copy > 0").select(self.copy_id(numbered).alias(ROW_ID))

    def copy_id(self, df: DataFrame) -> Column:
        return F.md5(content_key(df, [ROW_ID, "_hg_copy"], F.lit(self.id)))

    def apply(self, df: DataFrame) -> DataFrame:
        if not self.strata:
            return df
        before = df.columns
        fields = ("stratum", "copies", "hash", "row_id", "content", "equal", "target", "rows")
        lookup = local_frame(
            df.sparkSession,
            [tuple(s.get(f) for f in fields) for s in self.strata],
            "_hg_stratum string, _hg_copies int, _hg_cut_hash long, _hg_cut_id string, _hg_cut_content long, "
            "_hg_cut_equal int, _hg_target long, _hg_rows long",
        )
        content = row_content(df, self.seed)
        df = df.withColumn("_hg_hash", row_hash(df, self.seed))
        df = df.join(F.broadcast(lookup), on=stratum_of(df, self.by) == F.col("_hg_stratum"), how="left")
        drawn = is_training(df) & F.col("_hg_copies").isNotNull()
        at_cut = drawn & (F.col("_hg_hash") == F.col("_hg_cut_hash")) & (F.col(ROW_ID) == F.col("_hg_cut_id"))
        # The content is asked for on the few rows at a cut alone: a conditional evaluates no more than it takes.
        inside = F.when(F.col("_hg_cut_content").isNull(), True).otherwise(content <= F.col("_hg_cut_content"))
        if self.scope == "table":
            tied = at_cut & F.col("_hg_cut_equal").isNotNull()
            df = df.withColumn("_hg_tied", F.coalesce(F.when(tied, content == F.col("_hg_cut_content")), F.lit(False)))
            alike = F.when(F.col("_hg_tied"), F.col("_hg_stratum")).otherwise(F.col(ROW_ID))
            order = W.partitionBy("_hg_tied", alike).orderBy(ROW_ID).rowsBetween(W.unboundedPreceding, W.currentRow)
            df = df.withColumn("_hg_place", F.row_number().over(order))
            inside = F.when(F.col("_hg_tied"), F.col("_hg_place") <= F.col("_hg_cut_equal")).otherwise(inside)
        below = (F.col("_hg_hash") < F.col("_hg_cut_hash")) | (
            (F.col("_hg_hash") == F.col("_hg_cut_hash")) & (F.col(ROW_ID) < F.col("_hg_cut_id"))
        )
        taken = F.col("_hg_copies") + F.when(F.when(at_cut, inside).otherwise(below), 1).otherwise(0)
        df = df.withColumn("_hg_taken", F.when(drawn, taken).otherwise(1))
        evidence = {
            "stratum": F.concat_ws(", ", *(F.concat(F.lit(f"{c}="), F.col(quoted(c)).cast("string")) for c in self.by)),
            "hash": F.col("_hg_hash"),
            "threshold": F.col("_hg_cut_hash"),
            "rows_of_stratum": F.col("_hg_rows"),
            "target": F.col("_hg_target"),
        }
        df = reject(df, self.id, Rejection(F.col("_hg_taken") == 0, "not_sampled", evidence))
        if self.most > 1:
            df = df.withColumn(
                "_hg_copy", F.explode(F.sequence(F.lit(0), F.greatest(F.col("_hg_taken"), F.lit(1)) - 1))
            )
            copy = F.col("_hg_copy") > 0
            df = df.withColumns(
                {
                    ROW_ID: F.when(copy, self.copy_id(df)).otherwise(F.col(ROW_ID)),
                    PARENTS: F.when(copy, F.array(F.col(ROW_ID))).otherwise(F.col(PARENTS)),
                    MADE: F.when(copy, F.lit(self.id)).otherwise(F.col(MADE)),
                }
            )
        return df.select(*(quoted(c) for c in before))


@dataclass(frozen=True, kw_only=True)
class SampleStrata(Estimator):
    """Bring each stratum of the training split to an exact number of rows.

    by: the columns whose distinct tuples are the strata; a null counts as a value.
    rows: target rows of every stratum; or
    total: target rows of all strata together, spread in proportion to (rows of the stratum)^(1/temperature); or
    share: the same, as a share of the training rows (rounded down). Exactly one of the three.
    temperature: 1 (default) keeps the natural shares, larger evens them out.
    max_copies: how often a row may be taken at most (1: only leave rows out). Strata that reach it pass what they
        cannot take on to the others (`total`, `share`), or stay smaller (`rows`).
    seed: another seed draws other rows.
    Which rows are drawn is decided by a hash of the row id, so it is the same in any partitioning, and a larger target
    draws a superset. Rows with one row id are told apart by their content, and those that are equal in that too are
    counted. The place of the step enters the row ids of copies, so that no two steps make the same one.
    Cost: two passes over the key columns to fit (a histogram of hashes per stratum, then the exact cut inside one bin),
    and where the cut falls between rows with one row id a third over these alone; one pass to apply, with a shuffle if
    they are equal in everything; more than 20,000 strata are refused.
    """

    name: ClassVar[str] = "sample_strata"
    by: tuple[str, ...]
    rows: int | None = None
    total: int | None = None
    share: float | None = None
    temperature: float = 1.0
    max_copies: int = 1
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.by, have)
        given = [x for x in (self.rows, self.total, self.share) if x is not None]
        if len(given) != 1:
            raise StepError("give exactly one of rows, total and share")
        sizes = (self.temperature, self.max_copies, given[0])
        if not all(map(math.isfinite, sizes)) or self.temperature <= 0 or self.max_copies < 1 or given[0] < 0:
            raise StepError("rows, total and share must be at least 0, temperature above 0, max_copies at least 1")
        return have

    def learns_from(self) -> tuple[str, ...]:
        return self.by

    def fit(self, df: DataFrame, context: Context) -> ResampleStrata:
        keys = df.select(
            stratum_of(df, self.by).alias("stratum"),
            F.col(ROW_ID).alias("row_id"),
            row_hash(df, self.seed).alias("hash"),
        ).withColumn("bin", F.shiftright("hash", 64 - int(math.log2(BINS))).cast("int"))
        histogram = keys.groupBy("stratum", "bin").count().limit(LARGEST_STRATA * BINS + 1).collect()
        if len(histogram) > LARGEST_STRATA * BINS:
            raise StepError(f"by: more than {LARGEST_STRATA:,} strata of {', '.join(self.by)}")
        bins: dict[str, dict[int, int]] = {}
        for row in histogram:
            bins.setdefault(row["stratum"], {})[row["bin"]] = row["count"]
        sizes = {stratum: sum(counts.values()) for stratum, counts in sorted(bins.items())}
        targets = self.targets(sizes)
        wanted = []  # stratum, bin that the cut falls in, rank of the cut inside the bin
        for stratum, size in sizes.items():
            ahead = targets[stratum] % size
            for number in sorted(bins[stratum]) if ahead else ():
                if ahead <= bins[stratum][number]:
                    wanted.append((stratum, number, ahead))
                    break
                ahead -= bins[stratum][number]
        cuts = self.cuts(keys, wanted) if wanted else {}
        contents = self.contents(context, cuts)
        strata = []
        for stratum, size in sizes.items():
            target, cut = targets[stratum], cuts.get(stratum)
            content, equal = contents.get(stratum, (None, None))
            entry = {"stratum": stratum, "rows": size, "target": target, "copies": target // size}
            entry |= {"hash": cut and cut["hash"], "row_id": cut and cut["row_id"]}
            strata.append(entry | {"content": content, "equal": equal})
        return ResampleStrata(by=self.by, strata=tuple(strata), seed=self.seed)

    def targets(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The exact number of rows of each stratum."""
        caps = {s: n * self.max_copies for s, n in sizes.items()}
        if self.rows is not None:
            return {s: min(self.rows, cap) for s, cap in caps.items()}
        # Of 100 rows, .29 is 29: as a binary fraction it would be a little less.
        total = self.total if self.total is not None else math.floor(Decimal(str(self.share)) * sum(sizes.values()))
        return spread(total, {s: n ** (1 / self.temperature) for s, n in sizes.items()}, caps)

    def cuts(self, keys: DataFrame, wanted: list[tuple[str, int, int]]) -> dict[str, Row]:
        """Return the (hash, row id) at the wanted rank inside the wanted bin of each stratum.

        With them, how many rows have that row id (`rows`) and how many of these come up to the rank (`taken`).
        """
        lookup = local_frame(keys.sparkSession, wanted, "stratum string, bin int, rank int")
        inside = keys.join(F.broadcast(lookup), on=["stratum", "bin"], how="inner")
        counted = inside.groupBy("stratum", "rank", "hash", "row_id").agg(F.count(F.lit(1)).alias("rows"))
        return {r["stratum"]: r for r in at_rank(counted, "hash", "row_id").collect()}

    def contents(self, context: Context, cuts: Mapping[str, Row]) -> dict[str, tuple[int, int | None]]:
        """Return where the cut falls between rows of one row id: the content up to which they are taken.

        The second number says how many of the rows with just that content are; None: all of them.
        """
        open_cuts = [(s, r["row_id"], r["taken"]) for s, r in cuts.items() if r["taken"] < r["rows"]]
        if not open_cuts:
            return {}
        df = context.whole()
        lookup = local_frame(df.sparkSession, open_cuts, "stratum string, row_id string, rank int")
        rows = df.select(
            stratum_of(df, self.by).alias("stratum"),
            F.col(ROW_ID).alias("row_id"),
            row_content(df, self.seed).alias("content"),
        ).join(F.broadcast(lookup), on=["stratum", "row_id"], how="inner")
        counted = rows.groupBy("stratum", "rank", "content").agg(F.count(F.lit(1)).alias("rows"))
        found = at_rank(counted, "content").collect()
        return {r["stratum"]: (r["content"], r["taken"] if r["taken"] < r["rows"] else None) for r in found}


def at_rank(counted: DataFrame, *order: str) -> DataFrame:
    """Return the row of each stratum that the `rank`-th of its `rows` falls into, and how many of these it takes."""
    upto = W.partitionBy("stratum").orderBy(*order).rowsBetween(W.unboundedPreceding, W.currentRow)
    placed = counted.withColumn("upto", F.sum("rows").over(upto))
    taken = F.col("rank") - (F.col("upto") - F.col("rows"))
    return placed.withColumn("taken", taken).where((F.col("taken") > 0) & (F.col("taken") <= F.col("rows")))


def spread(total: int, weights: Mapping[str, float], caps: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` in proportion to `weights` into whole numbers under `caps`, by largest remainders.

    What a capped entry cannot take is spread again over the others. Ties fall to the smaller name. Where the caps add
    up to less than `total`, every entry is at its cap.
    """
    shares: dict[str, float] = {}
    free, left = dict(weights), float(total)
    while free:
        scale = left / sum(free.values())
        full = [name for name in free if free[name] * scale >= caps[name]]
        if not full:
            shares |= {name: weight * scale for name, weight in free.items()}
            break
        for name in full:
            shares[name] = float(caps[name])
            left -= caps[name]
            del free[name]
        left = max(left, 0.0)
    whole = {name: math.floor(share + 1e-9) for name, share in shares.items()}
    missing = min(total, sum(caps.values())) - sum(whole.values())
    by_remainder = sorted((n for n in shares if whole[n] < caps[n]), key=lambda n: (whole[n] - shares[n], n))
    for name in by_remainder[:missing]:
        whole[name] += 1
    return whole


def stratum_of(df: DataFrame, by: Sequence[str]) -> Column:
    return content_key(df, by)


def row_hash(df: DataFrame, seed: int) -> Column:
    return stable_hash(df, seed, [ROW_ID])


def row_content(df: DataFrame, seed: int) -> Column:
    """A 64-bit hash of all that a row holds: rows with the same are one as good as the other."""
    return stable_hash(df, seed, df.columns)
