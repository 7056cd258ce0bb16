"""Generated photos of circuit boards, good and defective, for trying glint without data of one's own."""

from glint.vision.boards.drawing import draw_board, draw_copper_layer
from glint.vision.boards.lots import CLASSES, LOTS, Lot
from glint.vision.boards.plan import BoardImage, plan_boards

__all__ = ["CLASSES", "LOTS", "BoardImage", "Lot", "draw_board", "draw_copper_layer", "plan_boards"]
