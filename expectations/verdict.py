"""What a suite says of a staged table: the outcome of each rule, and whether the table may be published."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headgate.expectations.suites import DIMENSIONS, Rule
from headgate.words import cell

DISTANCES = ("expect_distribution_to_stay_near", "expect_mixture_to_be_near")
VALUES = re.compile("_(min|max|median|quantile)")  # rules whose number is a value of some row


@dataclass(frozen=True)
class RuleResult:
    rule: Rule
    success: bool
    raised: str | None
    element_count: int | None
    unexpected_count: int | None
    result: dict[str, Any]
    examples: tuple[str, ...] = ()  # of rows on which a rule that blocks fails: cells and id

    @property
    def observed(self) -> float | None:
        value = self.result.get("observed_value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)

    @property
    def farthest(self) -> str | None:
        """Return which stratum or source is farthest from what is expected, where the rule compares several."""
        return (self.result.get("details") or {}).get("farthest")

    def figure(self) -> dict[str, Any] | None:
        """Return the distance that a rule measured as the summary of a run shows figures; None of other rules."""
        if self.rule.type not in DISTANCES or self.observed is None:
            return None
        most = {k: self.rule.kwargs[k] for k in ("max_value", "tolerance") if k in self.rule.kwargs}
        facts = ({"farthest": self.farthest} if self.farthest else {}) | most
        return {"step": "gate", "name": self.rule.name, "value": self.observed, "facts": facts}

    def sentence(self) -> str:
        """Return one line about the outcome: what the rule allows, how many rows fail, examples."""
        if self.raised:
            return f"{self.rule.name} could not be evaluated: {cell(self.raised)}"
        failing, rows = self.unexpected_count, self.element_count
        if failing is not None and rows:
            counts = f"{failing:,} of {rows:,} rows fail, {100 * failing / rows:.3g} %"
        else:
            counts = f"observed {self.quoted(self.result.get('observed_value'))}"
            counts += f" (farthest: {cell(self.farthest)})" if self.farthest else ""
        named = ("column", "column_A", "column_B", "column_list", "columns", "condition_parser")
        allowed = ", ".join(f"{k}: {as_written(v)}" for k, v in self.rule.kwargs.items() if k not in named)
        sentence = f"{self.rule.name}: {counts}" + (f"; allowed is {allowed}" if allowed else "")
        return sentence + (f"; for example {'; '.join(map(cell, self.examples))}" if self.examples else "")

    def quoted(self, observed: Any) -> str:
        """Return what a rule observed for a message: marked where it may be values of data."""
        plain = isinstance(observed, int | float | None) and not VALUES.search(self.rule.type)
        return as_written(observed) if plain else cell(as_written(observed))


@dataclass(frozen=True)
class Verdict:
    """A suite's verdict on a staged table."""

    results: tuple[RuleResult, ...]
    quarantined: int
    rows: int
    ceiling: float
    masked: bool  # whether rows could be quarantined
    document: dict[str, Any]  # the ValidationDefinition's own result
    fallbacks: tuple[str, ...] = ()  # which rules the stock engine evaluated instead of the one pass, and why

    @property
    def blocking(self) -> list[str]:
        """Return why the table must not be published; empty if it may."""
        reasons = [r.sentence() for r in self.results if r.raised]
        reasons += [r.sentence() for r in self.results if self.blocks(r) and not r.raised]
        if not self.results:
            reasons.append("no rule was evaluated")
        if self.quarantined and self.quarantined > self.ceiling * self.rows:
            reasons.append(
                f"{self.quarantined:,} of {self.rows:,} rows would be quarantined, more than the ceiling of "
                f"{self.ceiling:.1%}"
            )
        return reasons

    def blocks(self, result: RuleResult) -> bool:
        """Return whether a rule by itself keeps the table from being published."""
        failed = not result.success and result.rule.severity == "critical" and not self.handled(result)
        return failed or result.raised is not None

    @property
    def warnings(self) -> list[str]:
        return [r.sentence() for r in self.results if not r.success and not r.raised and r.rule.severity == "warning"]

    @property
    def figures(self) -> list[dict[str, Any]]:
        """Return the distances that were measured, also by rules that hold."""
        return [figure for figure in (r.figure() for r in self.results) if figure is not None]

    @property
    def passed(self) -> int:
        return sum(r.success or self.handled(r) for r in self.results)

    def without_quarantine(self) -> "Verdict":
        """Return the same of rows that are published already, and so cannot be set aside."""
        return replace(self, masked=False)

    def handled(self, result: RuleResult) -> bool:
        """A failing row rule whose rows go to quarantine does not block by itself."""
        return self.masked and result.rule.quarantine and not result.success and result.raised is None

    def dimensions(self) -> dict[str, float | None]:
        """Per quality dimension, the mean share of rows (or of table rules) that hold; None: not measured."""
        shares: dict[str, list[float]] = {d: [] for d in DIMENSIONS}
        for r in self.results:
            if r.element_count and r.unexpected_count is not None:
                shares[r.rule.dimension].append(1 - r.unexpected_count / r.element_count)
            else:
                shares[r.rule.dimension].append(float(r.success))
        return {d: sum(s) / len(s) if s else None for d, s in shares.items()}


def fallback(rules: str, why: str) -> str:
    """Return the line about rules that the stock engine evaluates instead of the one pass."""
    return f"{rules}: evaluated by Great Expectations' own engine: {first_line(why)}"


def first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "an error without a message")


def as_written(value: Any) -> str:
    """A value as a suite writes it, of at most 200 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def what_raised(info: Mapping[str, Any] | None) -> str | None:
    """The message of an exception in a result, in either of the two shapes that Great Expectations gives it."""
    for entry in (info, *(info or {}).values()):
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return (str(entry.get("exception_message")).strip().splitlines() or ["it raised without a message"])[0]
    return None
