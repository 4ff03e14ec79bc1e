"""Fitted state of the steps of a build, saved beside the lake's tables, and which of it a later build applies."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from headgate.jobs.config.models import Frozen
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.artifacts import fitted_of, read_fitted, read_small, write_fitted, write_small
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.drift import Drifted, Profile
from headgate.jobs.pipeline.work import config_key, described
from headgate.transforms.step import Estimator, Step
from headgate.transforms.steps import FITTED, STEPS, options_of

LASTS = timedelta(days=7)  # what a weekly fit learned


def save_fitted(
    lake: Lake, table: str, build_key: str, columns: Mapping[str, str], steps: Sequence[Step], frozen: Sequence[Step]
) -> None:
    """Save the frozen steps of a build, as a pipeline file would write them, each with its place and its estimator.

    columns: those before the first step, with their types: what new rows must have (`headgate apply`).
    """
    state = [
        {"id": s.id, "by": described(step), s.name: options_of(type(s)).dump_python(s, mode="json")}
        for step, s in zip(steps, frozen, strict=True)
    ]
    write_fitted(lake, table, build_key, {"columns": columns, "steps": state})


def load_fitted(lake: Lake, table: str, steps: Sequence[Step], state: str) -> list[Step]:
    """Return the steps of a table as they are applied: those that learn, as a build left them.

    Raises `UsageError` where that build learned nothing for one of them, as it is configured now.
    """
    saved = read_fitted(lake, table, state) or {"steps": []}
    known = STEPS | FITTED
    there = {entry["id"]: entry for entry in saved["steps"]}
    applied = []
    for step in steps:
        if isinstance(step, Estimator):
            entry = there.get(step.id)
            if entry is None or entry["by"] != described(step):
                raise UsageError(
                    f"table '{table}': refit: nothing was kept of what '{step.id}', as it is configured now, learned: "
                    "it was removed, or the step changed. Leave refit out for one build, then name its release"
                )
            (name, options), *_ = ((k, v) for k, v in entry.items() if k not in ("id", "by"))
            step = options_of(known[name]).validate_python(options).at(step.id)
        applied.append(step)
    return applied


def save_profile(lake: Lake, table: str, build_key: str, profile: Profile) -> None:
    write_small(f"{fitted_of(lake, table, build_key)}/profile.json", profile.saved())


def profile_of(lake: Lake, table: str, build_key: str) -> Profile:
    """Return how the training rows of a build were distributed; raise `Drifted` where that was not kept."""
    saved = read_small(f"{fitted_of(lake, table, build_key)}/profile.json")
    if saved is None:
        raise Drifted("it is not known how the rows that its steps learned from were distributed")
    return Profile.of(saved)


def follow_drift(lake: Lake, table: str, state: str, before: str | None, seen: Profile) -> Profile:
    """Return how the training rows are distributed now; raise `Drifted` if otherwise than those of the fit.

    state: the key of the build that fitted. before: of the one whose rows stay beside those `seen`; None: none stay.
    """
    now = profile_of(lake, table, before).plus(seen) if before else seen
    drifted = profile_of(lake, table, state).drifted(now)
    if drifted:
        worst = ", ".join(f"{c} {index:.2f}" for c, index in sorted(drifted.items(), key=lambda x: (-x[1], x[0]))[:5])
        raise Drifted(f"the training rows drifted (population stability index: {worst})")
    return now


def is_there(lake: Lake, table: str, state: str) -> bool:
    return read_fitted(lake, table, state) is not None


def state_to_apply(
    pipeline: Pipeline, lake: Lake, table: str, last: Mapping[str, Any], as_of: date | None
) -> str | None:
    """Return the key of the build whose fitted state the next build of a table applies; None: its steps learn anew.

    last: what the commit of its newest build says. Raises `UsageError` for a release without such a state.
    """
    refit = pipeline.tables[table].refit
    if refit == "always":
        return None
    if isinstance(refit, Frozen):
        return state_of_release(pipeline, lake, table, refit.release)
    state = last.get("state")
    if state is None or last.get("config") != config_key(pipeline, table) or not is_there(lake, table, state):
        return None
    today = as_of or datetime.now(timezone.utc).date()
    return None if refit == "weekly" and today - date.fromisoformat(last["fitted_on"]) >= LASTS else state


def state_of_release(pipeline: Pipeline, lake: Lake, table: str, release: str) -> str:
    pinned = lake.pins(release)
    published = lake.published(table, pinned[table]) if table in pinned else None
    state = published.facts.get("state") if published else None
    if state is None:
        raise UsageError(f"tables.{table}.refit: release '{release}' holds nothing that the table's steps learned")
    load_fitted(lake, table, pipeline.steps[table], state)
    return str(state)
