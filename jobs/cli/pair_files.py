"""Files of pairs that people know: labels to learn from, and decisions that bind."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headgate.jobs.cli.given_files import source_of
from headgate.jobs.cli.own_words import need_writable
from headgate.jobs.config.columns import name_of, writable_names
from headgate.jobs.config.shorthand import RAW
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.columns import columns_in
from headgate.jobs.lake.lake import Lake
from headgate.transforms.rows import is_own, quoted

PAIR = ("key_a", "key_b", "same")
YES = "('1', '1.0', 'true', 't', 'yes', 'y', 'match', 'same')"
NO = "('0', '0.0', 'false', 'f', 'no', 'n', 'no match', 'different')"


def known_pairs(option: str, place: str, lake: Lake) -> tuple[Path, tuple[list[str], str]]:
    """Return the path of a file of known pairs, its columns and its delimiter."""
    path = Path(place)
    if not path.is_file():
        raise InputMissing(f"--{option}: there is no file {place}")
    _, source, columns = source_of(path, (), "", None, lake, f"no_such_{option}", raw=True)
    if source["format"] != "csv" or len(columns) < 3:
        raise UsageError(
            f"--{option}: {place} is not a csv with three columns: the key of one record, the key of the other, and "
            "whether they are the same (1 or 0)"
        )
    return path, (list(columns), str(source["delimiter"]))


def pairs_before(lake: Lake, table: str) -> list[str]:
    """Return the columns of the files that were given before, as these name them."""
    odd = columns_in(lake, table + RAW)
    names = [c for c in (odd or columns_in(lake, table) or {}) if not is_own(c)]
    return list(map(name_of, names)) if odd else names


def need_same_form(option: str, file: Path, columns: Sequence[str], before: Sequence[str]) -> None:
    """Raise `UsageError` where files of before, which count too, name the columns of pairs otherwise than this one."""
    found, kept = ([*PAIR] if {*PAIR} <= set(names) else list(names[:3]) for names in (columns, before))
    if before and not writable_names(before):
        need_writable(file, columns)
    if before and found != kept:
        raise UsageError(
            f"--{option}: {file} has the columns {', '.join(found)}, but files given before, whose pairs count too, "
            f"have {', '.join(kept)}: name them alike"
        )


def table_of_pairs(
    table: str, path: Path, columns: Sequence[str], delimiter: str, landing: str, sources: Sequence[str]
) -> dict[str, Any]:
    """Return the table of known pairs: key_a, key_b, same, and with two sources source_a, source_b.

    By these names where the file has them; else its first three columns are those. A pair without an answer decides
    nothing; one with another answer than yes or no is rejected. columns: of this file, then others of files before.
    """
    named = {*PAIR} <= set(columns)
    renamed = writable_names(columns)
    key_a, key_b, same = (renamed.get(c, c) for c in (PAIR if named else columns[:3]))
    derived = {
        "fuse_key_a": f"trim({quoted(key_a)})",
        "fuse_key_b": f"trim({quoted(key_b)})",
        "fuse_same": f"nullif(lower(trim({quoted(same)})), '') IN {YES}",
    }
    told = named and {"source_a", "source_b"} <= set(columns)
    if len(sources) == 2:  # by the order of the sources, where a pair does not name them
        both = [(f"source_{e}", f"'{name}'") for e, name in zip("ab", sources, strict=True)]
        derived |= {f"fuse_{c}": f"coalesce({quoted(c)}, {name})" if told else name for c, name in both}
    elif told:
        derived |= {"fuse_source_a": "`source_a`", "fuse_source_b": "`source_b`"}
    elif len(sources) > 2:
        raise UsageError(f"{path}: with more than two sources, the columns source_a and source_b must name them")
    relative = os.path.relpath(os.path.abspath(path), landing)
    schema = ", ".join(f"{quoted(c)} STRING" for c in columns)
    source = {"format": "csv", "path": relative, "schema": schema, "delimiter": delimiter, "key": []}
    source |= {"on_changed_file": "replace", "on_other_columns": "evolve"}
    steps = {"steps": [{"rename": {"columns": renamed}}]} if renamed else {}
    unclear = f"NOT nullif(lower(trim({quoted(same)})), '') IN {YES.rstrip(')')}, {NO.lstrip('(')}"
    return {
        f"{table}_input": {"source": source, "suite": None} | steps,
        table: {
            "from": f"{table}_input",
            "suite": None,
            "steps": [
                {"reject_rows": {"where": unclear, "reason": "neither_yes_nor_no", "show": [key_a, key_b, same]}},
                {"derive": {"columns": derived}},
                {"select_columns": {"columns": list(derived)}},
                {"rename": {"columns": {c: c.removeprefix("fuse_") for c in derived}}},
            ],
        },
    }
