"""The lease of a pipeline: of its runs on a lake one works at a time, and one that died keeps nobody out.

A lease has terms, objects with rising numbers that are put only where there is none, so each has one owner. The newest
counts, until its sign (an object beside it, written again and again) says that it is over, or its owner is gone. It
stays for the next to be numbered after. Clocks of machines may differ by minutes, not more.

A lease saves work. What keeps tables and releases whole are their commits, even where two believe to be the owner.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pyarrow import fs

from headgate.jobs.errors import OtherRun
from headgate.jobs.lake.folder import Folder
from headgate.jobs.lake.processes import is_gone, process_space, this_process
from headgate.jobs.lake.storage import file_system, put, put_new, remove
from headgate.jobs.lake.system import now

EVERY = 30.0  # seconds between signs of an owner
SILENCE = timedelta(minutes=5)  # after which an owner on another machine, or in another container, is taken for dead
PAUSE = 5.0  # seconds between looks of one that waits
REPLACED = 1.0  # seconds in which HDFS, that moves a file over no other, has put a new sign in place of the old one
CUT_SHORT: dict[str, Any] = {"": "what was written is no JSON"}
NOBODY, EVER = "- 0 -", datetime.min.replace(tzinfo=timezone.utc)
AT_WORK: set[str] = set()  # runs of this process, which may live on when one has ended and could not say so


@dataclass(frozen=True)
class Term:
    """A term of a lease: its owner, since when, and the owner's last sign."""

    number: int
    process: str
    space: str  # of the number of the process
    run_id: str
    since: datetime
    seen: datetime
    over: bool

    @property
    def owner(self) -> str:
        host, pid, _ = self.process.split(" ")
        return f"run {self.run_id} (process {pid} on {host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC)"

    @property
    def is_gone(self) -> bool:
        unheard_of = now() - self.seen
        if (self.process, self.space) == (this_process(), process_space()):
            return self.run_id not in AT_WORK
        return is_gone(self.process, self.space, unheard_of, SILENCE)


class Lease:
    """The lease of a pipeline, for one run; or of other work that is done one at a time, `what`."""

    def __init__(self, lake: Folder, pipeline: str, run_id: str, what: str | None = None) -> None:
        self.what, self.run_id = what or f"run of '{pipeline}'", run_id
        self.folder = f"{lake.root}/_system/leases/{pipeline}"
        self.number = 0
        self.after: Term | None = None  # the term of a dead owner that this one follows
        self.lost = False
        self.done = threading.Event()

    def numbers(self) -> list[int]:
        files, base = file_system(self.folder)
        found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
        names = [f.base_name.partition(".") for f in found]
        return sorted({int(number) for number, _, kind in names if kind == "json" and number.isdigit()})

    def read(self, name: str) -> dict[str, Any]:
        files, base = file_system(self.folder)
        try:
            with files.open_input_stream(f"{base}/{name}") as stream:
                return dict(json.loads(stream.readall()))
        except FileNotFoundError:
            return {}
        except ValueError:  # a crash of the machine cut it short, so nobody is there who wrote it
            return CUT_SHORT

    def newest(self) -> Term | None:
        """Return the newest term; None where there was none."""
        while numbers := self.numbers():
            facts, sign = self.read(f"{numbers[-1]:010}.json"), self.read(f"{numbers[-1]:010}.sign")
            if facts is CUT_SHORT:
                return Term(numbers[-1], NOBODY, "", "", EVER, EVER, over=True)
            if facts:  # else a next one has removed it
                since = datetime.fromisoformat(facts["since"])
                if not sign and now() - since > SILENCE:
                    time.sleep(REPLACED)
                    sign = self.read(f"{numbers[-1]:010}.sign")
                seen = datetime.fromisoformat(sign["seen"]) if "seen" in sign else since
                owner = (facts["process"], facts["space"], facts["run_id"])
                return Term(numbers[-1], *owner, since, seen, bool(sign.get("over")))
        return None

    def take(self) -> Term | None:
        """Begin a term; return the newest instead, if its owner is there."""
        owner = {"process": this_process(), "space": process_space(), "run_id": self.run_id}
        facts = {**owner, "since": now().isoformat()}
        AT_WORK.add(self.run_id)
        while True:
            last = self.newest()
            mine = last is not None and last.run_id == self.run_id  # put, though the answer was lost on the way
            if last is not None and not mine and not last.over and not last.is_gone:
                return last
            number = last.number + (not mine) if last is not None else 1
            if not mine and not put_new(self.folder, f"{number:010}.json", json.dumps(facts).encode()):
                continue
            older = [n for n in self.numbers() if n != number]
            if any(n > number for n in older):  # it looked at what is long past
                remove(f"{self.folder}/{number:010}.json")
                continue
            self.number, self.after = number, None if last is None or mine or last.over else last
            for n in older:
                remove(f"{self.folder}/{n:010}.json")
                remove(f"{self.folder}/{n:010}.sign")
            return None

    def sign(self, over: bool = False) -> None:
        """Say that the owner is there, or that its term is over."""
        put(self.folder, f"{self.number:010}.sign", json.dumps({"seen": now().isoformat(), "over": over}).encode())

    def end(self) -> None:
        """End the term; where that cannot be written, it is over when the next run sees that its owner is gone."""
        AT_WORK.discard(self.run_id)
        if self.number and not self.lost:
            with contextlib.suppress(Exception):
                self.sign(over=True)

    def keep(self) -> None:
        """Give signs until the run is done; a store that does not answer is tried again the next time."""
        while not self.done.wait(EVERY):
            with contextlib.suppress(Exception):
                self.lost = self.lost or self.numbers()[-1:] != [self.number]
                if not self.lost:
                    self.sign()

    def need(self) -> None:
        """Raise `OtherRun` if another run has taken the lease, because this one seemed to be dead."""
        if self.lost:
            raise OtherRun(f"another {self.what} took this one for dead and works in its place")


@contextlib.contextmanager
def held(
    lake: Folder, pipeline: str, run_id: str, wait: timedelta, tell: Callable[[str], None], what: str | None = None
) -> Iterator[Lease]:
    """Hold the lease of a pipeline, or of other work (`what`) by that name.

    Raises `OtherRun`, which names its owner, if it is not free within `wait`. tell: is told of an owner that is waited
    for, and of a dead one whose lease is taken.
    """
    lease = Lease(lake, pipeline, run_id, what)
    keeper = threading.Thread(target=lease.keep, name=f"headgate: lease of {pipeline}", daemon=True)
    try:
        wait_for(lease, wait, tell)
        keeper.start()
        yield lease
    finally:
        lease.done.set()
        if keeper.is_alive():
            keeper.join(PAUSE)
        lease.end()


def wait_for(lease: Lease, wait: timedelta, tell: Callable[[str], None]) -> None:
    """Take a lease as soon as it is free; raise `OtherRun` if it is not within `wait`."""
    until = time.monotonic() + wait.total_seconds()
    told = ""
    while (owner := lease.take()) is not None:
        if time.monotonic() >= until:
            raise OtherRun(f"another {lease.what} is at work: {owner.owner}")
        if owner.run_id != told:
            tell(f"waiting for {owner.owner}")
            told = owner.run_id
        time.sleep(min(PAUSE, max(0.0, until - time.monotonic())))
    if lease.after is not None:
        tell(f"{lease.after.owner} is gone without an end: this run takes its place")
