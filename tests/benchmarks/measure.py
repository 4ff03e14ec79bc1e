"""What a command costs: wall seconds, CPU seconds of its whole process tree, peak memory."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float
    peak_mb: float
    stdout: str
    stderr: str
    code: int

    def __str__(self) -> str:
        return f"{self.wall:7.1f} s wall  {self.cpu:7.1f} s CPU  {self.peak_mb:6.0f} MB peak"


def measure(command: list[str], cwd: Path, **environment: str) -> Cost:
    """Run a command in a session of its own and follow all its processes, the JVM included, in /proc."""
    started = time.monotonic()
    with open(cwd / "stdout.txt", "w+") as out, open(cwd / "stderr.txt", "w+") as err:
        process = subprocess.Popen(
            command, cwd=cwd, stdout=out, stderr=err, env=os.environ | environment, start_new_session=True
        )
        cpu: dict[int, float] = {}
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sample(process.pid, cpu))
            time.sleep(0.3)
        wall = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        return Cost(wall, sum(cpu.values()), peak, out.read(), err.read(), process.returncode)


def family() -> dict[int, float]:
    """Return the CPU seconds so far of this process and of all that came of it: the JVM, and its Python workers."""
    parents, seconds = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / TICKS  # with those of children that ended
    mine = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return {p: seconds[p] for p in mine}


def spent() -> float:
    """Return the CPU seconds so far of this process and of all that came of it."""
    return sum(family().values())


def peaks() -> tuple[int, int]:
    """Return the most resident memory so far, in MB, of a JVM among what came of this process, and of a worker."""
    found = {True: 0, False: 0}
    for process in family().keys() - {os.getpid()}:
        try:
            name = Path(f"/proc/{process}/comm").read_text().strip()
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        found[name == "java"] = max(found[name == "java"], peak // 1024)
    return found[True], found[False]


def sample(session: int, cpu: dict[int, float]) -> float:
    """Note the CPU seconds of each process of a session; returns their resident memory in MB."""
    resident = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            cpu[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
            resident += int(fields[21]) * PAGE
    return resident / 1e6
