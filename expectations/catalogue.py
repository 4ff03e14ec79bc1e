"""The expectations that a suite may hold, and their arguments.

Importing Great Expectations costs several CPU seconds, so what it says of its expectations lies in `catalogue.json`,
keyed by its version. `python -m headgate.expectations.catalogue` prints the file anew; a test compares the two.
"""

import functools
import importlib.metadata
import json
import pkgutil
import typing
from typing import Any

FILE = "catalogue.json"
PARAMETER = "{$PARAMETER: name}"
NO_SPARK = "Great Expectations has no Spark implementation of it"
REFUSED = {
    "expect_column_values_to_be_dateutil_parseable": NO_SPARK,
    "expect_column_values_to_match_like_pattern": NO_SPARK,
    "expect_column_values_to_not_match_like_pattern": NO_SPARK,
    "expect_column_values_to_match_like_pattern_list": NO_SPARK,
    "expect_column_values_to_not_match_like_pattern_list": NO_SPARK,
    "expect_table_row_count_to_equal_other_table": NO_SPARK + "; expect_row_count_to_stay_near_previous may serve",
    "expect_query_results_to_match_comparison": NO_SPARK,
    "expect_column_quantile_values_to_be_between": "it crashes the run on Spark (its result is not JSON)",
    "expect_column_kl_divergence_to_be_less_than": "it crashes the run on Spark (its result is not JSON)",
    "expect_column_values_to_match_json_schema": "it raises on a text that is not JSON",
    "unexpected_rows_expectation": "it leaves a global view behind; write expect_rows_to_satisfy_sql",
}
# Options of every expectation that belong to the entry in the file, or to the run, not to the rule.
NOT_KWARGS = (
    *("id", "meta", "notes", "description", "severity"),
    *("batch_id", "catch_exceptions", "rendered_content", "result_format", "windows"),
)
KINDS = {
    **{"StrictStr": "text", "str": "text", "float": "number", "ConstrainedFloatValue": "number from 0 to 1"},
    **{"int": "whole number", "bool": "true or false", "date": "date", "datetime": "date and time"},
    **{"list": "list", "Sequence": "list", "SuiteParameterDict": PARAMETER, "dict": PARAMETER},
}
MAPPINGS = {"shares"}  # arguments that are mappings of their own, not a parameter of the run
ABOUT = {  # of arguments that Great Expectations does not describe
    "row_condition": "Only the rows for which this holds are judged: Spark SQL over the columns of a row.",
    "condition_parser": "How row_condition is read: write spark.",
}


@functools.cache
def known_types() -> dict[str, dict[str, Any]]:
    """Return every expectation that a suite may hold: `does`, `about` and its `arguments` by name.

    An argument has `required`, `default`, `kind` and `about`.
    """
    written = json.loads(pkgutil.get_data("headgate.expectations", FILE) or b"{}")
    if written.get("great_expectations") == importlib.metadata.version("great_expectations"):
        return dict(written["expectations"])
    return dict(read_from_great_expectations()["expectations"])


def read_from_great_expectations() -> dict[str, Any]:
    """Return what `catalogue.json` holds, from the classes of the installed version."""
    import great_expectations
    from great_expectations.expectations import registry

    from headgate.expectations import balance, drift, own  # noqa: F401  (register headgate's own expectations)

    found = {}
    for name in sorted(registry.list_registered_expectation_implementations()):
        if name not in REFUSED:
            found[name] = described(registry.get_expectation_impl(name))
    return {"great_expectations": great_expectations.__version__, "expectations": found}


def described(expectation: Any) -> dict[str, Any]:
    first, _, rest = (expectation.__doc__ or "").strip().partition("\n\n")
    about = rest if expectation.__module__.startswith("headgate.") else ""
    arguments = {
        name: {
            "required": bool(field.required),
            "default": field.default,
            "kind": "mapping" if name in MAPPINGS else " or ".join(dict.fromkeys(kinds_of(field.outer_type_))),
            "about": plain(field.field_info.description or ABOUT.get(name, "")),
        }
        for name, field in expectation.__fields__.items()
        if name not in (*NOT_KWARGS, "library_metadata")
    }
    return {"does": plain(first), "about": plain(about), "arguments": arguments}


def kinds_of(annotation: Any) -> list[str]:
    """Return the words for what an argument may be; classes of Great Expectations give none, as YAML holds none."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return [" | ".join(map(str, typing.get_args(annotation)))]
    if origin is typing.Annotated:
        return kinds_of(typing.get_args(annotation)[0])
    if origin is typing.Union or type(annotation).__name__ == "UnionType":
        return [kind for one in typing.get_args(annotation) for kind in kinds_of(one)]
    name = getattr(origin or annotation, "__name__", str(annotation))
    return [KINDS[name]] if name in KINDS else []


def plain(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Print what `catalogue.json` holds, an expectation a line."""
    found = read_from_great_expectations()
    lines = [f"{json.dumps(n)}: {json.dumps(e, ensure_ascii=False)}" for n, e in found["expectations"].items()]
    print(f'{{"great_expectations": {json.dumps(found["great_expectations"])}, "expectations": {{')
    print(",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main()
