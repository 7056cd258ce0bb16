import hashlib
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from glint.core.errors import GlintError
from glint.vision.boards import CLASSES, LOTS, Lot, draw_board, draw_copper_layer, plan_boards

DEFECTS = [label for label in CLASSES if label != "good"]


def test_crop_is_an_rgb_picture_of_the_size_asked_for() -> None:
    picture = draw_board("good", LOTS[0], size=96)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_same_arguments_give_the_same_pixels_in_another_process_without_torch() -> None:
    code = (
        "import hashlib, sys; from glint.vision.boards import LOTS, draw_board\n"
        "assert not {'torch', 'ray', 'scipy'} & set(sys.modules)\n"
        "print(hashlib.sha256(draw_board('spur', LOTS[3], board=2, seed=7).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(draw_board("spur", LOTS[3], board=2, seed=7).tobytes()).hexdigest()


@pytest.mark.parametrize("other", [{"board": 2}, {"seed": 2}, {"lot": LOTS[1]}, {"label": "open"}])
def test_each_argument_changes_the_picture(other: dict[str, object]) -> None:
    arguments = {"label": "good", "lot": LOTS[0], "board": 1, "seed": 1}
    assert (draw_board(**arguments) != draw_board(**(arguments | other))).any()


@pytest.mark.parametrize("lot", LOTS, ids=lambda lot: lot.name)
def test_each_defect_does_to_the_copper_what_its_name_says(lot: Lot) -> None:
    for seed in range(2):
        good = _measure("good", lot, seed)
        assert _measure("open", lot, seed)["pieces"] == good["pieces"] + 1
        assert _measure("short", lot, seed)["pieces"] == good["pieces"] - 1
        assert _measure("copper", lot, seed)["pieces"] == good["pieces"] + 1
        assert _measure("pinhole", lot, seed)["gaps"] == good["gaps"] + 1
        bitten, spurred = _measure("mousebite", lot, seed), _measure("spur", lot, seed)
        for defective in (bitten, spurred):
            assert defective["pieces"] == good["pieces"]
            assert defective["gaps"] == good["gaps"]
        assert bitten["area"] < good["area"] < spurred["area"]


@pytest.mark.parametrize("label", DEFECTS)
def test_defect_is_one_visible_spot_and_the_rest_of_the_crop_stays_as_it_was(label: str) -> None:
    for seed, lot in enumerate(LOTS):
        changed = _copper(label, lot, seed) != _copper("good", lot, seed)
        rows, columns = np.nonzero(changed)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.06 <= extent / 128 <= 0.3, f"{lot.name}, seed {seed}: {extent} pixels"
        assert min(rows.min(), columns.min()) > 0.05 * 128
        assert max(rows.max(), columns.max()) < 0.95 * 128


def test_lots_differ_in_colour_width_noise_and_contrast() -> None:
    assert len(LOTS) >= 8
    for trait in ("name", "trace_width", "noise", "contrast", "mask_color"):
        assert len({getattr(lot, trait) for lot in LOTS}) >= 5, trait


def test_crops_of_a_board_look_more_alike_than_crops_of_other_boards() -> None:
    colors = {board: [_mask_color(board, seed) for seed in range(4)] for board in range(4)}
    within = np.mean([np.std(crops, axis=0) for crops in colors.values()])
    between = np.mean(np.std([np.mean(crops, axis=0) for crops in colors.values()], axis=0))
    assert within < between


def test_plan_spreads_classes_and_boards_evenly_over_the_lots() -> None:
    plan = plan_boards(6 * len(LOTS) * len(CLASSES))
    assert set(Counter((image.lot.name, image.label) for image in plan).values()) == {6}
    boards_of_lot, crops_of_board = defaultdict(set), Counter(image.board for image in plan)
    for image in plan:
        boards_of_lot[image.lot.name].add(image.board)
    assert all(len(boards) == 6 for boards in boards_of_lot.values())
    assert set(crops_of_board.values()) == {len(CLASSES)}


def test_no_two_images_of_a_plan_share_a_path_or_a_place() -> None:
    plan = plan_boards(500)
    assert len({image.path for image in plan}) == 500
    assert len({(image.board, image.seed) for image in plan}) == 500


def test_short_plan_is_the_beginning_of_a_long_one_and_another_seed_is_another_plan() -> None:
    assert plan_boards(30, seed=5) == plan_boards(80, seed=5)[:30]
    assert {image.seed for image in plan_boards(30, seed=5)}.isdisjoint(image.seed for image in plan_boards(30, seed=6))


def test_mistakes_are_named_with_the_valid_choices() -> None:
    with pytest.raises(GlintError, match=r"label must be one of copper, good, .*, got 'scratch'"):
        draw_board("scratch", LOTS[0])
    with pytest.raises(GlintError, match="size must be at least 64 pixels, got 32"):
        draw_board("good", LOTS[0], size=32)
    with pytest.raises(GlintError, match="num_images must be positive, got 0"):
        plan_boards(0)
    with pytest.raises(GlintError, match="seed must be 0 or more, got -1"):
        plan_boards(10, seed=-1)


def test_lot_that_has_no_room_for_defects_is_refused() -> None:
    crammed = Lot("LX", 0.1, 2.0, 0.1, (20, 90, 50), (220, 180, 90), 0.6, 5, 0.003, 0.2)
    with pytest.raises(GlintError, match=r"LX: trace_width 0\.1 and gap 2\.0 leave no room"):
        draw_board("good", crammed)


def _copper(label: str, lot: Lot, seed: int) -> NDArray[np.bool_]:
    return draw_copper_layer(label, lot, seed=seed) > 127


def _measure(label: str, lot: Lot, seed: int) -> dict[str, int]:
    """How many separate pieces of copper there are, how many separate areas without it, and the copper's area."""
    copper = _copper(label, lot, seed)
    return {
        "pieces": ndimage.label(copper, np.ones((3, 3)))[1],
        "gaps": ndimage.label(~copper)[1],
        "area": int(copper.sum()),
    }


def _mask_color(board: int, seed: int) -> NDArray[np.float64]:
    picture = draw_board("good", LOTS[0], board=board, seed=seed)
    bare = picture[~_copper_of_board(board, seed)]
    return bare.mean(axis=0) / bare.mean()


def _copper_of_board(board: int, seed: int) -> NDArray[np.bool_]:
    return draw_copper_layer("good", LOTS[0], board=board, seed=seed) > 10
