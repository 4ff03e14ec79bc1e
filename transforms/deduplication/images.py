"""Near duplicates of images: found by perceptual hashes, proved by what a small copy of each shows."""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.deduplication.hashing import constants, mixed
from headgate.transforms.deduplication.pairs import Batches, Ints, scored
from headgate.transforms.deduplication.similar import LENGTH, WINDOW, NearStep, compared
from headgate.transforms.kinds import known_kinds
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Context, StepError, require_columns

BITS = 64
SIDE, COARSE = 64, 16  # of the small copies: brightness, and colour and places
FINE = 512
FLOOR = 4.0  # grey levels, of 256, that an image with details deviates from a smooth one
PAGE = 0.4  # share of an image in one shade that makes it a page
SHIFT, STROKE = 24.0, 40.0  # most grey levels between two places; of pages, between two points
TINT = (8.0, 40.0)  # most levels of colour in the mean, and between two places

Levels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DropNearImages(NearStep):
    """Keep one of the images that look nearly the same and mark the others: only what is proved near a kept image.

    columns: the one column with the images' bytes, in any format that Pillow opens.
    distance: most bits, of 64, in which the perceptual hashes of a marked image and the kept one differ; 0 to 20.
    keep, cluster: as in `drop_near_duplicates`; `length` is the number of bytes. Ties fall to the smaller `_row_id`.
    Images are turned as their EXIF data say. Two are near if, beside their hashes, copies of 64 by 64 points agree in
    brightness (but for contrast) and in colour at every place, so that another caption, number or tint keeps them
    apart. Images without detail (one colour, gradients, pages of small print, of which a small copy does not show what
    differs) are near only if they are equal in size and in every pixel, animations if they are in every byte.
    Nulls are never compared, nor what cannot be decoded; a warning says how many these are. Evidence: the kept row's
    id, and as score (64 - d) / (64 + d) of the d differing bits, beside the same of the threshold; 1 where all pixels
    are equal. Every pair within the distance is found, as hashes that differ in d bits agree in one of d + 1 parts
    (Norouzi 2012), but for rows of crowded parts, which meet 128 others; then a warning says so.
    Cost: one pass that decodes each image, then as `drop_near_duplicates`; an index has 5 KB for each image. Needs the
    extra `images`. Source: the hash by the discrete cosine transform of the ImageHash library.
    """

    name: ClassVar[str] = "drop_near_images"
    many_features: ClassVar[bool] = False
    unreadable: ClassVar[str] = "hold no image that can be decoded, and were not compared"
    distance: int = 6

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if len(self.columns) != 1:
            raise StepError("columns: name the one column of the images")
        for column, kind in known_kinds(have, self.columns):
            if kind != "binary":
                raise StepError(f"{self.name}: '{column}' is {kind}, not binary, as the bytes of images are")
        if not 0 <= self.distance <= 20:
            raise StepError(f"distance: {self.distance} is not within 0 and 20")
        try:
            import imagehash  # noqa: F401
        except ImportError as e:
            raise StepError("the library ImageHash is missing: pip install 'headgate[images]'") from e
        return self.with_cluster(have)

    @property
    def threshold(self) -> float:
        # As sets of (place, bit): 64 - d of them in common, 64 + d in all.
        return similarity(self.distance)

    @property
    def buckets(self) -> int:
        return self.distance + 1

    @property
    def limits(self) -> "NearHashes":
        return NearHashes(self.distance, WINDOW)

    @property
    def rule(self) -> str:
        return f"perceptual hashes within {self.distance} of {BITS} bits"

    def compared(self, df: DataFrame) -> Column:
        return F.col(quoted(self.columns[0]))

    def sketch(self) -> Callable[[pa.Array], Mapping[str, pa.Array]]:
        parts = self.buckets
        return lambda images: sketches_of(images, parts)

    def verify_candidates(self, likely: DataFrame, sets: DataFrame, context: Context) -> DataFrame:
        return context.keep(compared(likely, sets, confirmed), "edges")


@dataclass(frozen=True)
class NearHashes:
    """The pairs of hashes that differ in so few bits."""

    columns: ClassVar[tuple[str, ...]] = ("bits",)
    distance: int
    window: int

    def likely(self, rows: pa.Table, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        old = rows["old"].to_numpy()
        hashes = np.frombuffer(b"".join(rows["bits"].to_pylist()), np.uint64)
        fits = ~(old[one] & old[other]) & (np.bitwise_count(hashes[one] ^ hashes[other]) <= self.distance)
        return one[fits], other[fits]


def similarity(distance: int) -> float:
    return (BITS - distance) / (BITS + distance)


@dataclass(frozen=True)
class Look:
    """How an image looks: a digest of its pixels; and of one with detail its perceptual hash and small copies."""

    pixels: bytes
    bits: npt.NDArray[np.bool_] | None = None
    grey: Levels | None = None  # (64, 64)
    colour: Levels | None = None  # (2, 16, 16)

    def stored(self) -> bytes:
        if self.bits is None or self.grey is None or self.colour is None:
            return b""
        return np.packbits(self.bits).tobytes() + self.grey.tobytes() + self.colour.tobytes()

    @classmethod
    def read(cls, stored: bytes) -> "Look":
        levels = np.frombuffer(stored, np.uint8)
        grey, colour = levels[BITS // 8 :][: SIDE * SIDE], levels[BITS // 8 + SIDE * SIDE :]
        bits = np.unpackbits(levels[: BITS // 8]).astype(np.bool_)
        return cls(b"", bits, grey.reshape(SIDE, SIDE), colour.reshape(2, COARSE, COARSE))


def look_of(image: bytes) -> Look | None:
    """None for what cannot be decoded: Pillow raises errors of many kinds on damaged bytes."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image)) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                return Look(digest(image))
            opened.load()
            turned = ImageOps.exif_transpose(opened)
            pixels, plain = flat(turned)
            return Look(pixels, *looks(plain))
    except Exception:
        return None


def digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def flat(image: Any) -> tuple[bytes, Any]:
    """A digest of all pixels, and the image in 8 bits of red, green and blue, on white where it is transparent."""
    from PIL import Image

    size = repr(image.size).encode()
    if image.mode[0] in "IF":
        levels = np.asarray(image).astype(np.float64)
        low, high = levels.min(), levels.max()
        scaled = ((levels - low) * (255 / ((high - low) or 1))).astype(np.uint8)
        return digest(size, levels.tobytes()), Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            white = Image.new("RGBA", image.size, "white")
            return digest(size, image.tobytes()), Image.alpha_composite(white, image).convert("RGB")
    image = image.convert("RGB")
    return digest(size, image.tobytes()), image


def looks(image: Any) -> tuple[Any, ...]:
    """The hash, the brightness and the colour of an image; nothing of one without detail."""
    import imagehash
    from PIL import Image

    box = Image.Resampling.BOX
    light, blue, red = image.convert("YCbCr").split()
    grey = np.asarray(light.resize((SIDE, SIDE), box))
    fine = np.asarray(light.resize((FINE, FINE), box))
    if not has_detail(grey, fine):
        return ()
    colour = np.stack([np.asarray(c.resize((COARSE, COARSE), box)) for c in (blue, red)])
    return imagehash.phash(image).hash.ravel(), grey, colour


def has_detail(grey: Levels, fine: Levels) -> bool:
    """Return whether a small copy of an image shows what it is.

    It does not if it is smooth, or a page in one shade with print that is lost in the copy.
    """
    waves = cosines(SIDE)
    spectrum = waves @ grey.astype(np.float64) @ waves.T
    spectrum[:4, :4] = 0
    detail = float(np.sqrt((spectrum**2).sum()) / SIDE)
    if detail < FLOOR:
        return False
    lost = fine - np.repeat(np.repeat(grey.astype(np.float64), FINE // SIDE, 0), FINE // SIDE, 1)
    return not (is_page(fine) and float(lost.std()) > detail)


def is_page(grey: Levels) -> bool:
    shades = np.bincount(grey.ravel() // 8, minlength=32)
    return bool((shades + np.append(shades[1:], 0)).max() >= PAGE * grey.size)


def cosines(n: int) -> npt.NDArray[np.float64]:
    """The orthonormal cosine transform (DCT-II) of n values, as a matrix."""
    waves: npt.NDArray[np.float64] = np.cos(np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n) * np.sqrt(2 / n)
    waves[0] /= np.sqrt(2)
    return waves


def alike(one: Look, other: Look) -> bool:
    """Return whether small copies of two images agree at every place: in brightness but for contrast, and in colour.

    Of pages, at every point: what differs there is a stroke of a number.
    """
    a, b = (np.asarray(x.grey, np.float64) for x in (one, other))
    deviations = a.std(), b.std()
    contrast = (deviations[0] * deviations[1]) ** 0.5
    apart = (a - a.mean()) * (contrast / deviations[0]) - (b - b.mean()) * (contrast / deviations[1])
    places = np.abs(apart.reshape(COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(1, 3)))
    tint = np.abs(np.asarray(one.colour, np.float64) - np.asarray(other.colour, np.float64))
    if is_page(np.asarray(one.grey)) and np.abs(apart).max() > STROKE:
        return False
    return bool(places.max() <= SHIFT and tint.mean() <= TINT[0] and tint.max() <= TINT[1])


def confirmed(batches: Batches) -> Batches:
    """Candidates that are alike, with their similarity; rows as in `pairs.similarities`."""
    holder, kept_look = None, Look(b"")
    for batch in batches:
        found: list[tuple[str, str, float, int]] = []
        for kept, gone, stored in zip(
            *(batch.column(c).to_pylist() for c in ("kept", "gone", "shingles")), strict=True
        ):
            look = Look.read(stored)
            if gone is None:
                holder, kept_look = kept, look
                continue
            if kept != holder:
                raise ValueError(f"the image of {kept} is missing")
            if alike(kept_look, look):
                apart = int(np.count_nonzero(np.asarray(kept_look.bits) != np.asarray(look.bits)))
                found.append((kept, gone, similarity(apart), BITS - apart))
        yield scored(found)


def sketches_of(images: pa.Array, parts: int) -> dict[str, pa.Array]:
    """Return of each image its length, its look as the set, and a bucket for each part of its hash."""
    found = [look_of(i) for i in images.to_pylist()]
    places = np.array_split(np.arange(BITS, dtype=np.uint64), parts)

    def buckets(bits: npt.NDArray[np.bool_] | None) -> list[int]:
        if bits is None:
            return []
        words = mixed((np.arange(BITS, dtype=np.uint64) * np.uint64(2) + bits) * constants("image", BITS))
        sums = np.array([words[p].sum() for p in places], np.uint64) + constants("part", parts)
        return [int(b) for b in mixed(sums).astype(np.int64)]

    def column(kind: pa.DataType, value: Callable[[Look], Any], nothing: Any) -> pa.Array:
        return pa.array([nothing if x is None else value(x) for x in found], kind)

    return {
        LENGTH: pc.binary_length(images).cast(pa.int32()),
        "size": column(pa.int32(), lambda x: BITS, 0),
        "set": column(pa.binary(), lambda x: x.pixels, b""),
        "buckets": column(pa.list_(pa.int64()), lambda x: buckets(x.bits), []),
        "bits": column(pa.binary(), lambda x: x.stored()[: BITS // 8], b""),
        "shingles": column(pa.binary(), lambda x: x.stored(), b""),
    }
