"""What a repair learns, and the judgement of rows by it: pure Python, row-local, plain values alone."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from headgate.transforms.cleaning.formats import NUMBER, Format, read_cell
from headgate.transforms.cleaning.typos import FREQUENT, respell
from headgate.transforms.step import NoSuchColumn

Row = Mapping[str, str | None]
INFINITE = ("Infinity", "-Infinity")  # as Spark writes them
Ranked = tuple[tuple[str, float], ...]
Ballot = tuple[float, float, Ranked]


@dataclass(frozen=True)
class Rule:
    """State that rows alike in `columns` are alike in the column `decides`."""

    columns: tuple[str, ...]
    decides: str

    def __str__(self) -> str:
        return f"{', '.join(self.columns)} → {self.decides}"


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Hold the votes of one dependency: key -> (rows of the group, its most frequent values with their rows).

    strength: over all cells with at least one companion, the share that agrees with the plurality of the others.
    """

    rule: Rule
    groups: Mapping[tuple[str, ...], tuple[float, Ranked]]
    strength: float

    @cached_property
    def leaders(self) -> Mapping[tuple[str, ...], str]:
        """Return the first value of each group."""
        return {key: ranked[0][0] for key, (_, ranked) in self.groups.items()}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Describe one faulty cell; `new` None empties it. `sure` is false where only the fault is known, not the cure."""

    new: str | None
    reason: str
    confidence: float
    sure: bool = True


@dataclass(frozen=True, kw_only=True)
class Model:
    """Hold all that a repair learned.

    formats, typos, words: of text columns. counts: of the values of columns that a dependency decides, as read.
    votes: one entry a round; determinants are repaired in one, dependents judged by them in the next.
    ranges: column -> (lowest, highest).
    """

    columns: tuple[str, ...]
    formats: Mapping[str, Format] = field(default_factory=dict)
    typos: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    votes: tuple[tuple[Votes, ...], ...] = ()
    ranges: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return the model as values that JSON holds."""
        votes = [
            [
                {
                    "columns": list(v.rule.columns),
                    "decides": v.rule.decides,
                    "strength": v.strength,
                    "groups": [[list(k), n, [list(x) for x in ranked]] for k, (n, ranked) in sorted(v.groups.items())],
                }
                for v in turn
            ]
            for turn in self.votes
        ]
        formats = {c: asdict(f) | {"shapes": list(f.shapes)} for c, f in self.formats.items()}
        plain = {"typos": self.typos, "words": self.words, "counts": self.counts}
        ranges = {c: list(pair) for c, pair in self.ranges.items()}
        return {"columns": list(self.columns), "formats": formats, **plain, "votes": votes, "ranges": ranges}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Model":
        """Return the model of `state`."""
        votes = tuple(
            tuple(
                Votes(
                    rule=Rule(tuple(v["columns"]), v["decides"]),
                    strength=v["strength"],
                    groups={tuple(k): (n, tuple((x, m) for x, m in ranked)) for k, n, ranked in v["groups"]},
                )
                for v in turn
            )
            for turn in state["votes"]
        )
        formats = {c: Format(**{**f, "shapes": tuple(f["shapes"])}) for c, f in state["formats"].items()}
        plain = {name: state[name] for name in ("typos", "words", "counts")}
        ranges = {c: (low, high) for c, (low, high) in state["ranges"].items()}
        return cls(columns=tuple(state["columns"]), formats=formats, votes=votes, ranges=ranges, **plain)

    @property
    def leaders(self) -> list[tuple[Rule, Mapping[tuple[str, ...], str]]]:
        """Return each dependency of each round with the first value of each group."""
        return [(v.rule, v.leaders) for turn in self.votes for v in turn]

    def read(self, column: str, value: str | None) -> tuple[str | None, str]:
        """Return a cell as read, and the code of its fault; columns without a format are read as they stand."""
        form = self.formats.get(column)
        return (value, "") if form is None else read_cell(value, form)

    def odd(self, column: str, value: str | None) -> bool:
        """Return whether a cell alone may be a fault, whatever stands beside it."""
        if value is None:
            return False
        read, fault = self.read(column, value)
        misspelt = value in self.typos.get(column, {}) or respell(value, self.words.get(column, {})) != value
        return read != value or bool(fault) or misspelt or outside(value, self.ranges.get(column))


def outside(value: str | None, bounds: tuple[str | None, str | None] | None) -> bool:
    """Return whether a text is a number, infinite ones too, or an ISO date outside inclusive bounds; others are not."""
    if value is None or bounds is None:
        return False
    low, high = bounds
    if NUMBER.fullmatch(value) or value in INFINITE:
        ends = [float(b) if b is not None and NUMBER.fullmatch(b) else None for b in bounds]
        return any(b is not None and (float(value) - b) * side > 0 for b, side in zip(ends, (-1, 1), strict=True))
    if re.match(r"\d{4}-\d\d-\d\d", value):
        # Text order is the order of ISO dates; of a time, the part that the bound has decides.
        return (low is not None and value[: len(low)] < low) or (high is not None and value[: len(high)] > high)
    return False


def weigh(value: str | None, ballots: Sequence[Ballot], overall: Mapping[str, int]) -> tuple[str | None, float, float]:
    """Weigh the votes of all dependencies for one cell; return (best value, its confidence, its lead over the cell's).

    ballots: (strength, rows of the group, [(value, rows)]) of each dependency whose determinant the row has. Each
    spreads its strength over the values by their share, shrunk by one unknown row: n / (rows + 1). The confidence is
    the best value's share of the weight of all ballots. Ties go to the value with more rows overall, then to the
    cell's own value, then to the smaller text.
    """
    scores: dict[str, float] = defaultdict(float)
    weight = 0.0
    for strength, rows, votes in ballots:
        weight += strength
        for v, n in votes:
            scores[v] += strength * n / (rows + 1)
    if not scores:
        return None, 0.0, 0.0
    best = min(scores, key=lambda v: (-round(scores[v], 12), -overall.get(v, 0), v != value, v))
    own = scores.get(value, 0.0) if value is not None else 0.0
    return best, scores[best] / weight, scores[best] - own


def judge_row(row: Row, read: Row, model: Model) -> dict[str, Fault]:
    """Judge one row; return its faulty cells.

    row: the cells as they came; read: as their formats read them. Rounds of votes: the determinants of a later round
    are those that the earlier one repaired. A cell is changed when the best value leads its own and
    - the cell has no readable value (empty or unreadable), or
    - the best value has two rows or more behind it in one group, or is `FREQUENT` times as frequent overall.
    A value that its group backs (two rows or more and no better one) is right whatever its format.
    """
    faults: dict[str, Fault] = {}
    backed: set[str] = set()
    current = dict(read)
    for turn in model.votes:
        faults, backed = judge_votes(row, read, current, turn, model)
        current = dict(read) | {c: f.new for c, f in faults.items()}
    for column in model.columns:
        if column not in faults and row[column] is not None:
            found = judge_cell(row[column], column, column in backed, model)
            if found:
                faults[column] = found
    return {c: f for c, f in faults.items() if f.new != row[c]}


def judge_votes(
    row: Row, read: Row, keys: Row, turn: Iterable[Votes], model: Model
) -> tuple[dict[str, Fault], set[str]]:
    """Judge a row by one round of votes; return its faults, and the columns that their group backs."""
    ballots: dict[str, list[Ballot]] = defaultdict(list)
    support: dict[str, Counter[str]] = defaultdict(Counter)
    for votes in turn:
        key = tuple(text for c in votes.rule.columns if (text := keys[c]) is not None)
        group = votes.groups.get(key) if len(key) == len(votes.rule.columns) else None
        if group:
            ballots[votes.rule.decides].append((votes.strength, *group))
            for v, n in group[1]:
                support[votes.rule.decides][v] = max(support[votes.rule.decides][v], n)  # type: ignore[assignment]
    faults: dict[str, Fault] = {}
    backed = set()
    for column, cast in ballots.items():
        value, overall = read[column], model.counts.get(column, {})
        best, confidence, lead = weigh(value, cast, overall)
        if best is None:
            continue
        if best == value:
            if support[column][best] > 1:
                backed.add(column)
            continue
        unread = value is None or model.read(column, value)[1] == "wrong_format"
        frequent = value is not None and overall.get(best, 0) > FREQUENT * overall.get(value, 0)
        if unread or (support[column][best] > 1 and lead > 0) or frequent:
            reason = "missing_in_group" if unread and not row[column] else "dependency"
            faults[column] = Fault(new=best, reason=reason, confidence=confidence)
    return faults, backed


def judge_cell(value: str | None, column: str, backed: bool, model: Model) -> Fault | None:
    """Judge a cell that no vote found at fault, by its format, the column's frequent values and its range."""
    read, reason = model.read(column, value)
    if read is not None and read != value:
        return Fault(new=read, reason=reason, confidence=0.9)
    if reason == "marker_of_missing":
        return Fault(new=None, reason=reason, confidence=0.9)
    if reason and not backed:
        return Fault(new=None, reason=reason, confidence=0.7, sure=False)
    if not reason and not backed and value is not None:
        spelled = model.typos.get(column, {}).get(value) or respell(value, model.words.get(column, {}))
        if spelled != value:
            return Fault(new=spelled, reason="near_frequent", confidence=0.8)
    if outside(read, model.ranges.get(column)):
        return Fault(new=None, reason="out_of_range", confidence=1.0, sure=False)
    return None


def read_table(table: Mapping[str, Sequence[str | None]], model: Model) -> dict[str, list[str | None]]:
    """Return columns of cells as they are read: formats applied, markers of missing values emptied."""
    out = {}
    for column, cells in table.items():
        known = {v: model.read(column, v or None)[0] for v in set(cells)}
        out[column] = [known[v] for v in cells]
    return out


def faults_of(table: Mapping[str, Sequence[str | None]], model: Model) -> Iterator[tuple[int, dict[str, Fault]]]:
    """Yield (place of the row, its faults) for the rows of columns of texts that have any.

    Rows of which no cell is odd, and that have the first value of their groups, are passed over: they are right.
    """
    read = read_table(table, model)
    rows = len(next(iter(table.values()), ()))
    suspects: set[int] = set()
    for c, cells in table.items():
        odd = {v for v in set(cells) if model.odd(c, v or None)}
        suspects.update(i for i, v in enumerate(cells) if v in odd)
    for rule, first in model.leaders:
        keys = zip(*(read[c] for c in rule.columns), strict=True)
        values = read[rule.decides]
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            leader = first.get(key)
            if leader is not None and leader != value:
                suspects.add(i)
    for i in sorted(suspects & set(range(rows))):
        row = {c: cells[i] or None for c, cells in table.items()}
        found = judge_row(row, {c: cells[i] for c, cells in read.items()}, model)
        if found:
            yield i, found


def parse_rules(text: str, columns: Sequence[str]) -> tuple[list[Rule], list[str]]:
    """Parse declared rules, one a line: `A, B ⇒ C` (also `->`), or denial constraints as HoloClean writes them.

    `t1&t2&EQ(t1.A,t2.A)&IQ(t1.B,t2.B)` denies two rows alike in A and unlike in B, which is A ⇒ B. Return the
    dependencies, each once, and the lines of another form (an EQ across two columns, comparisons), of which the caller
    warns. '-' and ' ' in a column's name may be written '_'. Raises `StepError` for a column that is not there.
    """
    names = {c: c for c in columns} | {re.sub(r"[- ]", "_", c): c for c in columns}
    rules: dict[Rule, None] = {}
    skipped = []
    for line in filter(None, (x.strip() for x in text.splitlines())):
        if re.match(r"t1\s*&", line):
            parts = re.findall(r"(\w+)\(t1\.([^,()]+),\s*t2\.([^,()]+)\)", line)
            left = [a for op, a, b in parts if op == "EQ" and a == b]
            right = [a for op, a, b in parts if op == "IQ" and a == b]
            fits = len(left) + len(right) == len(parts) and len(right) == 1 and bool(left)
        else:
            sides = re.split(r"⇒|=>|→|->", line)
            fits = len(sides) == 2
            left, right = sides[0].split(","), sides[-1:]
        if not fits:
            skipped.append(line)
            continue
        unknown = [c.strip() for c in (*left, *right) if c.strip() not in names]
        if unknown:
            raise NoSuchColumn(unknown[0], [*columns])
        rules[Rule(tuple(names[c.strip()] for c in left), names[right[0].strip()])] = None
    return list(rules), skipped
