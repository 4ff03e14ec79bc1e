"""Made data for `scale`: seeded, of any size, with the skew and the repeats of real ones, growing as these grow.

Words follow Zipf's law, other values a flatter power law, and the number of distinct words, shops and names grows with
the square root of the rows (Heaps' law). Repeats are a fixed share. With `skewed`, a tenth of all rows share one key,
group, stratum, block or page frame.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PART = 200_000  # rows that are made at once
SKEW = 0.1
ROWS = {"orders": 50_000, "texts": 5_000, "records": 6_000}  # at size 1


def make(kind: str, folder: Path, times: int, skewed: bool) -> None:
    """Write the files of so many times the rows into `folder`, those of each table into a folder of its own.

    `about.json` has the rows of each table, and their bytes as Arrow holds them, neither encoded nor compressed.
    """
    n, about = ROWS[kind] * times, {}
    for table, made in MAKERS[kind](n, skewed).items():
        (folder / table).mkdir(parents=True)
        size = 0
        for number, first in enumerate(range(0, made.rows, PART)):
            rng = np.random.default_rng([number, n, int(skewed)])
            ids = np.arange(first, min(first + PART, made.rows))
            rows = pa.table(made.columns(rng, ids))
            size += rows.nbytes
            pq.write_table(rows, folder / table / f"{number:04}.parquet")
        about[table] = {"rows": made.rows, "bytes": size}
    (folder / "about.json").write_text(json.dumps(about))


class Made:
    """A table to be made: its number of rows, and a function of a generator and row numbers that gives its columns."""

    def __init__(self, rows: int, columns: Any) -> None:
        self.rows, self.columns = rows, columns


def zipf(rng: np.random.Generator, distinct: int, n: int) -> Any:
    """Return n numbers below `distinct`, the number k in proportion to 1 / (k + 1)."""
    return np.minimum(np.exp(rng.random(n) * np.log(distinct + 1)).astype(np.int64) - 1, distinct - 1)


def flatter(rng: np.random.Generator, distinct: int, n: int) -> Any:
    """Return n numbers below `distinct`, the number k about in proportion to 1 / sqrt(k + 1)."""
    return (distinct * rng.random(n) ** 2).astype(np.int64)


def heaps(n: int, times: float, power: float = 0.5) -> int:
    return max(int(times * n**power), 2)


SYLLABLES = np.array([a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "el", "or")])


def words(numbers: Any) -> Any:
    """Return a pronounceable word for each number, always the same, frequent (small) numbers the shorter ones."""
    numbers = np.asarray(numbers, np.int64)
    text = SYLLABLES[numbers % len(SYLLABLES)]
    rest = numbers // len(SYLLABLES)
    while (rest > 0).any():
        text = np.where(rest > 0, np.char.add(text, SYLLABLES[(rest - 1) % len(SYLLABLES)]), text)
        rest = np.where(rest > 0, (rest - 1) // len(SYLLABLES), 0)
    return text


# -- orders, and the customers whom they name

TOGETHER = np.array([[1, 0.6, 0.3, 0.2], [0, 0.8, 0.5, 0.1], [0, 0, 0.8, 0.4], [0, 0, 0, 0.9]])


def orders(n: int, skewed: bool) -> dict[str, Made]:
    """Orders with stray spaces, missing numbers and repeats (8 %); customers, a fifth as many."""
    customers, shops = max(n // 5, 1), heaps(n, 2)

    def order(rng: np.random.Generator, ids: Any) -> dict[str, Any]:
        m = len(ids)
        hot = rng.random(m) < SKEW if skewed else np.zeros(m, bool)
        repeats = rng.random(m) < 0.08
        number = np.where(repeats, np.maximum(ids - rng.integers(1, 5_000, m), 0), ids)
        customer = np.where(hot, 0, flatter(rng, customers, m))
        shop = np.where(hot, 0, flatter(rng, shops, m))
        region = np.where(hot, 0, flatter(rng, 40, m))
        label = np.where(hot, 0, flatter(rng, 12, m))
        level = (shop % 97) / 10
        x = level[:, None] + rng.normal(size=(m, 4)) @ TOGETHER
        gone = rng.random((m, 4)) < 0.1
        spaces = np.where(rng.random(m) < 0.2, "  ", " ")
        item = np.char.add(np.char.add(words(zipf(rng, heaps(n, 20), m)), spaces), words(zipf(rng, 5_000, m)))
        return {
            "line": ids,
            "order_id": np.where(hot, 0, number),
            "customer_id": customer,
            "shop": pa.array(np.char.add("shop ", shop.astype(str))),
            "region": pa.array(words(region)),
            "label": pa.array(words(label)),
            "item": pa.array(item),
            "ordered_on": pa.array((15_000 + ids % 3_000).astype("datetime64[D]")),
            **{f"x{i}": pa.array(x[:, i], mask=gone[:, i]) for i in range(4)},
        }

    def customer(rng: np.random.Generator, ids: Any) -> dict[str, Any]:
        names = np.char.add(np.char.add(words(zipf(rng, 20_000, len(ids))), " "), words(zipf(rng, 50_000, len(ids))))
        return {"customer_id": ids, "name": pa.array(names), "since": pa.array(2000 + ids % 25)}

    return {"orders": Made(n, order), "customers": Made(customers, customer)}


# -- texts


def texts(n: int, skewed: bool) -> dict[str, Made]:
    """Documents of some 500 words, most of them between 150 and 1,500.

    4 % repeat another one word by word, 8 % with 1.5 % of its words changed. With skew a tenth are one frame of 400
    words before up to 100 of their own: by MinHash all of these look alike, and about half of their pairs are similar.
    """
    distinct = heaps(n * 500, 30)
    frame = zipf(np.random.default_rng(5), distinct, 400)

    def document(rng: np.random.Generator, ids: Any) -> dict[str, Any]:
        m = len(ids)
        lengths = np.clip(np.exp(rng.normal(np.log(450), 0.6, m)).astype(int), 30, 5_000)
        vocabulary = pa.array(words(np.arange(distinct)))
        made: list[Any] = []
        for i, (length, kind, hot) in enumerate(zip(lengths, rng.random(m), rng.random(m), strict=True)):
            if skewed and hot < SKEW:
                made.append(np.concatenate([frame, zipf(rng, distinct, rng.integers(0, 100))]))
            elif i > 0 and kind < 0.12:
                copy = made[rng.integers(max(i - 2_000, 0), i)]
                if kind > 0.04:
                    changed = rng.random(len(copy)) < 0.015
                    copy = np.where(changed, zipf(rng, distinct, len(copy)), copy)
                made.append(copy)
            else:
                made.append(zipf(rng, distinct, length))
        flat = vocabulary.take(pa.array(np.concatenate(made)))
        ends = np.concatenate([[0], np.cumsum([len(x) for x in made])]).astype(np.int32)
        return {"id": ids, "text": pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), flat), " ")}

    return {"texts": Made(n, document)}


# -- records of persons


def records(n: int, skewed: bool) -> dict[str, Made]:
    """Records of persons, a fifth of them of one named before, with one to three faults.

    With skew a tenth share surname, city and postcode.
    """
    columns = ("given", "surname", "street", "city", "postcode", "born", "phone")
    givens, surnames, streets, cities = heaps(n, 10), heaps(n, 40), heaps(n, 30), heaps(n, 4)

    def person(rng: np.random.Generator, ids: Any) -> dict[str, Any]:
        m = len(ids)
        hot = rng.random(m) < SKEW if skewed else np.zeros(m, bool)
        city = np.where(hot, 0, flatter(rng, cities, m))
        surname = np.where(hot, 0, flatter(rng, surnames, m))
        house = np.char.add(rng.integers(1, 200, m).astype(str), " ")
        values = {
            "given": words(flatter(rng, givens, m)),
            "surname": words(surname + 1_000),
            "street": np.char.add(house, words(flatter(rng, streets, m) + 3_000)),
            "city": words(city + 2_000),
            "postcode": (10_000 + city * 7 % 90_000).astype(str),
            "born": (rng.integers(-18_000, 13_000, m)).astype("datetime64[D]").astype(str),
            "phone": rng.integers(10**8, 10**9, m).astype(str),
        }
        cells = np.array([values[c] for c in columns], dtype="U40").T
        for i in np.flatnonzero((np.arange(m) % 5 == 4) & ~hot):
            cells[i] = cells[i - rng.integers(1, 5)]
            for j in rng.integers(0, len(columns), rng.integers(1, 4)):
                cells[i, j] = "" if rng.random() < 0.3 else slip(rng, str(cells[i, j]))
        table = {c: pa.array(cells[:, j]) for j, c in enumerate(columns)}
        return {"id": ids, **{c: pc.if_else(pc.equal(v, ""), None, v) for c, v in table.items()}}

    return {"records": Made(n, person)}


def slip(rng: np.random.Generator, text: str) -> str:
    """Return a text with two neighbours swapped, or one character left out."""
    at = int(rng.integers(0, max(len(text) - 1, 1)))
    return text[:at] + (text[at + 1 : at + 2] + text[at : at + 1] if rng.random() < 0.5 else "") + text[at + 2 :]


MAKERS = {"orders": orders, "texts": texts, "records": records}
