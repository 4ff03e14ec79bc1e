"""Small lakes for tests: write a pipeline and what has landed, run it in the suite's session, read back what is there.

A lake lives in a folder of its own: `p.yaml` and its suites, `landing/`, `lake/`.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.explore import queries
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import Outcome, run
from headgate.jobs.progress import Progress

ROOT = Path(__file__).parent.parent
FLIGHTS = ROOT / "conf" / "flights.yaml"
FLOOR = "{type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}, meta: {dimension: completeness}}"
SHAPE = (
    "{type: expect_table_columns_to_match_set, kwargs: {column_set: [], exact_match: false}, "
    "meta: {dimension: validity}}"
)
USERS = "* exclude (_row_id, _file, _file_date, _changed, _parents)"  # the columns that the user gave


# -- what is written


def write_suite(folder: Path, name: str, *rules: str) -> None:
    """Write a suite that any table with rows passes, and further rules, each one line of YAML."""
    entries = "".join(f"  - {rule}\n" for rule in (FLOOR, SHAPE, *rules))
    (folder / f"{name}.yaml").write_text(f"name: {name}\nexpectations:\n{entries}")


def write_pipeline(folder: Path, tables: str, *rules: str) -> Path:
    """Write `p.yaml` with these tables, and the suite `any` with these further rules; return the pipeline's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_suite(folder, "any", *rules)
    (folder / "p.yaml").write_text(f"pipeline: p\nsuites: .\ntables:\n{tables}")
    return folder / "p.yaml"


def land(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file below `landing/`, or write it anew; return its path."""
    file = folder / "landing" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# -- runs


def environment_of(folder: Path, lake_at: Path | None = None) -> Environment:
    return Environment(lake=str(lake_at or folder / "lake"), landing=str(folder / "landing"))


def lake_of(folder: Path) -> Lake:
    return Lake(str(folder / "lake"))


class Killed(BaseException):
    """What a run dies of in a test: no error that anything mends."""


class Faults(Progress):
    """The progress of a run in which something happens before or after a phase of a table, the first time it comes.

    before, after: (table, phase) -> what happens; the phases are those that a run reports: ingest, steps, stage,
    balance, gate, publish.
    """

    def __init__(
        self,
        before: Mapping[tuple[str, str], Callable[[], object]] | None = None,
        after: Mapping[tuple[str, str], Callable[[], object]] | None = None,
    ) -> None:
        super().__init__(watched=False)
        self.before, self.after = dict(before or {}), dict(after or {})

    @contextlib.contextmanager
    def phase(self, table: str, phase: str) -> Iterator[None]:
        self.before.pop((table, phase), lambda: None)()
        with super().phase(table, phase):
            yield
        self.after.pop((table, phase), lambda: None)()


def die() -> None:
    raise Killed


def dies(table: str, phase: str) -> Faults:
    """The progress of a run that dies before a phase of a table."""
    return Faults(before={(table, phase): die})


def run_pipeline(
    spark: Any,
    folder: Path,
    file: Path | None = None,
    lake_at: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Outcome:
    """Run a pipeline (default: the main job) with landing/ and lake/ of a folder, in the suite's session."""
    environment = environment_of(folder, lake_at)
    lake = Lake(environment.lake)
    pipeline = load_pipeline(file or FLIGHTS)
    return run(pipeline, environment, lake, lambda reads: spark, progress or Progress(watched=False), **options)


def again(spark: Any, folder: Path, **options: Any) -> Outcome:
    """Run the pipeline that a folder holds."""
    return run_pipeline(spark, folder, folder / "p.yaml", **options)


def at_once(spark: Any, runs: int, run: Callable[[Any], object]) -> list[BaseException | None]:
    """What each of so many runs raised, all begun at the same moment, each with a session of its own."""
    ended: list[BaseException | None] = [None] * runs
    barrier = threading.Barrier(runs)

    def one(i: int) -> None:
        session = spark.newSession()
        barrier.wait()
        try:
            run(session)
        except BaseException as e:
            ended[i] = e

    threads = [threading.Thread(target=one, args=(i,)) for i in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def records(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """What a run says of each table, by its name."""
    return {r.table: r.asdict() for r in outcome.tables}


# -- what is there


def answer(folder: Path, query: str, release: str | None = None) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in queries.sql(lake_of(folder), query, release, None).to_pylist()]


def rows(folder: Path, columns: str = USERS, table: str = "t") -> list[tuple[Any, ...]]:
    return answer(folder, f"select {columns} from {table} order by all")


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Step, reason and evidence of every rejected row."""
    found = queries.sql(lake_of(folder), "select step, reason, evidence from ledger order by all", None, None)
    return [r | {"evidence": dict(r["evidence"])} for r in found.to_pylist()]


def content(folder: Path, table: str, version: int | None = None) -> list[str]:
    """The rows of a published table as sorted texts, with all that headgate notes of them."""
    found = DeltaTable(lake_of(folder).path(table), version=version).to_pyarrow_table().to_pylist()
    return sorted(json.dumps(r, default=str, sort_keys=True) for r in found)
