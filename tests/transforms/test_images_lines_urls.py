"""Near duplicates of images, repeated lines, URLs in one form."""

import io
import random
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageFilter

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.cleaning.urls import NormalizeUrl, normal
from headgate.transforms.deduplication.images import DropNearImages, alike, look_of
from headgate.transforms.deduplication.lines import SEPARATORS, DropRepeatedLines, rest
from headgate.transforms.step import StepError
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame, kept, rejected


def picture(seed, size=96):
    """Some soft blots."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray((rng.random((6, 6)) * 255).astype(np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def stored(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.slow
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
    looks = [look_of(v) if v else None for v in variants]
    stays = stay(looks, 8)
    assert stays == [0, *range(4, len(variants))]
    assert sorted(r["n"] for r in kept(out).collect()) == stays
    for row in rejected(out, "n").collect():
        apart = int((looks[row["n"]].bits != looks[0].bits).sum())
        assert float(row["evidence"]["score"]) == pytest.approx((64 - apart) / (64 + apart), abs=1e-6)
        assert row["evidence"]["rule"] == "perceptual hashes within 8 of 64 bits"


def stay(looks, distance):
    stays = []
    for n, one in enumerate(looks):
        others = [looks[m] for m in stays if one is not None and looks[m] is not None]
        if not any((o.bits != one.bits).sum() <= distance and alike(o, one) for o in others):
            stays.append(n)
    return stays


def test_every_pair_of_images_within_the_distance_is_found(spark):
    """Pictures that drift in small steps, so that distances lie on both sides of the limit."""
    first, last = (np.asarray(picture(s), np.float64) for s in (1, 2))
    images = [stored(Image.fromarray((first * (1 - t) + last * t).astype(np.uint8))) for t in np.linspace(0, 1, 60)]
    stays = stay([look_of(i) for i in images], 4)
    assert 3 < len(stays) < 55
    out = applied(
        DropNearImages(columns=("image",), distance=4, keep="n"),
        frame(spark, "n int, image binary", *enumerate(images)),
    )
    assert sorted(r["n"] for r in kept(out).collect()) == stays


def coloured(seed, size=96):
    return Image.merge("RGB", [picture(seed + i, size) for i in range(3)])


def receipt(total):
    """Small, so that its print is not lost in a small copy."""
    slip = Image.new("L", (100, 140), 250)
    draw = ImageDraw.Draw(slip)
    for i in range(6):
        draw.text((6, 7 + i * 15), f"Item {i} some", fill=5, font_size=10)
    draw.text((6, 115), total, fill=5, font_size=10)
    return slip


def invoice(total):
    page = Image.new("L", (700, 1000), 252)
    draw = ImageDraw.Draw(page)
    for i in range(30):
        draw.text(
            (50, 40 + i * 28), f"Position {i}: item, its name and its number {i * 17 % 97}", fill=10, font_size=18
        )
    draw.text((450, 920), f"Total {total} EUR", fill=10, font_size=18)
    return page


def test_only_what_looks_alike_is_alike(spark):
    slope = np.tile(np.linspace(0, 255, 120), (120, 1)).astype(np.uint8)
    photo = coloured(20)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees to the right
    captioned = photo.copy()
    ImageDraw.Draw(captioned).rectangle((20, 70, 50, 90), fill=(255, 255, 255))
    frames = [picture(30), picture(31)]
    drawing = Image.new("RGB", (200, 200), (250, 250, 245))
    for x, colour in ((20, (200, 30, 30)), (90, (30, 30, 200)), (140, (20, 140, 60))):
        ImageDraw.Draw(drawing).ellipse((x, 200 - x, x + 50, 240 - x), fill=colour)
    images = {
        "photo": stored(photo),
        "photo as jpeg": stored(photo, "JPEG", quality=70),
        "photo turned": stored(photo.rotate(90, expand=True), "JPEG", quality=90, exif=turned),
        "photo in grey": stored(photo.convert("L")),
        "photo in other colours": stored(Image.merge("RGB", photo.split()[::-1])),
        "photo with a caption": stored(captioned),
        "drawing": stored(drawing),
        "drawing as jpeg": stored(drawing, "JPEG", quality=70),
        "red": stored(Image.new("RGB", (80, 80), (200, 0, 0))),
        "red in another format": stored(Image.new("RGB", (80, 80), (200, 0, 0)), "BMP"),
        "green": stored(Image.new("RGB", (80, 80), (0, 200, 0))),
        "slope": stored(Image.fromarray(slope)),
        "less slope": stored(Image.fromarray(slope // 2 + 60)),
        "invoice": stored(invoice("1 284.00")),
        "another invoice": stored(invoice("7 931.50")),
        "invoice again": stored(invoice("1 284.00"), "TIFF"),
        "receipt": stored(receipt("103.98")),
        "another receipt": stored(receipt("108.98")),
        "animation": stored(frames[0], "GIF", save_all=True, append_images=[frames[1]]),
        "its first frame": stored(frames[0].convert("P"), "GIF"),
        "16 bits": stored(Image.fromarray(np.asarray(picture(40)).astype(np.uint16) * 257)),
        "transparent": stored(Image.merge("RGBA", [*coloured(50).split(), picture(53)])),
    }
    df = frame(spark, "n int, name string, image binary", *((i, *x) for i, x in enumerate(images.items())))
    out = applied(DropNearImages(columns=("image",), distance=8, keep="n"), df)
    gone = {r["name"] for r in rejected(out, "name").collect()}
    assert gone == {"photo as jpeg", "photo turned", "drawing as jpeg", "red in another format", "invoice again"}


def test_damaged_images_are_counted_and_end_nothing(spark, tmp_path):
    rng = random.Random(8)
    whole = [stored(coloured(60), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")]
    damaged = []
    for image in whole * 12:
        at = rng.randrange(8, len(image))
        damaged.append(image[:at] if rng.random() < 0.3 else image[:at] + rng.randbytes(1) + image[at + 1 + (at % 2) :])
    lost = sum(look_of(i) is None for i in damaged)
    assert 10 < lost < len(damaged)
    df = frame(spark, "n int, image binary", *enumerate([*damaged, None, b""]))
    space = BuildContext(spark, str(tmp_path), "")
    assert DropNearImages(columns=("image",)).run(df, space).count() == len(damaged) + 2
    assert space.warnings == [
        f"drop_near_images: {lost} cells of image hold no image that can be decoded, and were not compared"
    ]


@pytest.mark.parametrize(
    "error", [SyntaxError, IndexError, RuntimeError, struct.error, zlib.error, MemoryError, KeyError]
)
def test_no_error_of_a_decoder_ends_the_run(monkeypatch, error):
    def fail(*_):
        raise error("lost byte")

    monkeypatch.setattr(Image, "open", fail)
    assert look_of(b"anything") is None


def test_wrong_options_of_images_are_refused():
    with pytest.raises(StepError, match="distance: 30"):
        DropNearImages(columns=("image",), distance=30).columns_after(columns_of("image"), {})
    with pytest.raises(StepError, match="one column"):
        DropNearImages(columns=("a", "b")).columns_after(columns_of("a", "b"), {})


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


@pytest.mark.parametrize(
    ("unit", "text", "left"),
    [
        ("paragraph", "{0}\r\n\r\none\r\ntwo\r\n\r\n{0}\r\n", "{0}\r\n\r\none\r\ntwo"),
        ("paragraph", "{0}\n \t\none\n\n\n{0}\n\n\n\nend", "{0}\n \t\none\n\n\nend"),
        ("paragraph", "{0}\r\rone\r\r{0}", "{0}\r\rone"),
        ("paragraph", "{0}\r\n{0}\r\n", "{0}\r\n{0}\r\n"),
        ("line", "{0}\rone\r{0}\rend\r", "{0}\rone\rend\r"),
        ("line", "one\r\n{0}\r\n{0}\r\n{0}", "one\r\n{0}"),
        ("line", "{0}\n{0}", "{0}"),
    ],
)
def test_lines_and_paragraphs_end_as_any_system_writes_them(unit, text, left):
    line = "A sentence that is long enough."
    found = rest(SEPARATORS[unit], 20, True)(pa.array([text.format(line)]), pa.array([None], pa.list_(pa.int64())))
    assert found.to_pylist() == [left.format(line)]


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
    out = applied(NormalizeUrl(columns=("url",), fragment="keep"), df)
    found = {r["n"]: (r["url"], len(r["_changed"])) for r in out.collect()}
    assert found == {1: ("http://a.org/", 1), 2: (None, 0), 3: ("http://a.org/#top", 0)}
