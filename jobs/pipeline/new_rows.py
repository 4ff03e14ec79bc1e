"""The steps of a published table as they are applied to new rows, or undone, by what the table's build learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from headgate.jobs.config.own_steps import steps_of
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.artifacts import read_fitted
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import missing_files
from headgate.jobs.pipeline.learning import mentioned
from headgate.transforms.rows import is_own
from headgate.transforms.scaling.undo import UndoStep
from headgate.transforms.step import Step, StepError
from headgate.transforms.steps import FITTED, options_of
from headgate.words import cell

# Steps that change no cell that was there before.
KEEPING = {"split_by_hash", "resample_strata", "assign_weights", "drop_duplicates", "drop_near_duplicates"}
KEEPING |= {"drop_near_images", "reject_rows", "reject_missing", "flag_missing", "join_table", "score_by_forest"}
KEEPING |= {"measure_missing"}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a version of a table was made by.

    columns: those before the first step, with their types. steps: as they were applied. pins: the versions and days of
    the tables that they look up.
    """

    published: Published
    columns: Mapping[str, str]
    steps: Sequence[Step]
    pins: Mapping[str, tuple[int, str]]


def learned_by(lake: Lake, table: str, version: int | None, files: Sequence[Path] = ()) -> Learned:
    """Return what a version (default: the newest) of a table was made by.

    files: Python files with steps of a user's own. Raises `InputMissing` where the table or what its steps learned is
    not there, `UsageError` for a table without steps and for a step that is not known or now means something else.
    """
    published = lake.published(table, version)
    if published is None:
        lake.need_table(table)  # says which tables there are
        raise InputMissing(f"table '{table}' has no version")
    facts = published.facts
    if "build" not in facts and version is None:
        facts = lake.last_build(table) or {}
    name = f"{table}@{published.version}"
    if not facts.get("inputs"):
        raise UsageError(f"'{name}' was not made by steps: it holds what landed, or another writer's rows")
    state = facts.get("state", facts.get("build_key"))
    saved = read_fitted(lake, table, str(state))
    if saved is None:
        raise InputMissing(
            f"what the steps of '{name}' learned is not there any more: an erasure or vacuum removed it. Run the "
            "pipeline again, or name a later release"
        )
    if "columns" not in saved:
        raise InputMissing(f"'{name}' was built before its columns were kept; run its pipeline with --rebuild once")
    known = {**steps_of({f: "--steps-from" for f in files}), **FITTED}
    steps = [step_of(name, entry, known) for entry in saved["steps"]]
    looked_up = {t for step in steps for t in step.tables()}
    pins = {t: (int(v), str(day)) for t, (v, day) in facts["inputs"].items() if t in looked_up}
    for other, (at, _) in pins.items():
        if missing_files(lake, other, lake.rearranged(other, at)):
            raise InputMissing(f"'{name}' looks up '{other}@{at}', whose files are not there any more")
    columns = {c: kind for c, kind in saved["columns"].items() if not is_own(c)}
    return Learned(published=published, columns=columns, steps=steps, pins=pins)


def step_of(name: str, entry: Mapping[str, Any], known: Mapping[str, type[Step]]) -> Step:
    """Return a saved step of a version of a table; raise `UsageError` where its class is not the one that saved it."""
    ((kind, options),) = ((k, v) for k, v in entry.items() if k not in ("id", "by"))
    written, revision = entry["by"][0], entry["by"][1]
    for each in (written, kind):
        if each not in known:
            raise UsageError(f"'{name}' has a step '{each}' of somebody's own; give its file by --steps-from")
    if known[written].revision != revision:
        raise UsageError(f"'{name}': the step '{written}' has another meaning by now; run its pipeline again")
    try:
        step: Step = options_of(known[kind]).validate_python(options)
    except pydantic.ValidationError as e:
        raise UsageError(f"'{name}': the step '{written}' has other options by now; run its pipeline again") from e
    return step.at(entry["id"])


def for_new_rows(learned: Learned) -> tuple[list[Step], list[Step]]:
    """Return the steps as new rows have them, and those that are left out; raise `UsageError` for one that cannot be.

    New rows are of no split, so nothing is resampled, weighted or left out of means for them.
    """
    applied, left_out = [], []
    for step in learned.steps:
        try:
            new = step.for_new_rows()
        except StepError as e:
            raise UsageError(f"{e}. Name a table that is made before it") from e
        if new is None:
            left_out.append(step)
        else:
            applied.append(new)
    return applied, left_out


def undoing(learned: Learned, columns: Sequence[str], published: Sequence[str]) -> list[Step]:
    """Return the steps that bring columns of a published table back, the last one first.

    Steps before the first that can be undone stay. Raises `UsageError` where none can be, where no column that one of
    them made is there, and for a step among them that cannot be undone and changes what an earlier one made.
    """
    undone: list[Step] = []
    made: set[str] = set()
    for step in learned.steps:
        mine = step.undone()
        lost = made & mentioned([step], sorted(made))
        if not mine and lost and not keeps_cells(step):
            before = ", ".join(s.id for s in undone)
            raise UsageError(
                f"'{step.id}' cannot be undone, and it has to do with {', '.join(sorted(lost))}, which {before} made"
            )
        if mine:
            undone.append(step)
            made |= {*mine}
    table = learned.published.table
    if not undone:
        names = ", ".join(s.id for s in learned.steps) or "none"
        raise UsageError(f"no step of table '{table}' can be undone: {names}")
    if not made & {*columns}:
        there = ", ".join(c for c in published if c in made)
        raise UsageError(f"--inverse: none of the columns that can be undone is there ({there or 'none published'})")
    return [
        UndoStep(step=step.name, options=options_of(type(step)).dump_python(step, mode="json"))
        for step in reversed(undone)
    ]


def keeps_cells(step: Step) -> bool:
    return step.name in KEEPING or getattr(step, "action", "") in ("reject", "flag")


def check_columns(
    what: str, found: Mapping[str, str | None], wanted: Mapping[str, str], without: Sequence[str], all_of: bool
) -> None:
    """Raise `UsageError` for columns other than the wanted ones, each named: missing, unexpected, of another type.

    found: the types are None where text is read as what is wanted. without: wanted columns that the new rows do not
    have. all_of: whether the others must all be there.
    """
    problems = [f"unexpected {cell(c)}" for c in found if c not in wanted]
    problems += [f"'{c}' is there, though --without names it" for c in found if c in without]
    if all_of:
        problems = [f"missing '{c}'" for c in wanted if c not in found and c not in without] + problems
    typed = {c: kind for c, kind in found.items() if c in wanted and kind is not None}
    problems += [f"'{c}' is {kind}, not {wanted[c]}" for c, kind in typed.items() if kind != wanted[c]]
    if problems:
        raise UsageError(f"{what}: the columns are not those that the steps know: {'; '.join(problems)}")
