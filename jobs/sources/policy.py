"""The policy for a file whose columns or types are not those expected."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pyspark.sql import types as T

from headgate.jobs.config.models import FileSource
from headgate.jobs.errors import FileRefused
from headgate.jobs.sources.inspection import TEXT
from headgate.jobs.sources.landing import LandedFile
from headgate.transforms.parsing import ddl_of, without_ntz
from headgate.transforms.rows import OWN, is_own, struct_of
from headgate.words import cell

WHOLE = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 20}  # digits


def apply_file_policy(
    source: FileSource, file: LandedFile, reference: Mapping[str, str] | None, known: Mapping[str, str] | None = None
) -> LandedFile:
    """The file as the source's policy takes it; raises `FileRefused` where that is to refuse.

    reference: the columns of the file taken up last, for a source without a schema. known: those of all files so far,
    each of the type that the table has.
    """
    problem, option = file.problem, "on_bad_file"
    empty = source.format in TEXT and not file.columns and not file.records
    if problem is None and file.columns is not None and not empty:
        declared = columns_of_ddl(source.columns) if source.columns else {}
        expected = declared if source.columns else reference
        shown, there = partial(quoted, declared), {**(known or expected or {}), **declared}
        problem = wrong_name(file.columns, there, shown) or wrong_type(file.columns, there, shown)
        if problem is None and expected is not None:
            problem, option = other_columns(source, file.columns, list(expected), shown), "on_other_columns"
    policy = getattr(source, option)
    if problem is None or policy == "evolve":
        return file
    if policy == "refuse":
        said = f" (source.{option} says what is done with such a file)"
        remedy = "all files of an input have the columns of its first; put it right or take it out"
        if option == "on_bad_file":
            remedy = "put it right or take it out"
        raise FileRefused(f"{file.path}: {problem}", said, remedy)
    return replace(file, problem=problem)


def quoted(declared: Collection[str], name: str) -> str:
    """Return a column's name for a message: one that a source declares as a name, another as a value of data.

    What only files tell may be one: the first line of a csv without a header, a member of JSON, a pivoted column.
    """
    return f"'{name}'" if name in declared else cell(name)


def columns_of_ddl(ddl: str) -> dict[str, str]:
    return {f.name: ddl_of(without_ntz(f.dataType)) for f in struct_of(ddl)}


def wrong_name(found: Mapping[str, str], expected: Mapping[str, str], shown: Callable[[str], str]) -> str | None:
    """Which column of a file has a name that is headgate's own, or that another has in other letters."""
    own = next(filter(is_own, found), None)
    if own is not None:
        return f"its column {shown(own)} has a name that is headgate's own; names that start with '{OWN}' are, too"
    known = {n.lower(): n for n in expected}
    for name in found:
        other = known.setdefault(name.lower(), name)
        if other != name:
            return f"its column {shown(name)} differs from {shown(other)} only in the case of its letters"
    return None


def wrong_type(found: Mapping[str, str], expected: Mapping[str, str], shown: Callable[[str], str]) -> str | None:
    """Which column of a typed file is of a type that cannot be read as the expected one without loss."""
    for name, kind in found.items():
        if kind.startswith("<"):
            return f"its column {shown(name)} is {named_type(kind[1:-1])}, which no table can hold"
        alike = alike_in(type_of(kind)) if "struct<" in kind else None
        if alike is not None:
            one, other = map(cell, alike)
            return f"its column {shown(name)} has members {one} and {other}, of which a table can hold one alone"
        wanted = expected.get(name, "")
        if kind and wanted not in ("", "void", kind) and not fits(type_of(kind), type_of(wanted)):
            return f"its column {shown(name)} is {named_type(kind)}, where {named_type(wanted)} is expected"
    return None


def alike_in(kind: T.DataType) -> tuple[str, str] | None:
    """Return two members of one struct in a type whose names are the same, or differ only in case."""
    inside: list[T.DataType] = []
    if isinstance(kind, T.StructType):
        known: dict[str, str] = {}
        for f in kind:
            if f.name.lower() in known:
                return known[f.name.lower()], f.name
            known[f.name.lower()] = f.name
        inside = [f.dataType for f in kind]
    elif isinstance(kind, T.MapType):
        inside = [kind.keyType, kind.valueType]
    elif isinstance(kind, T.ArrayType):
        inside = [kind.elementType]
    return next(filter(None, map(alike_in, inside)), None)


def named_type(kind: str) -> str:
    """Return a type for a message: one that names members as a value of data, as names that only files tell are."""
    return cell(kind) if set(kind) & set(":`{") else kind


def type_of(text: str) -> T.DataType:
    return T._parse_datatype_string(text)


def fits(found: T.DataType, wanted: T.DataType) -> bool:
    """Return whether a type holds every value of another one."""
    if found == wanted or isinstance(found, T.NullType):
        return True
    if isinstance(wanted, T.CharType | T.VarcharType):
        return False
    if isinstance(found, T.ArrayType) and isinstance(wanted, T.ArrayType):
        return fits(found.elementType, wanted.elementType)
    if isinstance(found, T.MapType) and isinstance(wanted, T.MapType):
        return fits(found.keyType, wanted.keyType) and fits(found.valueType, wanted.valueType)
    if isinstance(found, T.StructType) and isinstance(wanted, T.StructType):
        same = found.names == wanted.names
        return same and all(fits(a.dataType, b.dataType) for a, b in zip(found, wanted, strict=True))
    one, other = found.simpleString(), wanted.simpleString()
    if isinstance(wanted, T.DecimalType):
        digits = found.precision - found.scale if isinstance(found, T.DecimalType) else WHOLE.get(one, 99)
        scale = found.scale if isinstance(found, T.DecimalType) else 0
        return wanted.scale >= scale and wanted.precision - wanted.scale >= digits
    if one in WHOLE and other in WHOLE:
        return WHOLE[one] <= WHOLE[other]
    return (one, other) in (("float", "double"), ("date", "timestamp")) or (
        other == "double" and WHOLE.get(one, 99) <= 10
    )


def other_columns(
    source: FileSource, found: Mapping[str, str], expected: Sequence[str], shown: Callable[[str], str]
) -> str | None:
    """Return how the columns of a file differ from those expected; a member that a JSON record lacks is null."""
    names = list(found)
    lacking = [n for n in expected if n not in found] if source.format != "jsonl" else []
    more = [n for n in names if n not in expected]
    if lacking or more:
        differences = [f"missing {shown(n)}" for n in lacking[:3]] + [f"unexpected {shown(n)}" for n in more[:3]]
        return f"its columns do not match the schema ({len(expected)} columns): {', '.join(differences)}"
    if source.format == "csv" and names != list(expected):
        wrong = next(pair for pair in zip(expected, names, strict=True) if pair[0] != pair[1])
        return (
            "its columns are in another order than those of the schema: "
            f"{shown(wrong[1])} stands where {shown(wrong[0])} should"
        )
    return None
