"""Text: white space, case, Unicode form, empty cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.kinds import need_texts
from headgate.transforms.rows import change_cells, quoted
from headgate.transforms.step import Columns, Step, require_columns


@dataclass(frozen=True, kw_only=True)
class NormalizeText(Step):
    """Trim and normalize text columns.

    columns: the text columns.
    unicode: `NFC`, `NFKC` or `none` (default): the normal form of Unicode Annex 15.
    spaces: `collapse` (default) makes every run of white space one space, `keep` leaves the inside alone; the ends
        are always trimmed.
    case: `lower`, `upper` or `none` (default).
    empty: `null` (default) makes an empty text null, `keep` leaves it.
    Nulls stay null. Each cell that differs afterwards is noted in `_changed`. Cost: one pass, no shuffle; a
    Unicode form adds an Arrow round trip of the columns.
    """

    name: ClassVar[str] = "normalize_text"
    columns: tuple[str, ...]
    unicode: Literal["NFC", "NFKC", "none"] = "none"
    spaces: Literal["collapse", "keep"] = "collapse"
    case: Literal["lower", "upper", "none"] = "none"
    empty: Literal["null", "keep"] = "null"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_texts(have, self.name, self.columns)
        return {**have, **dict.fromkeys(self.columns, "string")}

    def apply(self, df: DataFrame) -> DataFrame:
        values = {}
        for column in self.columns:
            text = F.col(quoted(column))
            if self.unicode != "none":
                text = by_batches(in_form(self.unicode), "string", text)
            if self.spaces == "collapse":
                text = F.regexp_replace(text, r"(?U)\s+", " ")
            text = F.regexp_replace(text, r"(?U)^\s+|\s+$", "")
            if self.case != "none":
                text = F.lower(text) if self.case == "lower" else F.upper(text)
            values[column] = F.nullif(text, F.lit("")) if self.empty == "null" else text
        changes = {c: ~F.col(quoted(c)).eqNullSafe(v) for c, v in values.items()}
        return change_cells(df, self.id, values, changes)


def in_form(form: str) -> Callable[[pa.Array], pa.Array]:
    """Return the function that brings texts into a normal form of Unicode, by its name."""

    def normalized(texts: pa.Array) -> pa.Array:
        return pc.utf8_normalize(texts, form)

    return normalized
