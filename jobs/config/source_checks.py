"""Refuse what the options of a source say together but not each alone."""

import ast
import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headgate.jobs.config.document import Yaml
from headgate.jobs.config.models import FileSource, JdbcSource, PythonSource, Source, Table
from headgate.jobs.errors import UsageError
from headgate.transforms.parsing import check_pattern
from headgate.transforms.rows import OWN, is_own
from headgate.transforms.step import StepError
from headgate.words import did_you_mean

TYPES = (  # the words with which a type begins in Spark's DDL
    *("BOOLEAN", "TINYINT", "BYTE", "SMALLINT", "SHORT", "INT", "INTEGER", "BIGINT", "LONG", "FLOAT", "REAL", "DOUBLE"),
    *("DECIMAL", "DEC", "NUMERIC", "STRING", "CHAR", "CHARACTER", "VARCHAR", "BINARY", "DATE", "TIME"),
    *("TIMESTAMP", "TIMESTAMP_NTZ", "TIMESTAMP_LTZ", "INTERVAL", "ARRAY", "MAP", "STRUCT", "VARIANT", "VOID"),
)


CHARSETS = ("utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "gb18030", "big5", "shift_jis", "euc-kr", "koi8-r")


def check_source(document: Yaml, place: tuple[Any, ...], source: Source) -> None:
    """Refuse what the options of a source say together but not each alone."""

    def wrong(option: str, why: str) -> UsageError:
        return UsageError(f"{document.at(*place, option)}: {why}")

    columns = getattr(source, "columns", None)
    typed = ddl_columns(columns, document.at(*place, "schema")) if columns else []
    present = [n for n, _ in typed] if columns else None
    own = next(filter(is_own, present or ()), None)
    if own is not None:
        raise wrong("schema", f"the name '{own}' is headgate's own; names that start with '{OWN}' are, too")
    for column, kind in typed:
        word = re.split(r"[^A-Za-z_]", kind.upper())[0]
        if word not in TYPES:
            raise wrong("schema", f"column '{column}': there is no type '{kind}'{did_you_mean(word, TYPES)}")
    named = [("key", column) for column in source.key]
    if isinstance(source, FileSource):
        if source.format in ("csv", "jsonl") and not columns:
            raise wrong("schema", f"schema is required for {source.format}")
        if ".." in Path(source.path).parts or source.path.startswith("/"):
            raise wrong("path", "a path may not leave the landing folder: no '..' in it, no '/' before it")
        try:
            if not codecs.lookup(source.encoding)._is_text_encoding:
                raise LookupError
        except LookupError as e:
            hint = did_you_mean(source.encoding, CHARSETS)
            raise wrong("encoding", f"there is no encoding '{source.encoding}'{hint}") from e
        check_marks(source, wrong)
    else:
        if source.watermark:
            named.append(("watermark", source.watermark))
        elif source.look_back != "0":
            raise wrong("look_back", "look_back goes with a watermark")
        if not re.fullmatch(r"\d+(\.\d+)?|\d+ (second|minute|hour|day|week)s?", source.look_back):
            raise wrong("look_back", f"'{source.look_back}' is neither a number nor a time such as '2 days'")
    if isinstance(source, JdbcSource):
        if (source.table is None) == (source.query is None):
            raise wrong("table", "give exactly one of table and query")
        if re.search(r"(?i)password=|//[^/@]*:[^/@]*@", source.url):
            raise wrong("url", "a URL may not hold a password; name where it is found by password")
    for option, column in named:
        if present is not None and column not in present:
            raise wrong(option, f"there is no column '{column}'{did_you_mean(column, present)}")


def check_marks(source: FileSource, wrong: Callable[[str, str], UsageError]) -> None:
    """Refuse characters of a text format that cannot be told from each other."""
    marks = {"delimiter": source.delimiter, "quote": source.quote, "escape": source.escape}
    for option, mark in marks.items():
        if mark and (not mark.isascii() or mark in "\r\n\0"):
            raise wrong(option, f"{mark!r} is not one ASCII character other than a line end")
    for option, pattern, time in (
        ("date_format", source.date_format, False),
        ("timestamp_format", source.timestamp_format, True),
    ):
        try:
            check_pattern(option, pattern, time)
        except StepError as e:
            raise wrong(option, str(e)) from e
    if source.quote == source.delimiter:
        raise wrong("quote", "quote and delimiter are the same character")
    if source.escape and source.escape == source.delimiter:
        raise wrong("escape", "escape and delimiter are the same character")
    if source.thousands and source.thousands == source.decimal:
        raise wrong("thousands", "thousands and decimal are the same mark")
    for option, mark in (("decimal", source.decimal), ("thousands", source.thousands)):
        if mark and (mark.isalnum() or mark in "+-"):
            raise wrong(option, f"{mark!r} cannot be told from a number")


def code_of(document: Yaml, name: str, table: Table) -> str | None:
    """The text of the file of a source's Python function."""
    if not isinstance(table.source, PythonSource):
        return None
    where = document.at("tables", name, "source", "function")
    path, _, function = table.source.function.partition(":")
    file = document.file.parent / path
    try:
        text = file.read_text(encoding="utf-8")
        functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    except (OSError, UnicodeDecodeError, SyntaxError) as e:
        raise UsageError(f"{where}: {file} cannot be read: {e}") from e
    if function not in functions:
        raise UsageError(f"{where}: {file} has no function '{function}'{did_you_mean(function, functions)}")
    return text


def ddl_columns(ddl: str, where: str) -> list[tuple[str, str]]:
    """(name, type) of each column of a Spark DDL text such as 'id BIGINT, tags ARRAY<STRING>'."""
    parts, depth, start, inside = [], 0, 0, ""  # inside: the quote of a name or a comment that is open
    for i, char in enumerate(ddl):
        if char in "`'" and inside in ("", char):
            inside = "" if inside else char
        if inside:
            continue
        depth += (char in "<(") - (char in ">)")
        if char == "," and depth == 0:
            parts.append(ddl[start:i])
            start = i + 1
    columns = []
    for part in (*parts, ddl[start:]):
        match = re.match(r"\s*(`(?:[^`]|``)+`|\w+)\s*:?\s+(\S.*?)\s*$", part, re.DOTALL)
        if not match:
            raise UsageError(f"{where}: '{part.strip()}' is not 'name TYPE'")
        name = match[1]
        kind = re.sub(r"(?is)(\s+NOT\s+NULL|\s+COMMENT\s+'(?:[^'\\]|\\.)*')+$", "", match[2])
        columns.append((name[1:-1].replace("``", "`") if name.startswith("`") else name, kind))
    names = [n.lower() for n, _ in columns]
    repeated = [n for n in names if names.count(n) > 1]
    if repeated:
        raise UsageError(f"{where}: the column '{repeated[0]}' stands twice")
    return columns
