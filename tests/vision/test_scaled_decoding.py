"""JPEGs that are decoded smaller, because they are large and the model's input is not."""

import io

import numpy as np
import pytest
from PIL import Image

from glint.core.recipe import Preprocessing
from glint.vision.decode import SCALED_FROM_PIXELS, DecodeError, Limits, decode, decode_for
from glint.vision.transforms import load_image, resize

WIDTH, HEIGHT, SIDE = 2400, 1800, 224
ORIENTATION = 274


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Waves of colour, no two corners alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [120 + 100 * np.sin(rows / 97), 120 + 100 * np.cos(columns / 61), (rows + columns) * 255 / (width + height)]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    image.save(file, "JPEG", quality=92, exif=exif, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def large() -> Image.Image:
    image = picture()
    assert image.width * image.height > SCALED_FROM_PIXELS
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_comes_smaller_upright_and_nearly_as_it_is(large: Image.Image, orientation: int) -> None:
    data = jpeg(large, orientation)
    exact, scaled = decode(data), decode_for(data, SIDE)
    assert scaled.pixels.shape[1] < exact.shape[1]
    assert min(scaled.pixels.shape[1:]) >= 2 * SIDE
    assert (scaled.height, scaled.width) == exact.shape[1:]
    apart = resize(exact, SIDE).int() - resize(scaled.pixels, SIDE).int()
    assert apart.abs().max() <= 4


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}])
def test_whatever_kind_of_jpeg_it_is(large: Image.Image, options: dict[str, object]) -> None:
    for image in (large, large.convert("L"), large.convert("CMYK")):
        data = jpeg(image, **options)
        apart = resize(decode(data), SIDE).int() - resize(decode_for(data, SIDE).pixels, SIDE).int()
        assert apart.abs().max() <= 4


def test_training_and_serving_load_it_with_the_size_it_came_in(large: Image.Image) -> None:
    loaded = load_image(jpeg(large, 6), Preprocessing(image_size=SIDE))
    assert (loaded.width, loaded.height) == (HEIGHT, WIDTH)
    assert loaded.pixels.shape == (3, SIDE, SIDE)


def test_a_smaller_one_is_decoded_exactly() -> None:
    data = jpeg(picture(2000, 1500))
    np.testing.assert_array_equal(decode_for(data, 32).pixels.numpy(), decode(data).numpy())


def test_one_for_a_model_of_large_inputs_is_decoded_exactly(large: Image.Image) -> None:
    data = jpeg(large)
    np.testing.assert_array_equal(decode_for(data, 1000).pixels.numpy(), decode(data).numpy())


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:9000] + b"\xff\xd9"])
def test_one_that_is_cut_off_is_an_error_all_the_same(large: Image.Image, damage) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_for(damage(jpeg(large)), SIDE)
    assert caught.value.type == "truncated"


def test_broken_exif_turns_nothing(large: Image.Image) -> None:
    data = jpeg(large, 6)
    at = data.index(b"Exif\0\0") + 6
    broken = data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :]  # where its tags begin
    assert decode_for(broken, SIDE).pixels.shape[1:] == decode_for(jpeg(large), SIDE).pixels.shape[1:]
    assert decode(broken).shape[1:] == (HEIGHT, WIDTH)


def test_the_limits_hold_before_it_is_made_smaller(large: Image.Image) -> None:
    with pytest.raises(DecodeError, match=r"2,400 x 1,800 pixels; at most 1,000,000"):
        decode_for(jpeg(large), SIDE, Limits(max_pixels=1_000_000))
