import io

import pytest
from PIL import Image

from glint.vision.headers import jpeg_header, sniff, webp_header


def encode(format, image=None, **options):
    target = io.BytesIO()
    (image or Image.linear_gradient("L").resize((40, 24)).convert("RGB")).save(target, format, **options)
    return bytearray(target.getvalue())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"])
def test_a_format_is_known_by_its_first_bytes_alone(format):
    assert sniff(encode(format)[:32]) == format


def test_bytes_of_no_known_format_have_none():
    assert sniff(b"") is None
    assert sniff(b"\0" * 64) is None
    assert sniff(b"RIFF\x24\0\0\0WAVEfmt ") is None


def test_a_jpeg_header_gives_the_size_and_counts_scans_where_there_can_be_several():
    assert jpeg_header(encode("JPEG")) == (40, 24, 1)
    progressive = encode("JPEG", progressive=True)
    assert jpeg_header(progressive) == (40, 24, progressive.count(b"\xff\xda"))
    assert progressive.count(b"\xff\xda") > 1


def test_thumbnails_comments_padding_and_stray_bytes_before_the_frame_are_passed_over():
    data, inner = encode("JPEG"), encode("JPEG", Image.new("RGB", (8, 8)))
    thumbnail = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    assert jpeg_header(data[:2] + thumbnail + b"\xff\xfe\0\x06text" + b"\0\xff\0" + b"\xff" * 9 + data[2:])[:2] == (
        40,
        24,
    )


def test_a_jpeg_that_ends_before_its_first_scan_has_no_header():
    data = encode("JPEG")
    for end in range(data.find(b"\xff\xda")):
        assert jpeg_header(data[:end]) is None


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, {"icc_profile": b"any"}]
)
def test_a_webp_header_gives_the_size_and_tells_what_needs_more_than_the_plain_decoder(options):
    assert webp_header(encode("WebP", **options)) == (40, 24, "exif" not in options)


def test_a_webp_with_transparency_or_frames_is_not_plain():
    clear = Image.new("RGBA", (40, 24), (1, 2, 3, 4))
    assert webp_header(encode("WebP", clear)) == (40, 24, False)
    assert webp_header(encode("WebP", clear, lossless=True)) == (40, 24, False)
    assert webp_header(encode("WebP", save_all=True, append_images=[Image.new("RGB", (40, 24))])) == (40, 24, False)


def test_a_webp_cut_in_its_header_has_none():
    for options in ({}, {"lossless": True}, {"icc_profile": b"any"}):
        assert webp_header(encode("WebP", **options)[:24]) is None
