"""Records of persons made from FEBRL's values by known error rates: any number, with their truth.

Each column's values are drawn by themselves from those of `em_febrl3`'s originals; dates and numbers are made anew, so
that large tables do not repeat them. A fifth of the records are duplicates of others, each with one to three errors:
half of them a slip of a letter or digit, a quarter another value, a quarter no value. What is drawn depends on the
seed alone.
"""

import csv
import datetime
import random
from collections.abc import Iterator

from tests.conftest import SHARED_DATA

COLUMNS = (
    "given_name",
    "surname",
    "street_number",
    "address_1",
    "address_2",
    "suburb",
    "postcode",
    "state",
    "date_of_birth",
    "soc_sec_id",
)
DUPLICATES = 5  # one record of so many
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def values() -> dict[str, list[str]]:
    """Return the values of FEBRL's originals by column, "" for none."""
    with (SHARED_DATA / "em_febrl3/dataset3.csv").open() as file:
        rows = [{k.strip(): v.strip() for k, v in row.items()} for row in csv.DictReader(file)]
    return {c: [r[c] for r in rows if r["rec_id"].endswith("org")] for c in COLUMNS}


def slip(r: random.Random, text: str) -> str:
    """Return a text with one letter or digit left out, doubled, swapped with the next, or another one."""
    at = r.randrange(len(text))
    other = r.choice("0123456789" if text[at].isdigit() else LETTERS)
    swapped = text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :]
    return r.choice(
        [text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:], swapped, text[:at] + other + text[at + 1 :]]
    )


def persons(n: int, seed: int = 1) -> Iterator[tuple[str, list[str | None]]]:
    """Yield n records: the entity and the cells."""
    r, of = random.Random(seed), values()
    first = datetime.date(1920, 1, 1)

    def drawn(column: str) -> str:
        if column == "date_of_birth":
            return (first + datetime.timedelta(days=r.randrange(36_500))).strftime("%Y%m%d")
        if column == "soc_sec_id":
            return f"{r.randrange(1_000_000, 9_999_999)}"
        return r.choice(of[column])

    before: list[list[str]] = []
    for i in range(n):
        if i % DUPLICATES == DUPLICATES - 1:
            entity = i - 1 - r.randrange(DUPLICATES - 1)
            cells = list(before[entity % DUPLICATES])
            for _ in range(r.randrange(1, 4)):
                j, kind = r.randrange(len(COLUMNS)), r.random()
                if kind < 0.5 and cells[j]:
                    cells[j] = slip(r, cells[j])
                elif kind < 0.75:
                    cells[j] = drawn(COLUMNS[j])
                else:
                    cells[j] = ""
        else:
            entity, cells = i, [drawn(c) for c in COLUMNS]
        before = [*before[-(i % DUPLICATES) :], cells] if i % DUPLICATES else [cells]
        yield str(entity), [c or None for c in cells]
