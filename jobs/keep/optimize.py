"""Small files of a table put together, and its rows in another order: the same rows, in a new version."""

import contextlib
import math
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from headgate.jobs.errors import HeadgateError, LostRace, UsageError
from headgate.jobs.lake.arranging import Order, need_sortable, write_again
from headgate.jobs.lake.commits import facts_of
from headgate.jobs.lake.conflicts import VersionTaken
from headgate.jobs.lake.datafiles import FILE_BYTES, data_files, described
from headgate.jobs.lake.dataset import need_readable
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import held
from headgate.jobs.lake.storage import file_system, remove
from headgate.jobs.lake.transaction import Change, commit, need_plain

OWN_FOLDER = "optimized-"  # how the folders of written files begin, by which an erasure knows what a kill left
SMALL = 0.75  # of the size that files should have: smaller ones are put together


@dataclass(frozen=True)
class Plan:
    """What is to be done to a version of a table. paths: the files to be written again, as the log has them."""

    version: int
    sizes: dict[str, int]  # of all files
    paths: tuple[str, ...]
    order: Order

    @property
    def bytes(self) -> int:
        return sum(self.sizes[p] for p in self.paths)

    def files_after(self, size: int) -> int:
        return len(self.sizes) - len(self.paths) + math.ceil(self.bytes / size)


def optimize(
    lake: Lake,
    tables: Collection[str] = (),
    order: Order | None = None,
    size: int = FILE_BYTES,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda message: None,
) -> list[dict[str, Any]]:
    """Put the small files of tables (default: of all) together into files of about `size` bytes; tell what it came to.

    With an order all files of a table are written again, its rows in that order; without one those that are put
    together keep the order of the table's `sort_by`. A commit that changes no row makes it the newest version: builds,
    increments and content sums take it for the version before. Raises `LostRace` where a run of the table's pipeline is
    at work, or another writer was first, which leaves the table as it was. tell: is told of
    a dead run and, where none are named, of tables that cannot be optimized.
    """
    done = []
    for name in lake.chosen(tables):
        try:
            done.append(optimized(lake, name, order, size, dry_run, tell))
        except UsageError as e:
            if name in tables:
                raise
            tell(f"table '{name}' is left as it is: {e}")  # of all tables some may be others'
    return done


def optimized(
    lake: Lake, table: str, order: Order | None, size: int, dry_run: bool, tell: Callable[[str], None]
) -> dict[str, Any]:
    erasing = lake.erasing  # first: an erasure that begins now stops this
    lake.need_no_erasure()
    delta = lake.need_table(table)
    plan = plan_of(lake, table, delta, order, size)
    told = {"table": table, "version": plan.version, "files": len(plan.sizes), "bytes": sum(plan.sizes.values())}
    if not plan.paths or dry_run:
        after = plan.files_after(size) if plan.paths else len(plan.sizes)
        return told | {"files_after": after, "bytes_after": None if plan.paths else told["bytes"]}
    run_id = f"optimize-{uuid.uuid4().hex[:12]}"
    pipeline = (lake.last_build(table) or {}).get("pipeline")
    with held(lake, pipeline, run_id, timedelta(0), tell) if pipeline else contextlib.nullcontext():
        version = rearrange(lake, table, delta, plan, size, erasing, run_id)
    sizes = lake.file_sizes(table, version)
    return told | {"version": version, "files_after": len(sizes), "bytes_after": sum(sizes.values())}


def plan_of(lake: Lake, table: str, delta: DeltaTable, order: Order | None, size: int) -> Plan:
    """Return what optimizing a table would write again; nothing where it is in that order, in files of that size."""
    need_readable(delta)
    need_plain(delta)
    if order is not None:
        need_sortable(table, delta, order)
    added = pa.table(delta.get_add_actions()).sort_by([("modification_time", "ascending"), ("path", "ascending")])
    sizes = dict(zip(added["path"].to_pylist(), added["size_bytes"].to_pylist(), strict=True))
    small = [p for p, n in sizes.items() if n < SMALL * size]
    last = facts_of(delta.history(1)[0])
    if order is not None and (last.get("ordered"), last.get("target_size")) != (order.recorded(), size):
        return Plan(delta.version(), sizes, tuple(sizes), order)
    return Plan(delta.version(), sizes, tuple(small) if len(small) > 1 else (), order or order_of(lake, table, delta))


def order_of(lake: Lake, table: str, delta: DeltaTable) -> Order:
    """Return the order in which the build of a table wrote its files (`sort_by`)."""
    published = lake.published(table, delta.version())
    columns = (published.facts.get("publish") or {}).get("sort_by") or () if published else ()
    there = {f.name for f in delta.schema().fields}
    return Order(tuple(c for c in columns if c in there))


def rearrange(lake: Lake, table: str, delta: DeltaTable, plan: Plan, size: int, erasing: int, run_id: str) -> int:
    """Write files again and commit them in place of the old ones; return the version."""
    path, folder = lake.path(table), f"{OWN_FOLDER}{run_id.removeprefix('optimize-')}"
    race = LostRace(f"table '{table}' was changed by another writer while it was being optimized; run again")
    facts = {"run_id": run_id, "base": plan.version, "ordered": plan.order.recorded(), "target_size": size}
    try:
        write_again(path, delta, [unquote(p) for p in plan.paths], plan.order, folder, size)
        written = data_files(path, folder)
        files, base = file_system(path)
        before = sum(f.rows for f in described(path, files.get_file_info([f"{base}/{unquote(p)}" for p in plan.paths])))
        after = sum(f.rows for f in written)
        if before != after:
            raise HeadgateError(f"table '{table}': {before:,} rows were read, but {after:,} were written")
        if lake.erasing != erasing or not lake.has_files(table, [f.path for f in written]):
            raise race
    except Exception:
        remove(f"{path}/{folder}")
        raise
    application = (f"headgate:optimize:{table}", plan.version + 1)
    change = Change("OPTIMIZE", written, plan.paths, application, facts, changes_rows=False)
    try:
        return commit(path, plan.version, change)
    except VersionTaken as e:
        remove(f"{path}/{folder}")
        raise race from e
