"""Texts in the form in which they are compared: one normal form, nothing invisible, and less where less is asked."""

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ignored = Literal["case", "accents", "spaces", "unicode", "punctuation"]

# Unicode's Default_Ignorable_Code_Point, less the two joiners and the tags.
HIDDEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e0fff"
)
JOINED = "\u0600-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\U00010a00-\U00011fff"  # scripts with joined letters
EMOJI = "\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
TAGS = "\U000e0000-\U000e007f"
SUSPECT = re.compile(f"[{HIDDEN}\u200c\u200d{TAGS}]")
# The joiners spell words in scripts with joined letters (Persian, Malayalam …) and make one emoji of several; tags
# tell the flags of regions. Elsewhere they are invisible.
INVISIBLE = re.compile(
    f"(\U0001f3f4[{TAGS}]+)|[{HIDDEN}{TAGS}]"
    f"|(?<![{JOINED}])\u200c|\u200c(?!\\w)"
    f"|(?<![{JOINED}])(?<![{EMOJI}\ufe0f])\u200d|(?<=[{EMOJI}\ufe0f])\u200d(?![{EMOJI}])"
)
ACCENTS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")


def visible(texts: pa.Array) -> pa.Array:
    """Texts in the normal form C of Unicode (Annex 15), without characters that show nothing. Nulls stay null."""
    others = np.flatnonzero(pc.fill_null(pc.invert(pc.string_is_ascii(texts)), False).to_numpy(zero_copy_only=False))
    before = texts.take(pa.array(others)).to_pylist()
    after = [plain(t) for t in before]
    if after == before:
        return texts
    found = np.full(len(texts), None, object)
    found[others] = after
    return pc.coalesce(pa.array(found, texts.type), texts)


def plain(text: str) -> str:
    if SUSPECT.search(text):
        text = INVISIBLE.sub(r"\1", text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def without(texts: pa.Array, ignore: Sequence[Ignored]) -> pa.Array:
    """Texts without what makes no difference.

    case: by Unicode's full case folding (ß is ss). accents: diacritical marks of letters; vowel signs are none.
    spaces: runs of white space are one space, those at the ends nothing. unicode: the forms that Unicode holds for
    compatible, by NFKC. punctuation: with symbols. Nulls stay null.
    """
    if not ignore:
        return texts

    def reduced(text: str) -> str:
        if "unicode" in ignore:
            text = unicodedata.normalize("NFKC", text)
        if "case" in ignore:
            text = text.casefold()
        if "accents" in ignore:
            text = unaccented(text)
        if "punctuation" in ignore:
            text = text.translate(marks())
        return " ".join(text.split()) if "spaces" in ignore else text

    return changed(texts, reduced)


def unaccented(text: str) -> str:
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def without_accents(texts: pa.Array) -> pa.Array:
    return changed(texts, unaccented)


def compatible(texts: pa.Array) -> pa.Array:
    """The forms that Unicode holds for compatible, by NFKC, without characters that show nothing."""
    return pc.utf8_normalize(visible(texts), "NFKC")


@cache
def marks() -> dict[int, None]:
    return {i: None for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] in "PS"}


def changed(texts: pa.Array, how: Callable[[str], str]) -> pa.Array:
    return pa.array([None if t is None else how(t) for t in texts.to_pylist()], texts.type)
