"""The lake: where tables lie, what their versions say, and the system tables.

Versions, releases and the other small tables are read and written without a JVM, by `deltalake`; rows move through
Spark. A release is written as one compare-and-swap on the releases table, so it has exactly one winner.
"""

import json
import re
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs

from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.lake.conflicts import TRIES, retrying
from headgate.jobs.lake.storage import file_system
from headgate.jobs.lake.system import (
    REARRANGING,
    SAME_CONTENT,
    SCHEMAS,
    SYSTEM_TABLES,
    TABLE_NAME,
    compact_now_and_then,
    now,
)
from headgate.words import did_you_mean

FORMAT = 2  # of what lies in a lake: the ids of rows and all that is made of them; format 1 had no file that tells it


@dataclass(frozen=True)
class Published:
    """One version of a table, as its commit describes it."""

    table: str
    path: str
    version: int
    rows: int
    at: datetime
    operation: str
    facts: dict[str, Any]  # what headgate wrote into the commit: run_id, build, build_key, base, inputs, ...


class Lake:
    """A folder (or object-store prefix) of Delta tables with their system tables."""

    def __init__(self, root: str) -> None:
        self.root = root if "://" in root else str(Path(root).absolute())
        self._format: int | None = None  # as far as it was read; 0: the lake has none yet

    def path(self, table: str) -> str:
        if not re.match(TABLE_NAME, table):
            raise UsageError(f"'{table}' is no name of a table: lower-case letters, digits and _")
        return f"{self.root}/_system/{table}" if table in SYSTEM_TABLES else f"{self.root}/{table}"

    def staging(self, table: str) -> str:
        return f"{self.root}/_staging/{table}"

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The table at a version (default: newest), or None where there is no such table."""
        self.need_format()
        path = self.path(table)
        try:
            return DeltaTable(path, version=version)
        except TableNotFoundError:
            return None
        except Exception as e:
            if version is not None:
                newest = self.need_table(table).version()
                why = f"no version {version} (versions: 0 to {newest})" if version > newest else "a damaged log"
                raise InputMissing(f"table '{table}' has {why}") from e
            raise HeadgateError(f"table '{table}' cannot be opened: {e}") from e

    def need_format(self) -> None:
        """Raise `UsageError` unless the lake has the format that this version reads, or nothing of headgate's in it."""
        if self._format is not None:
            return
        found = self.read_format()
        if found == 0 and self.has_system_tables():
            # Written before any system table: one that is there now was perhaps made just before these were seen.
            found = self.read_format() or 1
        if found not in (0, FORMAT):
            todo = "use a newer headgate" if found > FORMAT else "build it again from its landing files in a new folder"
            raise UsageError(
                f"the lake {self.root} has format {found}, and this version of headgate reads format {FORMAT}: {todo}"
            )
        self._format = found

    def read_format(self) -> int:
        files, path = file_system(f"{self.root}/_system/format.json")
        try:
            if files.get_file_info(path).type != fs.FileType.File:
                return 0
            with files.open_input_stream(path) as stream:
                return int(json.loads(stream.readall())["format"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise HeadgateError(f"{self.root}/_system/format.json cannot be read: {e}") from e

    def has_system_tables(self) -> bool:
        files, base = file_system(f"{self.root}/_system")
        found = files.get_file_info([f"{base}/{name}/_delta_log" for name in SYSTEM_TABLES])
        return any(f.type != fs.FileType.NotFound for f in found)

    def write_format(self) -> None:
        """Write the lake's format where it has none yet; of runs that do so at once, each writes the same."""
        self.need_format()
        if self._format == 0:
            files, base = file_system(f"{self.root}/_system")
            files.create_dir(base)
            part = f"{base}/format.json.{uuid.uuid4().hex}"  # a reader finds all of it or nothing
            with files.open_output_stream(part) as out:
                out.write(json.dumps({"format": FORMAT}).encode())
            files.move(part, f"{base}/format.json")
            self._format = FORMAT

    def published(self, table: str, version: int | None = None) -> Published | None:
        delta = self.open(table, version)
        if delta is None:
            return None
        newest = delta if version is None else self.need_table(table)
        age = newest.version() - delta.version()
        commits = newest.history(age + 1)  # a table opened at an older version numbers its history wrongly
        found = describe(table, self.path(table), delta, commits[age] if age < len(commits) else {})
        if "restored_version" in found.facts:  # the content, and so the build, is that of the version restored
            origin = self.published(table, found.facts["restored_version"])
            found = replace(found, facts=origin.facts if origin else {})
        return found

    def bytes_of(self, table: str) -> int:
        """How many bytes the data files of a table's newest version have; none if there is no such table."""
        delta = self.open(table)
        return pc.sum(pa.table(delta.get_add_actions()).column("size_bytes")).as_py() or 0 if delta else 0

    def need_writable(self) -> None:
        """Raise `HeadgateError` unless files can be made in the lake."""
        if "://" in self.root:
            return  # an object store tells at the first write
        folder = Path(self.root, "_system")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as e:
            raise HeadgateError(f"the lake {self.root} cannot be written: {e.strerror}") from e

    def tables(self) -> list[str]:
        """Names of the user's tables in the lake."""
        self.need_format()
        if "://" in self.root:
            files, base = file_system(self.root)
            found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
            names = [f.base_name for f in found if f.type == fs.FileType.Directory]
        else:
            root = Path(self.root)
            names = [p.name for p in root.iterdir() if (p / "_delta_log").is_dir()] if root.is_dir() else []
        return sorted(n for n in names if not n.startswith(("_", ".")) and self.open(n) is not None)

    def need_table(self, table: str) -> DeltaTable:
        """The table, or `InputMissing` with the nearest name."""
        delta = self.open(table)
        if delta is None:
            known = self.tables()
            there = f" (tables: {', '.join(known)})" if known else ""
            raise InputMissing(f"the lake {self.root} has no table '{table}'{did_you_mean(table, known)}{there}")
        return delta

    def system(self, table: str) -> pa.Table:
        """The whole of a small system table; empty where nothing was written yet."""
        delta = self.open(table)
        return SCHEMAS[table].empty_table() if delta is None else delta.to_pyarrow_table()

    def record(self, table: str, rows: Sequence[dict[str, Any]], build: str | None = None) -> None:
        """Append rows to a small system table, and compact it now and then, so that reading it stays cheap.

        Those of a `build` are written once, by however many runs at once or after one that died.
        """
        if not rows:
            return
        application = f"headgate:{rows[0]['table']}:{build}" if build else ""
        once = CommitProperties(app_transactions=[Transaction(application, 1)]) if application else None
        data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
        self.write_format()
        for attempt in retrying():  # of two runs that create the table at once, the slower appends to it
            with attempt:
                # Created first: of two that create it with their rows, the second would not see the first's build.
                delta = self.open(table) or DeltaTable.create(self.path(table), data.schema, mode="ignore")
                if application and delta.transaction_version(application) is not None:
                    return
                write_deltalake(delta, data, mode="append", schema_mode="merge", commit_properties=once)
                compact_now_and_then(delta)

    def last_output_rows(self, table: str) -> int | None:
        """How many rows the newest commit says that it wrote."""
        delta = self.open(table)
        told = delta.history(1)[0].get("operationMetrics", {}) if delta else {}
        return int(told["numOutputRows"]) if "numOutputRows" in told else None

    def last_build(self, table: str) -> dict[str, Any] | None:
        """The facts of the newest build in a table's content, past other writers and restores; None without one."""
        for limit in (1, 20, None):
            found = self.builds(table, limit)
            if found:
                return found[0]
        return None

    def builds(self, table: str, limit: int | None = None) -> list[dict[str, Any]]:
        """The facts of the builds that led to a table's present content, the newest first, among so many commits.

        What a restore undid is not among them; commits of other writers have no facts.
        """
        delta = self.open(table)
        found, undone_after = [], None
        for commit in delta.history(limit) if delta else ():
            if undone_after is not None and commit["version"] > undone_after:
                continue
            facts = facts_of(commit)
            if "restored_version" in facts:
                undone_after = facts["restored_version"]
            elif "build" in facts:
                found.append(facts)
        return found

    def present_builds(self, table: str) -> list[str]:
        """The builds that a table's present rows come from, the newest first: the last full one, increments since."""
        names = []
        for facts in self.builds(table):
            names.append(facts["build"])
            if not facts.get("increment"):
                break
        return names

    def files_of(self, table: str) -> dict[str, dict[str, Any]]:
        """The files taken up into the table's present content, by path.

        Files are recorded just before the commit that publishes them, so a run that died, that lost a race, or that a
        restore undid leaves records that do not count: only those of builds that led to the present content do.
        """
        delta, builds = self.open("files"), self.builds(table)
        if delta is None or not builds:
            return {}
        rows = delta.to_pyarrow_table(filters=[("table", "=", table)]).to_pylist()
        counting = {(b["base"], b["build"]) for b in builds} | {(b["base"], SAME_CONTENT) for b in builds}
        rows = sorted(rows, key=lambda r: (r["base"], r["at"]))
        return {r["path"]: r for r in rows if (r["base"], r["build"]) in counting}

    def forget_unpublished_files(self, table: str) -> None:
        """Delete the records of files whose build was never published and no longer can be.

        Records on a later base than the newest build's stay: their run may be about to publish.
        """
        delta = self.open(table)
        if delta is None or self.open("files") is None:
            return
        base = (self.last_build(table) or {}).get("base", -2)
        known: set[str] | None = None
        lost = LostRace(f"the table of files changed {TRIES} times while '{table}' was being planned; run again")
        for attempt in retrying(otherwise=lost):  # another run may record its files, or delete these
            with attempt:
                files = self.need_table("files")
                filters = [("table", "=", table), ("base", "<=", base), ("build", "!=", SAME_CONTENT)]
                builds = set(files.to_pyarrow_table(columns=["build"], filters=filters)["build"].to_pylist())
                if builds and known is None:
                    known = {facts_of(c).get("build") for c in delta.history()}
                dead = sorted(builds - (known or set()))
                if dead:
                    names = ", ".join(f"'{b}'" for b in dead)
                    files.delete(f"\"table\" = '{table}' AND base <= {base} AND build IN ({names})")

    def files_of_build(self, table: str, build: str) -> list[dict[str, Any]]:
        """The files that a build took up, in the order of their paths."""
        delta = self.open("files")
        filters = [("table", "=", table), ("build", "=", build)]
        rows = delta.to_pyarrow_table(filters=filters).to_pylist() if delta else []
        return sorted(rows, key=lambda r: r["path"])

    # -- erasures

    @property
    def erasures(self) -> list[dict[str, Any]]:
        """The certificates of finished erasures, in their order."""
        rows = [r for r in self.system("erasures").to_pylist() if r["event"] == "finished"]
        return sorted(rows, key=lambda r: r["at"])

    @property
    def unfinished_erasures(self) -> list[dict[str, Any]]:
        rows = self.system("erasures").to_pylist()
        finished = {r["erasure"] for r in rows if r["event"] == "finished"}
        return [r for r in rows if r["event"] == "started" and r["erasure"] not in finished]

    def erased_versions(self, table: str) -> dict[int, dict[str, Any]]:
        """version -> rows and content after the last erasure that touched it."""
        found: dict[int, dict[str, Any]] = {}
        for erasure in self.erasures:
            versions = json.loads(erasure["tables"]).get(table, {}).get("versions", {})
            found |= {int(v): facts for v, facts in versions.items()}
        return found

    def erased_entries(self, build: str) -> int:
        """How many ledger entries of a build were erased."""
        return sum(json.loads(e["entries"]).get(build, 0) for e in self.erasures)

    def content_total(self, table: str, version: int) -> str | None:
        """The recorded sum of the hashes of a version's rows, as an erasure left it; None where none is recorded."""
        erased = self.erased_versions(table)
        if version in erased:
            return erased[version]["content"]
        if erased and version < max(erased):
            return None  # perhaps written anew by an erasure, which counted only what releases hold
        delta = self.need_table(table)
        for commit in delta.history():
            if commit["version"] > version:
                continue
            facts = facts_of(commit)
            if "restored_version" in facts:
                return self.content_total(table, facts["restored_version"])
            if facts or commit.get("operation") not in REARRANGING:
                return facts.get("content_total")
        return None

    # -- releases

    @property
    def releases(self) -> list[dict[str, Any]]:
        return sorted(self.system("releases").to_pylist(), key=lambda r: r["number"])

    def latest_release(self, pipeline: str | None = None) -> dict[str, Any] | None:
        found = [r for r in self.releases if pipeline in (None, r["pipeline"])]
        return found[-1] if found else None

    def release(self, name: str) -> dict[str, Any]:
        """A release by its name or number, or `latest`."""
        known = self.releases
        if not known:
            raise InputMissing(f"the lake {self.root} has no release yet")
        if name == "latest":
            return known[-1]
        for row in known:
            if name in (row["release"], str(row["number"])):
                return row
        names = [r["release"] for r in known]
        if re.match(TABLE_NAME, name) and self.open(name) is not None:
            raise InputMissing(f"'{name}' is a table, not a release; a version of it is {name}@VERSION")
        raise InputMissing(f"there is no release '{name}'{did_you_mean(name, names)} (newest: {', '.join(names[-5:])})")

    def publish_release(
        self,
        pipeline: str,
        run_id: str,
        tables: dict[str, int],
        as_of: date | None,
        seen: int | None,
        name: str | None,
        note: str = "",
    ) -> str:
        """Name the versions of all tables together.

        `seen` is the number of the pipeline's newest release when the run pinned its inputs: if another has appeared
        since, this run lost and raises `LostRace`.
        """
        self.write_format()
        lost = LostRace(
            f"the releases of {self.root} changed {TRIES} times while this one was being written; run again"
        )
        for attempt in retrying(otherwise=lost):
            with attempt:
                delta = self.open("releases")
                known = delta.to_pyarrow_table().to_pylist() if delta else []
                mine = [r["number"] for r in known if r["pipeline"] == pipeline]
                if (max(mine) if mine else None) != seen:
                    raise LostRace(
                        f"another run of '{pipeline}' published a release meanwhile; run again to build on it"
                    )
                number = max((r["number"] for r in known), default=0) + 1
                release = name or f"{pipeline}-{number}"
                if any(r["release"] == release for r in known):
                    raise UsageError(f"there is a release '{release}' already; a release never changes")
                row = {
                    "number": number,
                    "release": release,
                    "pipeline": pipeline,
                    "run_id": run_id,
                    "at": now(),
                    "as_of": as_of,
                    "note": note,
                    "tables": [{"table": t, "version": v} for t, v in sorted(tables.items())],
                }
                data = pa.Table.from_pylist([row], schema=SCHEMAS["releases"])
                if delta is None:
                    write_deltalake(self.path("releases"), data, mode="error")
                else:
                    write_deltalake(
                        delta, data, mode="append", commit_properties=CommitProperties(max_commit_retries=0)
                    )
                    compact_now_and_then(delta)
        return release


def describe(table: str, path: str, delta: DeltaTable, commit: dict[str, Any], version: int | None = None) -> Published:
    """What a commit says; the rows are those of `delta`, and not counted for another `version` of it."""
    return Published(
        table=table,
        path=path,
        version=delta.version() if version is None else version,
        rows=count_rows(delta) if version is None else -1,
        at=datetime.fromtimestamp(commit.get("timestamp", 0) / 1000, tz=timezone.utc),
        operation=commit.get("operation", ""),
        facts=facts_of(commit),
    )


def facts_of(commit: dict[str, Any]) -> dict[str, Any]:
    """What headgate wrote into a commit; of another writer's, only which version it restored, where it did."""
    try:
        facts = json.loads(commit.get("userMetadata") or "{}")
    except ValueError:
        facts = {}
    version = str((commit.get("operationParameters") or {}).get("version", ""))
    if commit.get("operation") == "RESTORE" and version.isdigit():
        return {"restored_version": int(version)} | (facts if isinstance(facts, dict) else {})
    return facts if isinstance(facts, dict) else {}


def count_rows(delta: DeltaTable) -> int:
    """Rows of a table from the statistics of its log; files without statistics are counted."""
    files = pa.table(delta.get_add_actions(flatten=True))
    if not files.num_rows:
        return 0
    rows = files["num_records"]
    return delta.to_pyarrow_dataset().count_rows() if rows.null_count else pc.sum(rows).as_py()
