"""The mapping that `headgate fuse --suggest` proposes for a new source, from names, types and values of columns."""

import csv
import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.dataset as ds
import yaml
from rapidfuzz import fuzz

from headgate.jobs.cli.fused_sources import Input
from headgate.jobs.cli.fusing import Fusion, inputs_of
from headgate.jobs.cli.given_files import lines_of
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.sources.documents import Malformed, loaded
from headgate.transforms.rows import is_own

ROWS = 20_000  # of each source, the first ones
LEAST = 0.55  # score of a proposal
FEW = 12  # distinct values of a code list
MOST = 0.95  # share of the values that must be of a kind
DATES = {
    "%Y-%m-%d": "yyyy-MM-dd",
    "%d/%m/%Y": "dd/MM/yyyy",
    "%m/%d/%Y": "MM/dd/yyyy",
    "%d.%m.%Y": "dd.MM.yyyy",
    "%d-%m-%Y": "dd-MM-yyyy",
    "%Y/%m/%d": "yyyy/MM/dd",
    "%Y%m%d": "yyyyMMdd",
}
ALIKE = (  # words that name one thing
    {"dob", "birth", "born", "birthdate", "birthday"},
    {"phone", "tel", "telephone", "mobile"},
    {"zip", "postcode", "postal", "plz"},
    {"sex", "gender"},
    {"surname", "lastname", "family"},
    {"firstname", "given", "forename"},
    {"email", "mail"},
    {"address", "addr", "street"},
    {"city", "town"},
    {"price", "cost", "amount"},
    {"company", "firm", "manufacturer", "brand", "maker"},
    {"description", "desc", "text"},
)
FACTORS = {
    ("inch", "cm"): 2.54,
    ("foot", "m"): 0.3048,
    ("mile", "km"): 1.609344,
    ("lb", "kg"): 0.45359237,
    ("m", "cm"): 100.0,
    ("cm", "m"): 0.01,
    ("km", "m"): 1000.0,
    ("m", "km"): 0.001,
    ("kg", "g"): 1000.0,
    ("g", "kg"): 0.001,
}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the first rows show of a column."""

    name: str
    values: Sequence[str]

    @cached_property
    def distinct(self) -> frozenset[str]:
        return frozenset(re.sub(r"\s+", " ", v.strip().lower()) for v in self.values)

    @cached_property
    def words(self) -> Mapping[str, int]:
        """Return how many values have each word."""
        return Counter(w for v in self.values for w in set(re.findall(r"\w+", v.lower())))

    @cached_property
    def date_formats(self) -> list[str]:
        """Return the formats that nearly all values have."""
        few = self.values[:2000]
        return [form for form in DATES if few and sum(is_date(v, form) for v in few) >= MOST * len(few)]

    @cached_property
    def decimal(self) -> str | None:
        """Return the decimal mark with which nearly all values are numbers."""
        few = self.values[:2000]
        for mark in (".", ","):
            form = re.compile(rf"\s*[+-]?\d+({re.escape(mark)}\d+)?\s*")
            if few and sum(form.fullmatch(v) is not None for v in few) >= MOST * len(few):
                return mark
        return None

    @property
    def kind(self) -> str:
        if not self.values:
            return "empty"
        return "date" if self.date_formats else "number" if self.decimal else "text"

    @cached_property
    def numbers(self) -> list[float]:
        found = []
        for value in self.values:
            try:
                found.append(float(value.replace(self.decimal or ".", ".")))
            except ValueError:
                continue
        return sorted(found)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A column of a new source for one that is known, with the options of its mapping and why."""

    to: str
    of: str
    score: float
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)


def is_date(value: str, form: str) -> bool:
    try:
        datetime.strptime(value.strip()[:10], form)
    except ValueError:
        return False
    return True


def suggest(inputs: Sequence[str], key: Sequence[str], delimiter: str | None, lake: Lake) -> dict[str, Any]:
    """Return for each input but the first the proposals for its columns: `source`, `proposals`, `without`.

    The first input is the one whose columns the others are mapped to. Reads the first rows of each; writes nothing.
    Raises `UsageError` for fewer than two inputs.
    """
    if len(inputs) < 2:
        raise UsageError("--suggest: give the source whose columns are known first, and then the new one")
    first, *others = inputs_of(Fusion(inputs=inputs, into="suggested", delimiter=delimiter), lake)
    key = [*key, *(i.renamed[c] for i in (first, *others) for c in key if c in i.renamed)]
    known = [p for p in profiles(first, lake) if p.name not in key]
    found = []
    for source in others:
        new = profiles(source, lake)
        proposals = proposed(known, [p for p in new if p.name not in key])
        taken = {p.of for p in proposals}
        without = [p.name for p in new if p.name not in taken and p.name not in key]
        left = [p.name for p in known if p.name not in {q.to for q in proposals}]
        found.append({"source": source.name, "proposals": proposals, "without": without, "left": left})
    return {"to": first.name, "sources": found}


def profiles(source: Input, lake: Lake) -> list[Profile]:
    """Return the profiles of a source's columns, from its first rows."""
    cells: dict[str, list[str]] = {c: [] for c in source.given if not is_own(c)}
    for row in itertools.islice(rows_of(source, lake), ROWS):
        for given, value in row.items():
            column = source.renamed.get(given, given)
            if column in cells and value is not None and str(value).strip():
                cells[column].append(str(value))
    return [Profile(name=c, values=v) for c, v in cells.items()]


def rows_of(source: Input, lake: Lake) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a source: files in the order of their names, or a table of the lake."""
    if source.source is None or source.folder is None:
        for batch in lake.dataset(source.table).to_batches(columns=list(source.given), batch_size=4096):
            yield from batch.to_pylist()
        return
    kind, path = source.source["format"], source.source["path"]
    for file in sorted(Path(source.folder).glob(path)):
        if kind == "csv":
            rows = csv.reader(lines_of(file), delimiter=source.source["delimiter"])
            header = next(rows, [])
            yield from (dict(zip(header, row, strict=False)) for row in rows)
        elif kind == "jsonl":
            for line in lines_of(file):
                try:
                    record = loaded(line)
                except Malformed:
                    continue
                yield from ([record] if isinstance(record, dict) else [])
        elif kind == "avro":
            import fastavro

            with file.open("rb") as stream:
                yield from (r for r in fastavro.reader(stream) if isinstance(r, dict))
        else:
            for batch in ds.dataset(file).to_batches(batch_size=4096):
                yield from batch.to_pylist()


def proposed(known: Sequence[Profile], new: Sequence[Profile]) -> list[Proposal]:
    """Return the best pairs of columns, each column in one at most, in the order of the known ones."""
    scored = []
    for a in known:
        for b in new:
            score, why = alike(a, b)
            if score >= LEAST:
                scored.append((-score, a.name, b.name, why, a, b))
    pairs: list[Proposal] = []
    for less, to, of, why, a, b in sorted(scored, key=lambda s: s[:3]):
        if to not in {p.to for p in pairs} and of not in {p.of for p in pairs}:
            options, more = reading(a, b)
            pairs.append(Proposal(to=to, of=of, score=-less, why="; ".join([why, *more]), options=options))
    order = {p.name: i for i, p in enumerate(known)}
    return sorted(pairs, key=lambda p: order[p.to])


def alike(a: Profile, b: Profile) -> tuple[float, str]:
    """Return how far two columns seem to be one, from 0 to 1, and why."""
    name, values = names_alike(a.name, b.name), values_alike(a, b)
    same = a.kind == b.kind
    shared = "" if values is None else f", values {values:.0%} alike"
    why = f"name {name:.0%}, {b.kind}{'' if same else f' for {a.kind}'}{shared}"
    if "empty" in (a.kind, b.kind):
        return 0.9 * name, why
    kind = 1.0 if same else 0.0
    score = 0.7 * name + 0.3 * kind if values is None else 0.5 * name + 0.15 * kind + 0.35 * values
    # Texts with the same words tell as much as one name does; numbers of one range are of many things.
    telling = same and a.kind == "text" and min(len(a.distinct), len(b.distinct)) > FEW
    return max(score, values or 0.0) if telling else score, why


def names_alike(a: str, b: str) -> float:
    """Return how far two names are one, by their words, of which some are the same thing."""
    one, other = words_of(a), words_of(b)
    if one == other:
        return 1.0
    return max(fuzz.token_set_ratio(one, other), fuzz.ratio(one.replace(" ", ""), other.replace(" ", ""))) / 100


def words_of(name: str) -> str:
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name.rsplit("/", 1)[-1])
    words = re.findall(r"[^\W_]+", split.lower())
    whole = "".join(words)
    words = [whole] if any(whole in group for group in ALIKE) else words
    return " ".join(next((min(group) for group in ALIKE if word in group), word) for word in words)


def values_alike(a: Profile, b: Profile) -> float | None:
    """Return how far two columns have the same values, from 0 to 1; None where that tells nothing.

    Of numbers the overlap of their ranges over both; of texts the cosine of their words' counts; of few values, and of
    dates, the share of the smaller set that the other has.
    """
    if not a.values or not b.values or a.kind != b.kind or (a.kind == "date" and a.date_formats != b.date_formats):
        return None
    if a.kind == "number" and min(len(a.distinct), len(b.distinct)) > FEW:
        (low, high), (least, most) = (spread(p.numbers) for p in (a, b))
        whole = max(high, most) - min(low, least)
        return max(min(high, most) - max(low, least), 0.0) / whole if whole else 1.0
    smaller = min(len(a.distinct), len(b.distinct))
    if a.kind == "text" and smaller > FEW and a.words and b.words:
        both = sum(n * b.words.get(w, 0) for w, n in a.words.items())
        return both / math.sqrt(math.prod(sum(n * n for n in p.words.values()) for p in (a, b)))
    return len(a.distinct & b.distinct) / smaller


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the twentieth from below and from above."""
    cut = len(numbers) // 20
    return numbers[cut], numbers[-1 - cut]


def reading(a: Profile, b: Profile) -> tuple[dict[str, Any], list[str]]:
    """Return how the values of `b` are to be read to be as those of `a`, and what a person should look at."""
    if a.kind == b.kind == "date" and a.date_formats != b.date_formats:
        if b.date_formats[0] == "%Y-%m-%d":
            return {"type": "date"}, []
        options = {"type": "date", "date_format": DATES[b.date_formats[0]]}
        others = [f"or {DATES[f]}" for f in b.date_formats[1:]]
        own = ["" if "%Y-%m-%d" in a.date_formats else f"'{a.name}' is {DATES[a.date_formats[0]]}: map that one too"]
        return options, [w for w in (*others, *own) if w]
    if a.kind == b.kind == "number":
        options = {"type": "double", "decimal": ","} if b.decimal == "," and a.decimal == "." else {}
        return options, unit_between(a, b)
    if a.kind == b.kind == "text" and len(a.distinct) <= FEW and len(b.distinct) <= FEW:
        codes = codes_between(sorted(set(a.values)), sorted(set(b.values)))
        if codes:
            return {"codes": codes}, ["look at the codes"]
    return {}, []


def unit_between(a: Profile, b: Profile) -> list[str]:
    """Return a hint where the numbers of two columns are those of two units."""
    if min(len(a.numbers), len(b.numbers)) < 20 or not median(b.numbers):
        return []
    ratio = median(a.numbers) / median(b.numbers)
    near = sorted((abs(ratio / factor - 1), *units) for units, factor in FACTORS.items())
    if near[0][0] > 0.1 or abs(ratio - 1) < 0.1:
        return []
    _, unit, to_unit = near[0]
    return [f"its median is {1 / ratio:.3g} of that of '{a.name}': perhaps unit: {unit}, to_unit: {to_unit}"]


def codes_between(wanted: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Return given codes -> wanted ones where each begins one of them alone, or is begun by it; {}: not so."""
    if set(given) <= set(wanted):
        return {}
    codes: dict[str, str] = {}
    for code in given:
        low = code.strip().lower()
        same = [w for w in wanted if w.lower().startswith(low) or low.startswith(w.lower())]
        if len(same) != 1 or not low or same[0] in codes.values():
            return {}
        codes[code] = same[0]
    return codes


def as_plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return proposals as plain values, for JSON."""
    sources = [{**s, "proposals": [dataclasses.asdict(p) for p in s["proposals"]]} for s in found["sources"]]
    return {**found, "sources": sources}


def as_yaml(found: Mapping[str, Any]) -> str:
    """Return proposals as the `mapping` of a table, with what they rest on."""
    lines = [
        f"# Proposed, not applied: how others' columns become those of {found['to']}. Look at each line.",
        "mapping:",
    ]
    for source in found["sources"]:
        lines += [f"  {source['source']}:", "    columns:" + ("" if source["proposals"] else " {}")]
        for p in source["proposals"]:
            options = {"of": p.of, **p.options} if p.options else p.of
            lines.append(f"      {inline(p.to)}: {inline(options)}  # {p.why}")
        for what, names in (("not mapped", source["without"]), (f"of {found['to']} alone", source["left"])):
            if names:
                lines.append(f"    # {what}: {', '.join(names)}")
    return "\n".join(lines)


def inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)
    return str(text).removesuffix("\n").removesuffix("\n...")
