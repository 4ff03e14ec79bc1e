"""The rows that a table's steps learn from: made and written once for all of them, with the columns that they name."""

import json
import re
from collections.abc import Sequence

from pyspark.sql import DataFrame

from headgate.transforms.rows import ROW_ID, SPLIT, quoted, training_rows, with_bookkeeping
from headgate.transforms.step import Context, Estimator, Step
from headgate.transforms.steps import options_of


def rows_to_learn(df: DataFrame, steps: Sequence[Step], context: Context) -> DataFrame | None:
    """Return the training rows before the first of some steps, kept for all that learn; None if only one of them does.

    They have the columns that a step up to the last one that learns may read: those whose names are in its options; all
    of them where there is a step of a user's own or one that says so (`whole_rows`).
    Cost: one pass, and a write of these columns.
    """
    learning = [i for i, step in enumerate(steps) if isinstance(step, Estimator)]
    if len(learning) < 2:
        return None
    wanted = mentioned(steps[: learning[-1] + 1], df.columns)
    rows = training_rows(df).select(*(quoted(c) for c in df.columns if c in wanted or c in (ROW_ID, SPLIT)))
    return with_bookkeeping(context.keep(rows, "learning"))


def mentioned(steps: Sequence[Step], columns: Sequence[str]) -> set[str]:
    """Return the columns whose names stand anywhere in the options of steps, in any case, or cannot be told there."""
    if any(step.whole_rows or not type(step).__module__.startswith("headgate.") for step in steps):
        return set(columns)
    options = [options_of(type(step)).dump_python(step, mode="json") for step in steps]
    text = json.dumps(options, ensure_ascii=False).lower()
    plain = set() if "(*" in text else {c for c in columns if re.fullmatch(r"\w+", c)}
    return {c for c in columns if c not in plain or c.lower() in text}


def followed(rows: DataFrame | None, step: Step, context: Context) -> DataFrame | None:
    """Return kept rows after a step as it is applied; None where it must see other rows, or all of their columns."""
    return None if rows is None or step.scope == "table" or step.whole_rows else step.run(rows, context)
