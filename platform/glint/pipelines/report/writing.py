"""Writing a report: both files appear whole or not at all, and replace those of an earlier report."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from glint.adapters.images import Images
from glint.core.bootstrap import MIN_JUDGED_GROUPS, ScoreIntervals
from glint.core.errors import GlintError
from glint.core.slices import MAX_VALUES, MIN_SLICE
from glint.core.whole import write_whole
from glint.pipelines.report.confusion import confusion_picture
from glint.pipelines.report.content import (
    class_rows,
    date,
    difference_rows,
    file_name,
    model_name,
    percent,
    points,
    resampled,
    span,
    summary,
    verdict,
    words,
)
from glint.pipelines.report.curves import MAX_PANELS, MIN_IMAGES, curves, curves_picture, drawable
from glint.pipelines.report.mistakes import most_confident_mistakes, suspected_pairs, suspects
from glint.pipelines.report.sureness import MIN_IN_BIN, coverage_picture, reliability_picture
from glint.vision.explain import Explainer

if TYPE_CHECKING:
    from glint.pipelines.evaluation import Evaluation, ScoredSplit

MAX_NAMED = 24
"""Left-out images that the page names one by one; it counts the others."""
CONTENTS = (
    ("decisions", "Decisions"),
    ("classes", "Classes"),
    ("confusion", "Confusion"),
    ("comparison", "Comparison"),
    ("slices", "Slices"),
    ("calibration", "Calibration"),
    ("coverage", "Coverage"),
    ("curves", "Curves"),
    ("mistakes", "Mistakes"),
    ("labels", "Labels"),
    ("left-out", "Left out"),
    ("origin", "Origin"),
)
"""Anchors and titles of the sections, in their order."""


def write_report(
    directory: Path, evaluation: Evaluation, scored: ScoredSplit, images: Images, explainer: Explainer | None = None
) -> None:
    """Write report.json and report.html into `directory`, which is made if need be.

    The page is one file that asks nothing of any server: style, figures and thumbnails are inside it. A mistake whose
    picture cannot be read or decoded shows why instead; with an explainer, the others also show where the model looked.
    Raises GlintError naming --report when `directory` is a file or cannot be written to.
    """
    make_directory(directory)
    page = render(evaluation, scored, images, explainer)
    try:
        write_whole(directory / "report.json", evaluation.model_dump_json(indent=2) + "\n")
        write_whole(directory / "report.html", page)
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


def render(evaluation: Evaluation, scored: ScoredSplit, images: Images, explainer: Explainer | None = None) -> str:
    """The page as HTML; everything that comes from the data is escaped, and the page itself forbids scripts."""
    return _template().render(
        evaluation=evaluation,
        model=model_name(evaluation.model),
        contents=CONTENTS,
        summary=summary(evaluation),
        intervals=evaluation.intervals or ScoreIntervals(),
        resampled=resampled(evaluation),
        rows=class_rows(evaluation, evaluation.intervals.per_class if evaluation.intervals else None),
        max_values=MAX_VALUES,
        min_slice=MIN_SLICE,
        min_groups=MIN_JUDGED_GROUPS,
        num_left_out=len(scored.left_out),
        left_out=[(file_name(uri), uri, words(reason)) for uri, reason in list(scored.left_out.items())[:MAX_NAMED]],
        **_comparison(evaluation),
        **_figures(evaluation, scored),
        **_images(evaluation, scored, images, explainer),
    )


def _comparison(evaluation: Evaluation) -> dict[str, Any]:
    found = evaluation.comparison
    if found is None:
        return {"against": None}
    return {"against": model_name(found.against), "differences": difference_rows(found), "verdict": verdict(found)}


def _figures(evaluation: Evaluation, scored: ScoredSplit) -> dict[str, Any]:
    classes, data = evaluation.classes, (scored.probabilities, scored.targets)
    drawn = drawable(scored.targets, classes)
    return {
        "confusion": confusion_picture(classes, evaluation.confusion_matrix) if evaluation.confusion_matrix else None,
        "min_in_bin": MIN_IN_BIN,
        "reliability": reliability_picture(evaluation.calibration),
        "coverage": coverage_picture(evaluation.coverage),
        "roc": curves_picture("roc", curves("roc", *data, classes, evaluation.roc_auc)),
        "pr": curves_picture("pr", curves("pr", *data, classes, evaluation.average_precision)),
        "num_curves": len(drawn),
        "not_drawn": [name for name in classes if name not in drawn],
        "min_images": MIN_IMAGES,
        "max_panels": MAX_PANELS,
    }


def _images(evaluation: Evaluation, scored: ScoredSplit, images: Images, explainer: Explainer | None) -> dict[str, Any]:
    mistakes = most_confident_mistakes(scored, evaluation.classes, images, explainer)
    seen = [mistake.thumbnail for mistake in mistakes if mistake.thumbnail.picture]
    explained = [thumbnail for thumbnail in seen if thumbnail.saliency]
    return {
        "mistakes": mistakes,
        "num_wrong": int((~scored.correct).sum()),
        "explained": bool(explained),
        "unexplained": len(seen) > len(explained),
        "not_explained": explainer is not None and bool(seen) and not explained,
        "suspects": suspects(evaluation, images),
        "pairs": suspected_pairs(evaluation),
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "span": span, "points": points, "date": date, "words": words}
    return environment.get_template("report.html.j2")


def _unwritable(directory: Path, error: OSError) -> GlintError:
    return GlintError(f"--report {directory} cannot be written to: {error.strerror}; name a folder of your own")
