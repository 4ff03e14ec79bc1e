"""Telling a person, or a log, what a run is doing."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from headgate.jobs.disclosure import masked, without_secrets
from headgate.jobs.errors import first_line

LOG = "HEADGATE_LOG"

Observer = Callable[[object], None]  # is given each event of a run


@dataclass(frozen=True)
class PhaseDone:
    """A phase of a table's build is done; the times are seconds since the epoch."""

    table: str
    phase: str
    began: float
    ended: float


class Progress:
    """The progress of a run on standard error: a line for each finished table; for a person, a live line as well.

    With HEADGATE_LOG=json it is one JSON line for each finished phase and table instead.
    """

    def __init__(self, watched: bool | None = None) -> None:
        self.as_json = os.environ.get(LOG) == "json"
        self.watched = not self.as_json and (sys.stderr.isatty() if watched is None else watched)
        self.seconds: dict[tuple[str, str], float] = {}
        self.spark: Any = None
        self.started = time.monotonic()
        self.done, self.total = 0, 0
        self.running: dict[str, str] = {}  # table -> the phase that it is in
        self.display: Any = None
        self.lock = threading.Lock()
        self.observers: dict[str, Observer] = {}
        self.observing = threading.RLock()

    def emit(self, event: object) -> None:
        """Give an event to the observers, one at a time. One that fails is told of, and given no more."""
        with self.observing:
            for name, observe in list(self.observers.items()):
                try:
                    observe(event)
                except Exception as e:
                    del self.observers[name]
                    self.tell("warning", message=f"{name}: {first_line(e)}")

    def expect(self, tables: int) -> None:
        """Take down of how many tables a run is made."""
        self.done, self.total = 0, tables

    def finished(self, record: Mapping[str, Any]) -> None:
        """Tell of a table that is finished; one that was up to date is counted alone."""
        self.done += 1
        if record["status"] == "up to date":
            return
        facts = {k: record[k] for k in ("table", "rows", "seconds")}
        if self.as_json:
            self.tell("table", **facts, number=self.done, of=self.total)
            return
        self.write(
            f"[{self.done} of {self.total}] {record['table']}: {record['rows']:,} rows, {record['seconds']:.1f} s"
        )

    @contextlib.contextmanager
    def phase(self, table: str, phase: str) -> Iterator[None]:
        """Time a phase of a table's build; the live line shows the rows that Spark has read so far."""
        started = time.monotonic()
        with self.live(table, phase) if self.watched else contextlib.nullcontext():
            yield
        seconds = time.monotonic() - started
        self.seconds[table, phase] = self.seconds.get((table, phase), 0.0) + seconds
        now = time.time()
        self.emit(PhaseDone(table, phase, now - seconds, now))
        if self.as_json:
            self.tell("phase", table=table, phase=phase, seconds=round(seconds, 2))

    @contextlib.contextmanager
    def live(self, table: str, phase: str) -> Iterator[None]:
        """Show what is done to a table for as long as it lasts; of a phase within another, the inner one."""
        with self.lock:
            outer = self.running.get(table)
            self.running[table] = phase
            if self.display is None:
                self.display = Display(self.line)
        try:
            yield
        finally:
            with self.lock:
                if outer is not None:
                    self.running[table] = outer
                else:
                    del self.running[table]
                if not self.running:
                    self.display.stop()
                    self.display = None

    def line(self) -> str:
        """Return the live line: which table of how many, what happens to each, elapsed time, rows read so far."""
        text = ", ".join(f"{table}: {phase}" for table, phase in list(self.running.items()))
        rows = rows_read(self.spark) if self.spark is not None else None
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        number = f"{min(self.done + 1, self.total)} of {self.total}  " if self.total else ""
        return f"{number}{text}  {minutes}:{seconds:02}" + (f"  {rows:,} rows" if rows else "")

    def tell(self, event: str, **facts: Any) -> None:
        """Tell one event: as a JSON line, or as a plain one."""
        if self.as_json:
            at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self.write(json.dumps(masked({"at": at, "event": event, **facts})))
        else:
            detail = facts.get("message") or ", ".join(f"{k} {v}" for k, v in facts.items())
            self.write(f"{event}: {detail}")

    def write(self, line: str) -> None:
        print(without_secrets(line), file=sys.stderr, flush=True)


class Display:
    """A line on the terminal that is drawn anew twice a second."""

    def __init__(self, line: Callable[[], str]) -> None:
        from rich.console import Console

        self.line = line
        self.stopped = threading.Event()
        self.status = Console(stderr=True, highlight=False).status(line())
        self.status.start()
        self.follower = threading.Thread(target=self.follow, daemon=True)
        self.follower.start()

    def follow(self) -> None:
        while not self.stopped.wait(0.5):
            self.status.update(self.line())

    def stop(self) -> None:
        self.stopped.set()
        self.follower.join(2)
        self.status.stop()


def rows_read(spark: Any) -> int | None:
    """Rows read by the stages that run now, from Spark's own status store; None where it cannot be asked."""
    try:
        stages = spark.sparkContext._jsc.sc().statusStore().activeStages()
        running = [stages.apply(i) for i in range(stages.size())]
        return sum(int(s.inputRecords()) + int(s.shuffleReadRecords()) for s in running)
    except Exception:  # a display must never stop a run
        return None
