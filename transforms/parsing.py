"""Texts as values of a type, strictly: one parser for files, pulled records and the steps that convert.

Spark's own casts take '12d' for a number, '2024-01-15 banana' for a date and round 1.239 to 1.24. Here a text is of a
type only if all of it is, and if the type holds it exactly.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.rows import quoted
from headgate.transforms.step import StepError

DAYS = ("0001-01-01", "9999-12-31")  # what every reader of the tables can hold
LAST_MOMENT = f"{DAYS[1]} 23:59:59.999999"
BOOLEANS = {True: ("true", "t", "yes", "y", "1"), False: ("false", "f", "no", "n", "0")}
NOT_FINITE = r"[+-]?(?i:inf|infinity)|(?i:nan)"
BLANKS = " \t\n\r\f\v"  # white space that makes no difference at the ends of a text
CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6}0*)?)?"
ZONE = r" ?(Z|UTC|[+-]\d{2}(:?\d{2})?)"
WITH_ZONE = rf"^\d{{4}}-\d{{2}}-\d{{2}}{CLOCK}{ZONE}$"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The notation of numbers and times.

    decimal, thousands: the marks of numbers, '' for none. date_format, timestamp_format: patterns of Spark
    (`dd/MM/yyyy HH:mm`), instead of ISO 8601.
    """

    decimal: str = "."
    thousands: str = ""
    date_format: str | None = None
    timestamp_format: str | None = None


PLAIN = Marks()


DATE_LETTERS, TIME_LETTERS = "yMLdD", "ahHkKmsSVzOXxZ"
MOST_LETTERS = {"y": 6, "M": 4, "L": 4, "D": 3, "S": 6, "a": 1, "z": 4, "O": 4, "X": 5, "x": 5, "Z": 5}  # others: 2


def check_pattern(option: str, pattern: str | None, time: bool) -> None:
    """Raise `StepError` unless a pattern tells a whole day, and a time of 24 hours to the microsecond if any."""
    if pattern is None:
        return
    plain = re.sub(r"'[^']*'", "", pattern)
    letters, allowed = {c for c in plain if c.isalpha()}, DATE_LETTERS + (TIME_LETTERS if time else "")
    reserved = re.search(r"[#{}']", plain)
    if reserved:
        why = "a quote that does not close" if reserved[0] == "'" else f"'{reserved[0]}', which has no meaning"
        raise StepError(f"{option}: '{pattern}' has {why}; letters and signs that stand for themselves are quoted by '")
    if re.search(r"^[^[]*\]", re.sub(r"\[[^][]*\]", "", plain)):
        raise StepError(f"{option}: '{pattern}' has a ] without its [ before it")
    strange = sorted(letters - set(allowed))
    if strange:
        raise StepError(f"{option}: '{pattern}': unknown letter '{strange[0]}'; expected one of {' '.join(allowed)}")
    if "y" not in letters or not ("D" in letters or ("d" in letters and letters & {"M", "L"})):
        raise StepError(f"{option}: '{pattern}' tells no whole day: it needs a year (y), a month (M) and a day (d)")
    if letters & {"h", "K"} and "a" not in letters:
        raise StepError(f"{option}: '{pattern}': an hour of twelve (h) needs 'a' for its half of the day; 'H' is of 24")
    if letters & {"m", "s", "S"} and not letters & {"h", "H", "k", "K"}:
        raise StepError(f"{option}: '{pattern}' has minutes (m) or seconds (s) but no hour (H)")
    if plain.count("S") > 6:
        raise StepError(f"{option}: '{pattern}': a time is held to the microsecond, six S")
    for run in re.finditer(r"([A-Za-z])\1*", plain):
        letter, most = run[1], MOST_LETTERS.get(run[1], 2)
        if len(run[0]) > most or (letter == "V" and len(run[0]) < 2) or (letter == "O" and len(run[0]) in (2, 3)):
            allowed = {"V": "VV", "O": "O or OOOO"}.get(letter, f"one to {most}" if most > 1 else "one")
            raise StepError(f"{option}: '{pattern}' has {len(run[0])} '{letter}' in a row; allowed: {allowed}")


def parsed(text: Column, kind: T.DataType, marks: Marks = PLAIN) -> Column:
    """Return the value of a type that a text stands for; null where it stands for none, or for one it cannot hold.

    Numbers: whole numbers have digits only; 1.50 is a DECIMAL(10,1) and 1.25 is not; what is beyond the type's range,
    or would become an infinity or 0, is none. NaN, inf and infinity are floating-point values. Dates are ISO 8601 days
    and timestamps such days with an optional time, fraction to the microsecond and offset (without one: UTC), from
    year 1 to 9999. Booleans are true, t, yes, y, 1 and false, f, no, n, 0 in any case. White space at the ends makes
    no difference but to texts. Of arrays, maps and structs, `text` has texts in place of plain values; one that stands
    for none makes the whole null.
    """
    if isinstance(kind, T.ArrayType):
        each: Callable[[Column], Column] = lambda x: parsed(x, kind.elementType, marks)  # noqa: E731
        fine = F.forall(text, lambda x: x.isNull() | each(x).isNotNull())
        return F.when(fine, F.transform(text, each))
    if isinstance(kind, T.MapType):
        each = lambda x: parsed(x, kind.valueType, marks)  # noqa: E731
        fine = F.forall(F.map_values(text), lambda x: x.isNull() | each(x).isNotNull())
        return F.when(fine, F.transform_values(text, lambda _, x: each(x)))
    if isinstance(kind, T.StructType):
        members = {f.name: (text.getField(f.name), parsed(text.getField(f.name), f.dataType, marks)) for f in kind}
        fine = text.isNotNull()
        for member, value in members.values():
            fine = fine & (member.isNull() | value.isNotNull())
        return F.when(fine, F.struct(*(value.alias(name) for name, (_, value) in members.items())))
    if isinstance(kind, T.StringType | T.NullType):
        return text
    if isinstance(kind, T.CharType | T.VarcharType):
        return F.when(F.length(text) <= kind.length, text)
    if isinstance(kind, T.BinaryType):
        return F.encode(text, "UTF-8")
    return plain_value(trimmed(text), kind, marks)


def trimmed(text: Column) -> Column:
    """A text without white space at its ends, tabs and line ends included."""
    return F.btrim(text, F.lit(BLANKS))


def plain_value(text: Column, kind: T.DataType, marks: Marks) -> Column:
    """The value of a text without white space at its ends."""
    if isinstance(kind, T.NumericType):
        return number(text, kind, marks)
    if isinstance(kind, T.BooleanType):
        low = F.lower(text)
        return F.when(low.isin(*BOOLEANS[True]), F.lit(True)).when(low.isin(*BOOLEANS[False]), F.lit(False))
    if isinstance(kind, T.DateType):
        if marks.date_format is None:
            return within(F.when(text.rlike(r"^\d{4}-\d{2}-\d{2}$"), text.try_cast("date")), "date")
        return within(F.try_to_timestamp(text, F.lit(marks.date_format)).cast("date"), "date")
    if isinstance(kind, T.TimestampType | T.TimestampNTZType):
        if marks.timestamp_format is None:
            form = rf"^\d{{4}}-\d{{2}}-\d{{2}}({CLOCK}({ZONE})?)?$"
            return within(F.when(text.rlike(form), in_sparks_form(text).try_cast("timestamp")), "timestamp")
        return within(F.try_to_timestamp(text, F.lit(marks.timestamp_format)), "timestamp")
    return text.try_cast(kind)


def in_sparks_form(time: Column) -> Column:
    """A time whose offset Spark reads: 'Z' for ' UTC', a colon inside, no space before, seconds before it."""
    short = F.regexp_replace(F.regexp_replace(time, " ?UTC$", "Z"), " (?=[Z+-])", "")
    offset = F.regexp_replace(short, r"([+-]\d{2})(\d{2})$", "$1:$2")
    return F.when(
        time.rlike(r":.*(UTC|Z|[+-][\d:]*)$"), F.regexp_replace(offset, r"([T ]\d{2}:\d{2})(?=[Z+-])", "$1:00")
    ).otherwise(time)


def within(value: Column, kind: str) -> Column:
    """A day or a moment that every reader can hold, or null."""
    first, last = DAYS if kind == "date" else (DAYS[0], LAST_MOMENT)
    return F.when(value.between(F.lit(first).cast(kind), F.lit(last).cast(kind)), value)


def holds_days(kind: T.DataType) -> bool:
    """Return whether a type is of days or moments, or has such within it."""
    if isinstance(kind, T.StructType):
        return any(holds_days(f.dataType) for f in kind)
    if isinstance(kind, T.MapType):
        return holds_days(kind.keyType) or holds_days(kind.valueType)
    return (
        holds_days(kind.elementType)
        if isinstance(kind, T.ArrayType)
        else isinstance(kind, T.DateType | T.TimestampType)
    )


def outside(value: Column, kind: T.DataType) -> Column:
    """Return whether a value is, or holds, a day or a moment that not every reader can hold; false for a null."""
    found = F.lit(False)
    if isinstance(kind, T.DateType | T.TimestampType):
        found = value.isNotNull() & within(value, kind.simpleString()).isNull()
    elif isinstance(kind, T.ArrayType) and holds_days(kind):
        found = F.exists(value, lambda x: outside(x, kind.elementType))
    elif isinstance(kind, T.MapType) and holds_days(kind):
        keys, values = (F.map_keys(value), kind.keyType), (F.map_values(value), kind.valueType)
        found = outside(keys[0], T.ArrayType(keys[1])) | outside(values[0], T.ArrayType(values[1]))
    elif isinstance(kind, T.StructType):
        for f in kind:
            found = found | outside(value.getField(f.name), f.dataType) if holds_days(f.dataType) else found
    return F.coalesce(found, F.lit(False))


def number(text: Column, kind: T.DataType, marks: Marks) -> Column:
    point, group = re.escape(marks.decimal), re.escape(marks.thousands)
    whole = rf"(?:\d+|\d{{1,3}}(?:{group}\d{{3}})+)" if group else r"\d+"
    form = rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    plain = text
    if marks.thousands:
        plain = F.replace(plain, F.lit(marks.thousands), F.lit(""))
    if marks.decimal != ".":
        plain = F.replace(plain, F.lit(marks.decimal), F.lit("."))
    if isinstance(kind, T.IntegralType):
        return F.when(text.rlike(rf"^[+-]?{whole}$"), plain.try_cast(kind))
    if isinstance(kind, T.DecimalType):
        value = plain.try_cast(kind)
        exponent = rf"^[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)[eE][+-]?0*\d{{1,2}}$"
        fraction = rf"^[+-]?(?:{whole}(?:{point}(?:\d{{0,{kind.scale}}}0*))?|{point}(?=\d)\d{{0,{kind.scale}}}0*)$"
        exact = text.rlike(fraction) | (text.rlike(exponent) & (decimals(plain) <= kind.scale))
        return F.when(exact, value)
    value = plain.try_cast(kind)
    bounded = ~value.isin(float("inf"), float("-inf")) & ((value != 0) | ~text.rlike(r"^[^eE]*[1-9]"))
    return F.when(text.rlike(rf"^(?:{NOT_FINITE})$"), value).when(text.rlike(f"^{form}$") & bounded, value)


def decimals(number: Column) -> Column:
    """Return how many digits behind the point a number with an exponent needs: 2 for 1.20e-1, less than 1 for 0e-8."""
    mantissa = F.regexp_extract(number, r"^[+-]?([\d.]+)", 1)
    digits = F.replace(mantissa, F.lit("."), F.lit(""))
    behind = (
        F.length(F.regexp_extract(mantissa, r"\.(\d*)", 1)) - F.length(digits) + F.length(F.rtrim(digits, F.lit("0")))
    )
    exponent = F.regexp_extract(number, r"[eE](.+)$", 1).try_cast("int")
    return F.when(digits.rlike("^0*$"), F.lit(0)).otherwise(behind - exponent)


def text_type(kind: T.DataType) -> T.DataType:
    """A type with texts in place of its plain values: what `parsed` takes."""
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(text_type(kind.elementType))
    if isinstance(kind, T.MapType):
        return T.MapType(T.StringType(), text_type(kind.valueType))
    if isinstance(kind, T.StructType):
        return T.StructType([T.StructField(f.name, text_type(f.dataType)) for f in kind])
    return T.StringType()


def ddl_of(kind: T.DataType) -> str:
    """Return a type as DDL that Spark reads back, whatever the names of its members."""
    if isinstance(kind, T.ArrayType):
        return f"array<{ddl_of(kind.elementType)}>"
    if isinstance(kind, T.MapType):
        return f"map<{ddl_of(kind.keyType)},{ddl_of(kind.valueType)}>"
    if isinstance(kind, T.StructType):
        plain = re.compile(r"[A-Za-z_]\w*", re.ASCII)
        names = [f.name if plain.fullmatch(f.name) else quoted(f.name) for f in kind]
        return f"struct<{','.join(f'{n}:{ddl_of(f.dataType)}' for n, f in zip(names, kind, strict=True))}>"
    return kind.simpleString()


def without_ntz(kind: T.DataType) -> T.DataType:
    """A type whose times are all moments: tables with others need a newer reader of Delta."""
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(without_ntz(kind.elementType), kind.containsNull)
    if isinstance(kind, T.MapType):
        return T.MapType(without_ntz(kind.keyType), without_ntz(kind.valueType), kind.valueContainsNull)
    if isinstance(kind, T.StructType):
        return T.StructType([T.StructField(f.name, without_ntz(f.dataType), f.nullable) for f in kind])
    return T.TimestampType() if isinstance(kind, T.TimestampNTZType) else kind
