"""Types of columns: which of them a step can count with, and constants that a type holds exactly."""

import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, StepError
from headgate.words import did_you_mean

WHOLE = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}  # bits
FLOATS = ("float", "double")
LARGEST = {"float": 3.4028234663852886e38, "double": sys.float_info.max}
TIMES = ("timestamp", "timestamp_ntz")
EXACT_DOUBLES = 2**52  # up to here the half between two whole numbers is a double too
EXACT = Context(prec=80)
MOST_DIGITS = 38  # of a decimal
MOST_COLUMNS = 1_000  # of one aggregate, and of one expression that changes cells
DATE = r"\d{4}-\d\d-\d\d"
MOMENT = rf"({DATE})(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d{{1,6}})?)?(Z|[+-]\d\d:\d\d)?"


TYPES = (  # the words with which a type begins in Spark's DDL
    *("BOOLEAN", "TINYINT", "BYTE", "SMALLINT", "SHORT", "INT", "INTEGER", "BIGINT", "LONG", "FLOAT", "REAL", "DOUBLE"),
    *("DECIMAL", "DEC", "NUMERIC", "STRING", "CHAR", "CHARACTER", "VARCHAR", "BINARY", "DATE", "TIME"),
    *("TIMESTAMP", "TIMESTAMP_NTZ", "TIMESTAMP_LTZ", "INTERVAL", "ARRAY", "MAP", "STRUCT", "VARIANT", "VOID"),
)
SYNONYMS = {
    **{"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint", "real": "float"},
    **{"dec": "decimal", "numeric": "decimal", "timestamp_ltz": "timestamp", "timestamp_ntz": "timestamp"},
}


def require_type(ddl: str) -> None:
    """Raise `StepError` for a type that does not begin with a word of Spark's DDL, and for decimals that it has not."""
    word = re.split(r"[^A-Za-z_]", ddl.strip().upper())[0]
    if word not in TYPES:
        raise StepError(f"there is no type '{ddl}'{did_you_mean(word, TYPES)}")
    for digits, behind in re.findall(r"(?i)\b(?:DECIMAL|DEC|NUMERIC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", ddl):
        if not 1 <= int(digits) <= MOST_DIGITS or int(behind or 0) > int(digits):
            why = f"a decimal has 1 to {MOST_DIGITS} digits, and no more of them behind the point"
            raise StepError(f"there is no type '{ddl}': {why}")


def simple(ddl: str) -> str:
    """Return a type of DDL as Spark writes it: `ARRAY < INTEGER >` is `array<int>`. Names of members stay."""
    text = re.sub(r"\s*([<>(),:])\s*", r"\1", ddl.strip())
    text = re.sub(r"(?<=[<,])(`[^`]+`|\w+) (?=\w)", r"\1:", text)  # struct<a INT> is struct<a:INT>
    member = r"`[^`]+`(?=:)|\w+(?=:)"
    words = re.sub(rf"{member}|\w+", lambda m: m[0] if text[m.end() : m.end() + 1] == ":" else m[0].lower(), text)
    plain = re.sub(r"\w+(?![\w:`])", lambda m: SYNONYMS.get(m[0], m[0]), words)
    return re.sub(r"\bdecimal(?!\()(?!:)", "decimal(10,0)", plain)


def scale_of(kind: str) -> int | None:
    """The digits behind the point that a type of exact numbers holds; None for any other type."""
    found = re.fullmatch(r"decimal\(\d+,(\d+)\)", kind)
    return int(found[1]) if found else 0 if kind in WHOLE else None


def is_number(kind: str) -> bool:
    return kind in FLOATS or scale_of(kind) is not None


def is_plain(kind: str) -> bool:
    """Return whether values of a type can be written as text and read again: no bytes, nothing nested."""
    return is_number(kind) or is_category(kind) or kind in ("date", *TIMES)


def is_text(kind: str) -> bool:
    """Return whether a type is of texts, of some length or collation too."""
    return kind.startswith(("string", "char", "varchar"))


def is_category(kind: str) -> bool:
    """Return whether a type is of texts or booleans."""
    return kind == "boolean" or is_text(kind)


def need_kinds(have: DataFrame | Columns, step: str, columns: Iterable[str], numbers: bool) -> None:
    """Raise `StepError` for the first column that is no number, or else no plain value; one of no known type passes."""
    fits, wanted = (is_number, "a number") if numbers else (is_plain, "a plain value")
    for column, kind in known_kinds(have, columns):
        if not fits(kind):
            raise StepError(f"{step}: '{column}' is {kind}, not {wanted}; put a cast before")


def need_texts(have: Columns, step: str, columns: Iterable[str]) -> None:
    """Raise `StepError` for the first column that is no text; one of no known type passes."""
    for column, kind in known_kinds(have, columns):
        if not is_text(kind):
            raise StepError(f"{step}: '{column}' is {kind}, not a text; put a cast before")


def known_kinds(have: DataFrame | Columns, columns: Iterable[str]) -> list[tuple[str, str]]:
    """Return the columns whose types are known, with these."""
    kinds = have if isinstance(have, Mapping) else dict(have.dtypes)
    return [(c, kind) for c in columns if (kind := kinds[c]) is not None]


def require_few(columns: Collection[str]) -> None:
    """Raise `StepError` for no column, and for more than one step may work on."""
    if not columns:
        raise StepError("columns: name one or more")
    if len(columns) > MOST_COLUMNS:
        raise StepError(f"columns: {len(columns):,} are more than {MOST_COLUMNS:,}; put them into several steps")


def missing(column: str, kind: str) -> Column:
    """Return whether a cell is null or NaN."""
    value = F.col(quoted(column))
    return value.isNull() | F.isnan(value) if kind in FLOATS else value.isNull()


def present(column: str, kind: str) -> Column:
    """The value of a cell, null where it is NaN; -0.0 is 0.0."""
    value = F.col(quoted(column))
    if kind in FLOATS:
        value = value + F.lit(0.0).cast(kind)
    return F.when(~missing(column, kind), value)


def as_text(value: Column, kind: str) -> Column:
    """A plain value as text that a cast reads as the same value again, in any time zone; -0.0 is 0.0."""
    if kind in FLOATS:
        value = value + F.lit(0.0).cast(kind)
    return F.date_format(value, "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX") if kind == "timestamp" else value.cast("string")


def range_of(kind: str) -> tuple[Decimal, Decimal]:
    """The least and the greatest number that a type of exact numbers holds."""
    if kind in WHOLE:
        return Decimal(-(2 ** (WHOLE[kind] - 1))), Decimal(2 ** (WHOLE[kind] - 1) - 1)
    precision, scale = map(int, re.findall(r"\d+", kind))
    most = Decimal(10**precision - 1).scaleb(-scale, EXACT)
    return most.copy_negate(), most


def exact(number: Any) -> Decimal:
    """A number as it is written: 0.1 is a tenth."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def rounded(number: Decimal, scale: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-scale), rounding=rounding, context=EXACT)


def constant(value: Any, kind: str, column: str) -> Column:
    """A constant of a column's type; raises `StepError` where the type does not hold just this value."""
    return F.lit(held(value, kind, column)).cast(kind)


def held(value: Any, kind: str, column: str) -> str | int | float | bool | None:
    """A constant as a plain value that a cast makes one of a column's type; raises `StepError` as `constant` does."""
    wrong = StepError(f"'{column}' is {kind}, which does not hold {value!r}{hint_of(value, kind)}")
    if value is None:
        return None
    text, plain = str(value), isinstance(value, str)
    if scale_of(kind) is not None:
        try:
            number = None if isinstance(value, bool) else Decimal(text)
        except InvalidOperation:
            number = None
        if number is None or not number.is_finite():
            raise wrong
        low, high = range_of(kind)
        if not low <= number <= high or rounded(number, scale_of(kind) or 0) != number:
            raise wrong
        return f"{number:f}" if kind not in WHOLE else int(number)
    if kind in FLOATS:
        if plain or not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
            raise wrong
        if math.isfinite(value) and (abs(value) > LARGEST[kind] or exact(value) != exact(float(value))):
            raise wrong
        return float(value)
    if kind == "boolean":
        if not isinstance(value, bool) and text not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    if kind == "date" or kind in TIMES:
        if not plain or not is_moment(text, kind):
            raise wrong
    elif not plain or not is_plain(kind):
        raise wrong
    return text


def is_moment(text: str, kind: str) -> bool:
    found = re.fullmatch(DATE if kind == "date" else MOMENT, text)
    if not found:
        return False
    if kind != "date" and found[3] and (kind == "timestamp_ntz" or not found[2]):
        return False
    try:
        date.fromisoformat(text[:10])
        if kind != "date" and found[2]:
            datetime.fromisoformat(f"{found[1]}T{found[2]}")
    except ValueError:
        return False
    return True


def hint_of(value: Any, kind: str) -> str:
    if kind == "date":
        return " (write a day as 2013-01-31)"
    if kind in TIMES:
        return " (write a time as 2013-01-31T12:00:00" + ("Z)" if kind == "timestamp" else ")")
    return "" if isinstance(value, str) or is_number(kind) or kind == "boolean" else " (write a text in quotes)"


def key_texts(values: Iterable[str], kind: str, what: str) -> Mapping[str, Column]:
    """The texts of plain values, each as `as_text` writes a value of the column's type: 1 is 1.0 in a double."""
    texts: dict[str, Column] = {}
    for value in values:
        if kind in FLOATS:
            try:
                float(value)
            except ValueError as e:
                raise StepError(f"'{what}' is {kind}, which does not hold '{value}'") from e
            texts[value] = as_text(F.lit(value).cast(kind), kind)
        elif scale_of(kind) is not None or kind in ("boolean", "date"):
            texts[value] = as_text(constant(value, kind, what), kind)
        else:
            texts[value] = F.lit(value)
    return texts


def named_values(spark: SparkSession, given: Iterable[str], kind: str, column: str, option: str) -> dict[str, str]:
    """Return the values that some texts stand for, as `as_text` writes them, each with its text.

    Raises `StepError` where two texts are one value, as 1 and 1.0 in a column of doubles.
    """
    texts = key_texts(given, kind, column)
    found = spark.range(1).select(*(t.alias(f"t{i}") for i, t in enumerate(texts.values()))).first()
    named: dict[str, str] = {}
    for value, text in zip(found or (), texts, strict=True):
        if value in named:
            raise StepError(f"{option}: '{named[value]}' and '{text}' are one value of '{column}', which is {kind}")
        named[value] = text
    return named
