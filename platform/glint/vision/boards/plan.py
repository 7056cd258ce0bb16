"""Which crops a data set of generated boards consists of."""

from dataclasses import dataclass

import numpy as np

from glint.core.errors import GlintError
from glint.vision.boards.lots import CLASSES, LOTS, Lot

_BOARDS_PER_LOT = 6


@dataclass(frozen=True)
class BoardImage:
    """One crop of a data set: where it is stored, relative to the data set's folder, and how it is drawn."""

    path: str
    label: str
    board: str
    lot: Lot
    board_number: int
    seed: int


def plan_boards(num_images: int, seed: int = 0) -> list[BoardImage]:
    """Spread `num_images` crops evenly over lots, then classes, then boards.

    A shorter plan of the same seed is the beginning of a longer one; no two crops show the same place.
    Raises GlintError unless `num_images` is positive and `seed` is not negative.
    """
    if num_images < 1:
        raise GlintError(f"plan_boards: num_images must be positive, got {num_images}")
    if seed < 0:
        raise GlintError(f"plan_boards: seed must be 0 or more, got {seed}")
    first_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [_plan_image(number, first_seed + number) for number in range(num_images)]


def _plan_image(number: int, seed: int) -> BoardImage:
    round_number, place = divmod(number, len(LOTS) * len(CLASSES))
    class_number, lot_number = divmod(place, len(LOTS))
    lot, label = LOTS[lot_number], CLASSES[class_number]
    board_number = (round_number + class_number) % _BOARDS_PER_LOT + 1
    board = f"{lot.name}-B{board_number}"
    return BoardImage(f"{label}/{board}_{number:05d}.jpg", label, board, lot, board_number, seed)
