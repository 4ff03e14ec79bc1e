"""Prepare training data on Spark: gated, versioned, every row accounted for.

`run` builds a pipeline, `Lake` reads what is published. Importing the package loads neither Spark nor Arrow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from headgate.version import VERSION as __version__

if TYPE_CHECKING:
    from headgate.jobs.errors import GateBlocked, HeadgateError, InputMissing, LostRace, UsageError
    from headgate.jobs.pipeline.outcome import Outcome, TableOutcome
    from headgate.reading import Lake
    from headgate.running import run

PLACES = {
    "GateBlocked": "headgate.jobs.errors",
    "HeadgateError": "headgate.jobs.errors",
    "InputMissing": "headgate.jobs.errors",
    "Lake": "headgate.reading",
    "LostRace": "headgate.jobs.errors",
    "Outcome": "headgate.jobs.pipeline.outcome",
    "TableOutcome": "headgate.jobs.pipeline.outcome",
    "UsageError": "headgate.jobs.errors",
    "run": "headgate.running",
}
__all__ = [
    "GateBlocked",
    "HeadgateError",
    "InputMissing",
    "Lake",
    "LostRace",
    "Outcome",
    "TableOutcome",
    "UsageError",
    "__version__",
    "run",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that has it, which is imported only then (PEP 562)."""
    if name not in PLACES:
        raise AttributeError(f"module 'headgate' has no attribute '{name}'")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
