import numpy as np
import torch

from glint.vision.mixing import Mixing, erase

PIXELS = torch.arange(1, 5).float().view(4, 1, 1, 1).expand(4, 3, 16, 16)
TARGETS = torch.tensor([0, 1, 2, 3])
GOOD = torch.tensor([True, True, True, False])


def mixed(mixup, cutmix, targets=TARGETS, multi_label=False):
    np.random.seed(0)
    return Mixing(mixup, cutmix, 4, multi_label)(PIXELS.clone(), targets, GOOD)


def test_mixup_mixes_pixels_and_classes_by_the_same_share():
    pixels, shares, _ = mixed(0.8, 0.0)
    share = float(shares[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(pixels[0], torch.full((3, 16, 16), share * 1 + (1 - share) * 4))
    torch.testing.assert_close(shares[0], torch.tensor([share, 0, 0, 1 - share]))


def test_cutmix_puts_a_rectangle_of_another_image_in_and_counts_its_area():
    pixels, shares, _ = mixed(0.0, 1.0)
    area = (pixels[0] == 4).float().mean()
    assert set(pixels[0].unique().tolist()) == {1, 4}
    torch.testing.assert_close(shares[0], torch.tensor([1 - area, 0, 0, area]))


def test_what_is_mixed_with_a_bad_image_does_not_count():
    assert mixed(0.8, 0.0)[2].tolist() == [False, True, True, False]


def test_several_labels_are_mixed_too():
    present = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    _, shares, _ = mixed(0.8, 0.0, present, multi_label=True)
    share = float(shares[0, 0])
    torch.testing.assert_close(shares[0], torch.tensor([share, share, 0, 1 - share]))


def test_erasing_depends_on_an_images_seed_alone():
    both = erase(torch.ones(2, 3, 32, 32), 1.0, [5, 6])
    assert not torch.equal(both[0], both[1])
    assert torch.equal(erase(torch.ones(1, 3, 32, 32), 1.0, [6])[0], both[1])
    assert set(both.unique().tolist()) == {0, 1}


def test_erasing_leaves_a_share_of_the_images_as_they_are():
    erased = erase(torch.ones(200, 1, 8, 8), 0.3, range(200))
    touched = (erased == 0).flatten(1).any(1).float().mean()
    assert 0.15 < touched < 0.45
