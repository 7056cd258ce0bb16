"""Write a data set of generated circuit boards: JPEG files in a folder for each class, and labels.csv."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from glint.core.errors import GlintError
from glint.vision.boards import BoardImage, draw_board, plan_boards

_LABELS = "labels.csv"


def write_boards(
    folder: Path, num_images: int, seed: int = 0, size: int = 128, progress: Callable[[int], None] | None = None
) -> int:
    """Write `num_images` crops of `size` pixels below `folder` and labels.csv with path, label, board and lot.

    Returns how many there are; calls `progress` with the number done so far after each. An interrupted call may be
    repeated: the same arguments give the same bytes, files that have them stay untouched, so that manifests and runs
    made of them hold, and labels.csv comes last.
    Raises GlintError for wrong arguments and for a folder that holds files of another data set.
    """
    plan = plan_boards(num_images, seed)
    _refuse_strangers(folder, {image.path for image in plan} | {_LABELS})
    for done, image in enumerate(plan, start=1):
        _write_image(folder / image.path, image, size)
        if progress:
            progress(done)
    _write_labels(folder / _LABELS, plan)
    return len(plan)


def _refuse_strangers(folder: Path, expected: set[str]) -> None:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    stranger = next((path for path in found if path not in expected), None)
    if stranger is not None:
        raise GlintError(
            f"write_boards: folder {folder} holds another file, {stranger}; name a new or empty folder, "
            "or the same number of images to write them again"
        )


def _write_image(path: Path, image: BoardImage, size: int) -> None:
    picture = draw_board(image.label, image.lot, image.board_number, image.seed, size)
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=90)
    _replace(path, encoded.getvalue())


def _write_labels(path: Path, plan: list[BoardImage]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "label", "board", "lot"])
    writer.writerows([image.path, image.label, image.board, image.lot.name] for image in plan)
    _replace(path, text.getvalue().encode())


def _replace(path: Path, data: bytes) -> None:
    """Write a file unless it says that already: its time of change is part of what a manifest pins."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
