import io

import numpy as np
import pytest
import torch
from PIL import Image

from glint.core.recipe import Preprocessing
from glint.vision.decode import DecodeError, Limits, decode
from glint.vision.transforms import augment, load_image, normalise, resize, sample_seed

PICTURE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8))
ROWS, COLUMNS = np.mgrid[0:120, 0:200]
SMOOTH = torch.from_numpy(np.stack([ROWS * 2, COLUMNS, 255 - ROWS - COLUMNS // 2]).astype(np.uint8))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def jpeg(pixels):
    target = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(target, "JPEG", quality=95)
    return target.getvalue()


def arrangements(image):
    turned = [torch.rot90(image, quarters, (1, 2)) for quarters in range(4)]
    return [*turned, *(one.flip(2) for one in turned)]


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (16, 16), (1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_any_shape_becomes_the_square_asked_for(height, width, mode):
    resized = resize(torch.full((3, height, width), 77, dtype=torch.uint8), 32, mode)
    assert resized.shape == (3, 32, 32)
    assert resized.dtype == torch.uint8
    assert (resized == 77).all()


def test_squash_agrees_with_pillows_antialiased_resize():
    noisy = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 150, 210), dtype=np.uint8))
    pillow = Image.fromarray(noisy.permute(1, 2, 0).numpy()).resize((40, 40), Image.Resampling.BILINEAR)
    difference = resize(noisy, 40).permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow)
    assert np.abs(difference).max() <= 1


def test_squash_keeps_what_lies_at_the_border_and_crop_lets_it_go():
    wide = torch.zeros((3, 60, 180), dtype=torch.uint8)
    wide[:, :, :50] = wide[:, :, 130:] = 255
    assert resize(wide, 30)[:, :, [0, -1]].min() == 255
    assert resize(wide, 30, "crop").max() == 0


def test_crop_is_the_shorter_side_to_size_and_then_the_centre():
    shorter_side_first = torch.nn.functional.interpolate(SMOOTH[None], (60, 100), mode="bilinear", antialias=True)[0]
    difference = resize(SMOOTH, 60, "crop").int() - shorter_side_first[:, :, 20:80]
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_an_image_of_the_right_size_is_left_alone(mode):
    assert torch.equal(resize(PICTURE, 24, mode), PICTURE)


@pytest.mark.parametrize(("mode", "kept"), [("squash", (60, 100)), ("crop", (60, 60))])
def test_a_share_of_each_side_is_kept_about_the_centre(mode, kept):
    rows, columns = kept
    top, left = (120 - rows) // 2, (200 - columns) // 2
    centre = SMOOTH[:, top : top + rows, left : left + columns]
    assert torch.equal(resize(SMOOTH, 32, mode, crop_pct=0.5), resize(centre, 32))


def test_loading_is_decoding_and_resizing_within_the_limits():
    data = jpeg(SMOOTH)
    for mode in ("squash", "crop"):
        loaded = load_image(data, Preprocessing(image_size=64, resize=mode, crop_pct=0.7))
        assert torch.equal(loaded.pixels, resize(decode(data), 64, mode, 0.7))
    with pytest.raises(DecodeError, match="200 x 120 pixels"):
        load_image(data, Preprocessing(image_size=64), limits=Limits(max_pixels=100))


def test_inspection_images_load_at_their_own_size_untouched(shared):
    paths = sorted((shared / "data" / "deeppcb").rglob("*.jpg"))[::300]
    assert paths
    for path in paths:
        expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
        loaded = load_image(path.read_bytes(), Preprocessing(image_size=expected.shape[0])).pixels
        assert np.abs(loaded.permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalise_centres_and_scales_each_channel(memory_format):
    batch = torch.stack([PICTURE, 255 - PICTURE]).contiguous(memory_format=memory_format)
    before = batch.clone()
    normalised = normalise(batch, MEAN, STD)
    expected = (before.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected.float(), atol=1e-5, rtol=0)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_a_sample_seed_is_the_same_on_every_machine_for_ever():
    assert sample_seed(0, 0, "az://boards/good/0001.jpg") == 7136879866586146200


def test_sample_seeds_differ_by_run_epoch_and_image():
    seeds = {sample_seed(s, e, u) for s in (0, 1, 11) for e in (0, 1, 11) for u in ("a", "1|a", "é")}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)


EVERYTHING = {"policy": "dihedral", "shift": 0.2, "brightness": 0.3, "contrast": 0.3}


@pytest.mark.parametrize("fill", ["reflect", "wrap"])
def test_augmenting_repeats_by_seed_and_leaves_the_original_be(fill):
    before = PICTURE.clone()
    augmented = [augment(PICTURE, seed=seed, fill=fill, **EVERYTHING) for seed in range(20)]
    for seed, image in enumerate(augmented):
        assert image.shape == PICTURE.shape
        assert image.dtype == torch.uint8
        assert torch.equal(image, augment(PICTURE, seed=seed, fill=fill, **EVERYTHING))
    assert len({image.numpy().tobytes() for image in augmented}) == 20
    assert torch.equal(PICTURE, before)


def test_nothing_happens_unless_asked_for():
    assert all(torch.equal(augment(PICTURE, seed=seed), PICTURE) for seed in range(10))


def test_memory_order_makes_no_difference():
    as_decoded = PICTURE.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for seed in range(20):
        assert torch.equal(augment(as_decoded, seed=seed, **EVERYTHING), augment(PICTURE, seed=seed, **EVERYTHING))


def test_flip_mirrors_half_of_the_images_left_to_right():
    mirrored = 0
    for seed in range(200):
        image = augment(PICTURE, seed=seed, policy="flip")
        mirrored += torch.equal(image, PICTURE.flip(2))
        assert torch.equal(image, PICTURE.flip(2)) or torch.equal(image, PICTURE)
    assert 70 < mirrored < 130


def test_dihedral_gives_the_eight_arrangements_of_a_square_alike():
    counts = [0] * 8
    for seed in range(400):
        image = augment(PICTURE, seed=seed, policy="dihedral")
        counts[[torch.equal(image, one) for one in arrangements(PICTURE)].index(True)] += 1
    assert min(counts) > 25


def shifts(fill, shift=0.25):
    """Each seed's (down, right), found by looking for the augmented image among all that may be."""
    reach = int(shift * 24)
    pad = {"reflect": "reflect", "wrap": "wrap"}[fill]
    padded = np.pad(PICTURE.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode=pad)
    allowed = {
        padded[:, reach - down :, reach - right :][:, :24, :24].tobytes(): (down, right)
        for down in range(-reach, reach + 1)
        for right in range(-reach, reach + 1)
    }
    return [allowed[augment(PICTURE, seed=seed, shift=shift, fill=fill).numpy().tobytes()] for seed in range(300)]


def test_a_shift_goes_every_way_up_to_its_bound_whatever_fills_the_border():
    mirrored, wrapped = shifts("reflect"), shifts("wrap")
    assert mirrored == wrapped
    for axis in (0, 1):
        assert {shift[axis] for shift in mirrored} == set(range(-6, 7))


def test_brightness_scales_every_value_within_its_strength():
    flat = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    values = [int(augment(flat, seed=seed, brightness=0.2)[0, 0, 0]) for seed in range(300)]
    assert 80 <= min(values) < 84
    assert 116 < max(values) <= 120
    bright = augment(torch.full((3, 8, 8), 250, dtype=torch.uint8), seed=values.index(max(values)), brightness=0.2)
    assert (bright == 255).all()


def test_contrast_spreads_values_about_the_mean_and_keeps_it():
    halves = torch.full((3, 8, 8), 60, dtype=torch.uint8)
    halves[:, 4:] = 140
    centres, spreads = [], []
    for seed in range(300):
        image = augment(halves, seed=seed, contrast=0.5).int()
        centres.append(int(image.min() + image.max()) / 2)
        spreads.append(int(image.max() - image.min()))
    assert abs(np.mean(centres) - 100) < 0.1
    assert 40 <= min(spreads) < 45
    assert 115 < max(spreads) <= 120


def test_one_option_does_not_alter_what_another_does():
    flat_rows = PICTURE[:, :1].expand(3, 24, 24)
    for seed in range(20):
        alone = augment(PICTURE, seed=seed, policy="dihedral")
        dimmed = augment(PICTURE, seed=seed, policy="dihedral", brightness=1e-9)
        assert torch.equal(alone, dimmed)
        moved = augment(flat_rows, seed=seed, shift=0.2, fill="wrap")
        assert torch.equal(moved, augment(flat_rows, seed=seed, shift=0.2, fill="wrap", contrast=1e-9))


def test_random_crops_stay_within_the_least_share_and_repeat_by_seed():
    ramp = torch.arange(64, dtype=torch.uint8).mul(3).expand(3, 64, 64)
    for seed in range(30):
        cropped = augment(ramp, seed=seed, crop_scale=0.25)
        assert cropped.shape == ramp.shape
        assert torch.equal(cropped, augment(ramp, seed=seed, crop_scale=0.25))
        seen = int(cropped[0, 0, -1]) - int(cropped[0, 0, 0])
        assert seen >= 0.4 * 189  # of a side: the root of a quarter, by a ratio of up to 4:3
    widths = {int(augment(ramp, seed=seed, crop_scale=0.25)[0, 0, -1]) for seed in range(30)}
    assert len(widths) > 5


def test_gray_images_are_the_luma_of_the_colours():
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).T.reshape(3, 1, 3)
    picture = colours.repeat_interleave(32, 1).repeat_interleave(32, 2)
    loaded = load_image(jpeg(picture), Preprocessing(image_size=96, channels="gray"))
    assert loaded.pixels.shape == (1, 96, 96)
    assert loaded.pixels[0, 16, [16, 48, 80]].tolist() == pytest.approx([76, 150, 29], abs=3)
