"""The pipeline that `headgate fuse` builds, made of its options."""

import functools
import operator
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.cli.fused_sources import SOURCE, Input, need_free_names, need_one_case, of_one_type
from headgate.jobs.cli.given_files import need_columns, source_of, types_of
from headgate.jobs.cli.one_table import Options, no_such_input
from headgate.jobs.cli.pair_files import known_pairs, need_same_form, pairs_before, table_of_pairs
from headgate.jobs.config.columns import ARRIVES, writable_names
from headgate.jobs.config.document import checked, read_yaml
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.config.shorthand import RAW
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.columns import columns_in
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.transforms.cleaning.columns import Rename
from headgate.transforms.cleaning.mapping import MapColumns
from headgate.transforms.rows import is_own
from headgate.transforms.step import StepError
from headgate.transforms.steps import options_of
from headgate.words import did_you_mean

PARTS = ("pairs", "entities", "history", "events", "xref", "links", "labels", "decisions")


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


def pipeline_of(fusion: Fusion, lake: Lake) -> tuple[Pipeline, str]:
    """Return the pipeline that builds `into` and the tables beside it, and its landing folder."""
    into = fusion.into
    if not re.match(TABLE_NAME, into):
        raise UsageError(f"--into: '{into}' is not a valid table name: use lower-case letters, digits and '_'")
    inputs = inputs_of(fusion, lake)
    other_names = {given: name for i in reversed(inputs) for given, name in i.renamed.items()}
    key, columns = (
        [other_names.get(c, published(c, inputs[0].columns)) for c in given] for given in (fusion.key, fusion.columns)
    )
    fusion = replace(fusion, key=key, columns=columns)
    need_one_case(inputs)
    inputs = of_one_type(inputs, into)
    made = [into, *(f"{into}_{part}" for part in PARTS), *(i.table for i in inputs if i.source is not None)]
    made += [i.start for i in inputs if i.mapped is not None] + [i.landed for i in inputs if i.renamed]
    made += [f"{into}_{option}_input" for option in ("labels", "decisions")]
    twice = next(
        (t for n, t in enumerate([*made, *(i.table for i in inputs if i.source is None)]) if t in made[:n]), None
    )
    if twice is not None:
        raise UsageError(f"'{twice}' would be two tables: give --into another name, or the source (NAME=INPUT)")
    stands = next((t for t in made if lake.open(t) is not None), None)
    if stands and f"fuse_{into}" not in lake.system("runs")["pipeline"].to_pylist():
        raise UsageError(f"--into: the table '{stands}' exists and is not of `headgate fuse`; choose another name")
    shared = [c for c in inputs[0].columns if all(c in i.columns for i in inputs) and c not in fusion.key]
    if not shared:
        each = "; ".join(f"{i.name}: {', '.join(i.columns)}" for i in inputs)
        beside = f" beside the key {', '.join(fusion.key)}" if fusion.key else ""
        raise UsageError(f"the sources share no column{beside}: rename those that mean the same ({each})")
    need_columns("--columns", fusion.columns, shared)
    need_free_names(inputs)
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
            tables[i.table] |= {"steps": [{"rename": {"columns": i.renamed}}]} if i.renamed else {}
        if i.mapped is not None:
            tables[i.start] = {"from": i.table, "suite": None, "steps": i.mapped[1]}
    for option, (file, (names, delimiter)) in known.items():
        before = pairs_before(lake, f"{into}_{option}_input")
        need_same_form(option, file, names, before)
        names = [*names, *(c for c in before if c not in names)]
        tables |= table_of_pairs(f"{into}_{option}", file, names, delimiter, landing, [i.name for i in inputs])
    tables |= derived_tables(fusion, inputs, [*known, *(["decisions"] if earlier else [])])
    places: dict[Any, str] = {"columns": "--columns", "threshold": "--threshold", "key": "--key", "rule": "--rule"}
    places |= {("table", i.table): i.name for i in inputs} | {("table", into): "--into"}
    places |= {"map_columns": "--mapping", "labels": "--labels", "decisions": "--decisions", "delimiter": "--delimiter"}
    there: dict[str, Any] = {i.landed: {**dict.fromkeys(i.in_files), **ARRIVES} for i in inputs}
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
            plain = unicodedata.normalize("NFKD", path.name.split(".")[0].lower()).encode("ascii", "ignore").decode()
            name = re.sub(r"\W+", "_", plain).strip("_") or "source"
            name = f"source_{name}" if name[0].isdigit() else name
        if not re.match(TABLE_NAME, name):
            raise UsageError(
                f"{given}: '{name}' is not a valid name of a source: use lower-case letters, digits and '_'"
            )
        options = mapping.pop(name, None)
        if name in PARTS or name in (i.name for i in found):
            why = "is a name that this command uses" if name in PARTS else "names two sources"
            raise UsageError(f"{given}: '{name}' {why}; name the source by NAME={place}")
        table = f"{fusion.into}_{name}"
        if os.path.lexists(path):
            known, odd = (lake.open(t) is not None for t in (table, table + RAW))
            holds = table + RAW if odd else table
            folder, source, found_columns = source_of(path, (), "", fusion.delimiter, lake, holds, odd or not known)
            renamed = writable_names(found_columns)
            if odd and not renamed:
                raise UsageError(f"{given}: other columns than the table '{holds}' has; give --into another name")
            columns = {renamed.get(c, c): kind.lower() for c, kind in found_columns.items()}
            options = as_published(options, renamed)
            key = [renamed.get(c, published(c, columns)) for c in (key_in_source(c, options) for c in fusion.key)]
            need_columns(f"{name}: --key", key, list(columns))
            in_file = {new: c for c, new in renamed.items()}
            source |= {"key": [in_file.get(c, c) for c in key], "on_changed_file": "replace"}
            found.append(
                mapped_input(fusion, options, name, table, columns, folder=folder, source=source, renamed=renamed)
            )
        elif re.match(TABLE_NAME, place) and place in lake.tables():
            columns = {
                c: kind.lower() for c, kind in types_of(pa.schema(lake.need_table(place).schema().to_arrow())).items()
            }
            key = [published(key_in_source(c, options), columns) for c in fusion.key]
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
    mapped = (options or {}).get("columns", {})
    of = mapped.get(published(column, mapped), column)
    return str(of if isinstance(of, str) else of.get("of", column))


def published(column: str, columns: Collection[str]) -> str:
    """Return the name that a column has among published ones: its own, or that which Delta can hold."""
    other = writable_names([column]).get(column, column)
    return column if column in columns or other not in columns else other


def as_published(options: dict[str, Any] | None, renamed: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the mapping of a source with names as they are published, where it has those of the files.

    renamed: the source's columns that are published under other names -> these.
    """
    if options is None:
        return None
    mapped = {}
    for new, of in options["columns"].items():
        there = of if isinstance(of, str) else of.get("of")
        other = renamed.get(there, there)
        name = writable_names([new]).get(new, new)
        mapped[name] = other if isinstance(of, str) else of | ({} if there is None else {"of": other})
    return {**options, "columns": mapped}


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
    need_columns(f"{name}: --key, as mapped", [published(c, after) for c in fusion.key], list(after))
    mapped = (f"{fusion.into}_{name}_mapped", [{"map_columns": options}])
    return Input(name=name, table=table, columns=after, given=list(columns), mapped=mapped, **files)


def renamed_in(pipeline: Pipeline) -> dict[str, Mapping[str, str]]:
    """Return the columns that are published under other names than files have, by table: name there -> name."""
    return {
        table: step.columns
        for table in pipeline.raw_of.values()
        for step in pipeline.steps[table][:1]
        if isinstance(step, Rename)
    }


def without_key(lake: Lake, pipeline: Pipeline, into: str) -> dict[str, int]:
    """Return how many published records of each source lack a value of the key, by source; of those that have any."""
    *_, step = pipeline.steps[f"{into}_pairs"]
    key = list(getattr(step, "key", ()))
    if not key:
        return {}
    lacks = functools.reduce(operator.or_, (pc.field(c).is_null() for c in key))
    rows = lake.dataset(f"{into}_entities").to_table([SOURCE], filter=lacks)
    return dict(sorted(Counter(rows[SOURCE].to_pylist()).items()))


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
