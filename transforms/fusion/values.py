"""Values of columns as they are compared: normal forms, and the kind of comparison that a column's values call for."""

import html
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["name", "text", "code", "number", "date", "set", "place"]
WORDED = ("name", "text", "set")  # kinds whose values are words

IDEOGRAPHS = "㐀-鿿豈-﫿぀-ヿ가-힯"
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W_{IDEOGRAPHS}]+")
IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
SIGN = "[-+\N{MINUS SIGN}]?"
MONEY = r"(?:[$€£¥₹₩₽₺₪฿¢]|(?:usd|eur|gbp|chf|jpy|cny|inr|aud|cad|sek|nok|dkk|pln|czk|us\$|rs\.?|kr\.?)(?![a-z]))"
PARTED = r"\d{1,3}(?:[ '’]\d{3})+[.,]\d{1,2}|\d{1,3}(?:['’]\d{3})+|\d{1,3}(?:\.\d{3})+,\d+"  # 1 234,56; 1'234; 1.234,56
DIGITS = rf"{PARTED}|\d+(?:\.\d+)?e[-+]?\d+|\d+,\d{{1,2}}|\d[\d,]*(?:\.\d+)?|\.\d+"
NUMBER = re.compile(rf"^[\s(\['\"]*({SIGN})\s*{MONEY}?\s*({SIGN})({DIGITS})\s*(?:%|abv|{MONEY})?[\s)\].,;:'\"]*$")
DECIMAL_COMMA = re.compile(r"(?:\d{1,3}(?:[ '’.]\d{3})+|\d+),\d{1,2}|\d{1,3}(?:\.\d{3})+,\d+")
MONTHS = {
    m: i + 1 for i, m in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
}
EXACT = 15  # digits that a number in floating point keeps
YEAR, MONTH = 365.2425, 30.4369  # days
JOINED = "\x1f"  # in a normal form: parts words from runs that are words as a whole ('ps-lx350': ps, lx350, pslx350)
LONGEST = 4000  # characters of a value that are looked at
ELEMENT = "\x1e"  # parts the elements of an array
PLACE = re.compile(r"^[(\[]?\s*(?:point\s*\()?([-+]?\d{1,2}\.\d+)\s*[,; ]\s*([-+]?\d{1,3}\.\d+)\s*[)\]]*$")


def plain(text: str | None) -> str | None:
    """Fold case, accents, HTML entities and white space; null where nothing is left."""
    if text is None:
        return None
    text = html.unescape(text[:LONGEST]) if "&" in text else text[:LONGEST]
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = unicodedata.normalize("NFC", text)  # Korean syllables were taken apart
    return " ".join(text.lower().split()) or None


def words(text: str | None) -> list[str]:
    """Split into words, Chinese, Japanese and Korean characters one by one."""
    return WORD.findall(text.replace("'", "").replace("`", "")) if text else []


def worded(text: str) -> str | None:
    """Return the words of a plain text, and behind `JOINED` the runs with punctuation inside, each as one word."""
    found, whole = [], []
    for run in text.replace("'", "").replace("`", "").split():
        parts = WORD.findall(run)
        found += parts
        if len(parts) > 1 and max(map(len, parts)) > 1 and not IDEOGRAPH.search(run):  # initials are words of their own
            whole.append("".join(parts))
    return " ".join(found) + (JOINED + " ".join(whole) if whole else "") if found else None


def squeezed(text: str) -> str | None:
    """Keep letters and digits only."""
    return "".join(c for c in text if c.isalnum()) or None


def number(text: str) -> float:
    """Read a plain text as a number, with or without a currency; NaN where it is none.

    A comma parts thousands, but before one or two last digits, and behind points that part thousands, the decimals.
    """
    found = NUMBER.match(text)
    if found is None:
        return math.nan
    before, after, digits = found.groups()
    if DECIMAL_COMMA.fullmatch(digits):
        digits = re.sub(r"[ '’.]", "", digits).replace(",", ".")
    value = float(re.sub(r"[ '’,]", "", digits))
    if f"{before}{after}" in ("-", "\N{MINUS SIGN}"):
        value = -value
    return math.nan if math.isinf(value) else value + 0.0  # -0.0 is 0.0


def one_number(text: str) -> str:
    """Write a plain text that is a number in one way, whatever its currency, commas and final zeros."""
    value = number(text)
    return text if math.isnan(value) or sum(c.isdigit() for c in text) > EXACT else format(value, f".{EXACT}g")


def one_date(text: str) -> str | None:
    """Write a plain text that is a date as eight digits, whatever its form; of others the letters and digits."""
    y, m, d = date_of(text)
    return f"{y:04}{m:02}{d:02}" if m else squeezed(text)


def day(text: str) -> float:
    """Read a plain text as days since year 0, months all alike; NaN where it is no date of the years 1000 to 2200."""
    y, m, d = date_of(text)
    return y * YEAR + (m - 1) * MONTH + d if m else math.nan


def date_of(text: str) -> tuple[int, int, int]:
    """Return year, month and day of a plain text; month 0 where it is no date of the years 1000 to 2200."""
    y, m, d = year_month_day(text.strip())
    if y < 100:
        y += 2000 if y < 50 else 1900
    return (y, m, d) if m is not None and 1 <= m <= 12 and 1 <= d <= 31 and 1000 <= y <= 2200 else (0, 0, 0)


def place(text: str) -> tuple[float, float]:
    """Read a plain text as latitude and longitude in degrees, both with decimals; NaN where it is none."""
    found = PLACE.match(text)
    at = (float(found[1]), float(found[2])) if found else (math.nan, math.nan)
    return at if abs(at[0]) <= 90 and abs(at[1]) <= 180 else (math.nan, math.nan)


def elements(text: str) -> str | None:
    """Return the distinct elements of an array, each as one word, in order."""
    found = {squeezed(plain(e) or "") for e in text.split(ELEMENT)}
    return " ".join(sorted(e for e in found if e)) or None


def year_month_day(text: str) -> tuple[int, int | None, int]:
    if g := re.match(r"^(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:[t ].*)?$", text):
        return int(g[1]), int(g[3]), int(g[4])
    if re.match(r"^\d{8}$", text):
        return int(text[:4]), int(text[4:6]), int(text[6:])
    if g := re.match(r"^(\d{1,2})([-/. ])(\d{1,2})[-/. ](\d{4})$", text):
        one, other = int(g[1]), int(g[3])
        day_first = one > 12 or (g[2] == "." and other <= 12)  # points are written where the day comes first
        return (int(g[4]), other, one) if day_first else (int(g[4]), one, other)
    if g := re.match(r"^(\d{1,2})[- ]([a-z]{3})[a-z]*[-, ]+(\d{2,4})$", text):
        return int(g[3]), MONTHS.get(g[2]), int(g[1])
    if g := re.match(r"^([a-z]{3})[a-z]*\.? (\d{1,2})\s*,?\s*(\d{4})$", text):
        return int(g[3]), MONTHS.get(g[1]), int(g[2])
    return 0, None, 0


def normal_form(kind: Kind) -> Callable[[str | None], str | None]:
    """Return the function that gives a value the form in which it is compared; null where nothing is left."""
    inner: dict[Kind, Callable[[str], str | None]] = {
        "code": squeezed,
        "name": worded,
        "text": worded,
        "number": one_number,
        "date": one_date,
    }

    def form(text: str | None) -> str | None:
        if kind == "set":
            return elements(text[:LONGEST]) if text else None
        found = plain(text)
        return found if found is None or kind not in inner else inner[kind](found)

    return form


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A column's way of being compared, and why.

    log: numbers by their ratio; scale: of numbers, the distance between their quartiles.
    """

    column: str
    kind: Kind
    why: str
    log: bool = False
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.column} as {self.kind} ({self.why})"


def choose(column: str, sources: Sequence[Sequence[str | None]], kind: Kind | None = None) -> Comparison | str:
    """Choose how a column is compared from plain values of each source, or say why it cannot be compared.

    kind: the kind that was asked for.
    """
    filled = [[v for v in map(plain, s) if v is not None] for s in sources]
    if any(not f for f in filled):
        return "no value in one of the sources" if len(sources) > 1 else "no value"
    every = [v for f in filled for v in f]
    distinct = sorted(set(every))
    if kind is None and len(distinct) < 2:
        return "one value only"
    if kind is None and len(sources) == 1 and is_identifier(distinct, every, len(sources[0])):
        return "an identifier of the row"
    if kind == "set":
        return Comparison(column=column, kind=kind, why="arrays")
    kind, why = (kind, "as asked for") if kind is not None else kind_of(distinct)
    if kind != "number":
        return Comparison(column=column, kind=kind, why=why)
    numbers = np.array([number(v) for v in distinct])
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return "no number"
    log = bool(numbers.min() > 0 and np.quantile(numbers, 0.95) > 5 * np.median(numbers))
    spread = np.subtract(*np.quantile(np.log(numbers) if log else numbers, [0.75, 0.25]))
    why += ", skewed: by ratio" if log else ""
    return Comparison(column=column, kind=kind, why=why, log=log, scale=float(spread) or 1.0)


def is_identifier(distinct: list[str], every: list[str], rows: int) -> bool:
    """Return whether every row has a value of its own that ends in a digit and holds no space."""
    own = len(distinct) == len(every) == rows and rows > 10
    return own and all(" " not in v for v in distinct) and float(np.mean([v[-1].isdigit() for v in distinct])) > 0.95


def kind_of(distinct: list[str]) -> tuple[Kind, str]:
    """Return the kind that distinct plain values call for, and why."""

    def share(holds: Callable[[str], bool]) -> float:
        return float(np.mean([holds(v) for v in distinct]))

    if share(lambda v: not math.isnan(place(v)[0])) > 0.9:
        return "place", "latitudes and longitudes"
    if len(distinct) > 20 and share(lambda v: not math.isnan(day(v))) > 0.9:
        return "date", "dates"
    bare = [squeezed(v) or "" for v in distinct]
    digits = np.mean([len(b) >= 5 and sum(c.isdigit() for c in b) >= 0.8 * len(b) for b in bare])
    lengths = np.array([len(b) for b in bare])
    alike = np.mean(abs(lengths - np.median(lengths)) <= 1)
    if digits > 0.9 and alike > 0.9 and share(lambda v: "." in v and "," not in v) <= 0.3:
        return "code", "digits of one length"
    if share(lambda v: not math.isnan(number(v))) > 0.9:
        return "number", "numbers"
    length = float(np.median([len(words(v)) for v in distinct]))
    if length >= 4 or np.mean([len(v) for v in distinct]) > 30:
        return "text", f"{length:.0f} words a value"
    return "name", f"{length:.0f} words a value"
