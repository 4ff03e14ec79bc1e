"""Pages of an HTTP API as a Python data source of Spark.

Its reader runs on one executor and yields each record as a text of JSON with the place where it stood. Its class is
made for one read and travels to the executor by value, so that headers never stand among the options of a plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from pyspark.sql.datasource import DataSource
from urllib3.util.retry import Retry

from headgate.jobs.config.models import HttpSource, Paging
from headgate.jobs.config.secrets import SecretReference
from headgate.jobs.errors import SourceFailed
from headgate.jobs.sources.documents import as_written, written
from headgate.jobs.sources.records import reader_of

WATERMARK = "{watermark}"


@dataclass(frozen=True, repr=False)
class Request:
    """An HTTP read with its secrets; it has no text form, so that it cannot reach a log."""

    url: str
    params: dict[str, str]
    headers: dict[str, str]
    records: str
    paging: Paging | None
    retries: int
    timeout: float
    max_pages: int


def request_of(source: HttpSource, after: str | None) -> Request:
    """Return the request of a run; parameters with '{watermark}' are left out of the first run."""

    def read(place: str, values: dict[str, str | SecretReference]) -> dict[str, str]:
        return {n: v if isinstance(v, str) else v.read(f"source.{place}.{n}") for n, v in values.items()}

    params = {
        name: value.replace(WATERMARK, after or "")
        for name, value in read("params", source.params).items()
        if after is not None or WATERMARK not in value
    }
    headers = read("headers", source.headers)
    return Request(
        url=source.url,
        params=params,
        headers=headers,
        records=source.records,
        paging=source.paging,
        retries=source.retries,
        timeout=source.timeout,
        max_pages=source.max_pages,
    )


def pages_reader(request: Request) -> type[DataSource]:
    return reader_of("headgate_http", lambda: pages(request))


def pages(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the records of all pages, each with the number of its page; raises `SourceFailed`."""
    session = requests.Session()
    # Retry-After is obeyed; otherwise exponential backoff from half a second.
    patient = Retry(
        total=request.retries,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        backoff_factor=0.5,
        raise_on_status=False,
    )
    adapter = requests.adapters.HTTPAdapter(max_retries=patient)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update(request.headers)
    paging = request.paging
    url, params = request.url, dict(request.params)
    if paging is not None and paging.size_param:
        params[paging.size_param] = str(paging.size)
    offset, asked = 0, set()
    for page in range(1, request.max_pages + 1):
        if paging is not None and paging.by == "offset":
            params[paging.param or "offset"] = str(offset)
        place = f" page {page}"
        body, link = get(session, request, url, params, place)
        records = at(body, request.records, place)
        if not isinstance(records, list):
            raise SourceFailed(f"{place.strip()}: '{request.records}' is not a list of records")
        for record in records:
            yield written(record), place
        if paging is None:
            return
        if paging.by == "offset":
            if len(records) < paging.size:
                return
            offset += len(records)
            continue
        following = at(body, paging.next, place, missing=True) if paging.next else link
        if following in (None, ""):
            return
        if str(following) in asked:
            raise SourceFailed(f"{place.strip()}: pagination loop: the next page was read before")
        asked.add(str(following))
        if paging.by == "cursor":
            params[paging.param or "cursor"] = str(following)
        else:
            url, params = urljoin(url, str(following)), {}
            if urlsplit(url)[:2] != urlsplit(request.url)[:2]:
                raise SourceFailed(f"{place.strip()}: the next page is at another host, {urlsplit(url).netloc}")
    raise SourceFailed(f"there are more than {request.max_pages:,} pages (max_pages)")


def get(session: requests.Session, request: Request, url: str, params: dict[str, str], place: str) -> tuple[Any, Any]:
    """Return the JSON of a page and the next URL of its Link header; no error shows the query, which may be secret."""
    try:
        answer = session.get(url, params=params, timeout=request.timeout)
    except requests.RequestException as e:
        raise SourceFailed(
            f"{place.strip()}: no answer after {request.retries + 1} tries ({type(e).__name__})"
        ) from None
    if answer.status_code != 200:
        why = f"{answer.status_code} {answer.reason}"
        tries = 1 + len(answer.raw.retries.history if answer.raw.retries else ())
        raise SourceFailed(f"{place.strip()}: answered {why} after {tries} tries")
    try:
        return as_written(answer.content), answer.links.get("next", {}).get("url")
    except ValueError:
        raise SourceFailed(f"{place.strip()}: the answer is not JSON") from None


def at(body: Any, path: str | None, place: str, missing: bool = False) -> Any:
    """Return the value at a dotted path of a page; None where it is `missing` and may be."""
    for name in filter(None, (path or "").split(".")):
        if not isinstance(body, dict) or name not in body:
            if missing:
                return None
            raise SourceFailed(f"{place.strip()}: there is no '{path}' in it")
        body = body[name]
    return body
