"""The texts of erased rows, and the search for any that is left."""

import hashlib
import posixpath
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.errors import HeadgateError
from headgate.jobs.keep.erasure.files import ids_of, leaves, read_file, text_columns, whole_files
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system
from headgate.jobs.lake.system import SYSTEM_TABLES
from headgate.transforms.rows import PARENTS, ROW_ID


@dataclass(frozen=True)
class Fingerprints:
    """Texts to be looked for, of which only salted hashes and lengths are written down."""

    salt: str
    sizes: frozenset[int]
    hashes: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Fingerprints":
        empty = cls(uuid.uuid4().hex, frozenset(), frozenset())
        listed = list(texts)
        return cls(empty.salt, frozenset(map(len, listed)), frozenset(map(empty.hash, listed)))

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> "Fingerprints":
        return cls(plan["salt"], frozenset(plan["sizes"]), frozenset(plan["hashes"]))

    def written(self) -> dict[str, Any]:
        return {"salt": self.salt, "sizes": sorted(self.sizes), "hashes": sorted(self.hashes)}

    def hash(self, text: bytes) -> str:
        return hashlib.blake2b(text, key=self.salt.encode(), digest_size=12).hexdigest()

    def found_in(self, column: pa.Array) -> set[bytes]:
        """The texts of a column that are among them."""
        sizes = pa.array(sorted(self.sizes), pa.int64())
        hits: set[bytes] = set()
        for leaf in leaves(column) if self.hashes else ():
            likely = leaf.filter(pc.is_in(pc.binary_length(leaf).cast(pa.int64()), sizes))
            hits |= {t for t in pc.unique(likely).to_pylist() if t is not None and self.hash(t) in self.hashes}
        return hits


def search(lake: Lake, wanted: pa.Array, texts: Fingerprints) -> int:
    """Look for the erased rows, by their ids and their texts, in every data file; returns how many were searched.

    Raises `HeadgateError` naming table and column where anything is found.
    """
    searched = 0
    again = "remove it there and run headgate erase --resume"
    for table in (*lake.tables(), *(t for t in SYSTEM_TABLES if t != "erasures" and lake.open(t) is not None)):
        files, base = file_system(lake.path(table))
        for path in whole_files(lake.path(table)):
            ids = ids_of(files, f"{base}/{path}")
            searched += 1
            column = "row_id" if table in SYSTEM_TABLES else ROW_ID
            if column in ids.column_names and pc.any(pc.is_in(ids[column], wanted)).as_py():
                raise HeadgateError(f"{table}.{column}: {path} still holds an erased row; {again}")
            if PARENTS in ids.column_names:
                named = ids[PARENTS].combine_chunks().flatten()
                if pc.any(pc.is_in(named, wanted)).as_py():
                    raise HeadgateError(f"{table}.{PARENTS}: {path} still names an erased row; {again}")
        if table in SYSTEM_TABLES and table != "ledger":
            continue
        for file, names in text_columns(lake, table):
            for name in names if table != "ledger" else ["evidence"]:
                left = texts.found_in(read_file(*file, [name])[name].combine_chunks())
                if left:
                    where = posixpath.basename(file[1])
                    raise HeadgateError(
                        f"{table}.{name}: {where} still holds {len(left)} texts of erased rows; {again}"
                    )
    return searched
