"""Names of sources in the options of steps, where the pipeline tells all that there are."""

from collections.abc import Callable, Mapping, Sequence

from headgate.jobs.config.document import Complaints, Yaml
from headgate.jobs.errors import UsageError
from headgate.transforms.fusion.golden import GoldenRecords
from headgate.transforms.fusion.predictions import CombinePredictions
from headgate.transforms.rows import SOURCE
from headgate.transforms.step import Step
from headgate.words import did_you_mean


def check_source_names(
    document: Yaml,
    steps: Mapping[str, Sequence[Step]],
    starts: Callable[[str], Sequence[str]],
    mapped: Mapping[str, str],
    complaints: Complaints,
) -> None:
    """Note names of sources that `_source` never holds: it names a table that a table of several starts from.

    mapped: table of a mapping -> the source that its rows name.
    """

    def there(table: str) -> list[str]:
        first, *others = starts(table) or ("",)
        return [mapped.get(s, s) for s in (first, *others)] if others else there(first) if first else []

    for table, placed in steps.items():
        for step in placed:
            if not isinstance(step, GoldenRecords | CombinePredictions) or step.source_column != SOURCE:
                continue
            known = there(table)
            for option, names in step.named_sources.items():
                wrong = next((n for n in names if known and n not in known), None)
                if wrong is not None:
                    place = step.id.partition("/")[2].partition("-")[0]
                    where = document.at("tables", table, "steps", int(place), step.name, option)
                    hint = did_you_mean(wrong, known)
                    complaints.add(
                        UsageError(f"{where}: there is no source '{wrong}'{hint} (sources: {', '.join(known)})")
                    )
