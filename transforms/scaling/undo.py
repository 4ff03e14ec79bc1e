"""A step taken back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.sql import DataFrame

from headgate.transforms.step import Columns, Step


@dataclass(frozen=True, kw_only=True)
class UndoStep(Step):
    """Bring columns back to what they were before a step, as `headgate apply --inverse` does.

    step, options: the step as it was applied. Of its columns those are brought back that are there.
    Cost: one pass.
    """

    name: ClassVar[str] = "undo_step"
    step: str
    options: Mapping[str, Any]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        return None

    def apply(self, df: DataFrame) -> DataFrame:
        from headgate.transforms.steps import FITTED, STEPS, options_of

        step: Step = options_of((STEPS | FITTED)[self.step]).validate_python(self.options)
        return step.at(self.id).undo(df)
