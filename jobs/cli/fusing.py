"""The pipeline that `headgate fuse` builds, made of its options."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from headgate.jobs.cli.given_files import need_columns, source_of, types_of
from headgate.jobs.cli.one_table import Options, no_such_input
from headgate.jobs.config.columns import ARRIVES
from headgate.jobs.config.document import checked, read_yaml
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.columns import columns_in
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.transforms.cleaning.mapping import MapColumns
from headgate.transforms.kinds import WHOLE, is_plain
from headgate.transforms.rows import is_own, quoted
from headgate.transforms.step import StepError
from headgate.transforms.steps import options_of
from headgate.words import did_you_mean

SOURCE = "fuse_source"  # a column of the entities: the name of the source as it was given
PARTS = ("pairs", "entities", "history", "events", "xref", "links", "labels", "decisions")
PAIR = ("key_a", "key_b", "same")
YES = "('1', '1.0', 'true', 't', 'yes', 'y', 'match', 'same')"
NO = "('0', '0.0', 'false', 'f', 'no', 'n', 'no match', 'different')"


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """A request by options: of `inputs`, each `name=place` or a place alone, the table `into`."""

    inputs: Sequence[str]
    into: str
    key: Sequence[str] = ()
    labels: str | None = None
    decisions: str | None = None
    one_to_one: bool | None = None
    threshold: float | None = None
    columns: Sequence[str] = ()
    rule: str = "vote"
    delimiter: str | None = None
    mapping: str | None = None
    refit: bool = False


@dataclass(frozen=True, kw_only=True)
class Input:
    """A source: its name, its table, its columns and, where it is of files, folder and source as in YAML.

    columns: as they are linked, with their types where these are known. given: the source's own. mapped: the table of
    its mapped columns, and the options of the step that maps them.
    """

    name: str
    table: str
    columns: Mapping[str, str | None]
    given: Sequence[str]
    folder: str | None = None
    source: dict[str, Any] | None = None
    mapped: tuple[str, list[dict[str, Any]]] | None = None

    @property
    def start(self) -> str:
        """Return the table whose rows are linked."""
        return self.mapped[0] if self.mapped else self.table


def pipeline_of(fusion: Fusion, lake: Lake) -> tuple[Pipeline, str]:
    """Return the pipeline that builds `into` and the tables beside it, and its landing folder."""
    into = fusion.into
    if not re.match(TABLE_NAME, into):
        raise UsageError(f"--into: '{into}' is not a valid table name: use lower-case letters, digits and '_'")
    inputs = inputs_of(fusion, lake)
    need_one_case(inputs)
    inputs = of_one_type(inputs, into)
    made = [into, *(f"{into}_{part}" for part in PARTS), *(i.table for i in inputs if i.source is not None)]
    made += [i.start for i in inputs if i.mapped is not None]
    stands = next((t for t in made if lake.open(t) is not None), None)
    if stands and f"fuse_{into}" not in lake.system("runs")["pipeline"].to_pylist():
        raise UsageError(f"--into: the table '{stands}' exists and is not of `headgate fuse`; choose another name")
    shared = [c for c in inputs[0].columns if all(c in i.columns for i in inputs) and c not in fusion.key]
    if not shared:
        each = "; ".join(f"{i.name}: {', '.join(i.columns)}" for i in inputs)
        beside = f" beside the key {', '.join(fusion.key)}" if fusion.key else ""
        raise UsageError(f"the sources share no column{beside}: rename those that mean the same ({each})")
    need_columns("--columns", fusion.columns, shared)
    taken = next((i.name for i in inputs if SOURCE in i.columns), None)
    if taken is not None:
        raise UsageError(f"{taken}: '{SOURCE}' is a column that this command adds; rename it")
    known = {o: known_pairs(o, p, lake) for o, p in (("labels", fusion.labels), ("decisions", fusion.decisions)) if p}
    kept = f"{into}_decisions"
    earlier = {} if fusion.decisions else columns_in(lake, kept) or {}  # what people decided binds every later run
    if (known or earlier) and not fusion.key:
        raise UsageError(f"--{next(iter(known), 'decisions')}: needs --key, by which the pairs name their records")
    folders = [i.folder for i in inputs if i.folder is not None] + [str(p.parent) for p, _ in known.values()]
    landing = os.path.commonpath([os.path.abspath(f) for f in folders]) if folders else "."
    tables: dict[str, Any] = {}
    for i in inputs:
        if i.source is not None and i.folder is not None:
            path = os.path.join(os.path.relpath(os.path.abspath(i.folder), landing), i.source["path"])
            tables[i.table] = {"source": i.source | {"path": os.path.normpath(path)}, "suite": None}
        if i.mapped is not None:
            tables[i.start] = {"from": i.table, "suite": None, "steps": i.mapped[1]}
    for option, (file, (names, delimiter)) in known.items():
        before = [c for c in columns_in(lake, f"{into}_{option}_input") or {} if not is_own(c)]
        need_same_form(option, file, names, before)
        names = [*names, *(c for c in before if c not in names)]
        tables |= table_of_pairs(f"{into}_{option}", file, names, delimiter, landing, inputs)
    tables |= derived_tables(fusion, inputs, [*known, *(["decisions"] if earlier else [])])
    places: dict[Any, str] = {"columns": "--columns", "threshold": "--threshold", "key": "--key", "rule": "--rule"}
    places |= {("table", i.table): i.name for i in inputs} | {("table", into): "--into"}
    places |= {"map_columns": "--mapping", "labels": "--labels", "decisions": "--decisions", "delimiter": "--delimiter"}
    there: dict[str, Any] = {i.table: {**dict.fromkeys(i.given), **ARRIVES} for i in inputs}
    there |= {kept: {c: kind for c, kind in earlier.items() if not is_own(c)}} if earlier else {}
    document = Options(Path("fuse"), {"pipeline": f"fuse_{into}", "tables": tables}, {}, places, "fuse")
    return check_pipeline(document, there), landing


def inputs_of(fusion: Fusion, lake: Lake) -> list[Input]:
    """Return the sources, in the order of their names where these decide which is `a`."""
    found: list[Input] = []
    mapping = mapping_of(fusion)
    for given in fusion.inputs:
        name, _, place = given.partition("=") if "=" in given and not os.path.lexists(given) else ("", "", given)
        path = Path(place)
        if not name:
            name = re.sub(r"\W+", "_", path.name.split(".")[0].lower()).strip("_") or "source"
        if not re.match(TABLE_NAME, name):
            raise UsageError(
                f"{given}: '{name}' is not a valid name of a source: use lower-case letters, digits and '_'"
            )
        options = mapping.pop(name, None)
        key = [key_in_source(c, options) for c in fusion.key]
        if name in PARTS or name in (i.name for i in found):
            why = "is a name that this command uses" if name in PARTS else "names two sources"
            raise UsageError(f"{given}: '{name}' {why}; name the source by NAME={place}")
        table = f"{fusion.into}_{name}"
        if os.path.lexists(path):
            folder, source, found_columns = source_of(path, (), "", fusion.delimiter, lake, table)
            columns = {c: kind.lower() for c, kind in found_columns.items()}
            need_columns(f"{name}: --key", key, list(columns))
            source |= {"key": key, "on_changed_file": "replace"}
            found.append(mapped_input(fusion, options, name, table, columns, folder=folder, source=source))
        elif re.match(TABLE_NAME, place) and place in lake.tables():
            columns = {
                c: kind.lower() for c, kind in types_of(pa.schema(lake.need_table(place).schema().to_arrow())).items()
            }
            need_columns(f"{name}: --key", key, list(columns))
            found.append(mapped_input(fusion, options, name, place, columns))
        else:
            raise no_such_input(place, lake)
    twice = next((i.table for n, i in enumerate(found) if i.table in (j.table for j in found[:n])), None)
    if twice is not None:
        raise UsageError(f"the table '{twice}' is given twice")
    if mapping:
        names = [i.name for i in found]
        hint = did_you_mean(next(iter(mapping)), names)
        there = f"{hint} (sources: {', '.join(names)})"
        raise UsageError(f"--mapping: {fusion.mapping}: there is no source '{next(iter(mapping))}'{there}")
    return found


def mapping_of(fusion: Fusion) -> dict[str, dict[str, Any]]:
    """Return the mapping of each source that the file of `--mapping` has one for, as `--suggest` prints it."""
    if fusion.mapping is None:
        return {}
    document = read_yaml(Path(fusion.mapping))
    data = document.data if isinstance(document.data, dict) else {}
    mapping = data.get("mapping")
    if set(data) != {"mapping"} or not isinstance(mapping, dict) or not mapping:
        raise UsageError(
            f"--mapping: {fusion.mapping} does not hold a mapping of sources alone; headgate fuse --suggest prints one"
        )
    for name, options in mapping.items():
        checked(MapColumns, document, options, ("mapping", name))
    return {str(name): dict(options) for name, options in mapping.items()}


def key_in_source(column: str, options: Mapping[str, Any] | None) -> str:
    """Return the source's own name of a key column."""
    of = (options or {}).get("columns", {}).get(column, column)
    return str(of if isinstance(of, str) else of.get("of", column))


def mapped_input(
    fusion: Fusion, options: dict[str, Any] | None, name: str, table: str, columns: Mapping[str, str], **files: Any
) -> Input:
    """Return a source with its columns as they are linked."""
    if options is None:
        return Input(name=name, table=table, columns=columns, given=list(columns), **files)
    step: MapColumns = options_of(MapColumns).validate_python(options)
    try:
        after = step.columns_after(columns, {})
    except StepError as e:
        raise UsageError(f"--mapping: {fusion.mapping}: {name}: {e}") from e
    need_columns(f"{name}: --key, as mapped", fusion.key, list(after))
    mapped = (f"{fusion.into}_{name}_mapped", [{"map_columns": options}])
    return Input(name=name, table=table, columns=after, given=list(columns), mapped=mapped, **files)


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


def of_one_type(inputs: Sequence[Input], into: str) -> list[Input]:
    """Return the sources with a cast of each column that has other types in others: whole numbers to bigint, all else
    to text, as all of csv files is. Bytes and nested values raise `UsageError`."""
    kinds: dict[str, dict[str, str]] = {}
    for i in inputs:
        for column, kind in i.columns.items():
            if kind is not None:
                kinds.setdefault(column, {})[i.name] = kind
    common: dict[str, str] = {}
    for column, of in kinds.items():
        if len(set(of.values())) < 2:
            continue
        if not all(map(is_plain, of.values())):
            each = " and ".join(f"{kind} in {name}" for name, kind in of.items())
            raise UsageError(f"fuse: column '{column}' is {each}: rename one of them, or leave it out")
        common[column] = "bigint" if set(of.values()) <= set(WHOLE) else "string"
    found = []
    for i in inputs:
        casts = {c: common[c] for c, kind in i.columns.items() if c in common and kind not in (common[c], None)}
        table, steps = i.mapped or (f"{into}_{i.name}_mapped", [])
        found.append(replace(i, mapped=(table, [*steps, {"cast": {"columns": casts}}])) if casts else i)
    return found


def known_pairs(option: str, place: str, lake: Lake) -> tuple[Path, tuple[list[str], str]]:
    """Return the path of a file of known pairs, its columns and its delimiter."""
    path = Path(place)
    if not path.is_file():
        raise InputMissing(f"--{option}: there is no file {place}")
    _, source, columns = source_of(path, (), "", None, lake, f"no_such_{option}")
    if source["format"] != "csv" or len(columns) < 3:
        raise UsageError(
            f"--{option}: {place} is not a csv with three columns: the key of one record, the key of the other, and "
            "whether they are the same (1 or 0)"
        )
    return path, (list(columns), str(source["delimiter"]))


def need_same_form(option: str, file: Path, columns: Sequence[str], before: Sequence[str]) -> None:
    """Raise `UsageError` where files of before, which count too, name the columns of pairs otherwise than this one."""
    found, kept = ([*PAIR] if {*PAIR} <= set(names) else list(names[:3]) for names in (columns, before))
    if before and found != kept:
        raise UsageError(
            f"--{option}: {file} has the columns {', '.join(found)}, but files given before, whose pairs count too, "
            f"have {', '.join(kept)}: name them alike"
        )


def table_of_pairs(
    table: str, path: Path, columns: Sequence[str], delimiter: str, landing: str, inputs: Sequence[Input]
) -> dict[str, Any]:
    """Return the table of known pairs: key_a, key_b, same, and with two sources source_a, source_b.

    By these names where the file has them; else its first three columns are those. A pair without an answer decides
    nothing; one with another answer than yes or no is rejected. columns: of this file, then others of files before.
    """
    named = {*PAIR} <= set(columns)
    key_a, key_b, same = PAIR if named else columns[:3]
    derived = {
        "fuse_key_a": f"trim({quoted(key_a)})",
        "fuse_key_b": f"trim({quoted(key_b)})",
        "fuse_same": f"nullif(lower(trim({quoted(same)})), '') IN {YES}",
    }
    sources = named and {"source_a", "source_b"} <= set(columns)
    if len(inputs) == 2:  # by the order of the sources, where a pair does not name them
        both = [(f"source_{e}", f"'{i.name}'") for e, i in zip("ab", inputs, strict=True)]
        derived |= {f"fuse_{c}": f"coalesce({quoted(c)}, {name})" if sources else name for c, name in both}
    elif sources:
        derived |= {"fuse_source_a": "`source_a`", "fuse_source_b": "`source_b`"}
    elif len(inputs) > 2:
        raise UsageError(f"{path}: with more than two sources, the columns source_a and source_b must name them")
    relative = os.path.relpath(os.path.abspath(path), landing)
    schema = ", ".join(f"{quoted(c)} STRING" for c in columns)
    source = {"format": "csv", "path": relative, "schema": schema, "delimiter": delimiter, "key": []}
    source |= {"on_changed_file": "replace", "on_other_columns": "evolve"}
    unclear = f"NOT nullif(lower(trim({quoted(same)})), '') IN {YES.rstrip(')')}, {NO.lstrip('(')}"
    return {
        f"{table}_input": {"source": source, "suite": None},
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


def derived_tables(fusion: Fusion, inputs: Sequence[Input], known: Sequence[str]) -> dict[str, Any]:
    """Return the tables that are made of the sources."""
    into, several = fusion.into, len(inputs) > 1
    starts = [i.start for i in inputs]
    cases = " ".join(f"WHEN '{i.start}' THEN '{i.name}'" for i in inputs)
    named = f"CASE `_source` {cases} END" if several else f"'{inputs[0].name}'"
    of_source = {"derive": {"columns": {SOURCE: named}}}
    link: dict[str, Any] = {"key": list(fusion.key), "one_to_one": fusion.one_to_one, "threshold": fusion.threshold}
    link |= {option: f"{into}_{option}" for option in known}
    if several:
        link["source"] = SOURCE
    link = {option: value for option, value in link.items() if value is not None}
    alone = {"one_to_one": True, "source": SOURCE} if fusion.one_to_one and several else {}
    left_out = sorted({c for i in inputs for c in i.columns} - {*fusion.columns, *fusion.key}) if fusion.columns else []
    known_by = {"key": list(fusion.key), "source": SOURCE}
    only = [{"drop_columns": {"columns": left_out}}] if left_out else []
    return {
        f"{into}_pairs": {
            "from": starts,
            "suite": None,
            "grain": "new",
            "refit": "always" if fusion.refit else "on_drift",
            "steps": [*([of_source] if several else []), *only, {"link_records": link}],
        },
        f"{into}_entities": {
            "from": starts,
            "suite": None,
            "steps": [of_source, {"assign_entities": {"links": f"{into}_pairs"} | alone}],
        },
        into: {
            "from": f"{into}_entities",
            "suite": None,
            "grain": "new",
            "steps": [{"golden_records": golden(fusion, inputs)}],
        },
        f"{into}_history": {
            "from": f"{into}_entities",
            "suite": None,
            "grain": "new",
            "steps": [{"entity_history": known_by}],
        },
        f"{into}_events": {
            "from": f"{into}_history",
            "suite": None,
            "grain": "new",
            "steps": [{"entity_events": {}}],
        },
        f"{into}_xref": {
            "from": f"{into}_entities",
            "suite": None,
            "grain": "new",
            "steps": [{"cross_reference": known_by | {"history": f"{into}_history"}}],
        },
        f"{into}_links": {
            "from": f"{into}_pairs",
            "suite": None,
            "grain": "new",
            "steps": [{"confirm_links": {"entities": f"{into}_entities"}}],
        },
    }


def golden(fusion: Fusion, inputs: Sequence[Input]) -> dict[str, Any]:
    """Return the options of the golden records: with a rule for all columns, the sources in the order given."""
    return {"rule": fusion.rule, "source": SOURCE, "sources": [i.name for i in inputs]}
