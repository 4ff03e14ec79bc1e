"""Lines and paragraphs that stand again and again, within a text or over many: boilerplate."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.kinds import need_texts
from headgate.transforms.rows import ROW_ID, change_cells, is_kept, quoted
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns

BREAK = r"(?:\r\n|\n|\r(?!\n))"
SEPARATORS = {"line": re.compile(rf"({BREAK})"), "paragraph": re.compile(rf"({BREAK}(?:[^\S\r\n]*{BREAK})+)")}


@dataclass(frozen=True, kw_only=True)
class DropRepeatedLines(Step):
    """Take lines (or paragraphs) out of texts that also stand in many other texts, or again in the same one.

    columns: the text columns, each on its own.
    unit: `line`, or `paragraph` (parted by empty lines, or blank ones). Lines end as in Unix, Windows or old Mac files.
    texts: a part that stands in at least so many rows goes from all of them; 0 leaves such parts.
    within: `drop` (default) takes a part out of a text where it stands in it before, `keep` leaves it.
    min_length: parts with fewer characters stay, as short lines repeat in good texts too.
    Parts are compared without white space at their ends and without regard to case; empty parts stay. Nulls stay null,
    and a text of which nothing is left becomes an empty one. Each cell that differs afterwards is noted in `_changed`.
    Cost: two Arrow round trips of the texts, one shuffle of a 64-bit hash for each part, one of the hashes of each row
    that go, and a join by row id.
    """

    name: ClassVar[str] = "drop_repeated_lines"
    revision: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "table"]] = "table"
    columns: tuple[str, ...]
    unit: Literal["line", "paragraph"] = "line"
    texts: int = 10
    within: Literal["drop", "keep"] = "drop"
    min_length: int = 20

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if self.texts < 0 or self.texts == 1:
            raise StepError(f"texts: {self.texts} is neither 0 nor at least 2")
        need_texts(have, self.name, self.columns)
        return have

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        for i, column in enumerate(self.columns):
            text = F.col(quoted(column))
            rows = df.where(is_kept() & text.isNotNull()).select(ROW_ID, text.alias("text"))
            found = context.keep(self.common(rows), f"common_{i}")
            df = df.join(found, on=ROW_ID, how="left")
            left = rest(SEPARATORS[self.unit], self.min_length, self.within == "drop")
            value = F.when(is_kept(), by_batches(left, "string", text, F.col("_hg_common"))).otherwise(text)
            df = change_cells(df, self.id, {column: value}, {column: ~text.eqNullSafe(value)}).drop("_hg_common")
        return df

    def common(self, rows: DataFrame) -> DataFrame:
        """Return of each row the hashes of its parts that stand in many rows."""
        if not self.texts:
            return rows.limit(0).select(ROW_ID, F.array().cast("array<bigint>").alias("_hg_common"))
        hashes = by_batches(distinct_hashes(SEPARATORS[self.unit], self.min_length), "array<bigint>", F.col("text"))
        parts = rows.select(ROW_ID, F.explode(hashes).alias("part")).distinct()
        many = parts.groupBy("part").count().where(F.col("count") >= self.texts)
        return (
            parts.join(many, on="part", how="left_semi").groupBy(ROW_ID).agg(F.collect_list("part").alias("_hg_common"))
        )


def part_hash(part: str, min_length: int) -> int | None:
    """A 64-bit hash of a part; None for one that is too short to go."""
    plain = part.strip().casefold()
    if len(plain) < max(min_length, 1):
        return None
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


def distinct_hashes(separator: re.Pattern[str], min_length: int) -> Callable[[pa.Array], pa.Array]:
    def hashes(texts: pa.Array) -> pa.Array:
        numbers = [[part_hash(p, min_length) for p in separator.split(t)[::2]] for t in texts.to_pylist()]
        return pa.array([sorted({n for n in found if n is not None}) for found in numbers], pa.list_(pa.int64()))

    return hashes


def rest(separator: re.Pattern[str], min_length: int, once: bool) -> Callable[[pa.Array, pa.Array], pa.Array]:
    """Return texts without their common parts, and without parts that stand in them before if `once`."""

    def left(text: str, common: Sequence[int] | None) -> str:
        gone = set(common) if common is not None else set()
        stays: list[str] = []
        parts = separator.split(text)  # each with what parts it from the next one behind it
        for part, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
            number = part_hash(part, min_length)
            if number is None or number not in gone:
                stays += [part, end]
                if once and number is not None:
                    gone.add(number)
            elif not end:  # with the last part goes what parts it from those before
                del stays[-1:]
        return "".join(stays)

    def texts_left(texts: pa.Array, common: pa.Array) -> pa.Array:
        pairs = zip(texts.to_pylist(), common.to_pylist(), strict=True)
        return pa.array([None if t is None else left(t, c) for t, c in pairs], pa.string())

    return texts_left
