"""Checks of the options of a source against each other, and of its columns."""

import ast
import codecs
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headgate.jobs.config.document import Complaints, Yaml
from headgate.jobs.config.models import DATE_PLACE, FileSource, JdbcSource, PythonSource, Source, Table
from headgate.jobs.errors import UsageError
from headgate.transforms.kinds import require_type, simple
from headgate.transforms.parsing import check_pattern
from headgate.transforms.rows import OWN, is_own
from headgate.transforms.step import StepError
from headgate.words import did_you_mean

TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""  # a literal of Spark SQL

CHARSETS = ("utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "gb18030", "big5", "shift_jis", "euc-kr", "koi8-r")


Problem = Callable[[str, str], None]  # notes what is wrong with an option


def check_source(document: Yaml, place: tuple[Any, ...], source: Source) -> None:
    """Raise `UsageError` with all problems of options that are valid each alone but not together."""
    with Complaints() as complaints:

        def wrong(option: str, why: str) -> None:
            complaints.add(UsageError(f"{document.at(*place, option)}: {why}"))

        columns, present = getattr(source, "columns", None), None
        if columns:
            with complaints.collecting():
                typed = ddl_columns(columns, document.at(*place, "schema"))
                present = [name for name, _ in typed]
                check_types(typed, source.format, wrong)
        named = [("key", column) for column in source.key]
        if isinstance(source, FileSource):
            check_files(source, wrong)
            check_marks(source, wrong)
        elif source.watermark:
            named.append(("watermark", source.watermark))
        elif source.look_back != "0":
            wrong("look_back", "look_back requires a watermark")
        if not isinstance(source, FileSource) and not re.fullmatch(
            r"\d+(\.\d+)?|\d+ (second|minute|hour|day|week)s?", source.look_back
        ):
            wrong("look_back", f"'{source.look_back}' is neither a number nor a duration such as '2 days'")
        if isinstance(source, JdbcSource):
            if (source.table is None) == (source.query is None):
                wrong("table", "give exactly one of table and query")
            if re.search(r"(?i)password=|//[^/@]*:[^/@]*@", source.url):
                wrong("url", "a URL may not hold a password; give its place by the option password")
            if not source.url.startswith("jdbc:"):
                wrong("url", "a JDBC URL begins with jdbc:, as jdbc:postgresql://host:5432/shop")
        for option, column in named:
            if present is not None and column not in present:
                wrong(option, f"there is no column '{column}'{did_you_mean(column, present)}")


def check_types(typed: Sequence[tuple[str, str]], format: str, wrong: Problem) -> None:
    """Note reserved names, types that Spark does not have or no table holds, and those that no value of csv is of."""
    for column, kind in typed:
        if is_own(column):
            wrong("schema", f"column '{column}': this name is reserved, as are all that start with '{OWN}'")
        try:
            require_type(kind)
        except StepError as e:
            wrong("schema", f"column '{column}': {e}")
            continue
        plain = re.sub(r"`[^`]*`|\w+(?=:)", "", simple(kind))  # without names of members
        unheld = re.search(r"\b(time|interval|variant|void)\b", plain)
        if unheld:
            wrong("schema", f"column '{column}': no table can hold {unheld[0]}; take it up as a STRING")
        elif format == "csv" and re.match("array|map|struct", plain):
            wrong("schema", f"column '{column}': a value of csv is no {kind}; take it up as a STRING")
        elif format in ("jsonl", "http", "python") and re.search(r"\bmap<(?!string,)", plain):
            wrong("schema", f"column '{column}': the names of members are texts: MAP<STRING, …>, not {kind}")


def check_files(source: FileSource, wrong: Problem) -> None:
    """Note a missing schema, a path outside the landing folder, and an unknown encoding."""
    if source.format in ("csv", "jsonl") and not source.columns:
        wrong("schema", f"schema is required for {source.format}")
    if ".." in Path(source.path).parts or source.path.startswith("/"):
        wrong("path", "a path may not leave the landing folder: no '..' in it, no '/' before it")
    elif any(part in ("", ".") for part in source.path.removesuffix("/" * (source.format == "delta")).split("/")):
        plain = "/".join(part for part in source.path.split("/") if part not in ("", "."))
        hint = f"; write '{plain}'" if plain else ""
        wrong("path", f"'{source.path}' has a part that is empty or '.', which no name of a file has{hint}")
    for place in re.findall(r"\{[A-Za-z_]*\}", source.path):
        if place != DATE_PLACE:
            wrong("path", f"unknown place {place}; the day in a path is {DATE_PLACE}, and * stands for any text")
    if source.expected is not None and source.format == "delta":
        wrong("expected", "files are expected, and a Delta table is none; a suite can judge how fresh it is")
    try:
        known = codecs.lookup(source.encoding)._is_text_encoding
    except LookupError:
        known = False
    if not known:
        wrong("encoding", f"unknown encoding '{source.encoding}'{did_you_mean(source.encoding, CHARSETS)}")


def check_marks(source: FileSource, wrong: Problem) -> None:
    """Note characters of a text format that cannot be distinguished from each other, and unknown date patterns."""
    marks = {"delimiter": source.delimiter, "quote": source.quote, "escape": source.escape}
    for option, mark in marks.items():
        if mark and (not mark.isascii() or mark in "\r\n\0"):
            wrong(option, f"{mark!r} is not one ASCII character other than a line end")
    for option, pattern, time in (
        ("date_format", source.date_format, False),
        ("timestamp_format", source.timestamp_format, True),
    ):
        try:
            check_pattern(option, pattern, time)
        except StepError as e:
            wrong(option, str(e))
    if source.quote == source.delimiter:
        wrong("quote", "quote and delimiter are the same character")
    if source.escape and source.escape == source.delimiter:
        wrong("escape", "escape and delimiter are the same character")
    if source.thousands and source.thousands == source.decimal:
        wrong("thousands", "thousands and decimal are the same mark")
    for option, mark in (("decimal", source.decimal), ("thousands", source.thousands)):
        if mark and (mark.isalnum() or mark in "+-"):
            wrong(option, f"{mark!r} cannot be distinguished from a number")


def code_of(document: Yaml, name: str, table: Table) -> str | None:
    """Return the text of the file of a source's Python function; None for other sources."""
    if not isinstance(table.source, PythonSource):
        return None
    where = document.at("tables", name, "source", "function")
    path, _, function = table.source.function.partition(":")
    file = document.file.parent / path
    try:
        text = file.read_text(encoding="utf-8")
        functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    except (OSError, UnicodeDecodeError, SyntaxError) as e:
        raise UsageError(f"{where}: {file} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if function not in functions:
        raise UsageError(f"{where}: {file} has no function '{function}'{did_you_mean(function, functions)}")
    return text


def ddl_columns(ddl: str, where: str) -> list[tuple[str, str]]:
    """Return (name, type) of each column of a Spark DDL text such as 'id BIGINT, tags ARRAY<STRING>'.

    Raises `UsageError` for a part that is not a column, and for a name that is there twice in any case.
    """
    parts, depth, start = [], 0, 0
    for token in re.finditer(rf"`(?:[^`]|``)*`|{TEXT}|[<>(),`'\"]", ddl, re.DOTALL):
        depth += (token[0] in "<(") - (token[0] in ">)")
        if depth < 0 or token[0] in ("`", "'", '"'):
            raise UsageError(f"{where}: unbalanced {token[0]} in '{ddl.strip()}'")
        if token[0] == "," and depth == 0:
            parts.append(ddl[start : token.start()])
            start = token.end()
    if depth:
        raise UsageError(f"{where}: unbalanced brackets in '{ddl.strip()}'")
    columns = []
    for part in (*parts, ddl[start:]):
        match = re.match(r"\s*(`(?:[^`]|``)+`|\w+)\s*:?\s+(\S.*?)\s*$", part, re.DOTALL)
        if not match:
            raise UsageError(f"{where}: '{part.strip()}' is not 'name TYPE'")
        name = match[1]
        kind = re.sub(rf"(?is)(\s+NOT\s+NULL|\s+COMMENT\s+(?:{TEXT})+)+$", "", match[2])
        columns.append((name[1:-1].replace("``", "`") if name.startswith("`") else name, kind))
    names = [n.lower() for n, _ in columns]
    repeated = dict.fromkeys(n for n in names if names.count(n) > 1)
    if repeated:
        raise UsageError(f"{where}: duplicate column {', '.join(map(repr, repeated))}")
    return columns
