"""Formats of text columns, learned from the counts of their values: numbers, numbers with a unit, shapes."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headgate.transforms.cleaning.markers import is_marker

ACCEPTED = 0.05  # share of a column's cells that makes a shape one of its own
REGULAR = 0.85  # share of cells in accepted shapes that makes a column one of regular format
DOMINANT = 0.60  # share of one shape that makes what it finds inside longer texts a reading of them
UNIFORM = 0.90  # share of one unit spelling that makes it the column's


@dataclass(frozen=True, kw_only=True)
class Format:
    """Describe the learned format of one column.

    shapes: the accepted shapes; empty where the column follows none. pattern: a regular expression of the dominant
    shape, with which longer texts are searched; empty if none is dominant. numeric: cells are bare numbers.
    unit: "strip" where numbers carry different spellings of one unit, or a needless sign; else empty.
    """

    shapes: tuple[str, ...] = ()
    pattern: str = ""
    numeric: bool = False
    unit: str = ""


def shape(value: str) -> str:
    """Return the shape of a text: runs of digits as 9, of letters as a, of white space as one blank."""
    return re.sub(r"\s+", " ", re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value)))


def shape_pattern(counts: Mapping[str, int], wanted: str) -> str:
    """Return a regular expression for the texts of one shape; letter runs of few spellings are written out."""
    runs: list[Counter[str]] = []
    for value, n in counts.items():
        if shape(value) == wanted:
            parts = re.findall(r"[^\W\d_]+", value)
            runs.extend(Counter() for _ in range(len(parts) - len(runs)))
            for run, part in zip(runs, parts, strict=False):
                run[part] += n
    out, i = [], 0
    for char in wanted:
        if char == "9":
            out.append(r"\d+")
        elif char == "a":
            spelled = [w for w, n in runs[i].most_common(8) if n > 1]
            few = spelled and sum(runs[i][w] for w in spelled) >= 0.98 * sum(runs[i].values())
            out.append("(?:" + "|".join(map(re.escape, sorted(spelled))) + ")" if few else r"[^\W\d_]+")
            i += 1
        else:
            out.append(r"\s+" if char == " " else re.escape(char))
    return r"(?<![^\W_])" + "".join(out) + r"(?![^\W_])"


NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
MEASURE = re.compile(r"\s*([$€£¥]?)\s*([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*([^\d]*?)\s*")


@lru_cache(maxsize=10_000)
def unit_of(suffix: str) -> str | None:
    """Return the unit that a suffix such as "oz. can" begins with, by pint's name; "%" as it is; None if it is none."""
    import pint

    word = suffix.split()[0].strip(".,;()").lower() if suffix.split() else ""
    if word in ("", "%"):
        return word
    if not word.isalpha() or len(word) < 2:
        return None
    try:
        return str(pint.application_registry.Unit(word))
    except Exception:  # pint raises a tree of its own for what it cannot read
        return None


def bare(number: str) -> str:
    """Return a number in its shortest plain form: 12.0 as 12, 1,200 as 1200, 0.052000000000000005 as 0.052."""
    text = number.replace(",", "").lstrip("+")
    if sum(c.isdigit() for c in text) > 15:  # the rest is what binary floating point left behind
        text = f"{float(text):.15g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def learn_format(counts: Mapping[str, int]) -> Format:
    """Learn the format of a column from the counts of its values, markers of missing values left out.

    - Numbers: at least 95 % of the cells are numbers; others are faults.
    - Measures: at least 95 % are numbers with or without a suffix, no suffix on `UNIFORM` of them. Spellings of one
      unit (as pint reads them) are stripped; a % on some cells is stripped where the numbers under it are as large as
      those without (9 in 10 lie within their range, which 9 % beside 0.09 would not).
    - Shapes: those with a digit or a sign that `ACCEPTED` of the cells have; together `REGULAR` of the cells. Columns
      of words (only letters and blanks in the accepted shapes) are of no format: names come in any.
    """
    total = sum(counts.values())
    if not total:
        return Format()
    if sum(n for v, n in counts.items() if NUMBER.fullmatch(v)) >= 0.95 * total:
        return Format(numeric=True)
    units: Counter[str | None] = Counter()
    spellings: Counter[str] = Counter()
    numbers: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for value, n in counts.items():
        if match := MEASURE.fullmatch(value):
            unit = unit_of(match[3])
            units[unit] += n
            spellings[match[1] + match[3]] += n
            numbers[unit or ""].append((float(match[2].replace(",", "")), n))
    units = Counter({u: n for u, n in units.items() if n >= 0.01 * total})
    read = sum(n for u, n in units.items() if u is not None)
    if read >= 0.95 * total and max(spellings.values()) < UNIFORM * total:
        real = {u for u in units if u}
        if real == {"%"} and units[""] and within(numbers["%"], numbers[""]):
            return Format(unit="strip")
        if len(real) == 1 and "%" not in real and len(spellings) > 1:
            return Format(unit="strip")
    shapes: Counter[str] = Counter()
    for value, n in counts.items():
        shapes[shape(value)] += n
    top, most = shapes.most_common(1)[0]
    accepted = tuple(sorted(s for s, n in shapes.items() if n >= ACCEPTED * total))
    structured = sum(n for s, n in shapes.items() if s in accepted and "9" in s)
    if structured < 0.5 * total or sum(shapes[s] for s in accepted) < REGULAR * total:
        return Format()
    pattern = shape_pattern(counts, top) if most >= DOMINANT * total and len(top) > 1 else ""
    return Format(shapes=accepted, pattern=pattern)


def within(some: Sequence[tuple[float, int]], others: Sequence[tuple[float, int]]) -> bool:
    """Return whether 9 in 10 of some weighted numbers lie in the range of others."""
    low, high = min(v for v, _ in others), max(v for v, _ in others)
    inside = sum(n for v, n in some if low <= v <= high)
    return inside >= 0.9 * sum(n for _, n in some)


def read_cell(value: str | None, form: Format) -> tuple[str | None, str]:
    """Return the canonical value of a cell, and the code of its fault ("" if it has none).

    marker_of_missing gives None. wrong_format gives the value as it stands: its group may know better, or back it. unit
    and embedded give the value inside.
    """
    if value is None:
        return None, ""
    if is_marker(value):
        return None, "marker_of_missing"
    if form.unit and (match := MEASURE.fullmatch(value)) and unit_of(match[3]) is not None:
        return (value, "") if not match[1] + match[3] else (bare(match[2]), "unit")
    if form.numeric:
        return (value, "" if NUMBER.fullmatch(value.strip()) else "wrong_format")
    if form.shapes and shape(value) not in form.shapes:
        hits = set(re.findall(form.pattern, value)) if form.pattern else set()
        return (hits.pop(), "embedded") if len(hits) == 1 else (value, "wrong_format")
    return value, ""
