"""Values of one type as values of another, exactly: what the other type would round, cut or lose is none of its."""

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.kinds import TIMES, is_number, is_text
from headgate.transforms.parsing import Marks, ddl_of, parsed, within
from headgate.transforms.step import StepError

INTO = {  # into which kinds of types values of a kind can be converted
    "number": ("number", "boolean", "timestamp", "string"),
    "boolean": ("boolean", "number", "string"),
    "date": ("date", "timestamp", "string"),
    "timestamp": ("timestamp", "number", "date", "string"),
    "binary": ("binary", "string"),
    "array": ("array", "string"),
    "map": ("map", "string"),
    "struct": ("struct", "string"),
}
BEYOND_LONG = 2.0**63  # to which Spark clips the greatest whole numbers, on the way to a double and back


def kind_of(ddl: str) -> str:
    """Return the kind of a type, as types are alike in what they can be converted into."""
    if is_number(ddl):
        return "number"
    if is_text(ddl):
        return "string"
    return "timestamp" if ddl in TIMES else ddl.split("<")[0].split("(")[0]


def require_convertible(column: str, have: str, wanted: str) -> None:
    """Raise `StepError` where no value of a type is one of another, as a number is no date and a text no array."""
    into = INTO.get(kind_of(have), ())
    refused = kind_of(wanted) in ("array", "map", "struct") if is_text(have) else into and kind_of(wanted) not in into
    if refused:
        hint = f"; such a value becomes one of: {', '.join(into)}" if into else ""
        raise StepError(f"'{column}' is {have}, which cannot be converted to {wanted}{hint}")


def converted(value: Column, have: T.DataType, kind: T.DataType, marks: Marks, column: str) -> Column:
    """Return a value in another type; null where that cannot hold it, or one of the values within it.

    Arrays, maps and structs are converted value by value, to others of as many members with the same names. Raises
    `StepError` where the types have nothing to do with each other.
    """
    if have == kind:
        return value
    if isinstance(have, T.ArrayType) and isinstance(kind, T.ArrayType):
        one, other = have.elementType, kind.elementType
        fine = F.forall(value, lambda x: x.isNull() | converted(x, one, other, marks, column).isNotNull())
        return F.when(fine, F.transform(value, lambda x: converted(x, one, other, marks, column)))
    if isinstance(have, T.MapType) and isinstance(kind, T.MapType) and have.keyType == kind.keyType:
        one, other = have.valueType, kind.valueType
        values = F.map_values(value)
        fine = F.forall(values, lambda x: x.isNull() | converted(x, one, other, marks, column).isNotNull())
        return F.when(fine, F.transform_values(value, lambda _, x: converted(x, one, other, marks, column)))
    if isinstance(have, T.StructType) and isinstance(kind, T.StructType) and have.names == kind.names:
        given = {f.name: value.getField(f.name) for f in have}
        made = {f.name: converted(given[f.name], have[f.name].dataType, f.dataType, marks, column) for f in kind}
        fine = value.isNotNull()
        for name in kind.names:
            fine = fine & (given[name].isNull() | made[name].isNotNull())
        return F.when(fine, F.struct(*(made[name].alias(name) for name in kind.names)))
    before, after = ddl_of(have), ddl_of(kind)
    require_convertible(column, before, after)
    if isinstance(kind, T.ArrayType | T.MapType | T.StructType):
        raise StepError(f"'{column}' is {before}, which cannot be converted to {after}: its members or keys are others")
    if isinstance(have, T.StringType):
        return parsed(value, kind, marks)
    if isinstance(kind, T.StringType | T.CharType | T.VarcharType):
        text = value.cast("string")
        if isinstance(have, T.BinaryType):
            text = F.try_validate_utf8(text)
        return text if isinstance(kind, T.StringType) else F.when(F.length(text) <= kind.length, text)
    return plain_value(value, have, kind)


def plain_value(value: Column, have: T.DataType, kind: T.DataType) -> Column:
    new = value.try_cast(kind)
    if isinstance(have, T.BooleanType):
        return new
    if isinstance(kind, T.FloatType) and isinstance(have, T.DoubleType | T.DecimalType):
        return F.when(~new.isin(float("inf"), float("-inf")) | (new.cast("double") == value), new)
    same = new.try_cast(have).eqNullSafe(value)
    floats = T.FloatType | T.DoubleType
    if isinstance(have, floats) and isinstance(kind, T.IntegralType):
        same = same & (value < F.lit(BEYOND_LONG))
    elif isinstance(have, T.IntegralType) and isinstance(kind, floats):
        same = same & (new < F.lit(BEYOND_LONG).cast(kind))
    found = F.when(same, new)
    return within(found, kind.simpleString()) if isinstance(kind, T.DateType | T.TimestampType) else found
