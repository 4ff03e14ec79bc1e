"""Units of measurement, converted by the definitions of the `pint` library."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import need_kinds
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class UnitChange:
    """From which unit to which, and the name of the converted column (default: the same name)."""

    from_unit: str
    to_unit: str
    into: str | None = None


@dataclass(frozen=True, kw_only=True)
class ConvertUnits(Step):
    """Convert physical quantities between units, such as degF to degC or mile to metre.

    columns: column -> {from_unit, to_unit, into}. Units are written as in pint (`degF`, `mile/hour`, `hPa`).
    The result is a double; nulls stay null, NaN stays NaN. Units of different dimension, or related by anything
    but a factor and an offset, raise `StepError`, as do columns that are no numbers. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "convert_units"
    columns: Mapping[str, UnitChange]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_kinds(have, self.name, self.columns, numbers=True)
        for change in self.columns.values():
            factor_and_offset(change)
        names = {c: change.into or c for c, change in self.columns.items()}
        after = {names.get(c, c): "double" if c in self.columns else kind for c, kind in have.items()}
        if len(after) < len(have):
            raise StepError("into: two columns would be named alike; choose another name")
        return after

    def apply(self, df: DataFrame) -> DataFrame:
        values = {}
        for column, change in self.columns.items():
            factor, offset = factor_and_offset(change)
            values[column] = F.col(quoted(column)).cast("double") * F.lit(factor) + F.lit(offset)
        names = {c: change.into or c for c, change in self.columns.items()}
        return df.select(*(values.get(c, F.col(quoted(c))).alias(names.get(c, c)) for c in df.columns))


def factor_and_offset(change: UnitChange) -> tuple[float, float]:
    """(factor, offset) such that `to = from * factor + offset`."""
    import pint  # a tenth of a second, for this step alone

    registry = pint.application_registry
    try:
        zero, one, hundred = (
            float(registry.Quantity(x, change.from_unit).to(change.to_unit).magnitude) for x in (0.0, 1.0, 100.0)
        )
    except (pint.errors.PintError, AttributeError) as e:
        raise StepError(f"cannot convert '{change.from_unit}' to '{change.to_unit}': {e}") from e
    factor = (hundred - zero) / 100.0
    if abs((one - zero) - factor) > 1e-9 * max(1.0, abs(factor)):
        raise StepError(f"'{change.from_unit}' to '{change.to_unit}' is not a factor and an offset")
    # A pure factor keeps its full precision; the difference of two offsets would lose digits.
    return (one, 0.0) if zero == 0 else (factor, zero)
