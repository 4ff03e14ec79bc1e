"""Local times and time zones."""

import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from transforms.rows import quoted
from transforms.step import Step, StepError, nearest, need


@dataclass(frozen=True, kw_only=True)
class LocalToUtc(Step):
    """Turn local wall-clock times into instants in UTC.

    columns: local column -> new column of type timestamp. The local column holds a date and time without zone
        (string or timestamp).
    time_zone: an IANA zone for all rows, such as `America/New_York`; or
    time_zone_column: the column that holds each row's zone. Exactly one of the two.
    A null time or zone gives null. A time that the zone skips (spring) is moved forward by the gap, one that
    occurs twice (autumn) is taken as the earlier: Spark's rule (java.time). Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "local_to_utc"
    columns: Mapping[str, str]
    time_zone: str | None = None
    time_zone_column: str | None = None

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        if (self.time_zone is None) == (self.time_zone_column is None):
            raise StepError("give exactly one of time_zone and time_zone_column")
        if self.time_zone_column:
            need([self.time_zone_column], have)
        elif self.time_zone:
            known_zone(self.time_zone)
        return [*have, *(c for c in self.columns.values() if c not in have)]

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        zone = F.col(quoted(self.time_zone_column)) if self.time_zone_column else F.lit(self.time_zone)
        # The session's zone is UTC, so a text without zone parses to the same digits before it is shifted.
        return df.withColumns(
            {
                new: F.to_utc_timestamp(F.col(quoted(old)).try_cast("timestamp"), zone)
                for old, new in self.columns.items()
            }
        )


def known_zone(name: str) -> None:

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        hint = nearest(name, zoneinfo.available_timezones())
        raise StepError(f"'{name}' is no IANA time zone{hint}") from None
