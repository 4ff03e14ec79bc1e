"""Suites: YAML in Great Expectations' own form, loaded strictly.

Great Expectations drops a misspelt expectation type or severity from a suite with a log line, and then passes. Here
every entry is built on its own and anything that is not exactly understood is refused.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.expectations.catalogue import NOT_KWARGS, REFUSED, known_types
from headgate.expectations.moments import in_utc
from headgate.words import did_you_mean

SUITE_KEYS = ("name", "expectations", "meta", "notes")
RULE_KEYS = ("type", "kwargs", "severity", "meta", "notes", "description")
SEVERITIES = ("critical", "warning", "info")
# ISO/IEC 25012:2008; DAMA UK 2013.
DIMENSIONS = ("completeness", "validity", "uniqueness", "consistency", "timeliness", "accuracy")
ON_ROW_FAIL = ("publish", "quarantine")
MAX_RULES = 500
PARAMETERS = ("as_of", "newest_file_date", "previous_rows")  # of a run, which rules may name
PARSERS = ("spark", "great_expectations", "great_expectations__experimental__")
BOUNDS = (("min_value", "max_value"), ("min_ratio", "max_ratio"))
# What rules count that look at other rows: so they cannot say which row fails.
UNIQUE = ("column_values.unique", "compound_columns.unique")
ORDERED = ("column_values.increasing", "column_values.decreasing")

ROW_FLOORS = ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal")
PRESENCE = (
    "expect_table_columns_to_match_set",
    "expect_table_columns_to_match_ordered_list",
    "expect_column_to_exist",
)


class SuiteError(ValueError):
    """A suite that cannot be trusted as written; the message names file, line and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """One expectation of a suite, with its place in the file."""

    index: int
    type: str
    kwargs: Mapping[str, Any]
    severity: str
    dimension: str
    quarantine: bool
    meta: Mapping[str, Any]
    where: str

    @property
    def name(self) -> str:
        """Return the type with its columns, as messages name the rule."""
        return f"{self.type} ({', '.join(self.columns) or 'table'})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the judged table that the rule names."""
        kwargs = self.kwargs
        named = [kwargs.get(k) for k in ("column", "column_A", "column_B")]
        named += [c for k in ("column_list", "columns", "by") if isinstance(kwargs.get(k), list) for c in kwargs[k]]
        if self.type == "expect_table_columns_to_match_set" and isinstance(kwargs.get("column_set"), list):
            named += kwargs["column_set"]
        return tuple(c for c in named if isinstance(c, str))

    @property
    def condition_columns(self) -> tuple[str, ...]:
        """Return the columns that a `row_condition` in Great Expectations' own form names, as `col("name")`."""
        condition = self.kwargs.get("row_condition")
        if not isinstance(condition, str) or self.kwargs.get("condition_parser") not in PARSERS[1:]:
            return ()
        return tuple(re.findall(r"""\bcol\(\s*["']([^"']+)["']\s*\)""", condition))

    @property
    def proves_unique(self) -> frozenset[str] | None:
        """Return the columns whose tuples are unique in every table that passes the rule; None if it proves nothing.

        Tuples with a null are left out by Great Expectations, and prove nothing.
        """
        plain = {k: v for k, v in self.kwargs.items() if k != "mostly" or v != 1}
        blocks = self.severity == "critical" and not self.quarantine
        if blocks and self.type == "expect_column_values_to_be_unique" and plain.keys() == {"column"}:
            return frozenset([plain["column"]])
        if blocks and self.type == "expect_compound_columns_to_be_unique" and plain.keys() == {"column_list"}:
            return frozenset(plain["column_list"])
        return None

    @property
    def expressions(self) -> dict[str, str]:
        """Return the Spark SQL over the columns of a row that the rule holds, by option."""
        written = {"predicate": self.kwargs.get("predicate")}
        if self.kwargs.get("condition_parser", "spark") == "spark":
            written["row_condition"] = self.kwargs.get("row_condition")
        return {option: sql for option, sql in written.items() if isinstance(sql, str)}

    def configuration(self) -> dict[str, Any]:
        """Return the entry in Great Expectations' form, marked so that its result can be found again."""
        return {
            "type": self.type,
            "kwargs": {k: in_utc(v) if k in ("min_value", "max_value") else v for k, v in self.kwargs.items()},
            "severity": self.severity,
            "meta": {**self.meta, "rule": self.index},
        }


@dataclass(frozen=True)
class Suite:
    name: str
    rules: tuple[Rule, ...]
    parents: tuple[str, ...] = field(default=())  # tables that foreign keys point to

    @property
    def reads_previous(self) -> bool:
        """Return whether a rule compares with the table's own version before."""
        return any(rule.kwargs.get("previous") is True for rule in self.rules)

    def configurations(self) -> list[dict[str, Any]]:
        return [rule.configuration() for rule in self.rules]


def load_suite(data: Any, at: Callable[..., str], thorough: bool = True) -> Suite:
    """Return a suite read from YAML; `at(*place)` names a place in the file.

    Raises `SuiteError` with all of its problems, a line each. Not thorough: values of arguments are left to
    `check_values`, so that Great Expectations is imported only where there is something to complain about.
    """
    if not isinstance(data, dict):
        raise SuiteError(f"{at()}: expected a mapping with name and expectations")
    wrong = [
        f"{at(key)}: unknown key '{key}'{did_you_mean(str(key), SUITE_KEYS)}" for key in data if key not in SUITE_KEYS
    ]
    entries = data.get("expectations")
    if not isinstance(data.get("name"), str):
        wrong.append(f"{at('name')}: a suite needs a name, as text")
    if not isinstance(entries, list) or not entries:
        raise SuiteError(
            "\n".join([*wrong, f"{at('expectations')}: a suite needs at least one expectation, in a list"])
        )
    if len(entries) > MAX_RULES:
        wrong.append(f"{at('expectations')}: {len(entries)} expectations; at most {MAX_RULES} are allowed")
    rules = []
    for i, entry in enumerate(entries):
        try:
            rules.append(load_rule(i, entry, at, thorough))
        except SuiteError as e:
            wrong.append(str(e))
    types = [e.get("type") for e in entries if isinstance(e, dict)]
    floor = any(r.type in ROW_FLOORS and (r.kwargs.get("min_value") or r.kwargs.get("value")) for r in rules)
    if not floor and not (len(rules) < len(entries) and any(t in ROW_FLOORS for t in types)):
        wrong.append(
            f"{at('expectations')}: an empty table passes most rules, so a suite needs a floor: "
            "expect_table_row_count_to_be_between with a min_value of at least 1"
        )
    if not any(t in PRESENCE for t in types):
        wrong.append(f"{at('expectations')}: a suite must require columns, by one of {', '.join(PRESENCE)}")
    if wrong:
        raise SuiteError("\n".join(wrong))
    parents = {r.kwargs["parent_table"] for r in rules if isinstance(r.kwargs.get("parent_table"), str)}
    return Suite(name=data["name"], rules=tuple(rules), parents=tuple(sorted(parents)))


def load_rule(index: int, entry: Any, at: Callable[..., str], thorough: bool) -> Rule:
    """Return an entry of a suite as a rule; raises `SuiteError` with all of its problems, a line each."""
    here = ("expectations", index)
    if not isinstance(entry, dict):
        raise SuiteError(f"{at(*here)}: expected a mapping with type, kwargs and meta")
    wrong = [
        f"{at(*here, key)}: unknown key '{key}'{did_you_mean(str(key), RULE_KEYS)} (allowed: {', '.join(RULE_KEYS)})"
        for key in entry
        if key not in RULE_KEYS
    ]
    kind, kwargs, meta = entry.get("type"), entry.get("kwargs") or {}, entry.get("meta") or {}
    known = known_types()
    if not isinstance(kind, str):
        wrong.append(f"{at(*here)}: the type of the expectation is required")
    elif kind in REFUSED:
        wrong.append(f"{at(*here, 'type')}: '{kind}' is not allowed: {REFUSED[kind]}")
    elif kind not in known:
        wrong.append(f"{at(*here, 'type')}: there is no expectation '{kind}'{did_you_mean(kind, known)}")
    severity = entry.get("severity", SEVERITIES[0])
    if severity not in SEVERITIES:
        wrong.append(f"{at(*here, 'severity')}: {unknown('severity', severity, SEVERITIES)}")
    if not isinstance(kwargs, dict) or not isinstance(meta, dict):
        raise SuiteError("\n".join([*wrong, f"{at(*here)}: kwargs and meta must be mappings"]))
    arguments = known[kind]["arguments"] if isinstance(kind, str) and kind in known else {}
    for key in kwargs:
        place = f"{at(*here, 'kwargs', key)}: {kind}"
        wanted = str(arguments.get(key, {}).get("kind", ""))
        shares = [*kwargs[key].values()] if wanted == "mapping" and isinstance(kwargs[key], dict) else []
        boolean = next((v for v in (kwargs[key], *shares) if isinstance(v, bool)), None)
        if boolean is not None and (shares or wanted.startswith(("number", "whole number"))):
            kind_wanted = "number" if shares else wanted.split(" or ")[0]
            wrong.append(f"{place}: expected a {kind_wanted}, not {'true' if boolean else 'false'}")
        if key in NOT_KWARGS:
            wrong.append(f"{place}: not an option of a rule")
        if holds_nan(kwargs[key]):
            wrong.append(f"{place}: NaN cannot be compared with")
        for name in parameters_in(kwargs[key]):
            if re.fullmatch(r"[A-Za-z_]\w*", name) and name not in PARAMETERS:  # else it is a calculation with one
                wrong.append(f"{place}: {unknown('parameter', name, PARAMETERS)}")
    condition = kwargs.get("row_condition")
    if condition is not None and not isinstance(condition, str | dict):
        wrong.append(f"{at(*here, 'kwargs', 'row_condition')}: {kind}: expected a text, not {condition}")
    if isinstance(condition, str) and kwargs.get("condition_parser") not in PARSERS:
        given, allowed = kwargs.get("condition_parser"), PARSERS[:2]
        need = f"row_condition needs a condition_parser: one of {', '.join(allowed)}"
        parser = need if given is None else unknown("condition_parser", given, allowed)
        wrong.append(f"{at(*here, 'kwargs')}: {kind}: {parser}")
    dimension = meta.get("dimension")
    if dimension is None:
        wrong.append(f"{at(*here, 'meta')}: meta.dimension is required: one of {', '.join(DIMENSIONS)}")
    elif dimension not in DIMENSIONS:
        wrong.append(f"{at(*here, 'meta', 'dimension')}: {unknown('dimension', dimension, DIMENSIONS)}")
    action = meta.get("on_row_fail", "publish")
    if action not in ON_ROW_FAIL:
        wrong.append(f"{at(*here, 'meta', 'on_row_fail')}: {unknown('action', action, ON_ROW_FAIL)}")
    rule = Rule(
        index=index,
        type=str(kind),
        kwargs=kwargs,
        severity=severity if severity in SEVERITIES else SEVERITIES[0],
        dimension=str(dimension),
        quarantine=action == "quarantine",
        meta=meta,
        where=at(*here),
    )
    if kind in known and (thorough or not arguments_fit(kwargs, known[kind]["arguments"])):
        wrong += refused_arguments([rule])
    if wrong:
        raise SuiteError("\n".join(wrong))
    return rule


def arguments_fit(kwargs: Mapping[str, Any], arguments: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether all arguments are known and all required ones are there."""
    return set(kwargs) <= set(arguments) and all(
        kwargs.get(n) is not None for n, a in arguments.items() if a["required"]
    )


def check_values(suite: Suite) -> None:
    """Raise `SuiteError` with all that Great Expectations refuses of the rules' arguments, a line each."""
    wrong = refused_arguments(suite.rules)
    if wrong:
        raise SuiteError("\n".join(wrong))


def refused_arguments(rules: Iterable[Rule]) -> list[str]:
    """Return what Great Expectations refuses of the rules' arguments, one for each rule."""
    wrong = []
    for rule in rules:
        try:
            build(rule)
        except SuiteError as e:
            wrong.append(str(e))
    return wrong


def unknown(what: str, given: Any, allowed: tuple[str, ...]) -> str:
    return f"unknown {what} '{given}'{did_you_mean(str(given), allowed)}; expected one of {', '.join(allowed)}"


def build(rule: Rule, parameters: Mapping[str, Any] | None = None) -> Any:
    """Return the rule as Great Expectations' own object, with the parameters of a run filled in if they are known.

    Raises `SuiteError` with its complaints, a line for each option.
    """
    from great_expectations.compatibility.pydantic import ValidationError
    from great_expectations.exceptions import SuiteParameterError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.legacy_row_conditions import ConditionParserError

    from headgate.expectations import balance, drift, own  # noqa: F401  (register headgate's own expectations)

    try:
        configuration = ExpectationConfiguration(**copy.deepcopy(rule.configuration()))
        if parameters is not None:
            configuration.process_suite_parameters(dict(parameters))
        built = configuration.to_domain_obj()
        need_sense(rule, getattr(type(built), "map_metric", None))
        return built
    except ValidationError as e:
        fields = known_types()[rule.type]["arguments"]
        said: dict[str, list[str]] = {}
        for error in e.errors():
            name = str(error["loc"][0])
            extra = error["type"] == "value_error.extra"
            message = f"unknown{did_you_mean(name, fields)}" if extra else plainly(error["msg"])
            said.setdefault("" if name == "__root__" else f"kwargs.{name}: ", []).append(message)
        for place, messages in said.items():
            given = rule.kwargs.get(place[len("kwargs.") : -2])
            # Great Expectations has a message for each type that it tried.
            if isinstance(given, str) and any("datetime" in m for m in messages):
                said[place] = [f"{given!r} is neither a number nor a day or moment such as 2013-01-31T12:00:00Z"]
        lines = [place + " or ".join(dict.fromkeys(messages)) for place, messages in said.items()]
        raise SuiteError("\n".join(f"{rule.where}: {rule.type}: {line}" for line in lines)) from e
    except SuiteError:
        raise
    except (SuiteParameterError, ConditionParserError, TypeError, ValueError, KeyError, AttributeError) as e:
        raise SuiteError(f"{rule.where}: {rule.type}: {e}") from e


def need_sense(rule: Rule, counts: str | None) -> None:
    """Raise `SuiteError` for bounds that nothing is between, and for a quarantine of rows that a rule cannot tell.

    counts: the metric of rows that the rule counts, if there is one.
    """
    for least, most in BOUNDS:
        low, high = rule.kwargs.get(least), rule.kwargs.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise SuiteError(f"{rule.where}: {rule.type}: {least} {low} is above {most} {high}")
    if rule.quarantine and (counts is None or counts in (*UNIQUE, *ORDERED)):
        raise SuiteError(f"{rule.where}: {rule.type} is no row rule, so it cannot quarantine rows")


def parameters_in(value: Any) -> list[str]:
    """Return what values of the run, or calculations with them, stand in an argument as `{$PARAMETER: …}`."""
    if isinstance(value, Mapping):
        own = [value["$PARAMETER"]] if isinstance(value.get("$PARAMETER"), str) else []
        return [*own, *(name for each in value.values() for name in parameters_in(each))]
    return [name for each in value for name in parameters_in(each)] if isinstance(value, list | tuple) else []


def plainly(message: str) -> str:
    """Return a message of Great Expectations without Python's words."""
    for theirs, ours in (
        ("none is not an allowed value", "a value is required"),
        ("value is not a valid dict", "a mapping is expected"),
        ("value is not a valid list", "a list is expected"),
        ("str type expected", "a text is expected"),
    ):
        message = message.replace(theirs, ours)
    return message


def holds_nan(value: Any) -> bool:
    """Return whether a NaN is in a value; Great Expectations would read it as no value at all."""
    if isinstance(value, Mapping):
        return any(map(holds_nan, value.values()))
    return any(map(holds_nan, value)) if isinstance(value, list | tuple) else value != value
