"""What a split shares with training is refused, reported, or said not to be known."""

import pytest

from glint.core.finding import Finding
from glint.core.leaks import Leaks, NearDuplicate, leakage


def leaks(absent: tuple[str, ...] = (), foreign: tuple[str, ...] = (), **found: object) -> dict[str, Finding]:
    values: dict[str, object] = {"groups": [], "identical": [], "near": [], "num_images": 100, "num_read": 100}
    values |= {"num_training": 900, "num_training_read": 900, "unreadable": 0}
    return {one.rule: one for one in leakage(Leaks(**(values | found)), absent, foreign)}  # type: ignore[arg-type]


def test_shared_groups_and_identical_bytes_are_refused() -> None:
    assert {one.verdict for one in leaks().values()} == {"passed", "reported"}
    shared = leaks(groups=["L1", "L2", "L3", "L4"])["shared groups"]
    assert (shared.verdict, shared.value) == ("refused", 4)
    assert shared.measured == "4 are in training too: L1, L2, L3 and 1 more"
    twins = leaks(identical=[("a.jpg", "b.jpg")])["identical images"]
    assert (twins.verdict, twins.value) == ("refused", 1)
    assert "byte for byte: a.jpg = b.jpg" in twins.measured


def test_groups_of_another_column_are_not_compared_and_refused() -> None:
    found = leaks(other_groups=["board"])["shared groups"]
    assert (found.verdict, found.value) == ("refused", 0)
    assert found.measured == "not judged: training data are grouped by board, the split by another column"
    assert leaks(groups=["L1"], other_groups=["board"])["shared groups"].measured == "1 are in training too: L1"


def test_lookalikes_and_unreadable_images_are_reported_and_not_refused() -> None:
    found = leaks(near=[NearDuplicate(uri="a", training_uri="b", bits=2)], unreadable=3)
    assert {rule: one.verdict for rule, one in found.items()} == {
        "shared groups": "passed",
        "identical images": "passed",
        "near-duplicates": "reported",
        "unreadable": "reported",
    }


def test_what_was_compared_is_counted() -> None:
    found = leaks(num_read=98, num_training_read=870, unreadable=32)
    assert found["identical images"].measured == (
        "0 of 98 are in training too, byte for byte (98 of 100 images and 870 of 900 of training could be read)"
    )
    assert found["near-duplicates"].measured == "0 of 98 look like one of 870 training images"


@pytest.mark.parametrize("gone", [{"num_training_read": 809}, {"num_training_read": 0}, {"num_read": 89}])
def test_images_that_can_no_longer_be_read_are_not_judged_and_refused(gone: dict[str, int]) -> None:
    found = leaks(**gone)
    assert {rule: one.verdict for rule, one in found.items()}["shared groups"] == "passed", "which takes no reading"
    assert found["identical images"].verdict == "refused"
    read, learned = gone.get("num_read", 100), gone.get("num_training_read", 900)
    assert found["identical images"].measured == (
        "not judged, for less than 90% could be read: "
        f"{read} of 100 images and {learned} of 900 of training could be read"
    )
    assert leaks(**gone, identical=[("a.jpg", "b.jpg")])["identical images"].measured.count("a.jpg = b.jpg") == 1


def test_without_training_images_nothing_is_judged() -> None:
    found = leaks(num_training=0, num_training_read=0)
    assert (found["shared groups"].verdict, found["identical images"].verdict) == ("refused", "refused")
    assert {found[rule].measured for rule in ("shared groups", "identical images")} == {
        "not judged: no training image is known"
    }


def test_each_of_several_manifests_must_be_readable() -> None:
    found = leaks(read_of_manifests=[(880, 880), (15, 20)], num_training_read=895)["identical images"]
    assert found.verdict == "refused"
    assert found.measured.endswith("895 of 900 of training could be read; of one manifest 15 of 20")
    assert leaks(read_of_manifests=[(880, 880), (0, 0)])["identical images"].verdict == "passed"


def test_training_data_that_is_not_at_hand_is_named_and_refused() -> None:
    found = leaks(absent=("models:/boards/2 was trained on manifest abcdef0123456789, which is not at hand",))
    assert {rule: one.verdict for rule, one in found.items()} == {
        "shared groups": "not judged",
        "identical images": "not judged",
        "near-duplicates": "reported",
        "training data": "refused",
    }
    assert found["training data"].line.startswith("training data: models:/boards/2 was trained on manifest abcdef01")
    assert leaks(absent=("x",), groups=["L1"])["shared groups"].verdict == "refused"


def test_weights_of_which_nothing_is_known_are_reported() -> None:
    found = leaks(foreign=("/data/w.pth",))
    assert found["first weights"].measured == "training began with /data/w.pth; what that had learned from is not known"
    assert (found["first weights"].verdict, found["shared groups"].verdict) == ("reported", "passed")
