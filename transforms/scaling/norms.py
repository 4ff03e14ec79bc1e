"""Rows scaled to unit norm over some columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import need_kinds
from headgate.transforms.rows import OWN, quoted
from headgate.transforms.step import Columns, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class ScaleUnitNorm(Step):
    """Scale each row so that its values in some columns have norm 1 together.

    columns: numeric columns, which become doubles.
    norm: `l2` (default), the root of the sum of squares; `l1`, the sum of absolute values; `max`, the greatest of them.
    A row of zeros stays. A row with a null, a NaN or an infinity among the values has no norm: its other values become
    null, what is missing stays null or NaN. Nothing is learned, and nothing can be undone, as the norm is gone. The
    cells are not noted in `_changed`, as all are changed. Same numbers as scikit-learn's `Normalizer`.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "scale_unit_norm"
    columns: tuple[str, ...]
    norm: Literal["l1", "l2", "max"] = "l2"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if not self.columns:
            raise StepError("columns: name one or more")
        need_kinds(have, self.name, self.columns, numbers=True)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def apply(self, df: DataFrame) -> DataFrame:
        values = {c: F.col(quoted(c)).cast("double") for c in self.columns}
        greatest, relative = f"{OWN}greatest", f"{OWN}relative"
        missing = F.array_contains(F.array(*(v.isNull() for v in values.values())), True)
        sizes = F.array(*(F.abs(v) for v in values.values()))
        before = [*df.columns]
        df = df.withColumn(greatest, F.when(~missing, F.array_max(sizes)))
        # Of shares of the greatest, squares neither overflow nor vanish.
        shares = F.transform(sizes, lambda x: x / F.nullif(F.col(greatest), F.lit(0.0)))
        sums = {
            "l1": F.aggregate(shares, F.lit(0.0), lambda a, x: a + x),
            "l2": F.sqrt(F.aggregate(shares, F.lit(0.0), lambda a, x: a + x * x)),
            "max": F.lit(1.0),
        }
        df = df.withColumn(relative, sums[self.norm])
        known = F.col(greatest) < F.lit(float("inf"))
        scaled = {
            c: F.when(v.isNull() | F.isnan(v) | (F.col(greatest) == 0), v).when(
                known, v / F.col(greatest) / F.col(relative)
            )
            for c, v in values.items()
        }
        return df.withColumns(scaled).select(*map(quoted, before))
