"""Near duplicates of texts beside other tools, on growing corpora, and by increments.

The corpus is `nd_system_docs` (131 MB of real documents, with all pairs at 0.5 and above). A removal is unsupported if
no document that stays is similar to the removed one; a pair survives if both its documents stay.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headgate.jobs.pipeline.context import BuildContext
from tests.benchmarks.growth import cpu_and_memory, fitted
from tests.benchmarks.measure import measure
from tests.conftest import ROOT, SHARED_DATA

CORPUS = SHARED_DATA / "nd_system_docs"
PEERS = Path(__file__).parent / "peers"
THRESHOLD = 0.8
PEER_SECONDS = 400
SETTINGS = {"spark.master": "local[2]", "spark.driver.memory": "4g"}
SIZES = (1, 4, 16)
SHARES = (0.01, 0.1)
RUNS = 6  # of each increment, one after another: Java compiles what it has not yet met


def run() -> None:
    beside_others()
    sizes = tuple(int(n) for n in os.environ.get("COPIES", "").split(",") if n) or SIZES
    by_size(sizes)
    by_increments(max(sizes))


# -- beside other tools


def beside_others() -> None:
    """Each tool once in a process tree of its own, from nothing: its start is counted.

    headgate is installed, as `headgate prepare` leaves a machine; without that it costs more.
    """
    subprocess.run([sys.executable, "-m", "headgate", "prepare"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    python = peers_python()
    corpus = str(CORPUS / "corpus.parquet")
    tools = [("headgate", [sys.executable, "-m", "tests.benchmarks.dedup", corpus])]
    tools += [
        (p.stem.removeprefix("with_"), [str(python if p.stem != "with_sparkml" else sys.executable), str(p), corpus])
        for p in scripts()
    ]
    truth = Truth()
    for name, command in tools:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            limited = ["timeout", str(PEER_SECONDS), *command, str(out)]
            cost = measure(limited, Path(folder), PYTHONPATH=str(ROOT))
            if not out.exists():
                why = "did not finish" if cost.code == 124 else cost.stderr.strip().splitlines()[-1:]
                print(f"{name:10} {cost}  {why} (limit {PEER_SECONDS} s)", flush=True)
                continue
            told = json.loads(out.read_text())
            print(f"{name:10} {cost}  {truth.judge(set(told['removed']))}  {told['note']}", flush=True)


def scripts() -> list[Path]:
    return sorted(PEERS.glob("*.py"))


def peers_python() -> Path:
    """The Python of an environment with the other tools, made when it is first needed."""
    home = PEERS / ".venv"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([*install, str(PEERS / "requirements.txt")], check=True)
    return python


class Truth:
    """What a choice of removed documents is worth, by the exact similarities of all pairs.

    They take every byte beyond ASCII for a letter. What they call unsupported is asked again of the texts, with the
    letters of Unicode, among the documents that they hold for similar at 0.5: beyond them none is at 0.8.
    """

    def __init__(self) -> None:
        pairs = pq.read_table(CORPUS / "truth_pairs.parquet")
        self.rep = pq.read_table(CORPUS / "truth_docs.parquet")["rep"].to_pylist()
        self.texts = pq.read_table(CORPUS / "corpus.parquet")["text"].to_pylist()
        self.alike, self.somewhat = (self.neighbours(pairs, least) for least in (THRESHOLD, 0.5))

    @staticmethod
    def neighbours(pairs: pa.Table, least: float) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        some = pairs.filter(pc.greater_equal(pairs["j"], least))
        for a, b in zip(some["a"].to_pylist(), some["b"].to_pylist(), strict=True):
            found.setdefault(a, set()).add(b)
            found.setdefault(b, set()).add(a)
        return found

    def judge(self, removed: set[int]) -> str:
        kept = [i for i in range(len(self.rep)) if i not in removed]
        standing = {self.rep[i] for i in kept}
        lost = [i for i in removed if not ({self.rep[i]} | self.alike.get(self.rep[i], set())) & standing]
        really = sum(not self.supported(i, kept) for i in lost)
        survive = sum(len(self.alike.get(r, set()) & standing) for r in standing) // 2 + len(kept) - len(standing)
        return (
            f"removed {len(removed):,}, unsupported {len(lost):,} ({really:,} with the letters of Unicode), "
            f"surviving pairs {survive:,}"
        )

    def supported(self, gone: int, kept: Sequence[int]) -> bool:
        near = self.somewhat.get(self.rep[gone], set()) | {self.rep[gone]}
        mine = self.shingles(gone)
        return any(jaccard(mine, self.shingles(i)) >= THRESHOLD for i in kept if self.rep[i] in near)

    def shingles(self, number: int) -> set[Any]:
        words = re.findall(r"\w+", self.texts[number].lower())
        return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


# -- ours


class Scratch(BuildContext):
    """The context of a build, with given rows as those of earlier builds."""

    def recorded(self, name: str) -> Any:
        return self.frames.get("before")


def deduplicate(spark: Any, corpus: str, folder: str, before: Any = None) -> Any:
    """Read a corpus, mark its near duplicates, write it; the marked rows as written."""
    from headgate.transforms.deduplication.near import DropNearDuplicates
    from headgate.transforms.rows import ROW_ID, row_id, with_bookkeeping

    df = spark.read.parquet(corpus)
    df = with_bookkeeping(df.withColumn(ROW_ID, row_id(df, "corpus", ["id"])))
    step = DropNearDuplicates(columns=("text",), similarity=THRESHOLD, unit="words")
    frames = {} if before is None else {"before": before}
    out = step.run(df, Scratch(spark, f"{folder}/scratch", frames=frames))
    out.write.mode("overwrite").parquet(f"{folder}/out")
    return spark.read.parquet(f"{folder}/out")


def session(reads: int | None = None) -> Any:
    from headgate.jobs.spark.session import start

    return start(SETTINGS, reads=reads)


def main(corpus: str, out: str) -> None:
    """What the other tools' scripts do, with ours; started as the command does that knows its input."""
    spark = session(os.stat(corpus).st_size)
    with tempfile.TemporaryDirectory() as folder:
        rows = deduplicate(spark, corpus, folder).where("_hg_rejected IS NOT NULL").select("id")
        removed = [r["id"] for r in rows.collect()]
    note = "removes what is proved similar to a kept one, longest first"
    Path(out).write_text(json.dumps({"tool": "headgate", "removed": removed, "note": note}))
    spark.stop()


# -- by size


def copied(folder: Path, copies: int) -> int:
    """The corpus so many times: in each copy but the first every tenth word or so is another, so that its documents
    are similar to those of no other copy, but as similar among themselves; returns the bytes of text."""
    folder.mkdir(parents=True)
    texts = pq.read_table(CORPUS / "corpus.parquet")["text"].to_pylist()
    size = 0
    for copy in range(copies):
        part = texts if copy == 0 else [changed(t, copy) for t in texts]
        size += sum(len(t.encode()) for t in part)
        ids = np.arange(len(part)) + copy * len(part)
        pq.write_table(pa.table({"id": ids, "text": part}), folder / f"{copy:02}.parquet")
    return size


def changed(text: str, copy: int) -> str:
    """Every word that starts with one of some letters becomes a word of this copy: the same word always the same."""
    return re.sub(r"\b[aeiost](\w*)", lambda m: f"c{copy}{m[1]}", text)


def by_size(sizes: Sequence[int]) -> None:
    spark = session()
    points = []
    with tempfile.TemporaryDirectory() as scratch:
        deduplicate(spark, str(CORPUS / "corpus.parquet"), scratch)  # warm
        for copies in sizes:
            folder = Path(scratch) / f"x{copies}"
            size = copied(folder, copies)
            peak, cost = timed(lambda: deduplicate(spark, str(folder), scratch))  # noqa: B023
            removed = spark.read.parquet(f"{scratch}/out").where("_hg_rejected IS NOT NULL").count()
            points.append((size, cost))
            print(
                f"{copies:3} x the corpus, {size / 1e6:,.0f} MB: {cost:.1f} CPU s, {size / 1e6 / cost:.1f} MB a CPU "
                f"second, {peak:.0f} MB resident, {removed:,} removed",
                flush=True,
            )
    if len(points) > 1:
        print(f"CPU ~ bytes^{fitted(points):.3f}")
    spark.stop()


def timed(work: Any) -> tuple[float, float]:
    before = cpu_and_memory()[0]
    work()
    after, resident = cpu_and_memory()
    return resident, after - before


# -- by increments


def by_increments(copies: int) -> None:
    """A full run over so many copies of the corpus, and runs of a part that is new to an index of the rest."""
    from pyspark.sql import functions as F

    from headgate.transforms.deduplication.similar import SKETCHES

    spark = session()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copied(folder / "all", copies)
        whole = spark.read.parquet(str(folder / "all"))
        deduplicate(spark, str(folder / "all"), scratch)  # warm
        _, full = timed(lambda: deduplicate(spark, str(folder / "all"), scratch))
        print(f"{copies} x the corpus, full: {full:.1f} CPU s", flush=True)
        for share in SHARES:
            new = F.pmod(F.xxhash64("id"), F.lit(1000)) < int(share * 1000)
            whole.where(~new).write.mode("overwrite").parquet(f"{scratch}/old")
            whole.where(new).write.mode("overwrite").parquet(f"{scratch}/new")
            kept = deduplicate(spark, f"{scratch}/old", scratch).where("_hg_rejected IS NULL")
            sketches = spark.read.parquet(f"{scratch}/scratch/{SKETCHES}")
            stays = sketches.join(kept.select("_row_id"), on="_row_id", how="left_semi").drop("rank")
            stays.write.mode("overwrite").option("compression", "none").parquet(f"{scratch}/index")
            before = spark.read.parquet(f"{scratch}/index")
            parts = [
                timed(lambda: deduplicate(spark, f"{scratch}/new", scratch, before))[1]  # noqa: B023
                for _ in range(RUNS)
            ]
            told = ", ".join(f"{part:.1f}" for part in parts)
            last = f"the last {parts[-1] / full:.1%} of the full run"
            print(f"increment of {share:.0%}: {told} CPU s, {last}", flush=True)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
