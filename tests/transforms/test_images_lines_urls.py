"""Near duplicates of images, repeated lines, URLs in one form."""

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.conftest import plain_rows
from tests.transforms.frames import applied, frame, kept, rejected
from transforms.cleaning.urls import NormaliseUrl, normal
from transforms.deduplication.images import DropNearImages, perceptual_hash
from transforms.deduplication.lines import DropRepeatedLines
from transforms.step import StepError


def picture(seed, size=96):
    """Some soft blots."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray((rng.random((6, 6)) * 255).astype(np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def stored(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_images_that_look_alike_go_whatever_their_format(spark):
    images = [picture(seed) for seed in range(12)]
    variants = [
        stored(images[0]),
        stored(images[0], "JPEG", quality=60),
        stored(images[0].resize((48, 48))),
        stored(images[0].filter(ImageFilter.GaussianBlur(1)), "BMP"),
        *(stored(i) for i in images[1:]),
        b"no image",
        None,
    ]
    df = frame(spark, "n int, image binary", *enumerate(variants))
    out = applied(DropNearImages(columns=("image",), distance=8, keep="n"), df)
    hashes = [perceptual_hash(v) if v else None for v in variants]
    stays = []
    for n, h in enumerate(hashes):
        if h is None or all(hashes[m] is None or (hashes[m] != h).sum() > 8 for m in stays):
            stays.append(n)
    assert stays == [0, *range(4, len(variants))]
    assert sorted(r["n"] for r in kept(out).collect()) == stays
    for row in rejected(out, "n").collect():
        apart = int((hashes[row["n"]] != hashes[0]).sum())
        assert float(row["evidence"]["score"]) == pytest.approx((64 - apart) / (64 + apart), abs=1e-6)
        assert row["evidence"]["rule"] == "perceptual hashes within 8 of 64 bits"


def test_every_pair_of_images_within_the_distance_is_found(spark):
    """Pictures that drift in small steps, so that distances lie on both sides of the limit."""
    first, last = (np.asarray(picture(s), np.float64) for s in (1, 2))
    images = [stored(Image.fromarray((first * (1 - t) + last * t).astype(np.uint8))) for t in np.linspace(0, 1, 60)]
    hashes = [perceptual_hash(i) for i in images]
    stays = []
    for n, h in enumerate(hashes):
        if all((hashes[m] != h).sum() > 4 for m in stays):
            stays.append(n)
    assert 3 < len(stays) < 55
    out = applied(
        DropNearImages(columns=("image",), distance=4, keep="n"),
        frame(spark, "n int, image binary", *enumerate(images)),
    )
    assert sorted(r["n"] for r in kept(out).collect()) == stays


def test_wrong_options_of_images_are_refused():
    with pytest.raises(StepError, match="distance: 30"):
        DropNearImages(columns=("image",), distance=30).names_after(["image"], {})
    with pytest.raises(StepError, match="one column"):
        DropNearImages(columns=("a", "b")).names_after(["a", "b"], {})


NOTICE = "Subscribe to our newsletter for more!"


def test_lines_of_many_texts_go_from_all_of_them(spark):
    own = [f"This is the story of number {i}." for i in range(5)]
    texts = [f"{line}\n  {NOTICE.upper()}\nok" for line in own[:4]] + [own[4], None, "", NOTICE]
    df = frame(spark, "n int, text string", *enumerate(texts))
    out = applied(DropRepeatedLines(columns=("text",), texts=5), df)
    found = {r["n"]: (r["text"], [c["column"] for c in r["_changed"]]) for r in out.collect()}
    assert found == {
        **{i: (f"{own[i]}\nok", ["text"]) for i in range(4)},
        4: (own[4], []),
        5: (None, []),
        6: ("", []),
        7: ("", ["text"]),
    }
    same = applied(DropRepeatedLines(columns=("text",), texts=6), df)
    assert [r["text"] for r in same.orderBy("n").collect()] == texts


def test_parts_that_stand_twice_in_one_text_stand_once(spark):
    line = "A sentence that is long enough."
    text = f"{line}\n\nshort\n\nshort\n\n{line.lower()}\n\nend"
    df = frame(spark, "n int, text string", (1, text))
    step = DropRepeatedLines(columns=("text",), unit="paragraph", texts=0)
    assert plain_rows(applied(step, df), "text") == [(f"{line}\n\nshort\n\nshort\n\nend",)]
    step = DropRepeatedLines(columns=("text",), unit="paragraph", texts=0, within="keep")
    assert plain_rows(applied(step, df), "text") == [(text,)]


def test_lines_go_the_same_in_any_layout(spark):
    rng = random.Random(5)
    pool = [f"line number {i} of the common ones" for i in range(30)]
    texts = ["\n".join(rng.choice(pool) for _ in range(6)) for _ in range(60)]
    df = frame(spark, "n int, text string", *enumerate(texts))
    step = DropRepeatedLines(columns=("text",), texts=12)
    answers = {str(sorted(plain_rows(applied(step, d), "n", "text"))) for d in (df, df.repartition(9, "text"))}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("HTTP://Example.COM:80/a/../b/%7Euser?b=2&a=1&utm_source=x#part", "http://example.com/b/~user?a=1&b=2"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:8443/?gclid=1&fbclid=2", "https://example.com:8443/"),
        ("http://münchen.de/ä?q=ö", "http://xn--mnchen-3ya.de/%C3%A4?q=%C3%B6"),
        ("  https://a.org/x  ", "https://a.org/x"),
        ("not a url", "not a url"),
        ("mailto:a@b.org", "mailto:a@b.org"),
        ("http://[::1", "http://[::1"),
        ("http://a.org:port/", "http://a.org:port/"),
        ("", ""),
    ],
)
def test_urls_take_one_form_and_keep_it(url, plain):
    assert normal(url) == plain
    assert normal(plain) == plain


def test_urls_are_changed_where_they_differ(spark):
    df = frame(spark, "n int, url string", (1, "http://A.org"), (2, None), (3, "http://a.org/#top"))
    out = applied(NormaliseUrl(columns=("url",), fragment="keep"), df)
    found = {r["n"]: (r["url"], len(r["_changed"])) for r in out.collect()}
    assert found == {1: ("http://a.org/", 1), 2: (None, 0), 3: ("http://a.org/#top", 0)}
