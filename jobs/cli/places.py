"""The place where a command works: its environment, its lake, and the Spark that it starts and ends."""

import logging
import os
import signal
import socketserver
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from headgate.jobs.errors import Interrupted, Terminated, UsageError, received

if TYPE_CHECKING:
    from headgate.jobs.config.models import Environment
    from headgate.jobs.lake.lake import Lake


lakes: list[str] = [""]  # that commands of this process worked on, the last first
written: list[str] = []  # other places that they write to


@dataclass(frozen=True)
class Place:
    """The values of --env, --lake and --landing."""

    env: str | None
    lake_folder: str | None
    landing_folder: str | None

    def environment(self, pipeline: Path | None = None) -> "Environment":
        from headgate.jobs.config.environment import load_environment

        return load_environment(self.env, pipeline, lake=self.lake_folder, landing=self.landing_folder)

    def lake(self, pipeline: Path | None = None) -> "Lake":
        """Return the lake, which must be there."""
        return lake_of(self.environment(pipeline))


def lake_of(environment: "Environment", needed: bool = True) -> "Lake":
    """Return the lake; raise `InputMissing` where there is none though one is needed, or where a file has its name."""
    from headgate.jobs.lake.lake import Lake

    lake = Lake(environment.lake)
    lakes.insert(0, lake.root)
    lake.need_folder(needed)
    return lake


def elsewhere(environment: "Environment", place: str) -> str:
    """Return a place outside the lake, such as that of backups; in a bucket it is opened by the environment's store.

    Raises `UsageError` for a file.
    """
    from headgate.jobs.config.models import StoreOptions
    from headgate.jobs.lake.storage import located
    from headgate.jobs.lake.stores import use

    if os.path.isfile(place):
        raise UsageError(f"{place} is a file, not a folder")
    if environment.store != StoreOptions():
        use(environment.store.store(), located(place))
    written.append(located(place))
    return located(place)


def spark_of(environment: "Environment") -> Any:
    """Return a context with a function that starts Spark when it is first called; what was started is stopped."""
    from headgate.jobs.spark import session

    return session.on_demand(environment.spark_settings(), environment.secret_settings(), end_on_signals)


def end_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end the program in order, and a second one at once."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda number, frame: os._exit(128 + number))
        logging.disable(logging.CRITICAL)  # py4j tells by pages that the JVM is gone
        # So do pyspark's servers, past all logging.
        setattr(socketserver.BaseServer, "handle_error", lambda *given: None)  # noqa: B010
        received.append(Interrupted() if number == signal.SIGINT else Terminated())
        raise received[0]

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
