"""Local times and time zones."""

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.kinds import TIMES, is_text, known_kinds
from headgate.transforms.parsing import WITH_ZONE, Marks, check_pattern, parsed, trimmed, within
from headgate.transforms.rows import Rejection, drop_values, quoted, reject, with_values
from headgate.transforms.step import Columns, Step, StepError, require_columns
from headgate.words import did_you_mean


@dataclass(frozen=True, kw_only=True)
class LocalToUtc(Step):
    """Turn local wall-clock times into instants in UTC.

    columns: local column -> new column of type timestamp. The local column holds a date and time (string, date or
        timestamp); a text with an offset of its own, such as 12:00+02:00, is an instant already and is not shifted.
    time_zone: an IANA zone for all rows, such as `America/New_York`; or
    time_zone_column: the column that holds each row's zone. Exactly one of the two.
    timestamp_format: how the texts are written, as in a csv source, instead of ISO 8601.
    invalid: what happens to a row whose time is no date and time, or whose zone is not known: `reject` (default) marks
        it with both as evidence, `null` leaves the new cell null.
    A null time or zone gives null. A time that the zone skips (spring) is moved forward by the gap, one that
    occurs twice (autumn) is taken as the earlier: Spark's rule (java.time). Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "local_to_utc"
    revision: ClassVar[int] = 2
    columns: Mapping[str, str]
    time_zone: str | None = None
    time_zone_column: str | None = None
    timestamp_format: str | None = None
    invalid: Literal["reject", "null"] = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if (self.time_zone is None) == (self.time_zone_column is None):
            raise StepError("give exactly one of time_zone and time_zone_column")
        check_pattern("timestamp_format", self.timestamp_format, time=True)
        if self.timestamp_format and has_zone(self.timestamp_format) and "[" in self.timestamp_format:
            raise StepError("timestamp_format: an optional zone ('[…]') cannot be told from none")
        for column, kind in known_kinds(have, self.columns):
            if not is_text(kind) and kind not in ("date", *TIMES):
                raise StepError(f"{self.name}: '{column}' is {kind}, not a text, a date or a timestamp")
        if self.time_zone_column:
            require_columns([self.time_zone_column], have)
        elif self.time_zone:
            known_zone(self.time_zone)
        return {**have, **dict.fromkeys(self.columns.values(), "timestamp")}

    def apply(self, df: DataFrame) -> DataFrame:
        zone = F.col(quoted(self.time_zone_column)).cast("string") if self.time_zone_column else F.lit(self.time_zone)
        kinds = {f.name: f.dataType for f in df.schema.fields}
        values = {new: self.instant(F.col(quoted(old)), kinds[old], zone) for old, new in self.columns.items()}
        if self.invalid == "null":
            return df.withColumns(values)
        df, made = with_values(df, list(values.values()))
        rejections = []
        for old, value in zip(self.columns, made, strict=True):
            given = F.col(quoted(old))
            evidence = {"column": F.lit(old), "value": given, "time_zone": zone}
            when = given.isNotNull() & zone.isNotNull() & value.isNull()
            rejections.append(Rejection(when, "invalid_local_time", evidence))
        return drop_values(reject(df, self.id, *rejections).withColumns(dict(zip(values, made, strict=True))), made)

    def instant(self, local: Column, kind: T.DataType, zone: Column) -> Column:
        """The moment of a local time; null where there is none."""
        text = isinstance(kind, T.StringType)
        # The session's zone is UTC, so a text without zone is read with its own digits before it is shifted.
        marks = Marks(timestamp_format=self.timestamp_format)
        clock = parsed(local, T.TimestampType(), marks) if text else local.try_cast("timestamp")
        second = F.extract(F.lit("SECOND"), clock)
        if self.time_zone is None:
            known = zone.isin(*sorted(zoneinfo.available_timezones())) | zone.rlike(r"^(Z|[+-]\d{2}:\d{2})$")
            zone = F.when(known, zone)  # Java knows more: old names of three letters, which say what few would guess
        parts = (F.year(clock), F.month(clock), F.day(clock), F.hour(clock), F.minute(clock), second)
        shifted = within(F.try_make_timestamp(*parts, zone), "timestamp")
        if not text:
            return shifted
        if self.timestamp_format is not None:
            return clock if has_zone(self.timestamp_format) else shifted
        return F.when(trimmed(local).rlike(WITH_ZONE), clock).otherwise(shifted)


def has_zone(pattern: str) -> bool:
    """Return whether a pattern of Spark reads a zone or an offset; what stands in single quotes is text."""
    return re.search(r"[VzOXxZ]", re.sub(r"'[^']*'", "", pattern)) is not None


def known_zone(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as e:
        hint = did_you_mean(name, zoneinfo.available_timezones())
        raise StepError(f"'{name}' is no IANA time zone{hint}") from e
