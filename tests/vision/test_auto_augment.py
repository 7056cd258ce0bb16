import pytest
import torch

from glint.vision.auto_augment import automatic

PICTURE = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["rand_augment", "trivial_augment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_automatic_policies_repeat_by_seed_and_vary_images_of_either_kind(kind, channels):
    picture, before = PICTURE[:channels], PICTURE.clone()
    varied = [automatic(picture, kind, 9, seed) for seed in range(20)]
    for seed, image in enumerate(varied):
        assert (image.shape, image.dtype) == (picture.shape, torch.uint8)
        assert torch.equal(image, automatic(picture, kind, 9, seed))
    assert len({image.numpy().tobytes() for image in varied}) > 5
    assert torch.equal(PICTURE, before)


@pytest.mark.parametrize("kind", ["rand_augment", "trivial_augment"])
def test_automatic_policies_leave_torchs_generator_where_it_was(kind):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    automatic(PICTURE, kind, 9, 0)
    assert torch.equal(torch.rand(3), expected)


def test_magnitude_tells_how_far_rand_augment_goes():
    def distance(magnitude):
        return sum(
            (automatic(PICTURE, "rand_augment", magnitude, seed).int() - PICTURE.int()).abs().float().mean()
            for seed in range(30)
        )

    assert distance(10) > distance(1)
