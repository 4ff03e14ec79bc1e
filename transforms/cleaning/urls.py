"""URLs in one form, so that two addresses of one page are equal."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from w3lib.url import canonicalize_url

from headgate.transforms.batches import by_batches
from headgate.transforms.kinds import need_texts
from headgate.transforms.rows import change_cells, quoted
from headgate.transforms.step import Columns, Step, require_columns

PORTS = {"http": 80, "https": 443, "ftp": 21}
TRACKING = ("utm_*", "gclid", "dclid", "fbclid", "msclkid", "mc_cid", "mc_eid", "igshid", "_ga", "yclid")


@dataclass(frozen=True, kw_only=True)
class NormalizeUrl(Step):
    """Bring URLs into one form: case of scheme and host, default port, dots in the path, escapes, order of parameters.

    columns: the text columns.
    drop_parameters: names of query parameters that say nothing of the page, `*` standing for any letters; by default
        those that advertisers track by.
    fragment: `drop` (default) takes away what stands behind `#`, `keep` leaves it.
    Nulls, and texts without a scheme and host or that are no URL, stay as they are. Each cell that differs afterwards
    is noted in `_changed`. Cost: one pass and an Arrow round trip of the columns. Source: RFC 3986, section 6.2, as
    w3lib's `canonicalize_url` has it.
    """

    name: ClassVar[str] = "normalize_url"
    columns: tuple[str, ...]
    drop_parameters: tuple[str, ...] = TRACKING
    fragment: Literal["drop", "keep"] = "drop"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_texts(have, self.name, self.columns)
        return {**have, **dict.fromkeys(self.columns, "string")}

    def apply(self, df: DataFrame) -> DataFrame:
        drop, keep_fragment = self.drop_parameters, self.fragment == "keep"

        def plain(urls: pa.Array) -> pa.Array:
            found = [None if url is None else normal(url, drop, keep_fragment) for url in urls.to_pylist()]
            return pa.array(found, pa.string())

        values = {c: by_batches(plain, "string", F.col(quoted(c))) for c in self.columns}
        changes = {c: ~F.col(quoted(c)).eqNullSafe(v) for c, v in values.items()}
        return change_cells(df, self.id, values, changes)


def normal(url: str, drop: Sequence[str] = TRACKING, keep_fragment: bool = False) -> str:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        if not parts.scheme or not parts.hostname:
            return url
        place = parts.netloc
        if port is not None and PORTS.get(parts.scheme.lower()) == port:
            place = place.rsplit(":", 1)[0]
        query = "&".join(
            pair
            for pair in parts.query.split("&")
            if pair and not any(fnmatch.fnmatchcase(pair.split("=", 1)[0].lower(), name) for name in drop)
        )
        return str(
            canonicalize_url(urlunsplit(parts._replace(netloc=place, query=query)), keep_fragments=keep_fragment)
        )
    except ValueError:
        return url
