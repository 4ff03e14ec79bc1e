"""Small inputs from real reports of other tools, each with its right value, worked out by hand."""

import contextlib
import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from headgate.jobs.errors import HeadgateError
from headgate.jobs.explore import queries
from headgate.jobs.keep.erasure import certificate as erasure
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.lake.lake import Lake
from headgate.jobs.progress import Progress
from headgate.transforms.rows import is_own
from tests.conftest import same
from tests.lakes import ROOT, run_pipeline

UTC = dt.timezone.utc


@dataclass
class Case:
    """What a pipeline of a case must give, in a folder of its own."""

    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)  # rows, of all columns of the user's
    rejected: dict[str, list[str]] = field(default_factory=dict)  # table -> the reasons in the ledger
    refused: int | None = None  # exit code
    told: str = ""
    faults: int = 1  # that are told at once, a line each
    before: tuple[dict[str, Any], ...] = ()  # runs before the one that counts
    zone: str | None = None  # of the machine


def orders(*ids: int) -> list[tuple[int, str]]:
    words = {1: "plain", 2: "bracketed", 3: "bracketed"}
    return [(i, words[i]) for i in ids]


COMMON = [
    (
        *(i, f"k{i}", f"v{i}", i, f"t{i}", f"r{i}", f"h{i}", f"s{i}", i, i, f"st{i}", f"re{i}", text),
        *(f"f{i}", i, f"ke{i}", score),
    )
    for i, text, score in (
        (1, "apples grow on trees in the old garden", 0.5),
        (2, "ships sail over the cold northern sea", 0.7),
    )
]
NAN = float("nan")
NO_DECIMAL = ["wrong_type price decimal(10,2)"] * 4
NO_SCALE = ["wrong_type v decimal(10,2)"] * 4
CASES = {
    "01-file-names/conf-a": Case({"t_a": orders(1, 2, 3)}),
    "01-file-names/conf-b": Case({"t_b": [(1, "plain"), (2, "underscore"), (3, "dot")]}),
    "01-file-names/conf-c": Case({"t_c": [(1, "colon")]}),
    "01-file-names/conf-d": Case({"t_d": [(1, "percent"), (2, "plus"), (3, "curly")]}),
    "01-file-names/conf-e": Case({"t_e": [(1, "percent"), (2, "plus")]}),
    "02-decimal-comma/conf": Case(
        {"csv_decimal": [(3, Decimal("7.50"))], "csv_double": [(3, 7.5)], "csv_cast": [(3, Decimal("7.50"))]}
        | {"json_decimal": [(2, Decimal("3.14")), (3, Decimal("7.50"))]},
        {"csv_decimal": NO_DECIMAL, "csv_cast": NO_DECIMAL, "csv_double": ["wrong_type price double"] * 4},
    ),
    "04-join-types/conf-a": Case(refused=2, told="'cust'.* int.*'code'.* string"),
    "04-join-types/conf-b": Case(refused=2, told="'cust'.* int.*'code'.* string"),
    "04-join-types/conf-c": Case(refused=2, told="'k'.* double.*'k'.* bigint"),
    "04-join-types/conf-e": Case(refused=2, told="'cust'.* int.*'code'.* string"),
    "05-json-shapes/conf-a": Case({"t_a": []}, {"t_a": ["malformed_record"]}),
    "05-json-shapes/conf-b": Case({"t_b": [(1, "one"), (3, "three")]}, {"t_b": ["malformed_record"] * 5}),
    "05-json-shapes/conf-c": Case(
        {
            "t_c": [
                *[(1, "12345678901234567890123"), (2, "1.10"), (3, "1e5"), (4, "true"), (5, '{"x": 1}')],
                *[(6, '[1, "2", null]'), (9, "\0nul"), (10, "NaN"), (11, "0.30000000000000004")],
            ]
        },
        {"t_c": ["malformed_record"] * 2},
    ),
    "05-json-shapes/conf-d": Case(
        {"t_d": [(4, 3)]},
        {"t_d": ["wrong_type id bigint"] * 2 + ["wrong_type v int"] * 2},
    ),
    "08-parquet-types/conf-arr": Case(refused=4, told="'a' is array<int>, where array<string> is expected"),
    "08-parquet-types/conf-case": Case(refused=4, told="‹ID› differs from 'id' only in the case"),
    "08-parquet-types/conf-dec": Case(refused=4, told=r"'d' is decimal\(38,8\), where decimal\(10,2\)"),
    "08-parquet-types/conf-int96": Case(
        {"t_int96": [(1, dt.datetime(1582, 10, 4, tzinfo=UTC)), (2, dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC))]}
    ),
    "08-parquet-types/conf-mongo": Case({"t_mongo": [("a1", 1), ("a2", 2)]}),
    "08-parquet-types/conf-nanos": Case(refused=4, told="‹t› holds times finer than"),
    "08-parquet-types/conf-nanos_utc": Case(refused=4, told="‹t› holds times finer than"),
    "08-parquet-types/conf-nulls": Case({"t_nulls": [(1, None), (2, None)]}),
    "08-parquet-types/conf-old": Case({"t_old": [(1, dt.date(1, 1, 1)), (2, dt.date(1500, 2, 28))]}),
    "08-parquet-types/conf-pandas": Case({"t_pandas": [(1, "a", 5), (2, "b", 7)]}),
    "08-parquet-types/conf-time": Case(refused=4, told=r"‹t› is time64\[us\]"),
    "08-parquet-types/conf-uint": Case(refused=4, told=r"'u' is decimal\(20,0\), where bigint"),
    "09-csv-dialects/conf": Case(
        {
            "t_cp": [(1, "Müller"), (2, "Zoë")],
            "t_inch": [(1, '5" pipe', "a"), (2, "plain", "b"), (3, '6" pipe', "c"), (4, "1,5 m", "d")],
            "t_start": [(2, "plain", "b"), (4, "x", "d")],
            "t_odd": [(1, '5" pipe', "a"), (2, "two\nlines", "b"), (3, "x", "c")],
            "t_mixed": [(1, "a", "x"), (2, "two\nlines", "y"), (3, "c", "z")],
            "t_crlf": [(1, "two\r\nlines", "x"), (2, "b", "y")],
            "t_back": [(2, "path C:\\\\dir\\\\", "y"), (3, "plain", "z")],
            "t_null": [(1, None, "x"), (2, "NA", "y"), (3, "", "z"), (4, "", "w")],
            "t_one": [("a",), (None,), ("b",), ("",), ("c",)],
            "t_trail": [],
            "t_cr": [(1, "a\rb", "x"), (2, "c", "y")],
            "t_uni": [(1, "a\u2028b", "x"), (2, "c\x85d", "y"), (3, "e\x0cf", "z")],
        },
        {"t_start": ["malformed_record"] * 2, "t_back": ["malformed_record"], "t_trail": ["malformed_record"] * 2},
    ),
    "09-csv-dialects/conf-head": Case(refused=2, told="cannot be published"),
    "13-times/conf-b": Case(
        {"utc_b": [(1, "2024-07-01 12:00:00", "Europe/Oslo", dt.datetime(2024, 7, 1, 10, tzinfo=UTC))]},
        {"utc_b": ["invalid_local_time t"]},
    ),
    "14-delta-sources/conf-mapped": Case({"t_mapped": [(1, "a"), (2, "b")]}),
    "14-delta-sources/conf-ntz": Case({"t_ntz": [(1, dt.datetime(2024, 7, 1, 12, tzinfo=UTC))]}),
    "14-delta-sources/conf-parts": Case(
        {"t_parts": [(1, "a/b=c %20", "p"), (2, "é ü", "q"), (3, "x:y", "r"), (4, None, "s"), (5, "plain", "t")]}
    ),
    "14-delta-sources/conf-vector": Case({"t_vector": [(1, "a"), (3, "c")]}),
    "22-merge-null-key/conf": Case({"merged": [("a", 2), (None, 2)]}, before=({"as_of": dt.date(2024, 1, 1)},)),
    "23-file-dates/conf": Case(refused=4, told="x_2023-02-29.csv: 2023-02-29 in its name is no day"),
    "25-cast-yyyymm/conf": Case({"months": [(1, dt.date(2024, 7, 1))]}, {"months": ["wrong_type month date"]}),
    "26-json-nested/conf": Case(refused=4, told=r"a member ‹s\.y› that the schema lacks"),
    "28-gz/conf": Case({"t_gz": [(1, "a"), (2, "b"), (3, "c")]}),
    "28-gz/conf-upper": Case(refused=4, told=r"upper\.csv\.GZ: it is gzip"),
    "32-decimal-scale/conf": Case(
        {"cast_v": [(2, Decimal("1.23"))], "schema_v": [(2, Decimal("1.23"))]},
        {"cast_v": NO_SCALE, "schema_v": NO_SCALE},
    ),
    "33-own-split/conf": Case(refused=2, told="split", faults=2),
    "34-common-names/conf": Case(
        {"raw_names": COMMON, "exact_names": COMMON, "near_names": COMMON}, before=({"as_of": dt.date(2024, 1, 1)},)
    ),
    "37-pulled-twice/conf": Case({"t_changes": [(1, "a3", 3), (2, "b", 1), (3, "c", 3)]}, before=({},)),
    "37-pulled-twice/conf-history": Case({"t_history": [(1, "new", 2), (2, "b", 2)]}, before=({},)),
    "37-pulled-twice/conf-twice": Case({"t_twice": [(1, "a2", 2), (None, "x", 1), (None, "y", 2)]}, before=({},)),
}


def copied(case: str, folder: Path) -> Path:
    """A case in a folder of its own, its generated inputs made."""
    place = folder / case
    shutil.copytree(ROOT / "tests" / "cases" / case, place)
    if (place / "gen.py").exists():
        for made in ("in", "landing/a"):
            (place / made).mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "gen.py"], cwd=place, check=True)
    return place


def built(spark: Any, place: Path, conf: str, **options: Any) -> Lake:
    lake = place / f"lake-{conf}"
    run_pipeline(spark, place, place / f"{conf}.yaml", lake_at=lake, **options)
    return Lake(str(lake))


def rows_of(lake: Lake, table: str) -> list[tuple[Any, ...]]:
    found = lake.need_table(table).to_pyarrow_table()
    names = [c for c in found.column_names if not is_own(c)]
    return sorted((tuple(r.values()) for r in found.select(names).to_pylist()), key=repr)


def reasons(lake: Lake, table: str) -> list[str]:
    found = lake.open("ledger")
    entries = found.to_pyarrow_table().to_pylist() if found else []
    return sorted(
        " ".join([e["reason"], *(v for k, v in e["evidence"] if k in ("column", "type"))])
        for e in entries
        if e["table_name"] == table
    )


REFUSED = [name for name, case in CASES.items() if case.refused is not None]
LONG = {
    *("34-common-names", "37-pulled-twice", "09-csv-dialects", "13-times", "14-delta-sources"),
    *("06-dedup-types", "07-dedup-text", "19-dedup-more"),
}


def of_all(folders):
    """The folders as parameters; those of many runs are slow."""
    return [pytest.param(f, marks=pytest.mark.slow) if f in LONG else f for f in folders]


TAKEN_UP = [name for name in CASES if name not in REFUSED]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(spark, tmp_path, name):
    folder, conf = name.split("/")
    with pytest.raises(HeadgateError, match=CASES[name].told) as e:
        built(spark, copied(folder, tmp_path), conf)
    assert e.value.exit_code == CASES[name].refused
    lines = str(e.value).splitlines()
    assert len(lines) == CASES[name].faults and all(re.search(CASES[name].told, line) for line in lines)


@pytest.mark.parametrize("folder", of_all(dict.fromkeys(name.split("/")[0] for name in TAKEN_UP)))
def test_the_right_value(spark, tmp_path, folder):
    """All pipelines of a case as one, which costs one run."""
    place = copied(folder, tmp_path)
    cases = {name.split("/")[1]: CASES[name] for name in TAKEN_UP if name.startswith(f"{folder}/")}
    tables = {}
    for conf in cases:
        tables |= yaml.safe_load((place / f"{conf}.yaml").read_text())["tables"]
    (place / "all.yaml").write_text(yaml.safe_dump({"pipeline": "all", "tables": tables}, allow_unicode=True))
    for options in next(iter(cases.values())).before:
        built(spark, place, "all", **options)
    lake = built(spark, place, "all")
    for case in cases.values():
        for table, wanted in case.tables.items():
            found = rows_of(lake, table)
            expected = sorted(wanted, key=repr)
            assert len(found) == len(expected) and all(map(same, found, expected)), (table, found)
            assert DeltaTable(lake.path(table)).protocol().min_reader_version == 1
        for table, wanted in case.rejected.items():
            assert reasons(lake, table) == sorted(wanted), table


@pytest.mark.slow
def test_times_with_an_offset_are_not_shifted_again(spark, tmp_path):
    lake = built(spark, copied("13-times", tmp_path), "conf-a")
    found = {r[0]: r[-1] for r in rows_of(lake, "utc_a")}
    moment = lambda *parts: dt.datetime(2024, *parts, tzinfo=UTC)  # noqa: E731
    assert found == {
        **{1: moment(3, 31, 1, 30), 2: moment(10, 27, 0, 30), 3: moment(7, 1, 10), 4: moment(7, 1, 10)},
        **{7: None, 8: moment(7, 1, 10), 9: moment(7, 1, 10)},
    }
    assert reasons(lake, "utc_a") == ["invalid_local_time t"] * 2


def test_null_join_keys_match_nothing(spark, tmp_path):
    lake = built(spark, copied("04-join-types", tmp_path), "conf-d")
    assert {r[0]: r[-2:] for r in rows_of(lake, "joined") if r[1] is None} == {3: (None, False)}


@pytest.mark.slow
def test_imputed_numbers_are_exact(spark, tmp_path):
    lake = built(spark, copied("11-imputation", tmp_path), "conf")
    for table in ("by_median", "by_mean_group"):
        assert {r[7] for r in rows_of(lake, table) if r[0] == 3} == {9007199254740993}, table
    assert {r[2] for r in rows_of(lake, "by_mode") if r[0] == 3} == {dt.datetime(2024, 7, 1, 12, tzinfo=UTC)}


@contextlib.contextmanager
def machine_zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def test_a_filled_time_does_not_depend_on_the_machines_zone(spark, tmp_path):
    with machine_zone("America/New_York"):
        lake = built(spark, copied("29-machine-zone", tmp_path), "conf")
        for table in ("by_mode", "by_mode_group"):
            moments = {r[2] for r in rows_of(lake, table)}
            assert moments <= {dt.datetime(2024, 7, 1, 12, tzinfo=UTC), dt.datetime(2024, 1, 1, tzinfo=UTC)}, table


@pytest.mark.slow
def test_samples_are_exact_with_equal_rows(spark, tmp_path):
    lake = built(spark, copied("12-sampling", tmp_path), "conf")
    two = [r[0] for r in rows_of(lake, "two_each")]
    assert sorted(two) == ["cat", "cat", "dog", "dog"]
    assert len(rows_of(lake, "half")) == 6
    ones = sorted(str(r[1]).replace("-", "") for r in rows_of(lake, "one_each"))
    assert ones == ["0.0", "1.0", "None", "nan"]
    labels = [r[2] for r in rows_of(lake, "doubled")]
    assert {label: labels.count(label) for label in set(labels)} == {"a": 4, "b": 3, None: 4}
    weights = {r[2]: r[-1] for r in rows_of(lake, "one_each")}
    assert weights.get(None, 0) is None and set(weights.values()) <= {0.75, 1.5, 1.0, None}


def test_the_gate_compares_moments(spark, tmp_path):
    lake = built(spark, copied("16-gate", tmp_path), "conf")
    found = queries.sql(
        lake,
        "select name, success, unexpected_count from metrics where kind = 'expectation' "
        "and (name like '%newest%' or name like '%between' or name like '%regex%')",
        None,
        None,
    ).to_pylist()
    newest = [r["success"] for r in found if "newest" in r["name"]]
    assert newest == [True, True, False, False]
    between = [r for r in found if r["name"] == "expect_column_values_to_be_between"]
    assert [r["unexpected_count"] for r in between] == [1]
    regexes = [r["unexpected_count"] for r in found if "regex" in r["name"]]
    assert regexes == [1, 0, 0, 1]


def test_a_clipped_whole_number_lies_within_its_bounds(spark, tmp_path):
    lake = built(spark, copied("32-decimal-scale", tmp_path), "conf")
    assert [r[-1] for r in rows_of(lake, "clipped")] == [5, 8, 12, 15, 15]


def test_erasing_one_record_leaves_those_that_look_like_it(spark, tmp_path):
    place = copied("36-erase-collision", tmp_path)
    lake = built(spark, place, "conf")
    before = {t: len(rows_of(lake, t)) for t in ("raw_tags", "raw_texts")}
    for table, where in (("raw_tags", "len(tags) = 1 and tags[1] = 'a, b'"), ("raw_texts", "text = 'erase me'")):
        found = reach(lake, table, where)
        erasure.erase(spark, lake, found, where, "test", "test", "test", Progress(watched=False))
        assert len(rows_of(lake, table)) == before[table] - 1
    assert any(r[0] == ["a", "b"] for r in rows_of(lake, "raw_tags"))


DEDUPED = {  # case -> the commands' table -> a column of what stays
    "06-dedup-types": {
        "zip": ("zip", ["00501", "02139", "10001", "94107"]),
        "dates": ("email", ["a@x", "b@x"]),
        "yesno": ("member", ["no", "yes"]),
        "sku": ("sku", ["1E5", "2E10"]),
        "semi": ("name", ["Anna, B", "Bo"]),
    },
    "07-dedup-text": {
        "clean": (
            "id",
            [
                *["b1", "b2", "c1", "c2", "e1", "e2", "h1", "h2", "h3", "h4", "j1", "j3", "n1", "t1", "t2"],
                *(f"z{i}" for i in range(1, 8)),
            ],
        ),
    },
    "17-null-ids": {"ids": ("id", ["7", "8", None, None])},
    "19-dedup-more": {
        "t": ("id", ["1", "10", "3", "4", "5", "7", "9"]),
        "rec": ("id", ["1", "3", "4", "5"]),
        "names": None,
    },
    "24-dedup-folder": {"mixed": ("email", ["a@x", "b@x"]), "nested": ("email", ["a@x"])},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n[:2] in ("06", "07", "19") else n for n in DEDUPED]
)
def test_deduplicated_as_reported(name, tmp_path, command, monkeypatch):
    place = copied(name, tmp_path)
    monkeypatch.chdir(place)
    for line in (place / "commands.txt").read_text().splitlines():
        arguments = shlex.split(line.replace(" --lake LAKE", ""))[1:]
        code, _, error = command(*arguments)
        table = arguments[arguments.index("--into") + 1]
        wanted = DEDUPED[name][table]
        if wanted is None:
            assert code == 2 and "‹Customer Id› cannot be published" in error
            continue
        assert code == 0, error
        found = Lake("lake").need_table(table).to_pyarrow_table()[wanted[0]].to_pylist()
        assert sorted(found, key=str) == sorted(wanted[1], key=str), table
    if name == "24-dedup-folder":
        assert "not taken up from in/nested: 1 sub-folders (sub)" in error


def test_every_case_has_a_test():
    tried = {name.split("/")[0] for name in (*CASES, *DEDUPED)}
    apart = {"11-imputation", "12-sampling", "16-gate", "29-machine-zone", "36-erase-collision"}
    assert tried | apart == {p.name for p in (ROOT / "tests" / "cases").iterdir()}
