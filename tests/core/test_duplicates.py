import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glint.core.duplicates import NEAR_BITS, NUM_BITS, identical, near_duplicates, perceptual_hash

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=8)


def picture(seed: int) -> np.ndarray:
    """Smooth, as photos are: most of it is in the low frequencies."""
    noise = np.random.default_rng(seed).normal(size=(5, 5))
    return 128 + 40 * np.kron(noise, np.ones((7, 7)))[:32, :32]


def bits_between(one: np.ndarray, other: np.ndarray) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def test_a_picture_looks_like_itself_brighter_noisier_or_with_more_contrast() -> None:
    noise = np.random.default_rng(99).normal(size=(32, 32))
    for seed in range(20):
        original = picture(seed)
        for altered in (original + 20, original * 1.3, original + noise):
            assert bits_between(original, altered) <= NEAR_BITS


def test_unlike_pictures_differ_in_about_half_of_the_bits() -> None:
    distances = [bits_between(picture(seed), picture(seed + 100)) for seed in range(50)]
    assert min(distances) > 2 * NEAR_BITS
    assert NUM_BITS * 0.4 < np.mean(distances) < NUM_BITS * 0.6


def test_even_surfaces_look_alike_whatever_their_colour() -> None:
    assert bits_between(np.full((32, 32), 40), np.full((32, 32), 200.4)) <= NEAR_BITS


def test_identical_digests_are_paired_with_the_first_that_has_them() -> None:
    assert identical(["a", "b", "c"], ["x", "c", "a", "a"]) == [(0, 2), (2, 1)]
    assert identical([], ["a"]) == identical(["a"], []) == []


@given(hashes, hashes, st.integers(0, 64))
def test_nearest_is_found_as_one_by_one(mine: list[int], others: list[int], max_bits: int) -> None:
    found = near_duplicates(np.array(mine, dtype=np.uint64), np.array(others, dtype=np.uint64), max_bits)
    nearest = {i: min(((one ^ other).bit_count() for other in others), default=65) for i, one in enumerate(mine)}
    assert {i: bits for i, _, bits in found} == {i: bits for i, bits in nearest.items() if bits <= max_bits}
    assert all((mine[i] ^ others[j]).bit_count() == bits for i, j, bits in found)
    assert [bits for *_, bits in found] == sorted(bits for *_, bits in found)


def test_more_images_than_are_compared_at_once_are_all_compared() -> None:
    some = np.random.default_rng(0).integers(2**63, size=700, dtype=np.uint64)
    assert [(i, j) for i, j, _ in near_duplicates(some, some[::-1].copy(), 0)] == [(i, 699 - i) for i in range(700)]
