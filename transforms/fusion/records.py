"""Records made ready to be compared: which columns and how, their values in normal form, and how frequent these are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.blocking import space_of, words_of
from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.values import JOINED, LONGEST, Comparison, Kind, choose, normal_form
from headgate.transforms.kinds import as_text, is_plain
from headgate.transforms.rows import FILE, FILE_DATE, ROW_ID, SOURCE, is_kept, local_frame, quoted
from headgate.transforms.step import Context, StepError, user_columns

SAMPLE = 8_000  # records of each source, chosen by hash, whose values choose the comparisons
CELLS = 1_000_000  # of that sample at most
MOST = 32  # columns that are compared
FREQUENT = 300_000  # values and words whose frequencies are known
DRAWN = 300_000  # pairs at random
CLEAN = 0.02  # of a source's records, the share that may repeat another one of it in all that is compared


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records ready to be compared.

    rows: rid (a hash of the row id), src (the number of its source), id (the row id), key, and v0 … (normal forms).
    sources: their names in order, one of which is "" where rows have no source; sizes: records of each.
    """

    rows: DataFrame
    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, str]
    sample: pa.Table
    repeated: int

    @property
    def linking(self) -> bool:
        return len(self.sources) > 1


def raw_rows(df: DataFrame, columns: Sequence[str], key: Sequence[str], source: str | None) -> DataFrame:
    """Return the unmarked rows with the cells to compare as text: rid, id, source, key, c0 …"""
    kinds = dict(df.dtypes)
    texts = [F.substring(as_text(F.col(quoted(c)), kinds[c]), 1, LONGEST).alias(f"c{j}") for j, c in enumerate(columns)]
    keys = [as_text(F.col(quoted(c)), kinds[c]) for c in key]
    named = F.lit("") if source is None else F.coalesce(F.col(quoted(source)).cast("string"), F.lit(""))
    whole = keys[0] if len(keys) == 1 else F.to_json(F.array(*keys)) if keys else F.col(ROW_ID)
    shown = F.xxhash64(ROW_ID).alias("rid"), F.col(ROW_ID).alias("id"), named.alias("source"), whole.alias("key")
    return df.where(is_kept()).select(*shown, *texts)


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
    wanted = [c for c in (columns or kinds) if c not in (*key, source, SOURCE, FILE, FILE_DATE) and is_plain(kinds[c])]
    raw = raw_rows(df, wanted, key, source)
    counts = raw.groupBy("source").agg(F.count(F.lit(1)).alias("n"), F.count_distinct("rid").alias("ids")).collect()
    by_source = {row["source"]: row["ids"] for row in sorted(counts, key=lambda r: str(r["source"]))}
    repeated = sum(row["n"] - row["ids"] for row in counts)
    if source is not None and len(by_source) == 1:
        context.warn(f"only source '{next(iter(by_source))}' has records: there is nothing to link them with")
        return None
    sources, sizes = tuple(by_source), tuple(by_source.values())
    if space_of(sizes) < 1:
        context.warn(f"{sum(sizes)} records: there is no pair to compare")
        return None
    sample = sample_of(raw, by_source, len(wanted), seed)
    comparisons, left_out = chosen(sample, sources, wanted, columns or {})
    if not comparisons:
        why = ", ".join(f"'{c}' ({reason})" for c, reason in list(left_out.items())[:10]) or "there is none"
        raise StepError(f"no column can be compared: {why}; columns must have values in every source")
    number = F.array_position(F.array(*map(F.lit, sources)), F.col("source")).cast("int") - 1
    of = {c.column: f"c{wanted.index(c.column)}" for c in comparisons}
    cells = raw.select("rid", number.alias("src"), "id", "key", *(of[c.column] for c in comparisons))
    schema = "rid long, src int, id string, key string, " + ", ".join(f"v{j} string" for j in range(len(comparisons)))
    rows = cells.mapInArrow(normalised(comparisons), schema)
    if repeated:  # a record that came twice is one record: the first by its content
        rest = [c for c in rows.columns if c != "rid"]
        rows = rows.groupBy("rid").agg(F.min(F.struct(*rest)).alias("first")).select("rid", "first.*")
    return Records(
        rows=context.keep(rows, "records"),
        sources=sources,
        sizes=sizes,
        comparisons=comparisons,
        left_out=left_out,
        sample=sample.select(["rid", "source"]),
        repeated=repeated,
    )


def sample_of(raw: DataFrame, by_source: Mapping[str, int], columns: int, seed: int) -> pa.Table:
    """Return some records of each source, chosen by hash: bounded by records and by cells."""
    rows = max(50, min(SAMPLE, CELLS // max(columns, 1) // len(by_source)))
    place, drawn = F.pmod(F.xxhash64(F.lit(seed), "rid"), F.lit(1_000_000)), F.lit(False)
    for source, size in by_source.items():
        share = min(1_000_000, int(1_000_000 * rows / max(size, 1)) + 1)
        drawn = drawn | (F.col("source").eqNullSafe(F.lit(source)) & (place < share))
    return raw.where(drawn).drop("id", "key").toArrow().sort_by("rid")


def chosen(
    sample: pa.Table, sources: Sequence[str], columns: Sequence[str], asked: Mapping[str, Kind]
) -> tuple[tuple[Comparison, ...], dict[str, str]]:
    """Return the comparisons of columns, of very many those that tell most, and why others are left out."""
    found: list[Comparison] = []
    left_out: dict[str, str] = {}
    parts = [sample.filter(pa.compute.equal(sample["source"], s)) for s in sources]
    for j, column in enumerate(columns):
        comparison = choose(column, [p[f"c{j}"].to_pylist() for p in parts], asked.get(column))
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


def frequencies_of(rows: DataFrame, comparisons: Sequence[Comparison]) -> tuple[Frequencies, ...]:
    """Count the values and words that several records hold: exactly, of the `FREQUENT` most frequent ones."""
    entries: list[Column] = []
    nothing = F.array().cast("array<struct<j:int,word:boolean,text:string>>")
    for j, comparison in enumerate(comparisons):
        column, worded = F.col(f"v{j}"), comparison.kind in ("name", "text")

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
    rest = 1.0 if table.num_rows < FREQUENT else max(1.0, table["n"][-1].as_py() / 2)
    found: list[tuple[dict[str, int], dict[str, int]]] = [({}, {}) for _ in comparisons]
    cells = (table[c].to_pylist() for c in ("j", "word", "text", "n"))
    for j, word, text, n in zip(*cells, strict=True):
        found[j][word][text] = n
    return tuple(
        Frequencies(filled=filled[f"v{j}"], values=values, words=words, rest=rest)
        for j, (values, words) in enumerate(found)
    )


def drawn_pairs(records: Records, seed: int) -> DataFrame:
    """Return pairs of records at random: of those of the sample, any two that are comparable."""
    rid = records.sample["rid"].to_numpy()
    number = {s: i for i, s in enumerate(records.sources)}
    src = np.array([number[s] for s in records.sample["source"].to_pylist()])
    rid, first = np.unique(rid, return_index=True)
    src = src[first]
    random = np.random.default_rng(seed)
    a, b = (random.integers(0, len(rid), 3 * DRAWN) for _ in range(2))
    swap = (src[a] > src[b]) | ((src[a] == src[b]) & (a > b))
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    ok = (src[a] != src[b]) if records.linking else (a != b)
    key = np.unique(a[ok] * len(rid) + b[ok])
    random.shuffle(key)
    a, b = key[:DRAWN] // len(rid), key[:DRAWN] % len(rid)
    columns = [c.tolist() for c in (rid[a], src[a], rid[b], src[b])]
    spark = records.rows.sparkSession
    return local_frame(spark, list(zip(*columns, strict=True)), "one long, src_one int, other long, src_other int")


def repeats_itself(records: Records) -> tuple[str, float] | None:
    """Return the source of which most records repeat another one in all that is compared, and their share.

    None where no source has more than `CLEAN` of them.
    """
    content = F.xxhash64(*(f"v{j}" for j in range(len(records.comparisons))))
    rows = records.rows.groupBy("src").agg(F.count_distinct(content).alias("n")).collect()
    shares = [(1 - row["n"] / records.sizes[row["src"]], records.sources[row["src"]]) for row in rows]
    share, source = max(shares, default=(0.0, ""))
    return (source, share) if share > CLEAN else None
