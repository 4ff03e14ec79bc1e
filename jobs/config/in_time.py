"""What looks ahead in time, or across a border between splits, told by the steps of a whole pipeline."""

from collections.abc import Callable, Collection, Mapping, Sequence

from headgate.jobs.config.document import Complaints, Yaml
from headgate.jobs.errors import UsageError
from headgate.transforms.balancing.split import MakesSplit, SplitByTime
from headgate.transforms.features.as_of import LearnAsOf
from headgate.transforms.imputation.series import ImputeAhead, ImputeOrdered
from headgate.transforms.rows import SPLIT
from headgate.transforms.scaling.target import EncodeTarget
from headgate.transforms.step import Step


def check_time(
    document: Yaml,
    steps: Mapping[str, Sequence[Step]],
    splits: Callable[[str, int], Collection[str]],
    made_from: Callable[[str], Collection[str]],
    starts: Callable[[str], Collection[str]],
    complaints: Complaints,
) -> None:
    """Note steps that fill from other rows across a split that comes behind them, or from later rows where time counts.

    steps: of each table. splits: gives the columns that a split made before a step of a table. made_from: gives the
    tables that a table's rows are made from; one that a suite alone reads is none of them. starts: gives those whose
    rows a table takes over. Time counts for a table in which a step names it, for those that one is made from, by a
    join too, for those made from it, and for those that take over the same rows, which hold the same times.
    """
    timed = {table: s.id for table, listed in steps.items() for s in listed[::-1] if names_time(s)}
    origins = {table: {table} | sources_of(table, made_from) for table in steps}
    same = {table: {table} | sources_of(table, starts) for table in steps}
    for table, listed in steps.items():
        by = next((t for t in timed if table in origins[t] or t in origins[table] or same[t] & same[table]), None)
        for i, step in enumerate(listed):
            if not isinstance(step, ImputeOrdered):
                continue
            # Its place as written: a step before it may be left out, as it is wrong.
            place, _, name = step.id.rpartition("/")[2].partition("-")
            where = document.at("tables", table, "steps", int(place), name)
            made = [t for t in steps if t != table and table in origins[t]]
            behind = [*listed[i + 1 :], *(s for t in made for s in steps[t])]
            later = next((s.id for s in behind if isinstance(s, MakesSplit)), None)
            if later is not None and SPLIT not in splits(table, i) and not step.across_splits:
                complaints.add(
                    UsageError(
                        f"{where}: it fills from other rows before '{later}' splits them, so across the splits; put "
                        "the split before it, or say across_splits: true"
                    )
                )
            if by is not None and isinstance(step, ImputeAhead) and not step.look_ahead:
                complaints.add(
                    UsageError(
                        f"{where}: it fills from later rows, which a row cannot know, and by '{timed[by]}' time "
                        "matters here; take impute_previous, or say look_ahead: true"
                    )
                )


def sources_of(table: str, made_from: Callable[[str], Collection[str]]) -> set[str]:
    """Return the tables that a table's rows are made from, directly or through others."""
    found: set[str] = set()
    queue = [table]
    while queue:
        new = set(made_from(queue.pop())) - found
        found |= new
        queue.extend(new)
    return found


def names_time(step: Step) -> bool:
    """Return whether a step says by which column rows come one after the other."""
    return isinstance(step, LearnAsOf | SplitByTime) or (isinstance(step, EncodeTarget) and step.time is not None)
