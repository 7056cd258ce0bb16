import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import obstore
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from glint.vision.decode import DecodeError, Limits, decode

HEIGHT, WIDTH = 13, 17
SEED = np.random.default_rng(0)
NOISE = SEED.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
SMOOTH = np.stack([ROWS * 15, COLUMNS * 12, 255 - ROWS * 8], axis=-1).astype(np.uint8)
GREY16 = (np.arange(HEIGHT * WIDTH) * 297).reshape(HEIGHT, WIDTH).astype(np.uint16)


def encode(pixels, format, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    target = io.BytesIO()
    (image.convert(mode) if mode else image).save(target, format, **options)
    return target.getvalue()


def png(width, height, depth=8, colour=2, pixels=b""):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def tiff(pixels, bits, photometric=1, endian="<", sample_format=1):
    """A grey TIFF in one strip, of kinds that Pillow does not write. Photometric 0: 0 is white."""
    tags = [(256, WIDTH), (257, HEIGHT), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, HEIGHT)]
    tags += [(279, len(pixels)), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(f"{endian}HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    magic = b"II*\0" if endian == "<" else b"MM\0*"
    return magic + struct.pack(f"{endian}IH", 8, len(tags)) + entries + bytes(4) + pixels


def frames(format, **options):
    return encode(SMOOTH, format, save_all=True, append_images=[Image.fromarray(SMOOTH[::-1].copy())], **options)


def array(tensor):
    assert tensor.dtype == torch.uint8
    assert tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy()


def attempt(data, limits=None):
    try:
        return decode(data, limits or Limits())
    except DecodeError as error:
        return error


def failure(data, limits=None):
    with pytest.raises(DecodeError) as caught:
        decode(data, limits or Limits())
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.status, caught.value.type


EXACT = {
    "PNG": encode(NOISE, "PNG"),
    "BMP": encode(NOISE, "BMP"),
    "WebP lossless": encode(NOISE, "WEBP", lossless=True),
    "TIFF": encode(NOISE, "TIFF"),
    "TIFF lzw": encode(NOISE, "TIFF", compression="tiff_lzw"),
    "TIFF deflate": encode(NOISE, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF packbits": encode(NOISE, "TIFF", compression="packbits"),
    "PNG opaque alpha": encode(NOISE, "PNG", "RGBA"),
    "BMP opaque alpha": encode(NOISE, "BMP", "RGBA"),
    "TIFF opaque alpha": encode(NOISE, "TIFF", "RGBA"),
    "WebP opaque alpha": encode(NOISE, "WEBP", "RGBA", lossless=True),
}
CLOSE = {
    "JPEG": encode(SMOOTH, "JPEG", quality=95, subsampling=0),
    "JPEG progressive": encode(SMOOTH, "JPEG", quality=95, subsampling=0, progressive=True),
    "JPEG restarts": encode(SMOOTH, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1),
    "JPEG CMYK": encode(SMOOTH, "JPEG", "CMYK", quality=95),
    "WebP": encode(SMOOTH, "WEBP", quality=95),
    "TIFF jpeg": encode(SMOOTH, "TIFF", compression="jpeg", quality=95),
    "TIFF CMYK": encode(SMOOTH, "TIFF", "CMYK"),
    "GIF": encode(SMOOTH, "GIF"),
    "PNG palette": encode(Image.fromarray(SMOOTH).quantize(256), "PNG"),
    "BMP palette": encode(Image.fromarray(SMOOTH).quantize(256), "BMP"),
    "TIFF palette": encode(Image.fromarray(SMOOTH).quantize(256), "TIFF"),
    "GIF frames": frames("GIF"),
    "PNG frames": frames("PNG"),
    "WebP frames": frames("WEBP", quality=95),
    "TIFF frames": frames("TIFF"),
}
GREY = {format: encode(SMOOTH[..., 0], format) for format in ("PNG", "BMP", "TIFF", "GIF")}
GREY_OF_16_BITS = {
    "PNG": encode(GREY16, "PNG"),
    "TIFF": encode(GREY16, "TIFF"),
    "TIFF big-endian": tiff(GREY16.astype(">u2").tobytes(), 16, endian=">"),
    "TIFF white is 0": tiff((65535 - GREY16).astype("<u2").tobytes(), 16, photometric=0),
}
VALID = [*EXACT.values(), *CLOSE.values(), *GREY.values(), *GREY_OF_16_BITS.values()]


@pytest.mark.parametrize("name", EXACT)
def test_lossless_formats_come_out_as_they_went_in(name):
    np.testing.assert_array_equal(array(decode(EXACT[name])), NOISE)


@pytest.mark.parametrize("name", CLOSE)
def test_every_other_format_shows_the_same_picture_or_its_first_frame(name):
    difference = array(decode(CLOSE[name])).astype(int) - SMOOTH
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("name", GREY)
def test_grey_becomes_three_equal_channels(name):
    np.testing.assert_array_equal(array(decode(GREY[name])), np.repeat(SMOOTH[..., :1], 3, axis=-1))


def test_a_grey_jpeg_becomes_three_equal_channels():
    decoded = array(decode(encode(SMOOTH[..., 0], "JPEG", quality=95))).astype(int)
    assert np.ptp(decoded, axis=-1).max() == 0
    assert np.abs(decoded[..., 0] - SMOOTH[..., 0]).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_two_level_images_become_black_and_white(format):
    checks = (ROWS + COLUMNS) % 2 == 1
    expected = np.repeat(np.where(checks, 255, 0)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(array(decode(encode(checks, format))), expected)


@pytest.mark.parametrize("name", GREY_OF_16_BITS)
def test_16_bit_grey_is_divided_by_257_and_never_stretched(name):
    expected = np.repeat(np.round(GREY16 / 257)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(array(decode(GREY_OF_16_BITS[name])), expected)


def test_16_bit_colour_png_agrees_with_the_division_to_one_level():
    values = SEED.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    decoded = array(decode(png(WIDTH, HEIGHT, depth=16, pixels=rows)))
    assert np.abs(decoded - values / 257).max() <= 1


def test_12_bit_grey_is_scaled_by_its_own_largest_value():
    values = (np.arange(HEIGHT * WIDTH) * 18).reshape(HEIGHT, WIDTH)
    rows = (int("".join(f"{value:03x}" for value in row) + "0", 16).to_bytes(26, "big") for row in values)
    decoded = array(decode(tiff(b"".join(rows), 12)))
    np.testing.assert_array_equal(decoded[..., 0], np.round(values * 255 / 4095))


@pytest.mark.parametrize(("bits", "sample_format"), [(32, 3), (16, 2), (32, 1)])
def test_floats_and_signed_values_are_refused_for_they_have_no_fixed_range(bits, sample_format):
    assert failure(tiff(bytes(HEIGHT * WIDTH * bits // 8), bits, sample_format=sample_format)) == (
        "undecodable",
        "unsupported",
    )


HALF_RED = Image.new("RGBA", (4, 4), (100, 20, 30, 128))
PALETTE = Image.new("P", (4, 4), 1)
PALETTE.putpalette([0, 0, 0, 10, 20, 30])
TRANSPARENT = {
    "PNG": (encode(HALF_RED, "PNG"), (177, 137, 142)),
    "WebP": (encode(HALF_RED, "WEBP", lossless=True, exact=True), (177, 137, 142)),
    "TIFF": (encode(HALF_RED, "TIFF"), (177, 137, 142)),
    "PNG grey with alpha": (encode(Image.new("LA", (4, 4), (7, 0)), "PNG"), (255, 255, 255)),
    "PNG transparent colour": (encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255,) * 3),
    "PNG transparent palette": (encode(PALETTE, "PNG", transparency=1), (255, 255, 255)),
    "GIF transparent palette": (encode(PALETTE, "GIF", transparency=1), (255, 255, 255)),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_laid_over_white_in_every_format(name):
    data, expected = TRANSPARENT[name]
    assert np.abs(array(decode(data)).astype(int) - expected).max() <= 1


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright_by_their_exif(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(format, {})
    decoded = array(decode(encode(SMOOTH, format, exif=exif, **options))).astype(int)
    expected = UPRIGHT[orientation](SMOOTH)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= (8 if format == "JPEG" else 0)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, obstore.Bytes])
def test_any_buffer_is_read_and_left_as_it_was(wrap):
    for data in (EXACT["PNG"], CLOSE["JPEG"]):
        buffer = wrap(data)
        assert torch.equal(decode(buffer), decode(data))
        assert bytes(buffer) == data


JPEG_SIZE = CLOSE["JPEG"].find(b"\xff\xc0") + 5
HUGE_WEBP = bytearray(EXACT["WebP lossless"])
HUGE_WEBP[21:25] = b"\xff\xff\xff\x0f"
HUGE_CANVAS = bytearray(CLOSE["WebP frames"])
HUGE_CANVAS[24:30] = b"\xff" * 6
TOO_LARGE = {
    "PNG": png(30_000, 30_000),
    "BMP": EXACT["BMP"][:18] + struct.pack("<ii", 30_000, 30_000) + EXACT["BMP"][26:],
    "GIF": CLOSE["GIF"][:6] + b"\xff" * 4 + CLOSE["GIF"][10:],
    "JPEG": CLOSE["JPEG"][:JPEG_SIZE] + b"\xff" * 4 + CLOSE["JPEG"][JPEG_SIZE + 4 :],
    "WebP": bytes(HUGE_WEBP),
    "WebP canvas": bytes(HUGE_CANVAS),
    "TIFF": tiff(b"", 16).replace(struct.pack("<II", 1, WIDTH), struct.pack("<II", 1, 2**31)),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_huge_image_is_refused_by_its_header_though_its_pixels_are_not_even_there(name):
    assert failure(TOO_LARGE[name]) == ("too_large", "too_many_pixels")


def test_an_image_at_the_limits_is_decoded_and_one_beyond_them_is_too_large():
    size = len(EXACT["PNG"])
    decode(EXACT["PNG"], Limits(max_bytes=size, max_pixels=HEIGHT * WIDTH, max_side=WIDTH))
    assert failure(EXACT["PNG"], Limits(max_bytes=size - 1)) == ("too_large", "too_many_bytes")
    assert failure(EXACT["PNG"], Limits(max_pixels=HEIGHT * WIDTH - 1)) == ("too_large", "too_many_pixels")
    assert failure(EXACT["PNG"], Limits(max_side=WIDTH - 1)) == ("too_large", "too_long_side")


def strips(offsets, rows):
    """A grey TIFF whose strips of so many rows all lie at the same place."""
    count, values = len(offsets), struct.pack(f"<{len(offsets)}I", *offsets)
    tags = [(256, WIDTH), (257, HEIGHT), (258, 8), (259, 1), (262, 1), (277, 1), (278, rows)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    entries += struct.pack("<HHII", 273, 4, count, 8 + 2 + 12 * (len(tags) + 1) + 4)
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + bytes(4) + values + bytes(WIDTH * HEIGHT)


def test_a_file_of_endless_parts_is_refused():
    jpeg, gif = encode(SMOOTH, "JPEG"), encode(SMOOTH, "GIF")
    assert failure(jpeg[:2] + b"\xff\xe0\0\2" * 100_001 + jpeg[2:]) == ("too_large", "too_many_parts")
    assert failure(jpeg[:2] + b"\xff\1" * 100_001 + jpeg[2:]) == ("too_large", "too_many_parts")
    private = b"\0\0\0\0prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    plain = encode(SMOOTH, "PNG")
    for at in (33, len(plain) - 12):
        assert failure(plain[:at] + private * 400_000 + plain[at:]) == ("too_large", "too_many_parts")
    header = gif[:13]
    for filler in (b"\0" * 500_001, b"!\0" + b"\1." * 300_000):
        assert failure(header[:10] + b"\0" + header[11:] + filler) == ("too_large", "too_many_parts")


def test_a_tiff_of_endless_strips_is_refused_before_they_are_looked_at(monkeypatch):
    monkeypatch.setattr("glint.vision.pillow._check_tiles", lambda *_: None)
    assert failure(strips([0] * 200_001, 1)) == ("too_large", "too_many_parts")


def test_a_tiff_whose_strips_cover_it_again_and_again_is_refused():
    assert decode(strips([8] * 2, HEIGHT - 1)).shape == (3, HEIGHT, WIDTH)
    assert failure(strips([8] * 10, HEIGHT - 1)) == ("too_large", "too_many_parts")


def test_a_tiff_whose_strips_are_the_same_bytes_again_and_again_is_refused():
    rows, times = 10, 30
    strip = zlib.compress(bytes(WIDTH * rows)) + bytes(3 * 2**20)
    tags = [(256, WIDTH), (257, rows * times), (258, 8), (259, 8), (262, 1), (277, 1), (278, rows)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)

    def picture(*sizes: int, types: tuple[int, ...] = (4,)) -> bytes:
        lists = [(279 + 46 * i, kind, size) for i, (kind, size) in enumerate(zip(types, sizes, strict=True))]
        begin = 8 + 2 + 12 * (len(tags) + 1 + len(lists)) + 4
        lists.insert(0, (273, 4, begin + 4 * times * (1 + len(lists))))
        found = b"".join(
            struct.pack("<HHII", tag, kind, times, begin + 4 * times * i) for i, (tag, kind, _) in enumerate(lists)
        )
        values = b"".join(struct.pack(f"<{times}I", *[value] * times) for _, _, value in lists)
        return b"II*\0" + struct.pack("<IH", 8, len(tags) + len(lists)) + entries + found + bytes(4) + values + strip

    assert decode(picture(2**20)).shape == (3, rows * times, WIDTH)
    assert failure(picture(len(strip))) == ("too_large", "too_many_parts")
    assert failure(picture(0)) == ("too_large", "too_many_parts")
    rational, signed, unknown = 5, 9, 17
    for odd in (rational, signed, unknown):
        assert failure(picture(2**20, types=(odd,))) == ("undecodable", "corrupt")
        assert failure(picture(1, len(strip), types=(4, odd))) == ("undecodable", "corrupt"), "which libtiff would take"


def test_a_jpeg_of_endless_scans_is_refused():
    data = CLOSE["JPEG progressive"]
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    assert failure(data[:-2] + last_scan * 200 + data[-2:]) == ("too_large", "too_many_scans")


def test_a_large_jpeg_may_have_fewer_scans_than_a_small_one():
    data = CLOSE["JPEG progressive"]
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    several = data[:-2] + last_scan * 20 + data[-2:]
    decode(several)
    frame = several.index(b"\xff\xc2") + 5
    large = several[:frame] + (10_000).to_bytes(2, "big") * 2 + several[frame + 4 :]
    assert failure(large) == ("too_large", "too_many_scans")


def test_a_run_length_encoded_bmp_may_have_fewer_pixels():
    def rows(side: int) -> bytes:
        palette, body = b"".join(bytes((i, i, i, 0)) for i in range(256)), b"\x01\x07\x00\x00" * side + b"\x00\x01"
        info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
        start = 14 + len(info) + len(palette)
        return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + palette + body

    assert decode(rows(100)).shape == (3, 100, 100)
    assert failure(rows(10_000)) == ("too_large", "too_many_pixels")


@pytest.mark.parametrize(
    ("data", "type"),
    [
        (b"", "empty"),
        (b"these are notes that someone named photo.jpg\n" * 10, "not_an_image"),
        (b"BMW and Tesla begin like a bitmap and are none", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%PDF-1.7 and so on", "not_an_image"),
        (png(0, 0), "zero_size"),
        (png(5, 0), "zero_size"),
        (CLOSE["JPEG"][:JPEG_SIZE] + bytes(4) + CLOSE["JPEG"][JPEG_SIZE + 4 :], "zero_size"),
        (CLOSE["JPEG"][:-2], "truncated"),
        (CLOSE["JPEG"][: len(CLOSE["JPEG"]) // 2], "truncated"),
        (EXACT["PNG"][: len(EXACT["PNG"]) // 2], "truncated"),
        (CLOSE["WebP"][:-2], "truncated"),
        (EXACT["BMP"][:-20], "truncated"),
        (EXACT["TIFF"][:-20], "truncated"),
        (CLOSE["GIF"][:-60], "truncated"),
        (EXACT["PNG"].replace(b"IDAT", b"IDOT"), "corrupt"),
    ],
)
def test_what_is_wrong_with_an_undecodable_file_has_a_name(data, type):
    assert failure(data) == ("undecodable", type)


@pytest.mark.parametrize("data", VALID)
def test_a_file_cut_anywhere_is_an_error_unless_all_its_pixels_are_there(data):
    whole = decode(data)
    for end in {*range(0, len(data), 23), *range(len(data) - 30, len(data))}:
        cut = attempt(data[:end])
        assert cut.status == "undecodable" if isinstance(cut, DecodeError) else torch.equal(cut, whole)


def test_a_jpeg_that_stops_early_is_an_error_even_with_its_end_marker():
    data = encode(SEED.integers(0, 256, (120, 160, 3), dtype=np.uint8), "JPEG")
    for part in (0.2, 0.5, 0.9):
        assert failure(data[: int(len(data) * part)] + b"\xff\xd9") == ("undecodable", "truncated")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_with_a_mid_grey_border_is_whole(options):
    pixels = np.full((120, 160, 3), 128, dtype=np.uint8)
    pixels[40:80, 40:80] = 250
    assert array(decode(encode(pixels, "JPEG", **options)))[-1, -1].tolist() == [128, 128, 128]


def test_corrupt_bytes_in_a_png_are_an_error_and_not_a_crash():
    for place in range(41, len(EXACT["PNG"]) - 12, 37):
        data = bytearray(EXACT["PNG"])
        data[place] ^= 0xFF
        answer = attempt(data)
        assert not isinstance(answer, DecodeError) or answer.status == "undecodable"


def test_pillows_limit_for_the_whole_process_neither_matters_nor_changes(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for data in (EXACT["PNG"], EXACT["BMP"], EXACT["WebP lossless"], CLOSE["JPEG"], CLOSE["GIF"]):
        decode(data)
    assert Image.MAX_IMAGE_PIXELS == 50


def test_pillows_warnings_stay_off_the_console():
    cut = EXACT["TIFF"][:100]
    with pytest.warns(UserWarning, match="Truncated"), pytest.raises(SyntaxError):
        TiffImageFile(io.BytesIO(cut))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        failure(cut)
    assert shown == []


def test_a_decode_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("undecodable", "truncated", "the JPEG ends early")))  # noqa: S301
    assert (error.status, error.type, str(error)) == ("undecodable", "truncated", "the JPEG ends early")


def damage(data, edits):
    damaged = bytearray(data)
    for operation, place, value in edits:
        at = int(place * len(damaged))
        if operation == "set":
            damaged[at : at + 1] = bytes([value])
        elif operation == "insert":
            damaged[at:at] = bytes([value]) * (1 + value % 9)
        elif operation == "remove":
            del damaged[at : at + 1 + value % 40]
        elif operation == "repeat":
            damaged[at:at] = damaged[at : at + value]
        else:
            del damaged[at:]
    return bytes(damaged)


# Half of all edits hit the first quarter, where the headers are.
PLACES = st.one_of(st.floats(0, 0.25), st.floats(0, 1))
EDITS = st.tuples(st.sampled_from(["set", "set", "insert", "remove", "repeat", "cut"]), PLACES, st.integers(0, 255))
MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0", b"MM\0*", b"GIF89a"]
SMALL = Limits(max_pixels=1_000_000)


def is_picture_or_typed_error(answer):
    if isinstance(answer, DecodeError):
        return answer.status in ("undecodable", "too_large") and "\n" not in str(answer)
    return array(answer).size > 0


@settings(max_examples=500, derandomize=True, database=None)
@given(st.sampled_from(VALID), st.lists(EDITS, min_size=1, max_size=6))
def test_damaged_images_decode_or_raise_a_decode_error_and_nothing_else(data, edits):
    assert is_picture_or_typed_error(attempt(damage(data, edits), SMALL))


@settings(max_examples=100, derandomize=True, database=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=300))
def test_random_bytes_raise_a_decode_error_and_nothing_else(magic, tail):
    assert is_picture_or_typed_error(attempt(magic + tail, SMALL))
