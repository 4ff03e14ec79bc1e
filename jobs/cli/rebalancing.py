"""The pipeline that `headgate rebalance` builds, made of its options, and what it did to each stratum."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headgate.jobs.cli.given_files import need_columns, source_of
from headgate.jobs.cli.one_table import Options, no_such_input
from headgate.jobs.cli.own_words import not_selected
from headgate.jobs.config.columns import ARRIVES
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.transforms.rows import SPLIT, TRAIN, is_own
from headgate.words import did_you_mean, read_value, stratum_of_texts, value_or_null

UNITS = ("rows", "characters", "bytes", "tokens")
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
TOKENS = "tokens"  # the column that a tokenizer's counts go into
SHOWN = 50
OPTION_OF = {"sample_strata": "--target", "mix_sources": "--mixture", "count_tokens": "--tokenizer"}
OPTION_OF |= {"reject_rows": "--where"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request by options: of `given` (a file, a folder or a table of the lake) the table `into`."""

    given: str
    into: str
    by: Sequence[str]
    target: str | None = None
    mixture: str | None = None
    temperature: float | None = None
    total: str | None = None
    budget: str | None = None
    unit: str = "rows"
    column: str | None = None
    tokenizer: str | None = None
    epochs: float | None = None
    max_copies: int | None = None
    others: str | None = None
    seed: int = 0
    key: Sequence[str] = ()
    schema: str = ""
    delimiter: str | None = None
    where: str | None = None

    @property
    def mixes(self) -> bool:
        return self.target is None

    @property
    def counted(self) -> str | None:
        """The column that holds or makes the units."""
        return TOKENS if self.tokenizer else self.column


def pipeline_of(request: Request, lake: Lake) -> tuple[Pipeline, str, str]:
    """Return the pipeline that builds `into`, its landing folder and the table that is rebalanced.

    Files are taken up into `<into>_input`; where a tokenizer counts, the rows with their numbers are `<into>_counted`.
    Where the input has a column `split`, its training rows alone are rebalanced; else all rows are.
    """
    into, given = request.into, request.given
    check(request)
    made = (into, f"{into}_input", f"{into}_counted")
    stands = next((t for t in made if lake.open(t) is not None), None)
    if stands and f"rebalance_{into}" not in lake.system("runs")["pipeline"].to_pylist():
        raise UsageError(f"--into: the table '{stands}' exists and is not of `headgate rebalance`; choose another name")
    path = Path(given)
    tables: dict[str, Any] = {}
    if os.path.lexists(path):
        start = f"{into}_input"
        landing, source, found = source_of(path, request.key, request.schema, request.delimiter, lake, start)
        columns = list(found)
        tables[start] = {"source": source | {"on_changed_file": "replace"}, "suite": None}
    elif re.match(TABLE_NAME, given) and given in lake.tables():
        options = (("--key", request.key), ("--schema", request.schema), ("--delimiter", request.delimiter))
        wrong = next((option for option, value in options if value), None)
        if wrong is not None or given == into:
            why = "name another table" if wrong is None else "its rows and columns are what they are; leave it out"
            raise UsageError(f"{wrong or '--into'}: '{given}' is the input, a table; {why}")
        start, landing = given, "."
        columns = [f.name for f in lake.need_table(given).schema().fields if not is_own(f.name)]
    else:
        raise no_such_input(given, lake)
    need_columns("--by", request.by, columns)
    need_columns("--column", [request.column] if request.column else [], columns)
    there = {start: {**dict.fromkeys(columns), **ARRIVES}}
    begins = start
    if request.tokenizer:
        begins = f"{into}_counted"
        count = {"columns": [request.column], "tokenizer": os.path.abspath(request.tokenizer), "into": TOKENS}
        tables[begins] = {"from": start, "suite": None, "steps": [{"count_tokens": count}]}
    tables[into] = {"from": begins, "suite": None, "steps": steps_of(request, columns)}
    names = ("schema", "key", "delimiter", "where", "tokenizer", "temperature", "epochs", "budget", "unit", "column")
    places: dict[Any, str] = {name: f"--{name}" for name in (*names, "total", "others", "seed", "by")}
    places |= {"path": given, "max_copies": "--max-copies", "shares": "--mixture"}
    places |= {"targets": "--target", "rows": "--target", **OPTION_OF}
    places |= {("table", into): "--into", ("table", start): given, ("table", f"{into}_counted"): "--tokenizer"}
    document = Options(Path("rebalance"), {"pipeline": f"rebalance_{into}", "tables": tables}, {}, places, "rebalance")
    return check_pipeline(document, there), landing, begins


def check(request: Request) -> None:
    """Raise `UsageError` for options that do not go together."""
    if not re.match(TABLE_NAME, request.into):
        raise UsageError(f"--into: '{request.into}' is not a valid table name: use lower-case letters, digits and '_'")
    if not request.by:
        raise UsageError("--by: name at least one column")
    twice = next((c for i, c in enumerate(request.by) if c in request.by[:i]), None)
    if twice is not None:
        raise UsageError(f"--by: '{twice}' is named twice")
    for option, value in (("--temperature", request.temperature), ("--epochs", request.epochs)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option}: must be a number above 0, not {value:g}")
    if request.target is not None and (request.mixture or request.budget):
        raise UsageError("--target: rows of each stratum; leave it out with --mixture and --budget")
    if request.target is None and not (request.mixture or request.budget or request.temperature):
        raise UsageError("give --target (equal, a number, or a=100,b=50), or --mixture or --temperature with --budget")
    of_one = {"--total": request.total, "--max-copies": request.max_copies}
    of_other = {"--epochs": request.epochs, "--column": request.column, "--tokenizer": request.tokenizer}
    of_other |= {"--unit": None if request.unit == "rows" else request.unit}
    wrong = next((o for o, v in (of_one if request.mixes else of_other).items() if v is not None), None)
    if wrong is not None:
        raise UsageError(
            f"{wrong} can only be combined with {'--target' if request.mixes else '--mixture or --budget'}"
        )
    if request.tokenizer and request.unit != "tokens":
        raise UsageError("--tokenizer: counts tokens; add --unit tokens")
    if request.tokenizer and not request.column:
        raise UsageError("--tokenizer: name the text by --column")
    if request.unit != "rows" and not request.column:
        what = "number of tokens (or the text, with --tokenizer)" if request.unit == "tokens" else "text"
        raise UsageError(f"--column: needed for --unit {request.unit}: the column with the {what}")
    if SPLIT in request.by:
        raise UsageError(f"--by: '{SPLIT}' is the split; its training rows are rebalanced")


def of_option(error: UsageError) -> UsageError:
    """Return what a step refused as a message about the option that asked for it."""
    found = re.match(r"tables\.\w+\.steps\[\d+\]\.(\w+): ", str(error))
    option = OPTION_OF.get(found[1]) if found else None
    return UsageError(f"{option}: {str(error)[found.end() :]}") if found and option else error


def steps_of(request: Request, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the steps that make `into`."""
    there = dict.fromkeys([*columns, *([TOKENS] if request.tokenizer else [])])
    steps: list[dict[str, Any]] = [{step: options} for step, options in not_selected(request.where, there)]
    whole = SPLIT not in columns
    split = {"split_by_hash": {"key": list(request.by), "shares": {TRAIN: 1.0}}}
    steps.append(split if whole else {"split_by_column": {"column": SPLIT}})
    options: dict[str, Any] = {"by": list(request.by), "seed": request.seed}
    if request.others:
        options["others"] = request.others
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.mixes:
        shares = pairs_of("--mixture", request.mixture, float) if request.mixture is not None else {}
        if len(request.by) == 1 and shares:
            options["shares"] = shares
        elif shares:
            options["targets"] = [{"values": split_values(n, request.by), "share": x} for n, x in shares.items()]
        if request.budget:
            options["budget"] = some_of("--budget", request.budget)
        options |= {"unit": request.unit, "epochs": 1.0 if request.epochs is None else request.epochs}
        options |= {"column": request.counted} if request.counted else {}
        steps.append({"mix_sources": options})
    else:
        options |= target_options(request)
        steps.append({"sample_strata": options})
    return [*steps, *([{"drop_columns": {"columns": [SPLIT]}}] if whole else [])]


def target_options(request: Request) -> dict[str, Any]:
    """Return the options of `sample_strata` for --target, --total and --max-copies."""
    target, options = str(request.target), {"max_copies": request.max_copies or 1}
    total = {"total": some_of("--total", request.total)} if request.total else {}
    if target == "equal":
        return {**options, "equal": True, **total}
    if target == "natural":
        return {**options, **(total or {"share": 1.0})}
    if "=" not in target:
        if total:
            raise UsageError("--total: cannot be combined with a number of rows of each stratum")
        if target[:1].isalpha():
            hint = did_you_mean(target, ["equal", "natural"])
            raise UsageError(f"--target: '{target}' is none of equal, natural, a number, or a=100,b=50{hint}")
        return {**options, "rows": some_of("--target", target)}
    pairs = pairs_of("--target", target, str)
    shares = any("." in value or value.endswith("%") for value in pairs.values())
    entries: list[dict[str, Any]] = []
    for name, value in pairs.items():
        given = {"share": share_of("--target", value)} if shares else {"rows": number_of("--target", value)}
        entries.append({"values": split_values(name, request.by), **given})
    return {**options, "targets": entries, **total}


def pairs_of(option: str, text: str, kind: type) -> dict[str, Any]:
    """Return `a=1,b=2` as a mapping, in which a name may have commas; raise `UsageError` where it is none."""
    pairs: dict[str, Any] = {}
    part = ""
    for piece in text.split(","):
        part = f"{part},{piece}" if part else piece.strip()
        name, equals, value = part.rpartition("=")
        if not equals:
            continue
        if not name.strip() or name.strip() in pairs:
            raise UsageError(f"{option}: '{part}' is not NAME=NUMBER, with every name once")
        pairs[name.strip()] = share_of(option, value.strip()) if kind is float else value.strip()
        part = ""
    if part.strip():
        raise UsageError(f"{option}: '{part}' is not NAME=NUMBER")
    if not pairs:
        raise UsageError(f"{option}: write NAME=NUMBER,NAME=NUMBER")
    return pairs


def share_of(option: str, text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise UsageError(f"{option}: '{text}' is not a share such as 0.3 or 30%")
    return share


def number_of(option: str, text: str | None) -> int:
    """Return a whole number that may end in K, M, G (or B) or T."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGBT]?)", (text or "").strip().replace("_", "").upper())
    number = float(found[1]) * SIZES[found[2]] if found else 0.5
    if found is None or number != int(number):
        raise UsageError(f"{option}: '{text}' is not a whole number such as 500, 20K or 1.5M")
    return int(found[1]) if not found[2] else int(number)


def some_of(option: str, text: str | None) -> int:
    """Return a whole number above 0."""
    number = number_of(option, text)
    if not number:
        raise UsageError(f"{option}: 0 rows would be left; give a number above 0")
    return number


def split_values(name: str, by: Sequence[str]) -> list[str | None]:
    r"""Return the values of a stratum that is written as `en/web`: `(null)` is a missing one, `\/` a / within one."""
    if len(by) == 1:
        return [read_value(name)]
    values = [value.replace(r"\/", "/") for value in re.split(r"(?<!\\)/", name, maxsplit=len(by) - 1)]
    if len(values) != len(by):
        raise UsageError(f"'{name}': write a value for each of --by {','.join(by)}, parted by '/'")
    return [*map(read_value, values)]


def before_and_after(lake: Lake, request: Request, begins: str) -> list[dict[str, Any]]:
    """Return the rows, and the units where they are others, of each stratum in the input and in what was made.

    Only training rows where there is a split. The largest strata of the input come first.
    """
    found: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}
    for when, table in (("before", begins), ("after", request.into)):
        for key, n, units in counted(lake, request, table):
            sides = found.setdefault(tuple(map(told, key)), {})
            rows_there, units_there = sides.get(when, (0, 0))
            sides[when] = (rows_there + n, units_there + units)
    rows: list[dict[str, Any]] = []
    total = sum(f.get("after", (0, 0))[1] for f in found.values())
    for key, sides in found.items():
        before, after = sides.get("before", (0, 0)), sides.get("after", (0, 0))
        row: dict[str, Any] = {"stratum": stratum_of_texts(key)}
        row |= {"rows_before": before[0], "rows_after": after[0]}
        if request.unit != "rows":
            row |= {f"{request.unit}_before": before[1], f"{request.unit}_after": after[1]}
        rows.append(row | {"share_after": round(after[1] / total, 4) if total else 0.0})
    return sorted(rows, key=lambda r: (-r["rows_before"], r["stratum"]))


def told(value: Any) -> str:
    """Return a value of a stratum as it is shown: equal for equal ones, as which lists of the same labels count."""
    if isinstance(value, list) and not any(isinstance(v, list | dict) for v in value):
        return f"[{', '.join(sorted({repr(v) for v in value}))}]"
    return value_or_null(value)


def counted(lake: Lake, request: Request, table: str) -> list[tuple[tuple[Any, ...], int, int]]:
    rows = lake.dataset(table)
    column = '"' + (request.counted or "").replace('"', '""') + '"'
    units = {"rows": "count(*)", "characters": f"sum(length({column}))", "bytes": f"sum(strlen({column}))"}
    if request.counted and pa.types.is_binary(rows.schema.field(request.counted).type):
        units["bytes"] = f"sum(octet_length({column}))"
    amount = units.get(request.unit, f"sum({column})")
    names = ", ".join('"' + c.replace('"', '""') + '"' for c in request.by)
    where = f"WHERE {SPLIT} = '{TRAIN}'" if SPLIT in rows.schema.names else ""
    query = f"SELECT {names}, count(*), coalesce({amount}, 0)::BIGINT FROM rows {where} GROUP BY ALL"
    answer = duckdb.from_arrow(rows).query("rows", query)
    return [(r[:-2], r[-2], r[-1]) for r in (answer.fetchall() if answer is not None else ())]


def columns_shown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else ["stratum"]
