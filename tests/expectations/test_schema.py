import copy
import json

import jsonschema
import pytest
import yaml

from headgate.expectations.catalogue import REFUSED, known_types
from headgate.expectations.schema import suite_schema
from headgate.expectations.suites import load_suite
from tests.conftest import ROOT
from tests.expectations.test_gate import USES
from tests.expectations.test_suites import GOOD


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(suite_schema()))
    kind = jsonschema.validators.validator_for(schema)
    assert kind is jsonschema.Draft7Validator
    kind.check_schema(schema)
    return kind(schema)


def problems(validator, data):
    return [e.message for e in validator.iter_errors(data)]


@pytest.mark.parametrize("file", sorted((ROOT / "expectations" / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_of_the_project_is_valid(validator, file):
    assert problems(validator, yaml.safe_load(file.read_text())) == []


ALIKE = [
    ("expect_mixture_to_be_near", {"column": "a", "shares": {"en": 0.5, "zh": 0.5}, "amount": "tokens"}),
    ("expect_groups_to_stay_in_one_split", {"columns": ["a"]}),
    ("expect_distribution_to_stay_near", {"column": "a", "splits": ["train", "test"], "method": "ks"}),
]


def test_what_the_loader_takes_is_valid_for_every_expectation(validator):
    entries = [{"type": t, "kwargs": k, "meta": {"dimension": "validity"}} for t, k in [*USES, *ALIKE]]
    data = {"name": "all", "expectations": [*GOOD["expectations"], *entries]}
    assert {r.type for r in load_suite(data, lambda *place: "here").rules} == set(known_types())
    assert problems(validator, data) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"type": "expect_column_values_to_be_betwen"}, "'expect_column_values_to_be_betwen' is not one of"),
        ({"severity": "critcal"}, "'critcal' is not one of ['critical', 'warning', 'info']"),
        ({"kwargs": {"column": "a", "min_vlue": 0}}, "('min_vlue' was unexpected)"),
        ({"kwargs": {"min_value": 0}}, "'column' is a required property"),
        ({"kwargs": {"column": "a", "mostly": 2}}, "is not valid under any of the given schemas"),
        ({"kwargs": {"column": 3}}, "3 is not of type 'string'"),
        ({"meta": {}}, "'dimension' is a required property"),
        ({"meta": {"dimension": "validty"}}, "'validty' is not one of"),
        ({"meta": {"dimension": "validity", "on_row_fail": "quarantaine"}}, "'quarantaine' is not one of"),
        ({"sevrity": "info"}, "('sevrity' was unexpected)"),
        ({"type": "expect_foreign_key_to_exist", "kwargs": {"columns": ["a"]}}, "'parent_table' is a required"),
        *(({"type": kind}, f"'{kind}' is not one of") for kind in sorted(REFUSED)),
    ],
)
def test_what_the_loader_refuses_is_invalid(validator, change, told):
    data = copy.deepcopy(GOOD)
    data["expectations"][2] |= change
    assert any(told in message for message in problems(validator, data)), problems(validator, data)


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_suite_needs_a_row_floor_and_a_rule_on_columns(validator, left_out):
    data = copy.deepcopy(GOOD)
    del data["expectations"][left_out]
    assert any("valid under the given schema" in message for message in problems(validator, data))
    assert problems(validator, {"name": "x"}) == ["'expectations' is a required property"]
