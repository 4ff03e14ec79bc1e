"""Near duplicates of images, by perceptual hashes."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.deduplication.near import WINDOW, NearComparer
from transforms.deduplication.pairs import Similar
from transforms.deduplication.shingles import Sketches, constants, mixed
from transforms.rows import quoted
from transforms.step import StepError, need

BITS = 64


@dataclass(frozen=True, kw_only=True)
class DropNearImages(NearComparer):
    """Of images that look nearly the same, keep one and mark the others: only what is proved near a kept image.

    columns: the one column with the images' bytes, in any format that Pillow opens.
    distance: most bits, of 64, in which the perceptual hashes of a marked image and the kept one differ; 0 to 20.
    keep, cluster: as in `drop_near_duplicates`; `length` is the number of bytes. Ties fall to the smaller `_row_id`.
    Nulls and bytes that are no image are never compared. Evidence: the kept row's id, and as score (64 - d) / (64 + d)
    of the d differing bits, beside the same of the threshold. Every pair within the distance is found, as hashes that
    differ in d bits agree in one of d + 1 parts (Norouzi 2012), but for rows of crowded parts, which meet 128 others.
    Cost: one pass that decodes each image, then as `drop_near_duplicates`. Needs the extra `images`. Source: the
    hash by the discrete cosine transform of the ImageHash library.
    """

    name: ClassVar[str] = "drop_near_images"
    distance: int = 6

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        if len(self.columns) != 1:
            raise StepError("columns: name the one column of the images")
        if not 0 <= self.distance <= 20:
            raise StepError(f"distance: {self.distance} is not within 0 and 20")
        try:
            import imagehash  # noqa: F401
        except ImportError:
            raise StepError("the library ImageHash is missing: pip install 'headgate[images]'") from None
        return self.names_of_marks(have)

    @property
    def threshold(self) -> float:
        # As sets of (place, bit): 64 - d of them in common, 64 + d in all.
        return (BITS - self.distance) / (BITS + self.distance)

    @property
    def buckets(self) -> int:
        return self.distance + 1

    @property
    def limits(self) -> Similar:
        return Similar(0.0, BITS, WINDOW)  # no estimate: the exact comparison is as quick

    @property
    def rule(self) -> str:
        return f"perceptual hashes within {self.distance} of {BITS} bits"

    def compared(self, df: DataFrame) -> Column:
        return F.col(quoted(self.columns[0]))

    def sketch(self) -> Callable[[pa.Array], Mapping[str, pa.Array]]:
        parts = self.buckets
        return lambda images: sketches_of([perceptual_hash(i) for i in images.to_pylist()], parts).columns()


def perceptual_hash(image: bytes) -> Any:
    """64 bits, or None for what is no image."""
    import imagehash
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            return imagehash.phash(opened).hash.ravel()
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def sketches_of(hashes: Sequence[Any], parts: int) -> Sketches:
    """Each hash as the set of its (place, bit), in one bucket for each part of its places."""
    there = np.array([h is not None for h in hashes], np.bool_)
    bits = np.array([np.zeros(BITS, np.bool_) if h is None else h for h in hashes], np.bool_).reshape(-1, BITS)
    features = np.arange(BITS, dtype=np.uint64) * np.uint64(2) + bits.astype(np.uint64)
    words = mixed(features * constants("image", BITS))
    sets = np.stack([words.sum(axis=1), mixed(words).sum(axis=1)], axis=1)
    places = np.array_split(np.arange(BITS), parts)
    buckets = np.stack([mixed(words[:, p].sum(axis=1) + constants("part", parts)[i]) for i, p in enumerate(places)], 1)
    return Sketches(
        sizes=np.where(there, BITS, 0).astype(np.int32),
        shingles=features[there].ravel(),
        sets=sets.astype(np.uint64),
        buckets=buckets.astype(np.int64),
        bits=np.zeros((len(hashes), BITS // 4), np.uint8),
    )
