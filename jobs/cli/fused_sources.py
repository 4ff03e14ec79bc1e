"""Sources that `headgate fuse` is given, and their columns made alike."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.jobs.config.shorthand import RAW
from headgate.jobs.errors import UsageError
from headgate.transforms.fusion.entities import NEW
from headgate.transforms.fusion.records import element_of
from headgate.transforms.kinds import WHOLE, is_plain, is_text
from headgate.transforms.rows import SPLIT, quoted

SOURCE = "fuse_source"  # a column of the entities: the name of the source as it was given
ADDED = {SOURCE, SPLIT, *NEW, "records", "evidence"}  # columns that are added, or mean rows to learn from


@dataclass(frozen=True, kw_only=True)
class Input:
    """A source: its name, its table, its columns and, where it is of files, folder and source as in YAML.

    columns: as they are linked, with their types where these are known. given: the source's own, as they are published.
    renamed: those of its files that have other names there -> these. mapped: the table of its mapped columns, and the
    options of the step that maps them.
    """

    name: str
    table: str
    columns: Mapping[str, str | None]
    given: Sequence[str]
    folder: str | None = None
    source: dict[str, Any] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    mapped: tuple[str, list[dict[str, Any]]] | None = None

    @property
    def start(self) -> str:
        """Return the table whose rows are linked."""
        return self.mapped[0] if self.mapped else self.table

    @property
    def landed(self) -> str:
        """Return the table of what came in, and is named as in the files."""
        return self.table + RAW if self.renamed else self.table

    @property
    def in_files(self) -> list[str]:
        """Return the columns under the names that they have in the files."""
        names = {new: given for given, new in self.renamed.items()}
        return [names.get(c, c) for c in self.given]


def need_one_case(inputs: Sequence[Input]) -> None:
    """Raise `UsageError` for a column that another source names in another case."""
    seen: dict[str, tuple[str, str]] = {}
    for i in inputs:
        for column in i.columns:
            other, name = seen.setdefault(column.lower(), (column, i.name))
            if other != column:
                raise UsageError(
                    f"column '{other}' of {name} and '{column}' of {i.name} differ only in case: rename one, or "
                    "map it (headgate fuse --suggest prints a mapping)"
                )


def need_free_names(inputs: Sequence[Input]) -> None:
    """Raise `UsageError` for columns of a source that have names of those that the tables made of it add."""
    for i in inputs:
        taken = ", ".join(f"'{c}'" for c in i.columns if c.lower() in ADDED)
        if taken:
            raise UsageError(
                f"{i.name}: {taken}: this command gives columns of such names a meaning of its own; rename what the "
                "source has so, in the file or by --mapping, or leave it out there (others: drop)"
            )


def of_one_type(inputs: Sequence[Input], into: str) -> list[Input]:
    """Return the sources with steps that give each column one type that has other types in others.

    Whole numbers become bigint; all else text, as all of csv files is, of arrays their elements. Nested values beside
    texts become JSON, as a text file has them. Bytes and what else has no common type raise `UsageError`.
    """
    kinds: dict[str, dict[str, str]] = {}
    for i in inputs:
        for column, kind in i.columns.items():
            if kind is not None:
                kinds.setdefault(column, {})[i.name] = kind
    common: dict[str, str] = {}
    for column, of in kinds.items():
        if len(set(of.values())) < 2:
            continue
        wanted = common_type(set(of.values()))
        if wanted is None:
            each = " and ".join(f"{kind} in {name}" for name, kind in of.items())
            raise UsageError(f"fuse: column '{column}' is {each}: rename one of them, or leave it out")
        common[column] = wanted
    found = []
    for i in inputs:
        other = {c: kind for c, kind in i.columns.items() if c in common and kind not in (common[c], None)}
        json = {c: f"to_json({quoted(c)})" for c, kind in other.items() if common[c] == "string" and nested(kind or "")}
        casts = {c: common[c] for c in other if c not in json}
        table, steps = i.mapped or (f"{into}_{i.name}_mapped", [])
        more = [{step: {"columns": columns}} for step, columns in (("derive", json), ("cast", casts)) if columns]
        found.append(replace(i, mapped=(table, [*steps, *more])) if other else i)
    return found


def nested(kind: str) -> bool:
    return kind.startswith(("array<", "struct<", "map<"))


def common_type(kinds: Collection[str]) -> str | None:
    """Return the type that columns of several types meet in; None where they have none."""
    if all(map(is_plain, kinds)):
        return "bigint" if set(kinds) <= set(WHOLE) else "string"
    elements = [element_of(kind) for kind in kinds]
    if all(elements):
        return f"array<{common_type({e for e in elements if e})}>"
    return "string" if all(nested(kind) or is_text(kind) for kind in kinds) else None
