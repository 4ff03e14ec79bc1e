"""The folder of a lake: where its tables lie, which there are, and which format it has."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs

from headgate.jobs.errors import HeadgateError, InputMissing, UsageError, first_line, storage_failure
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.storage import file_system, is_remote, located, open_table, put
from headgate.jobs.lake.system import SYSTEM_TABLES, TABLE_NAME
from headgate.words import did_you_mean

FORMAT = (
    4  # of what lies in a lake: ids and hashes of rows, and what is made of them; format 1 had no file that tells it
)


class Folder:
    """A folder (or object-store prefix) of Delta tables."""

    def __init__(self, root: str) -> None:
        self.root = located(root)
        self._format: int | None = None  # as far as it was read; 0: the lake has none yet

    def need_folder(self, exists: bool = True) -> None:
        """Raise `InputMissing` where the lake cannot be read, or, unless `exists` is false, where there is none."""
        missing = f"there is no lake at {self.root}: `headgate run` makes one, --lake names another"
        if not is_remote(self.root):
            try:
                os.scandir(self.root).close()
            except FileNotFoundError as e:
                if exists:
                    raise InputMissing(missing) from e
            except NotADirectoryError as e:
                raise InputMissing(f"the lake {self.root} is a file, not a folder") from e
            except OSError as e:
                raise InputMissing(f"the lake {self.root} cannot be read: {e.strerror}") from e
        with self.reachable():
            if is_remote(self.root) and not self.has_system_tables():
                files, base = file_system(self.root)
                bucket = base.partition("/")[0]
                if files.get_file_info(bucket).type == fs.FileType.NotFound:
                    raise InputMissing(f"{self.root}: there is no such bucket as '{bucket}'")
            if exists and not self.has_system_tables() and not self.tables():
                raise InputMissing(missing)

    @contextlib.contextmanager
    def reachable(self) -> Iterator[None]:
        """Tell an error of the lake's storage as what it is."""
        try:
            yield
        except HeadgateError:
            raise
        except Exception as e:
            failure = storage_failure(e, self.root)
            if failure is None:
                raise
            raise failure from e

    def path(self, table: str) -> str:
        if not re.match(TABLE_NAME, table):
            raise UsageError(f"'{table}' is not a valid table name: use lower-case letters, digits and _")
        return f"{self.root}/_system/{table}" if table in SYSTEM_TABLES else f"{self.root}/{table}"

    def staging(self, table: str) -> str:
        return f"{self.root}/_staging/{table}"

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The table at a version (default: newest), or None where there is no such table."""
        self.need_format()
        path = self.path(table)
        try:
            return open_table(path, version=version)
        except TableNotFoundError:
            return None
        except Exception as e:
            if version is not None:
                newest = self.need_table(table).version()
                why = f"no version {version} (versions: 0 to {newest})" if version > newest else "a damaged log"
                raise InputMissing(f"table '{table}' has {why}") from e
            why = first_line(e)
            raise storage_failure(e, self.root) or InputMissing(
                f"table '{table}' of the lake {self.root} cannot be opened: {why}"
            ) from e

    def dataset(self, table: str, version: int | None = None) -> ds.FileSystemDataset:
        """Return the rows of a table at a version (default: newest); raise `InputMissing` where there is none."""
        return dataset((self.open(table, version) if version is not None else None) or self.need_table(table))

    def need_table(self, table: str) -> DeltaTable:
        """The table, or `InputMissing` with the nearest name."""
        delta = self.open(table)
        if delta is None:
            known = self.tables()
            there = f" (tables: {', '.join(known)})" if known else ""
            raise InputMissing(f"the lake {self.root} has no table '{table}'{did_you_mean(table, known)}{there}")
        return delta

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return tables by their names, without any all of them; raise `InputMissing` for one that is not there."""
        return [name for name in names if self.need_table(name)] or self.tables()

    def tables(self) -> list[str]:
        """Names of the user's tables in the lake."""
        self.need_format()
        if is_remote(self.root):
            files, base = file_system(self.root)
            found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
            names = [f.base_name for f in found if f.type == fs.FileType.Directory]
        else:
            root = Path(self.root)
            names = [p.name for p in root.iterdir() if (p / "_delta_log").is_dir()] if root.is_dir() else []
        return sorted(n for n in names if not n.startswith(("_", ".")) and self.open(n) is not None)

    def columns_json(self, table: str, version: int) -> str:
        """Return the columns of a version of a table as Spark's JSON."""
        return (self.open(table, version) or self.need_table(table)).schema().to_json()

    def file_sizes(self, table: str, version: int) -> dict[str, int]:
        """Return the bytes of each data file of a version of a table, by its path below the table."""
        files = pa.table((self.open(table, version) or self.need_table(table)).get_add_actions())
        return dict(zip(map(unquote, files["path"].to_pylist()), files["size_bytes"].to_pylist(), strict=True))

    def has_files(self, table: str, paths: Iterable[str]) -> bool:
        """Return whether data files, by their paths below a table, are there."""
        files, base = file_system(self.path(table))
        wanted = [f"{base}/{p}" for p in paths]
        return not wanted or all(f.type == fs.FileType.File for f in files.get_file_info(wanted))

    def bytes_of(self, table: str) -> int:
        """Return how many bytes the data files of a table's newest version have; none if there is no such table."""
        delta = self.open(table)
        return pc.sum(pa.table(delta.get_add_actions()).column("size_bytes")).as_py() or 0 if delta else 0

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
            with files.open_input_stream(path) as stream:
                found = json.loads(stream.readall())
            if "recovering" in found:
                raise UsageError(
                    f"the lake {self.root} is not whole: headgate recover --from {found['from']} "
                    f"--backup {found['recovering']}"
                )
            return int(found["format"])
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise storage_failure(e, self.root) or HeadgateError(
                f"{self.root}/_system/format.json cannot be read: {e}"
            ) from e

    def has_system_tables(self) -> bool:
        files, base = file_system(f"{self.root}/_system")
        found = files.get_file_info([f"{base}/{name}/_delta_log" for name in SYSTEM_TABLES])
        return any(f.type != fs.FileType.NotFound for f in found)

    def write_format(self) -> None:
        """Write the lake's format where it has none yet; of runs that do so at once, each writes the same."""
        self.need_format()
        if self._format == 0:
            put(f"{self.root}/_system", "format.json", json.dumps({"format": FORMAT}).encode())
            self._format = FORMAT

    def is_writable(self) -> bool:
        """Return whether files may be made in the lake, or in the folder that it is to be in; nothing is tried."""
        there = next((p for p in (Path(self.root), *Path(self.root).parents) if p.exists()), Path(self.root))
        return is_remote(self.root) or os.access(there, os.W_OK | os.X_OK)

    def need_writable(self) -> None:
        """Raise `HeadgateError` unless files can be made in the lake."""
        if is_remote(self.root):
            return  # an object store tells at the first write
        folder = Path(self.root, "_system")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as e:
            raise HeadgateError(f"the lake {self.root} cannot be written: {e.strerror}") from e
