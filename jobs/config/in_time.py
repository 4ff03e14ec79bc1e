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
    upstream: Callable[[str], Collection[str]],
    complaints: Complaints,
) -> None:
    """Note steps that fill from other rows across a split that comes behind them, or from later rows where time counts.

    steps: of each table. splits: gives the columns that a split made before a step of a table. upstream: gives a table
    and all that it is built from.
    """
    timed = next((s.id for listed in steps.values() for s in listed if names_time(s)), None)
    for table, listed in steps.items():
        for i, step in enumerate(listed):
            if not isinstance(step, ImputeOrdered):
                continue
            place, _, name = step.id.rpartition("/")[2].partition(
                "-"
            )  # a step before it may be left out, as it is wrong
            where = document.at("tables", table, "steps", int(place), name)
            later = next((s.id for s in listed[i + 1 :] if isinstance(s, MakesSplit)), None)
            for other in steps if later is None else ():
                if other != table and table in upstream(other):
                    later = later or next((s.id for s in steps[other] if isinstance(s, MakesSplit)), None)
            if later is not None and SPLIT not in splits(table, i) and not step.across_splits:
                complaints.add(
                    UsageError(
                        f"{where}: it fills from other rows before '{later}' splits them, so across the splits; put "
                        "the split before it, or say across_splits: true"
                    )
                )
            if timed is not None and isinstance(step, ImputeAhead) and not step.look_ahead:
                complaints.add(
                    UsageError(
                        f"{where}: it fills from later rows, which a row cannot know, and by '{timed}' time matters "
                        "here; take impute_previous, or say look_ahead: true"
                    )
                )


def names_time(step: Step) -> bool:
    """Return whether a step says by which column rows come one after the other."""
    return isinstance(step, LearnAsOf | SplitByTime) or (isinstance(step, EncodeTarget) and step.time is not None)
