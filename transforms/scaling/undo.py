"""A step taken back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import FLOATS
from headgate.transforms.rows import OWN, Rejection, quoted, reject, with_columns
from headgate.transforms.scaling.codes import AssignCodes
from headgate.transforms.step import Columns, Step


@dataclass(frozen=True, kw_only=True)
class UndoStep(Step):
    """Bring columns back to what they were before a step, as `headgate apply --inverse` does.

    step, options: the step as it was applied. Of its columns those are brought back that are there.
    A row with a number that the column's type does not hold, or with a code of no category but -1, is rejected: reasons
    `wrong_type` and `unknown_code`. Null and NaN become null where the type has no NaN, as does all of a column of
    which the step learned nothing. Cost: one pass.
    """

    name: ClassVar[str] = "undo_step"
    step: str
    options: Mapping[str, Any]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        return None

    def apply(self, df: DataFrame) -> DataFrame:
        from headgate.transforms.steps import FITTED, STEPS, options_of

        step: Step = options_of((STEPS | FITTED)[self.step]).validate_python(self.options)
        step = step.at(self.id)
        kinds: Mapping[str, str] = getattr(step, "kinds", {})
        held = [c for c in step.undone() if c in df.columns and kinds.get(c, "double") not in FLOATS and knows(step, c)]
        before = {c: f"{OWN}before_{i}" for i, c in enumerate(held)}
        given = dict(df.dtypes)
        df = step.undo(with_columns(df, {name: F.col(quoted(c)) for c, name in before.items()}))
        codes = isinstance(step, AssignCodes)
        rejections = []
        for column, name in before.items():
            value, lost = F.col(name), F.col(quoted(column)).isNull()
            known = value != -1 if codes else ~F.isnan(value) if given[column] in FLOATS else value.isNotNull()
            evidence = {"column": F.lit(column), "value": value, "type": F.lit(kinds[column])}
            reason = "unknown_code" if codes else "wrong_type"
            rejections.append(Rejection(value.isNotNull() & known & lost, reason, evidence))
        return (reject(df, self.id, *rejections) if rejections else df).drop(*before.values())


def knows(step: Any, column: str) -> bool:
    """Return whether a step learned what it brings a column back by."""
    found = step.columns[column]
    return bool(found) and (not isinstance(found, tuple) or None not in found)
