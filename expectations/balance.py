"""headgate's own expectations of mixtures and splits."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from great_expectations.compatibility import pydantic
from great_expectations.expectations.expectation import BatchExpectation
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.expectations.table_metric import TABLE_DOMAIN, TableMetric
from headgate.words import value_or_null

SPLIT, TRAIN = "split", "train"
MOST_SOURCES = 10_000


class Mixture(TableMetric):
    metric_name = "headgate.mixture"
    value_keys = ("column", "amount")

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> dict[str, int]:
        if SPLIT in df.columns:
            df = df.where(F.col(SPLIT) == TRAIN)
        source, amount = F.col(options["column"]).cast("string"), options["amount"]
        counted = F.count(F.lit(1)) if amount is None else F.sum(F.expr(amount)).cast("decimal(38,0)")
        found = df.groupBy(source.alias("source")).agg(counted.alias("amount")).limit(MOST_SOURCES + 1).collect()
        if len(found) > MOST_SOURCES:
            raise ValueError(f"'{options['column']}' has more than {MOST_SOURCES:,} values")
        return {value_or_null(r["source"]): int(r["amount"] or 0) for r in found}


class ExpectMixtureToBeNear(BatchExpectation):
    """Each source has its share of the rows, or of an amount such as tokens.

    column: tells the source; shares: source (as text, `(null)` for none) -> share, which add up to 1; amount: Spark SQL
    of what a row counts, as `tokens` or `length(text)` (default: 1); tolerance: by how much of its share a source may
    be off (0.005). Where there is a column `split`, training rows alone are counted. A source without a share fails.
    """

    column: str
    shares: dict[str, float]
    amount: str | None = None
    tolerance: float = 0.005
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.mixture",)
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("column", "shares", "amount", "tolerance")

    @pydantic.validator("shares")
    def add_up(cls, value: Any) -> Any:
        total = math.fsum(value.values())
        if any(share < 0 for share in value.values()) or abs(total - 1) > 1e-6:
            raise ValueError(f"shares must be at least 0 and add up to 1, not {total:g}")
        return value

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        found, shares = metrics["headgate.mixture"], self._get_success_kwarg("shares")
        total = sum(found.values())
        realized = {s: found.get(s, 0) / total if total else 0.0 for s in sorted({*found, *shares})}
        off = {s: abs(r - shares.get(s, 0)) / shares[s] if shares.get(s) else float(r > 0) for s, r in realized.items()}
        worst = max(off.values(), default=0.0)
        details: dict[str, Any] = {"shares": realized, "amounts": found}
        if off:
            source = min(off, key=lambda s: (-off[s], s))
            details["farthest"] = f"{source}: {realized[source]:.4g} for {shares.get(source, 0):.4g}"
        return {
            "success": bool(total) and worst <= self._get_success_kwarg("tolerance"),
            "result": {"observed_value": worst, "details": details},
        }


class GroupsAcrossSplits(TableMetric):
    metric_name = "headgate.groups_across_splits"
    value_keys = ("columns", "split")

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> list[int]:
        split = F.col(options["split"])
        names = [f"_hg_k{i}" for i, _ in enumerate(options["columns"])]
        keys = [F.col(c).alias(n) for c, n in zip(options["columns"], names, strict=True)]
        rows = df.select(*keys, split.alias("_hg_split")).dropna()
        groups = rows.groupBy(*names).agg(
            F.min("_hg_split").alias("_hg_first"), F.max("_hg_split").alias("_hg_last"), F.count("*").alias("_hg_n")
        )
        apart = groups.where("_hg_first <> _hg_last")
        found = apart.agg(F.count("*"), F.coalesce(F.sum("_hg_n"), F.lit(0))).first()
        return [int(n) for n in found or (0, 0)]


class ExpectGroupsToStayInOneSplit(BatchExpectation):
    """No two rows that are equal in some columns lie in different splits: no leak from training to test.

    columns: what makes a group: an entity, a text (exact duplicates), or the cluster column of `drop_near_duplicates`
    (near duplicates); split: the column of the splits. Rows with a null in one of them are not compared.
    """

    columns: list[str]
    split: str = SPLIT
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.groups_across_splits", "table.row_count")
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("columns", "split")

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        groups, rows = metrics["headgate.groups_across_splits"]
        count = metrics["table.row_count"]
        return {
            "success": groups == 0,
            "result": {"observed_value": groups, "element_count": count, "unexpected_count": rows},
        }
