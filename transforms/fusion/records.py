"""Records made ready to be compared: which columns and how, their values in normal form, and how frequent these are."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from headgate.transforms.fusion.blocking import space_of, words_of
from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.values import ELEMENT, JOINED, LONGEST, WORDED, Comparison, Kind, choose, normal_form
from headgate.transforms.kinds import as_text, is_plain
from headgate.transforms.rows import FILE, FILE_DATE, ROW_ID, SOURCE, is_kept, quoted
from headgate.transforms.step import Context, StepError, user_columns
from headgate.words import cell

SAMPLE = 8_000  # records of each source, chosen by hash, whose values choose the comparisons
CELLS = 1_000_000  # of that sample at most
MOST = 32  # columns that are compared
FREQUENT = 300_000  # values and words whose frequencies are known
DRAWN = 300_000  # pairs at random
FEW = 100_000  # records, and
CHARACTERS = 50_000_000  # of theirs, that the driver may hold and link at once
CELL = 8  # characters that a cell counts for beside its own
SOURCES = 1_000
PLACES = 1_000_000  # of a sample by hash
ENDS = [("one", pa.int64()), ("src_one", pa.int32()), ("other", pa.int64()), ("src_other", pa.int32())]
NO_PAIRS = pa.schema([*ENDS, ("family", pa.int64())]).empty_table()


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records ready to be compared.

    Each has rid (a hash of the row id), src (the number of its source), id (the row id), key, and v0 … (normal forms).
    rows: of many, in Spark; table: of few, in order of rid. raw: what both are made of. sources: their names in order,
    one of which is "" where rows have no source; sizes: records of each. characters: of all cells, with `CELL` for
    each. sample: rid and source of some.
    """

    raw: DataFrame
    cells: tuple[str, ...]
    rows: DataFrame | None = None
    table: pa.Table | None = None
    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, str]
    sample: pa.Table | None = None
    repeated: int = 0
    characters: int = 0

    @property
    def linking(self) -> bool:
        return len(self.sources) > 1

    @property
    def many(self) -> DataFrame:
        assert self.rows is not None  # `in_spark` sets them
        return self.rows


def raw_rows(df: DataFrame, columns: Sequence[str], key: Sequence[str], source: str | None) -> DataFrame:
    """Return the unmarked rows with the cells to compare as text: rid, id, source, key, c0 …"""
    kinds = dict(df.dtypes)
    texts = [F.substring(text_of(F.col(quoted(c)), kinds[c]), 1, LONGEST).alias(f"c{j}") for j, c in enumerate(columns)]
    keys = [as_text(F.col(quoted(c)), kinds[c]) for c in key]
    named = F.lit("") if source is None else F.coalesce(F.col(quoted(source)).cast("string"), F.lit(""))
    whole = keys[0] if len(keys) == 1 else F.to_json(F.array(*keys)) if keys else F.col(ROW_ID)
    shown = F.xxhash64(ROW_ID).alias("rid"), F.col(ROW_ID).alias("id"), named.alias("source"), whole.alias("key")
    return df.where(is_kept()).select(*shown, *texts)


def element_of(kind: str) -> str | None:
    """Return the type of an array's elements if these are plain; None for other types."""
    inner = kind[6:-1] if kind.startswith("array<") else ""
    return inner if inner and is_plain(inner) else None


def text_of(value: Column, kind: str) -> Column:
    """Return a plain value, or an array of such, as text."""
    inner = element_of(kind)
    return (
        as_text(value, kind)
        if inner is None
        else F.array_join(F.transform(value, lambda e: as_text(e, inner)), ELEMENT)
    )


def made_ready(
    df: DataFrame,
    context: Context,
    *,
    columns: Mapping[str, Kind] | None,
    key: Sequence[str],
    source: str | None,
    seed: int,
) -> Records | None:
    """Choose the comparisons and make the records ready; None where there are no two records to compare.

    source: the column that names a record's source; None: all are of one.
    Raises `StepError` where no column can be compared, or one that was asked for cannot.
    """
    kinds = user_columns(df)
    aside = (*key, source, SOURCE, FILE, FILE_DATE)
    wanted = [c for c in (columns or kinds) if c not in aside and (is_plain(kinds[c]) or element_of(kinds[c]))]
    arrays: Mapping[str, Kind] = {c: "set" for c in wanted if element_of(kinds[c])}
    raw = raw_rows(df, wanted, key, source)
    of_sources = counts_of_sources(raw, len(wanted))
    by_source = {row["source"]: row["ids"] for row in sorted(of_sources, key=lambda r: str(r["source"]))}
    repeated = sum(row["n"] - row["ids"] for row in of_sources)
    if source is not None and len(by_source) == 1:
        context.warn(f"only source {cell(next(iter(by_source)))} has records: there is nothing to link them with")
        return None
    sources, sizes = tuple(by_source), tuple(by_source.values())
    if space_of(sizes) < 1:
        context.warn(f"{sum(sizes)} records: there is no pair to compare")
        return None
    few, characters = are_few(of_sources, len(wanted))
    place = F.pmod(F.xxhash64(F.lit(seed), "rid"), F.lit(PLACES)).cast("int")
    table = raw.withColumn("place", place).toArrow().sort_by("rid") if few else None  # bounded above
    sample = sample_of(raw, place, table, by_source, len(wanted))
    comparisons, left_out = chosen(sample, sources, wanted, columns or {}, arrays)
    if not comparisons:
        why = ", ".join(f"'{c}' ({reason})" for c, reason in list(left_out.items())[:10]) or "there is none"
        raise StepError(f"no column can be compared: {why}; columns must have values in every source")
    cells = tuple(f"c{wanted.index(c.column)}" for c in comparisons)
    ready = Records(
        raw=raw,
        cells=cells,
        sources=sources,
        sizes=sizes,
        comparisons=comparisons,
        left_out=left_out,
        sample=sample.select(["rid", "source"]),
        repeated=repeated,
        characters=characters,
    )
    return in_spark(ready, context) if table is None else dataclasses.replace(ready, table=at_once(ready, table))


def counts_of_sources(raw: DataFrame, columns: int) -> list[Row]:
    """Return for each source how many rows and ids it has, and characters in columns: source, n, ids, characters."""
    length = F.length(F.concat_ws("", *(f"c{j}" for j in range(columns))))
    counts = raw.groupBy("source").agg(
        F.count(F.lit(1)).alias("n"), F.count_distinct("rid").alias("ids"), F.sum(length).alias("characters")
    )
    found = counts.limit(SOURCES + 1).collect()
    if len(found) > SOURCES:
        raise StepError(f"source: records of more than {SOURCES:,} sources are not linked; name another column")
    return found


def are_few(of_sources: Sequence[Row], columns: int) -> tuple[bool, int]:
    """Return whether records are so few that the driver may hold and link them at once, and their characters."""
    n, characters = (sum(row[c] for row in of_sources) for c in ("n", "characters"))
    characters += CELL * n * columns
    return n <= FEW and characters <= CHARACTERS, characters


def in_spark(records: Records, context: Context) -> Records:
    """Return the records with their rows in Spark."""
    number = F.array_position(F.array(*map(F.lit, records.sources)), F.col("source")).cast("int") - 1
    cells = records.raw.select("rid", number.alias("src"), "id", "key", *records.cells)
    size = len(records.comparisons)
    schema = "rid long, src int, id string, key string, " + ", ".join(f"v{j} string" for j in range(size))
    rows = cells.mapInArrow(normalised(records.comparisons), schema)
    if records.repeated:  # a record that came twice is one record: the first by its content
        rest = [c for c in rows.columns if c != "rid"]
        rows = rows.groupBy("rid").agg(F.min(F.struct(*rest)).alias("first")).select("rid", "first.*")
    return dataclasses.replace(records, rows=context.keep(rows, "records"), table=None)


def at_once(records: Records, table: pa.Table) -> pa.Table:
    """Return the records of a table of raw ones in order of rid."""
    number = pc.index_in(table["source"], pa.array(records.sources)).cast(pa.int32())
    names = ["rid", "src", "id", "key", *records.cells]
    cells = table.append_column("src", number).select(names).combine_chunks()
    batches = cells.to_batches() or [pa.RecordBatch.from_pylist([], cells.schema)]
    ready = pa.Table.from_batches(normalised(records.comparisons)(batches))
    if not records.repeated:
        return ready
    rid = ready["rid"].to_numpy()
    again = np.flatnonzero(np.isin(rid, rid[1:][rid[1:] == rid[:-1]]))
    cells = ready.take(pa.array(again)).drop_columns("rid").to_pylist()
    first: dict[int, int] = {}
    in_order = (([(v is not None, v) for v in row.values()], i) for row, i in zip(cells, again.tolist(), strict=True))
    for _, at in sorted(in_order):
        first.setdefault(int(rid[at]), at)
    kept = np.ones(len(rid), np.bool_)
    kept[again] = False
    kept[list(first.values())] = True
    return ready.filter(pa.array(kept))


def sample_of(
    raw: DataFrame, place: Column, table: pa.Table | None, by_source: Mapping[str, int], columns: int
) -> pa.Table:
    """Return some records of each source, chosen by hash: bounded by records and by cells."""
    rows = max(50, min(SAMPLE, CELLS // max(columns, 1) // len(by_source)))
    share = {source: min(PLACES, PLACES * rows // max(size, 1) + 1) for source, size in by_source.items()}
    if table is not None:
        names = list(share)
        of = pc.index_in(table["source"], pa.array(names)).to_numpy()
        drawn = table["place"].to_numpy() < np.array([share[s] for s in names])[of]
        return table.filter(pa.array(drawn)).drop_columns(["id", "key", "place"])
    chosen = F.lit(False)
    for source, below in share.items():
        chosen = chosen | (F.col("source").eqNullSafe(F.lit(source)) & (place < below))
    return raw.where(chosen).drop("id", "key").toArrow().sort_by("rid")


def chosen(
    sample: pa.Table,
    sources: Sequence[str],
    columns: Sequence[str],
    asked: Mapping[str, Kind],
    arrays: Mapping[str, Kind] | None = None,
) -> tuple[tuple[Comparison, ...], dict[str, str]]:
    """Return the comparisons of columns, of very many those that tell most, and why others are left out."""
    found: list[Comparison] = []
    left_out: dict[str, str] = {}
    parts = [sample.filter(pa.compute.equal(sample["source"], s)) for s in sources]
    for j, column in enumerate(columns):
        comparison = choose(
            column, [p[f"c{j}"].to_pylist() for p in parts], (arrays or {}).get(column, asked.get(column))
        )
        if isinstance(comparison, Comparison):
            found.append(comparison)
        elif asked:
            raise StepError(f"columns: '{column}' cannot be compared: {comparison}")
        else:
            left_out[column] = comparison
    if len(found) > MOST:
        telling = {c.column: -entropy(sample[f"c{columns.index(c.column)}"]) for c in found}
        first = set(sorted(telling, key=lambda c: (telling[c], c))[:MOST])
        left_out |= {c.column: f"{MOST} others tell more" for c in found if c.column not in first}
        found = [c for c in found if c.column in first]
    return tuple(found), left_out


def entropy(values: pa.ChunkedArray) -> float:
    """Return the bits that knowing a value tells, rounded; a null tells none."""
    counts = np.array(pa.compute.value_counts(values.drop_null()).field("counts").to_pylist(), float)
    bits = -np.sum(counts / len(values) * np.log2(counts / max(counts.sum(), 1))) if len(counts) else 0.0
    return round(float(bits), 6)


def normalised(comparisons: Sequence[Comparison]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from cells to normal forms; the first four columns pass as they are."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        names = ["rid", "src", "id", "key", *(f"v{j}" for j in range(len(comparisons)))]
        forms = [normal_form(c.kind) for c in comparisons]
        for batch in batches:
            made = []
            for form, values in zip(forms, batch.columns[4:], strict=True):
                coded = values.dictionary_encode()
                distinct = pa.array([form(v) for v in coded.dictionary.to_pylist()], pa.string())
                made.append(distinct.take(coded.indices))
            yield pa.RecordBatch.from_arrays([*batch.columns[:4], *made], names)

    return run


def frequencies_of(records: Records) -> tuple[Frequencies, ...]:
    """Count the values and words that several records hold: exactly, of the `FREQUENT` most frequent ones."""
    if records.table is None:
        filled, table = counts_in_spark(records.many, records.comparisons)
    else:
        filled, table = counts_at_once(records.table, records.comparisons)
    rest = 1.0 if table.num_rows < FREQUENT else max(1.0, table["n"][-1].as_py() / 2)
    found: list[tuple[dict[str, int], dict[str, int]]] = [({}, {}) for _ in records.comparisons]
    cells = (table[c].to_pylist() for c in ("j", "word", "text", "n"))
    for j, word, text, n in zip(*cells, strict=True):
        found[j][word][text] = n
    return tuple(
        Frequencies(filled=f, values=values, words=words, rest=rest)
        for f, (values, words) in zip(filled, found, strict=True)
    )


def counts_in_spark(rows: DataFrame, comparisons: Sequence[Comparison]) -> tuple[list[int], pa.Table]:
    """Return how many records have each column, and the counts of values and words: j, word, text, n."""
    entries: list[Column] = []
    nothing = F.array().cast("array<struct<j:int,word:boolean,text:string>>")
    for j, comparison in enumerate(comparisons):
        column, worded = F.col(f"v{j}"), comparison.kind in WORDED

        def entry(text: Column, word: bool, j: int = j) -> Column:
            return F.struct(F.lit(j).alias("j"), F.lit(word).alias("word"), text.alias("text"))

        whole = F.array(entry(F.substring_index(column, JOINED, 1), False))
        entries.append(F.when(column.isNotNull(), whole).otherwise(nothing))
        if worded:
            entries.append(F.transform(words_of(column), lambda w: entry(w, True)))
    each = rows.select(F.explode(F.concat(*entries)).alias("e")).select("e.*")
    counts = each.groupBy("j", "word", "text").agg(F.count(F.lit(1)).alias("n")).where("n > 1")
    table = counts.orderBy(F.desc("n"), "j", "word", "text").limit(FREQUENT).toArrow()
    filled = rows.agg(*(F.count(f"v{j}").alias(f"v{j}") for j in range(len(comparisons)))).first()
    assert filled is not None  # an aggregate of all rows
    return list(filled), table


def counts_at_once(records: pa.Table, comparisons: Sequence[Comparison]) -> tuple[list[int], pa.Table]:
    """Return what `counts_in_spark` does, of a table."""
    parts, filled = [], []
    for j, comparison in enumerate(comparisons):
        cells = one_array(records[f"v{j}"])
        filled.append(len(cells) - cells.null_count)
        values = pc.value_counts(cells.drop_null())
        distinct, held = values.field("values"), values.field("counts").to_numpy()
        counted = [(False, pc.list_element(pc.split_pattern(distinct, JOINED), 0) if len(distinct) else distinct, held)]
        if comparison.kind in WORDED:
            split = pc.split_pattern(pc.replace_substring(distinct, JOINED, " "), " ")
            words = split.flatten().dictionary_encode()
            size = max(len(words.dictionary), 1)
            owner = np.repeat(np.arange(len(distinct)), split.value_lengths().to_numpy())
            once = np.unique(owner * size + words.indices.to_numpy())
            n = np.bincount(once % size, held[once // size], size)
            counted.append((True, words.dictionary, n[: len(words.dictionary)]))
        for word, texts, n in counted:
            sums = (
                pa.table({"text": texts, "n": pa.array(n).cast(pa.int64())}).group_by("text").aggregate([("n", "sum")])
            )
            several = sums.filter(pc.greater(sums["n_sum"], 1)).rename_columns(["text", "n"])
            constant = {"j": np.full(len(several), j, np.int32), "word": np.full(len(several), word)}
            parts.append(
                pa.table({c: pa.array(v) for c, v in constant.items()} | {c: several[c] for c in ("text", "n")})
            )
    order = [("n", "descending"), ("j", "ascending"), ("word", "ascending"), ("text", "ascending")]
    return filled, pa.concat_tables(parts).sort_by(order).slice(0, FREQUENT)


def drawn_pairs(records: Records, seed: int) -> pa.Table:
    """Return pairs of records at random: of those of the sample, any two that are comparable."""
    assert records.sample is not None  # those that one learns from have one
    rid = records.sample["rid"].to_numpy()
    number = {s: i for i, s in enumerate(records.sources)}
    src = np.array([number[s] for s in records.sample["source"].to_pylist()], np.int32)
    rid, first = np.unique(rid, return_index=True)
    src = src[first]
    random = np.random.default_rng(seed % 2**64)
    a, b = (random.integers(0, len(rid), 3 * DRAWN) for _ in range(2))
    swap = (src[a] > src[b]) | ((src[a] == src[b]) & (a > b))
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    ok = (src[a] != src[b]) if records.linking else (a != b)
    key = np.unique(a[ok] * len(rid) + b[ok])
    random.shuffle(key)
    a, b = key[:DRAWN] // len(rid), key[:DRAWN] % len(rid)
    cells = {"one": rid[a], "src_one": src[a], "other": rid[b], "src_other": src[b]}
    return pa.table(cells | {"family": np.zeros(len(a), np.int64)})
