"""Writing a report: both files appear whole or not at all, and replace those of an earlier report."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.pipelines.report.content import class_rows, date, file_name, model_name, percent, summary, words
from glint.pipelines.report.figures import confusion_picture
from glint.pipelines.report.mistakes import MAX_SHOWN, most_confident_mistakes

if TYPE_CHECKING:
    from glint.pipelines.evaluation import Evaluation, ScoredSplit

MAX_NAMED = 24
"""Left-out images that the page names one by one; it counts the others."""


def write_report(directory: Path, evaluation: Evaluation, scored: ScoredSplit, images: Images) -> None:
    """Write report.json and report.html into `directory`, which is made if need be.

    The page is one file that asks nothing of any server: style, figures and thumbnails are inside it. A mistake whose
    picture cannot be read or decoded shows why instead. Raises GlintError naming --report when `directory` is a file
    or cannot be written to.
    """
    make_directory(directory)
    page = render(evaluation, scored, images)
    try:
        _replace(directory / "report.json", evaluation.model_dump_json(indent=2) + "\n")
        _replace(directory / "report.html", page)
    except OSError as error:
        raise _unwritable(directory, error) from None


def make_directory(directory: Path) -> None:
    """Make the folder of a report; raises GlintError naming --report when there can be none. Cheap, so ask early."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise GlintError(f"--report must be a folder, got {directory}, which is a file") from None
    except OSError as error:
        raise _unwritable(directory, error) from None


def render(evaluation: Evaluation, scored: ScoredSplit, images: Images) -> str:
    """The page as HTML; everything that comes from the data is escaped, and the page itself forbids scripts."""
    mistakes = most_confident_mistakes(scored, evaluation.classes, images)
    num_wrong = evaluation.num_images - sum(row[i] for i, row in enumerate(evaluation.confusion_matrix))
    return _template().render(
        evaluation=evaluation,
        model=model_name(evaluation.model),
        summary=summary(evaluation),
        rows=class_rows(evaluation),
        confusion=confusion_picture(evaluation.classes, evaluation.confusion_matrix),
        mistakes=mistakes,
        num_wrong=num_wrong,
        max_shown=MAX_SHOWN,
        num_left_out=len(scored.left_out),
        left_out=[(file_name(uri), uri, words(reason)) for uri, reason in list(scored.left_out.items())[:MAX_NAMED]],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "date": date, "words": words}
    return environment.get_template("report.html.j2")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(directory: Path, error: OSError) -> GlintError:
    return GlintError(f"--report {directory} cannot be written to: {error.strerror}; name a folder of your own")
