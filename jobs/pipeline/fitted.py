"""Fitted state of the steps of a build, saved beside the lake's tables."""

from headgate.jobs.lake.artifacts import fitted_of, read_small, write_small
from headgate.jobs.lake.lake import Lake
from headgate.transforms.step import Step
from headgate.transforms.steps import FITTED, STEPS, options_of


def save_fitted(lake: Lake, table: str, build_key: str, steps: list[Step]) -> None:
    """Save the frozen steps of a build, as a pipeline file would write them, each with its place."""
    state = [{"id": s.id, s.name: options_of(type(s)).dump_python(s, mode="json")} for s in steps]
    write_small(f"{fitted_of(lake, table, build_key)}/steps.json", {"steps": state})


def load_fitted(lake: Lake, table: str, build_key: str) -> list[Step]:
    """Return the frozen steps of a build, ready to be applied to other rows."""
    known, steps = STEPS | FITTED, []
    saved = read_small(f"{fitted_of(lake, table, build_key)}/steps.json")
    assert saved is not None
    for entry in saved["steps"]:
        place = entry.pop("id")
        (name, options), *_ = entry.items()
        steps.append(options_of(known[name]).validate_python(options).at(place))
    return steps
