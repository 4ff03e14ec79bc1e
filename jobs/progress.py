"""Telling a person, or a log, what a run is doing."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from rich.console import Console


class Progress:
    """Phases of a run: a live line where a person watches, one JSON line per finished phase in a log."""

    def __init__(self, watched: bool | None = None) -> None:
        self.watched = sys.stderr.isatty() if watched is None else watched
        self.console = Console(stderr=True, highlight=False)
        self.seconds: dict[tuple[str, str], float] = {}
        self.spark: Any = None

    @contextlib.contextmanager
    def phase(self, table: str, phase: str) -> Iterator[None]:
        """Time a phase of a table's build; the line shows the rows that Spark has read so far."""
        started = time.monotonic()
        status = self.console.status(f"{table}: {phase}") if self.watched else None
        stop = threading.Event()
        with contextlib.ExitStack() as stack:
            if status:
                stack.enter_context(status)
                follower = threading.Thread(target=self.follow, args=(status, f"{table}: {phase}", stop), daemon=True)
                follower.start()
                stack.callback(follower.join, 2)
                stack.callback(stop.set)
            yield
        seconds = time.monotonic() - started
        self.seconds[table, phase] = self.seconds.get((table, phase), 0.0) + seconds
        if not self.watched:
            self.tell("phase", table=table, phase=phase, seconds=round(seconds, 2))

    def follow(self, status: Any, text: str, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            rows = rows_read(self.spark) if self.spark is not None else None
            status.update(f"{text}  {rows:,} rows" if rows else text)

    def tell(self, event: str, **facts: Any) -> None:
        """One event: a JSON line in a log, a plain line where a person watches."""
        if self.watched:
            told = facts.get("message") or ", ".join(f"{k} {v}" for k, v in facts.items())
            self.console.print(f"{event}: {told}", markup=False)
        else:
            at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            print(json.dumps({"at": at, "event": event, **facts}, default=str), file=sys.stderr, flush=True)


def rows_read(spark: Any) -> int | None:
    """Rows read by the stages that run now, from Spark's own status store; None where it cannot be asked."""
    try:
        stages = spark.sparkContext._jsc.sc().statusStore().activeStages()
        return sum(stages.apply(i).inputRecords() + stages.apply(i).shuffleReadRecords() for i in range(stages.size()))
    except Exception:  # a display must never stop a run
        return None
