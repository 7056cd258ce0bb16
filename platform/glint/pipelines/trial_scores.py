"""The scores of a trial by epoch, in its folder, where no restart loses them."""

import json
from pathlib import Path

SCORES = "scores.jsonl"
"""Of a trial, in its folder: [epoch, score] a line."""


def note_score(folder: Path, epoch: int, score: float) -> None:
    """Note an epoch's score in a trial's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SCORES).open("a", encoding="utf-8") as file:
        file.write(json.dumps([epoch, score]) + "\n")


def read_scores(folder: Path) -> dict[int, float]:
    """The scores noted in a trial's folder by epoch, in their order; -1 is the frozen phase."""
    if not (folder / SCORES).exists():
        return {}
    scores = dict(json.loads(line) for line in (folder / SCORES).read_text(encoding="utf-8").splitlines())
    return {epoch: scores[epoch] for epoch in sorted(scores)}
